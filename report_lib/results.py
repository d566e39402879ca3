"""Records -> results.json, which holds the numbers of a report. Imports no torch."""

from collections.abc import Sequence

from report_lib import search
from report_lib.measures import (
    NAMES,
    PUBLISHED,
    accuracy_of,
    agreement_of,
    budget_points,
    calibration_of,
    classes_of,
    command_of,
    compare,
    confusion_of,
    data_title,
    defect_effects,
    device_of,
    filter_change,
    kept_promise,
    probabilities,
    published_difference,
    published_interval,
    recipe_effect,
    recipe_of,
    reliability_of,
    seconds_of,
    surest_mistakes,
    test_interval,
)
from report_lib.plan import Evidence
from report_lib.records import Run
from report_lib.stats import Difference


def results(profile: str, evidence: Evidence, data_name: str) -> dict:
    """The numbers of the report, as measured. Accuracies are fractions, times seconds, losses means in nats."""
    study = evidence.main
    first = study["linear_probe"][0].info
    data = first["data"] | {"name": data_title(study["linear_probe"][0], data_name)}
    shared = ("data", "weights", "image_size", "epochs", "batch_size", "val_fraction", "precision")
    return {
        "profile": profile,
        "data": data,
        "weights": first["weights"],
        "recipe": {name: value for name, value in recipe_of(study["linear_probe"][0]).items() if name in shared},
        "presented": first["recipe"]["recipe"],
        "approaches": {
            approach: {recipe: _result(evidence.runs[approach][recipe]) for recipe in evidence.recipes}
            for approach in NAMES
        },
        "search": {a: {"trials": search.read(search.FOLDER / f"{a}.csv"), "winner": search.winner(a)} for a in NAMES},
        "comparison": compare(study),
        "agreement": agreement_of(study),
        "tuned_minus_corrected": {
            a: _difference(recipe_effect(evidence, a)) for a in NAMES if "tuned" in evidence.recipes
        },
        "comparisons": {recipe: compare(evidence.of(recipe)) for recipe in evidence.recipes},
        "defects": defect_effects(evidence),
        "label_budget": [
            {"labels_per_class": labels, **{a: _brief(r) for a, r in zip(NAMES, (probe, tuned), strict=True)},
             "comparison": compare({"linear_probe": probe, "full_finetune": tuned})}
            for (labels, probe), (_, tuned) in zip(*budget_points(evidence).values(), strict=True)
        ],
        "published": {a: v | {"test_accuracy_ci95": published_interval(a)} for a, v in PUBLISHED.items()}
        | {"accuracy_difference": _difference(published_difference())},
        "provenance": first["provenance"] | {"command": command_of(study["linear_probe"][0])},
    }  # fmt: skip


def _difference(found: Difference) -> dict:
    return {"mean": found.mean, "ci95": [found.low, found.high], "ci95_method": found.method, "clear": found.clear}


def _brief(runs: Sequence[Run]) -> dict:
    estimate = accuracy_of(runs)
    return {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n, "ci95": [estimate.low, estimate.high],
            "ci95_method": estimate.method, "records": [run.path.name for run in runs]}  # fmt: skip


def _result(runs: Sequence[Run]) -> dict:
    keys = ("selected_epoch", "selected_on", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss",
            "train_seconds", "features_seconds", "start_seconds", "validation_seconds", "test_seconds",
            "images_per_second", "peak_memory_mib", "trained_parameters", "parameters", "forward_flops",
            "backward_flops")  # fmt: skip
    made = [
        {"seed": run.seed, "record": run.path.name, "device": device_of([run]),
         "finished": run.info["provenance"]["finished"], "steady_seconds": seconds_of(run),
         **{key: run.info[key] for key in keys}, "test_accuracy_ci95": test_interval(run),
         "epochs": run.epochs.drop(columns="epoch").to_dict("records")}
        for run in runs
    ]  # fmt: skip
    classes = {
        name: {"mean": e.mean, "ci95": [e.low, e.high], "ci95_method": e.method}
        for name, e in zip(runs[0].classes, classes_of(runs), strict=True)
    }
    held_out = runs[0].info["selected_on"] == "validation"
    return {
        "recipe": recipe_of(runs[0]),
        "runs": made,
        "test_accuracy": _brief(runs),
        "test_minus_validation": _difference(kept_promise(runs)) if held_out else None,
        "class_accuracy": classes,
        "confusion": confusion_of(runs).tolist(),
        # Temperatures are fitted on validation images, of which a recipe that selects on the test set has none.
        "calibration": calibration_of(runs) if held_out else None,
        "reliability": {
            kind: [dict(zip(("confidence", "accuracy", "count"), one, strict=True)) for one in _bins(runs, scaled)]
            for kind, scaled in (("as_trained", False), ("temperature_scaled", True))[: 1 + held_out]
        },
        "surest_mistakes": [{"seed": run.seed, "images": _mistakes(run)} for run in runs],
        "filter_change": [filter_change(run) for run in runs] if runs[0].approach == "full_finetune" else None,
    }


def _bins(runs: Sequence[Run], scaled: bool) -> list[tuple]:
    found = reliability_of(runs, scaled)
    return list(zip(found.confidence.tolist(), found.accuracy.tolist(), found.count.tolist(), strict=True))


def _mistakes(run: Run) -> list[dict]:
    (probability, labels), chosen = probabilities(run), surest_mistakes(run)
    return [
        {"index": int(at), "true": run.classes[labels[at]], "predicted": run.classes[probability[at].argmax()],
         "confidence": float(probability[at].max())}
        for at in chosen
    ]  # fmt: skip
