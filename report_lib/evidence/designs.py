"""A study's runs beside its presets -> what they show: defects, the ladder to `tuned`, controls; and the
figures of the homework report."""

import dataclasses
import itertools

import numpy as np

from report_lib.config import DEFECTS
from report_lib.config.plan import STEPS
from report_lib.evidence import stats
from report_lib.evidence.measures import Comparison, compare, once, predicted, right
from report_lib.evidence.stats import Difference
from report_lib.runs import Runs, Study

WITHIN = "range of the seeds, each within its own run"


# --- selection -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flattery:
    """Validation minus test accuracy at the selected epochs of all presets that validation selects."""

    difference: Difference  # the presets' mean, over new seeds and test images
    above: int  # runs whose validation accuracy is the higher one
    runs: int


def flattery(study: Study) -> Flattery | None:
    """All runs together: those of one seed share their validation images, so that a seed counts once. None where a
    single seed could not tell the draw of its validation images from selection."""
    return _flattery(tuple(runs for runs in study.of_presets if runs[0].info["selected_on"] == "validation"))


@once
def _flattery(groups: tuple[Runs, ...]) -> Flattery | None:
    shared = set.intersection(*({run.seed for run in runs} for runs in groups)) if groups else set()
    if len(shared) < 2:
        return None
    gaps = []
    for runs in groups:
        same = tuple(run for run in runs if run.seed in shared)
        held_out = np.array([run.info["validation_accuracy"] for run in same])
        gaps.append(held_out[:, None] - right(same))
    mean, every = np.mean(gaps, axis=0), [run for runs in groups for run in runs]
    above = sum(run.info["validation_accuracy"] > run.info["test_accuracy"] for run in every)
    return Flattery(stats.paired_difference(np.zeros_like(mean), mean), above, len(every))


# --- defects ---------------------------------------------------------------------------------------------------


def defect_effects(study: Study) -> list[dict]:
    """What each defect, switched on alone, does to the accuracy that `corrected` would report; and what all of them do
    together, which is the preset `published`."""
    effects = []
    for approach in study.approaches:
        alone, corrected = study.side(approach, "defect"), study.runs(approach, "corrected")
        if not corrected:  # nothing to compare with
            continue
        if any(study.side(name, "defect") for name in study.approaches) and study.runs(approach, "published"):
            alone["all"] = study.runs(approach, "published")
        for name, runs in alone.items():
            # Where nothing is held out the test images select, so that alone is what it is compared with.
            against = "select_on_test" if name == "train_on_all" and "select_on_test" in alone else "corrected"
            comparison = compare(alone.get(against, corrected), runs)
            effect, same = comparison.accuracy, comparison.same_images_right
            if name == "select_on_test":
                effect = _selected_on_test(comparison)
                same = effect.low == effect.high == 0
            label = DEFECTS.get(name, "all of them together: published")
            effects.append({"approach": approach, "defect": name, "runs": runs, "effect": effect, "against": against,
                            "label": label, "same_images_right": same})  # fmt: skip
    return effects


def _selected_on_test(comparison: Comparison) -> Difference:
    """What the test images add when they select: within each run, its best test accuracy minus that of the epoch which
    validation selects in `corrected`, whose training is the same. It is never negative, and has its range over seeds,
    since an interval around a maximum's gain would not."""
    gains = []
    for honest, flattered in zip(comparison.a, comparison.b, strict=True):
        on_test = flattered.epochs["validation_accuracy"]  # the test images took the place of validation
        gains.append(float(on_test.max() - on_test.iloc[honest.info["selected_epoch"] - 1]))
    return Difference(float(np.mean(gains)), min(gains), max(gains), WITHIN)


# --- from corrected to tuned, and controls ---------------------------------------------------------------------


def tuning(study: Study, approach: str) -> Comparison | None:
    """`tuned` against `corrected`; None where the study lacks one of them."""
    corrected, tuned = study.runs(approach, "corrected"), study.runs(approach, "tuned")
    return compare(corrected, tuned) if corrected and tuned else None


def ladder(study: Study, approach: str) -> list[tuple[str, Runs, Difference | None]]:
    """(rung, its runs, paired difference to the rung before) from `corrected` to `tuned`, one group of settings at a
    time; empty where the study has no such steps."""
    corrected, tuned = study.runs(approach, "corrected"), study.runs(approach, "tuned")
    if not (study.settings["ladder"] and corrected and tuned):
        return []
    rungs = [("corrected", corrected), *study.side(approach, "step").items()]
    rungs.append((_last_step(rungs[-1][1], tuned), tuned))
    differences = [compare(before, after).accuracy for (_, before), (_, after) in itertools.pairwise(rungs)]
    return [(*rung, difference) for rung, difference in zip(rungs, [None, *differences], strict=True)]


def _last_step(before: Runs, tuned: Runs) -> str:
    """The names of what tells `tuned` from the rung before it."""
    a, b = before[0].info["config"], tuned[0].info["config"]
    return " and ".join(name for name, fields in STEPS.items() if any(a[field] != b[field] for field in fields))


def controls(study: Study) -> list[tuple[str, Comparison]]:
    """(what is done, its runs against those of the preset that they are a control of), by approach."""
    return [
        (name, compare(study.runs(approach, runs[0].preset), runs))
        for approach in study.approaches
        for name, runs in study.side(approach, "control").items()
        if study.runs(approach, runs[0].preset)
    ]


# --- agreement -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Share of the test images to which two networks of different seeds give the same class, over all such pairs."""

    names: tuple[str, str]  # of their approaches; the same twice for two seeds of one
    mean: float
    least: float
    greatest: float
    pairs: int


def agreements(study: Study, preset: str) -> list[Agreement]:
    """Two seeds of each approach, and each two approaches, so that both differ in their seeds; empty for one seed."""
    made = []
    of = study.of(preset)
    for a, b in itertools.combinations_with_replacement(of, 2):
        pairs = itertools.combinations(of[a], 2) if a == b else itertools.product(of[a], of[b])
        shares = [float((predicted(x) == predicted(y)).mean()) for x, y in pairs if x.seed != y.seed]
        if shares:
            made.append(Agreement((a, b), float(np.mean(shares)), min(shares), max(shares), len(shares)))
    return made


# --- the homework report ---------------------------------------------------------------------------------------


def published_interval(published: dict, approach: str) -> tuple[float, float]:
    """The binomial interval that a published accuracy lacks."""
    return stats.wilson(round(published[approach]["test_accuracy"] * published["images"]), published["images"])


def published_difference(published: dict, a: str, b: str) -> Difference:
    """Published accuracy of b minus that of a, as independent proportions."""
    low, high = (published[approach]["test_accuracy"] for approach in (a, b))
    images = (published["images"], published["images"])
    interval = stats.newcombe((round(low * images[0]), round(high * images[1])), images)
    return Difference(high - low, *interval, "Newcombe, two samples")
