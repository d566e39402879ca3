"""Runs -> a DataFrame to look at, and results.json, which holds the numbers of a report, unrounded."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from report_lib.evidence import costs, designs, measures
from report_lib.evidence.measures import accuracy, comparisons
from report_lib.evidence.stats import Difference, Estimate
from report_lib.runs import Run, Runs, Study

KEYS = ("selected_epoch", "selected_on", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss",
        "train_seconds", "features_seconds", "start_seconds", "validation_seconds", "test_seconds",
        "peak_memory_mib", "trained_parameters", "parameters", "forward_flops", "backward_flops")  # fmt: skip
SHOWN = (
    "trained_parameters",
    "selected_epoch",
    "validation_accuracy",
    "validation_loss",
    "test_accuracy",
    "test_loss",
    "train_seconds",
)


def results(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: approach, preset, seed, the settings in which the runs differ, selected epoch, accuracies,
    losses and training time."""
    configs = [run.info["config"] for run in runs]
    unlike = [name for name in configs[0] if len({config[name] for config in configs}) > 1] if configs else []
    own = dict.fromkeys(["approach", "preset", "seed", *unlike])
    return pd.DataFrame([{name: run.info["config"][name] for name in own} | {name: run.info[name] for name in SHOWN}
                         for run in runs])  # fmt: skip


def report_numbers(study: Study, published: dict | None = None, searches: dict | None = None) -> dict:
    """Every number of the report, by approach, preset and seed; comparisons by pair. Accuracies are fractions, times
    seconds, losses nats per sample. `published` and `searches`, by approach, are handed through."""
    info, config = study.first.info, study.first.info["config"]
    own = ("approach", "preset", "seed", "learning_rate")
    config = {name: value for name, value in config.items() if name not in own}
    config |= {name: measures.without_folder(config[name]) for name in ("data", "weights")}
    flattery = designs.flattery(study)
    numbers = {
        "profile": study.settings["profile"],
        "data": info["data"] | {"name": study.settings["data_name"] or info["data"]["name"]},
        "weights": info["weights"],
        "network": info["network"],
        "config": config,
        "presented": study.presented,
        "approaches": {
            approach: {preset: _preset(study.runs(approach, preset)) for preset in study.presets
                       if study.runs(approach, preset)}
            for approach in study.approaches
        },
        "comparisons": {preset: _comparisons(study.of(preset)) for preset in study.presets},
        "tuned_minus_corrected": {
            approach: _difference(pair.accuracy)
            for approach in study.approaches
            if (pair := designs.tuning(study, approach))
        },
        "defects": [
            effect | {"effect": _difference(effect["effect"]), "runs": _names(effect["runs"]),
                      "test_accuracy": measures.mean_of(effect["runs"], "test_accuracy")}
            for effect in designs.defect_effects(study)
        ],
        "label_budgets": [
            {"labels_per_class": labels, "comparisons": _comparisons(runs),
             "approaches": {approach: _accuracy(seeds) for approach, seeds in runs.items()}}
            for labels, runs in measures.budget_curve(study)
        ],
        "ladder": {
            approach: [
                _accuracy(runs)
                | {"rung": name, "change": change and _difference(change),
                   "train_seconds": measures.mean_of(runs, "train_seconds")}
                for name, runs, change in designs.ladder(study, approach)
            ]
            for approach in study.approaches
        },
        "controls": [
            _accuracy(pair.b) | {"control": name, "approach": pair.b[0].approach, "preset": pair.a[0].preset,
                                 "difference": _difference(pair.accuracy)}
            for name, pair in designs.controls(study)
        ],
        "selection": flattery and {
            "validation_minus_test": _difference(flattery.difference), "runs": flattery.runs,
            "validation_above_test": flattery.above,
        },
        "time_to_accuracy": [
            {"approach": runs[0].approach, "preset": runs[0].preset,
             "targets": {target: _reached(found) for target, found in targets.items()}}
            for runs, targets in costs.time_to_accuracy(study)
        ],
        "agreement": {
            preset: {
                " and ".join(found.names): {
                    "mean": found.mean, "least": found.least, "greatest": found.greatest, "pairs": found.pairs,
                }
                for found in designs.agreements(study, preset)
            }
            for preset in study.presets
        },
        "overtaken": {
            f"{pair.b[0].approach} minus {pair.a[0].approach}": _reached(
                costs.reached(pair.b, costs.selected_accuracy(pair.a)))
            for pair in comparisons(study.best)
        },
        "provenance": info["provenance"] | {"command": measures.command_of(study.first)},
    }  # fmt: skip
    if published and study.is_homework:
        theirs = [approach for approach in study.approaches if approach in published]
        numbers["published"] = {
            approach: published[approach] | {"test_accuracy_ci95": designs.published_interval(published, approach)}
            for approach in theirs
        } | {
            f"{other} minus {theirs[0]}": _difference(designs.published_difference(published, theirs[0], other))
            for other in theirs[1:]
        }
    return numbers | ({"search": searches} if searches else {})


def _names(runs: Runs) -> list[str]:
    return [run.path.name for run in runs]


def _difference(difference: Difference) -> dict:
    return {"mean": difference.mean, "ci95": [difference.low, difference.high], "ci95_method": difference.method,
            "clear": difference.clear}  # fmt: skip


def _estimate(estimate: Estimate) -> dict:
    return {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n, "ci95": [estimate.low, estimate.high],
            "ci95_method": estimate.method}  # fmt: skip


def _accuracy(runs: Runs) -> dict:
    return _estimate(accuracy(runs)) | {"runs": _names(runs)}


def _comparisons(runs: dict[str, Runs]) -> dict:
    return {
        f"{pair.b[0].approach} minus {pair.a[0].approach}": {
            "accuracy": _difference(pair.accuracy), "loss": _difference(pair.loss),
            "classes": dict(zip(pair.a[0].classes, map(_difference, pair.classes), strict=True)),
            "images": pair.counts, **dict(zip(("seeds_won", "seeds_level"), pair.seeds_won, strict=True)),
            "same_images_right": pair.same_images_right,
            "train_seconds_ratio": pair.times and dict(zip(("mean", "least", "greatest"), pair.times, strict=True)),
            "operations_ratio": dict(
                zip(("as_run", "nothing_kept"), costs.operations_ratios(pair.a, pair.b), strict=True)
            ),
        }
        for pair in comparisons(runs)
    }  # fmt: skip


def _reached(found: costs.Reached) -> dict:
    return {"validation_accuracy": found.target, "seconds": list(found.seconds),
            "median_seconds": found.median, "reached": len(found.of_those_that_do),
            "n": len(found.seconds)}  # fmt: skip


def _preset(runs: Runs) -> dict:
    calibration, images = measures.calibration(runs), len(runs[0].predictions["test_labels"])
    of_class = np.bincount(runs[0].predictions["test_labels"], minlength=len(runs[0].classes))
    gaps, right = [measures.selection_gap(run) for run in runs], measures.confusion(runs).diagonal() / len(runs)
    gap = measures.gap(runs)
    return {
        "config": {name: value for name, value in runs[0].info["config"].items()
                   if name not in ("approach", "seed", "data", "weights")},
        "runs": [
            {"seed": run.seed, "run": run.path.name, "device": measures.device_of((run,)),
             "finished": run.info["provenance"]["finished"], **{key: run.info[key] for key in KEYS},
             "images_per_second": costs.training_rate(run), "features_images_per_second": costs.features_rate(run),
             "others_share": run.info["provenance"].get("others_share"),
             "test_accuracy_ci95": measures.test_interval(run), "test_minus_validation": own and _difference(own),
             "surest_mistakes": _mistakes(run),
             "epochs": run.epochs.drop(columns="epoch").to_dict("records")}
            for run, own in zip(runs, gaps, strict=True)
        ],
        "test_accuracy": _estimate(accuracy(runs)),
        "test_minus_validation": gap and _difference(gap),
        "cost": _cost(runs),
        "layer_changes": measures.moved(runs),
        "class_accuracy": dict(zip(runs[0].classes, (right / of_class).tolist(), strict=True)),
        "confusion": measures.confusion(runs).tolist(),
        "calibration": calibration and calibration | {"overconfidence": _difference(calibration["overconfidence"])},
        "reliability": {
            name: [dict(zip(("confidence", "accuracy", "count"), bin, strict=True))
                   for bin in zip(*(part.tolist() for part in dataclasses.astuple(measures.reliability(runs, scaled))),
                                  strict=True)]
            for name, scaled in (("as_trained", False), ("temperature_scaled", True))[: 1 + bool(calibration)]
        },
        "test_images": images,
    }  # fmt: skip


def _cost(runs: Runs) -> dict:
    """What is printed of a preset's cost, means over seeds; memory is the most of any."""
    features = [rate for rate in map(costs.features_rate, runs) if rate]
    names = ("train_seconds", "features_seconds", "start_seconds", "validation_seconds")
    return {
        **{name: measures.mean_of(runs, name) for name in names},
        "features_measured_once": costs.features_shared(runs),
        "images_per_second": float(np.mean([costs.training_rate(run) for run in runs])),
        "features_images_per_second": float(np.mean(features)) if features else None,
        "peak_memory_mib": costs.peak_memory(runs),
        "operations": {"as_run": costs.operations(runs[0]), "nothing_kept": costs.operations(runs[0], False)},
    }


def _mistakes(run: Run) -> list[dict]:
    probability, labels = measures.probabilities(run)
    return [
        {"index": int(at), "true": run.classes[labels[at]], "predicted": run.classes[probability[at].argmax()],
         "confidence": float(probability[at].max())}
        for at in measures.mistakes(run)
    ]  # fmt: skip
