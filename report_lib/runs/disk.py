"""How much disk a study takes, said before it starts."""

from report_lib import models
from report_lib.config import Config, plan
from report_lib.data import Images
from report_lib.runs.study import Study


def needed(settings: dict, images: Images) -> str:
    """A sentence on the runs of a study, and on the disk that those which the store lacks will take, about."""
    study = Study(settings, images.fingerprint, models.weights_sha256(*_weights(settings)))
    missing = set(study.missing())
    configs = [config for _, config in study.configs()]
    lacking = [config for config in configs if study.name(config) in missing]
    largest = 0
    if lacking:
        net = models.build(lacking[0], len(images.classes), models.Weights("none", None, None))
        largest = 4 * sum(parameter.numel() for parameter in net.parameters())
    predictions = 4 * len(images.classes) * (len(images.test) + len(images.train) // 5)
    kept = sum(study.keeps(config) and config.trains != "head" for config in lacking)
    mebibytes = (len(lacking) * predictions + kept * largest) / 2**20
    said = f"{len(configs)} runs, {len(configs) - len(lacking)} of them finished"
    if not lacking:
        return f"{said}; nothing is left to train"
    return f"{said}; the others take about {mebibytes:,.0f} MiB in {study.store}, {kept} trained networks included"


def _weights(settings: dict) -> tuple[str, str]:
    config: Config = plan(settings)[0].configs[0]
    return config.weights, config.network
