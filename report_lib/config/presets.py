"""Named configs: the presets of each approach, and the probe that some of them start from."""

import dataclasses

from report_lib.config.fields import FIELDS, NEED_DROPOUT, Config, check
from report_lib.config.registries import APPROACHES, FEW_LABELS, NETWORKS, PRESETS, TUNED_FOR_FEW
from report_lib.files import InputError


def has_preset(approach: str, name: str) -> bool:
    """Whether an approach has a preset: none of the published listings trains the last block, say."""
    return APPROACHES[approach].trains in PRESETS[name]


def preset(approach: str, name: str = "corrected", **given: object) -> Config:
    """The config of a preset; what is `given`, and not None, overrides it. A published defect of dropout goes where the
    network has none. Raises InputError for a name or a value that cannot be used."""
    for field, value in (("approach", approach), ("preset", name)):
        check(field, value, str, FIELDS[field].metadata)
    if not has_preset(approach, name):
        raise InputError(f"preset is {name!r}, which {approach} does not have (config/registries.py: PRESETS)")
    trains, labels = APPROACHES[approach].trains, given.get("per_class") or 0
    few = name == "tuned" and isinstance(labels, int) and 0 < labels <= FEW_LABELS
    fields = PRESETS[name][trains] | (TUNED_FOR_FEW.get(trains, {}) if few else {})
    fields |= {key: value for key, value in given.items() if value is not None}
    network = fields.get("network", Config.network)
    if isinstance(network, str) and network in NETWORKS and not NETWORKS[network].dropout:
        fields = {key: value for key, value in fields.items() if key not in NEED_DROPOUT or key in given}
    if unknown := sorted(fields.keys() - FIELDS.keys()):
        raise InputError(f"a config has no field {unknown[0]!r}; it has {', '.join(FIELDS)}")
    return Config(**({"approach": approach, "preset": name} | fields))


def probe_of(config: Config) -> Config:
    """The tuned linear probe from whose head `config` starts: on the same data, split and seed, and on the pictures as
    they are, since a head that goes on being trained is not worth the features of five views."""
    probe = next((name for name, approach in APPROACHES.items() if approach.trains == "head"), None)
    if probe is None:
        raise InputError("start is 'probe', which needs an approach that trains the head; none is registered")
    shared = ("network", "data", "weights", "image_size", "epochs", "batch_size", "val_fraction", "per_class", "seed",
              "precision", "normalisation", "unstratified", "train_on_all", "select_on_test")  # fmt: skip
    plain = {"flip": False, "shift": 0.0, "views": 1}
    return preset(probe, "tuned", **plain, **{name: getattr(config, name) for name in shared})


def decides(config: Config) -> dict:
    """Every value of `config` that decides its outcome, data and weights aside, since their contents count; what the
    registries say of it, and the values of the probe that it starts from."""
    network = NETWORKS[config.network]
    fields = dataclasses.asdict(config) | {"trains": config.trains, "parts": [network.head, network.last_block]}
    if config.start == "probe":
        fields["probe"] = decides(probe_of(config))
    return {name: value for name, value in fields.items() if name not in ("data", "weights")}
