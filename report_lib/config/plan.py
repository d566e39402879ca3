"""Which runs a study is made of: its presets, what lies between two of them, controls, and budgets of labels."""

import dataclasses

from report_lib.config.fields import DEFECTS, NEED_DROPOUT, Config
from report_lib.config.parameters import OF_RUNS
from report_lib.config.presets import has_preset, preset
from report_lib.config.registries import APPROACHES, NETWORKS, PRESETS
from report_lib.files import InputError

SMALLEST_BATCH = 8
# Which settings of `tuned` each step adds, in this order; after the last, nothing tells it from tuned.
STEPS = {
    "fewer epochs": ("epochs",),
    "scaled features": ("standardise",),
    "schedule": ("schedule", "warmup"),
    "learning rates": ("learning_rate", "trunk_rate"),
    "weight decay": ("weight_decay",),
    "augmentation": ("flip", "shift", "views"),
    "start": ("start",),
}
CONTROLS: dict[str, dict] = {"random trunk": {"weights": "none"}, "last block": {"freeze_early": True}}


@dataclasses.dataclass(frozen=True)
class Planned:
    """The configs, one per seed, of what an approach shows.

    That is, by kind: a "preset" (`value` is its name), `corrected` with one published "defect" (the field), a "step" on
    the way from corrected to tuned (a name of STEPS), a "control" (one of CONTROLS) or a "budget" (labels per class).
    """

    approach: str
    kind: str
    value: str | int
    configs: tuple[Config, ...]


def plan(settings: dict) -> tuple[Planned, ...]:
    """All runs of a study with these `settings` (see `parameters.resolve`). Raises InputError for what makes none."""
    planned = []
    for approach in APPROACHES:
        if not has_preset(approach, settings["present"]):
            raise InputError(f"present is {settings['present']!r}, a preset that {approach} does not have")
        for name in settings["presets"]:
            if has_preset(approach, name):
                planned.append(_planned(settings, approach, "preset", name, name))
        # What is compared with a preset is planned only where the study has that.
        corrected = "corrected" in settings["presets"] and has_preset(approach, "corrected")
        if corrected and approach in settings["defects"]:
            for name, fields in _defects(settings, approach).items():
                planned.append(_planned(settings, approach, "defect", name, "corrected", **fields))
        if corrected and settings["ladder"] and best(settings, approach) == "tuned":
            for name, fields in _steps(settings, approach).items():
                planned.append(_planned(settings, approach, "step", name, "corrected", **fields))
        if corrected and settings["controls"]:
            for name, fields in CONTROLS.items():
                if name != "last block" or APPROACHES[approach].trains == "all":
                    planned.append(_planned(settings, approach, "control", name, "corrected", **fields))
        for labels in sorted(settings["budgets"]):
            batch = settings["batch_size"] or Config.batch_size
            fewer = {"per_class": labels, "batch_size": min(batch, max(SMALLEST_BATCH, labels))}
            point = _planned(settings, approach, "budget", labels, best(settings, approach), **fewer)
            if settings["per_class"] and labels > settings["per_class"]:  # a dear one: with the first seed
                point = dataclasses.replace(point, configs=point.configs[:1])
            planned.append(point)
    return tuple(planned)


def unplanned(settings: dict) -> list[str]:
    """What the study asks for beside its presets and has no run of, for it lacks a preset to compare it with."""
    kinds = {part.kind for part in plan(settings)}
    asked = {"defects": "defect", "ladder": "step", "controls": "control"}
    return [name for name, kind in asked.items() if settings[name] and kind not in kinds]


def best(settings: dict, approach: str) -> str:
    """The best preset of an approach that the study has: tuned, or else the one that is presented."""
    tuned = "tuned" in settings["presets"] and has_preset(approach, "tuned")
    return "tuned" if tuned else settings["present"]


def given(settings: dict, approach: str) -> dict:
    """The fields that the study gives all configs of an approach."""
    trains = APPROACHES[approach].trains
    fields = {name: settings[name] for name in OF_RUNS if settings[name] is not None}
    if fields.get("precision") == "auto":  # which every preset has
        del fields["precision"]
    return {
        n: value
        for n, value in fields.items()
        if not OF_RUNS[n].metadata["only"] or trains in OF_RUNS[n].metadata["only"]
    }


def _planned(settings: dict, approach: str, kind: str, value: str | int, name: str, **more: object) -> Planned:
    fields = given(settings, approach) | more
    configs = tuple(preset(approach, name, **(fields | {"seed": seed})) for seed in seeds(settings, approach))
    return Planned(approach, kind, value, configs)


def seeds(settings: dict, approach: str) -> tuple[int, ...]:
    """The seeds of an approach's runs: a head is cheap to train, so that it may have more."""
    own = settings["probe_seeds"] if APPROACHES[approach].trains == "head" else ()
    return own or settings["seeds"]


def _steps(settings: dict, approach: str) -> dict[str, dict]:
    """Name -> the fields that lead from corrected to that step; without those that change nothing, and the last."""
    shared = given(settings, approach)
    before, tuned = (preset(approach, name, **shared) for name in ("corrected", "tuned"))
    reached: dict = {}
    steps: dict = {}
    for name, fields in STEPS.items():
        reached |= {field: getattr(tuned, field) for field in fields}
        after = preset(approach, "corrected", **(shared | reached))
        if after != before:
            steps[name] = dict(reached)
        before = after
    return dict(list(steps.items())[:-1])


def _defects(settings: dict, approach: str) -> dict[str, dict]:
    """Each defect of the approach's published listing -> the fields that switch it on in `corrected`."""
    published = PRESETS["published"].get(APPROACHES[approach].trains, {})
    network = NETWORKS[settings["network"] or Config.network]
    found = {}
    for name in DEFECTS:
        if name in published and (network.dropout or name not in NEED_DROPOUT):
            # Nothing can be selected on validation where nothing is held out, so this defect brings that one along.
            along = {"select_on_test": True} if name == "train_on_all" else {}
            found[name] = along | {name: published[name]}
    return found
