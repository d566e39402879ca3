"""How much disk a study takes, said before it starts."""

from report_lib import models
from report_lib.config import plan
from report_lib.data import Images
from report_lib.runs.study import Study


def needed(settings: dict, images: Images, weights: models.Weights) -> str:
    """A sentence on the runs of a study, and on the disk that those which the store lacks will take, about.

    `weights` are those that it starts from, as many as a trained network has: to build one takes seconds.
    """
    config = plan(settings)[0].configs[0]
    study = Study(settings, images.fingerprint, weights.sha256)
    missing, configs = set(study.missing()), {study.name(config): config for _, config in study.configs()}
    lacking = [config for name, config in configs.items() if name in missing]
    said = f"{len(configs)} runs, {len(configs) - len(lacking)} of them finished"
    if not lacking:
        return f"{said}; nothing is left to train"
    state = weights.state or models.build(config, len(images.classes), weights).state_dict()
    kept = sum(study.keeps(config) and config.trains != "head" for config in lacking)
    predictions = len(images.classes) * (len(images.test) + len(images.train) // 5)
    floats = len(lacking) * predictions + kept * sum(value.numel() for value in state.values())
    size = f"{4 * floats / 2**20:,.0f} MiB"
    return f"{said}; the others take about {size} in {study.store}, {kept} trained networks included"
