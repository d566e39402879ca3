"""Records -> tables, the numbers that prose prints, and results.json. Imports no torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Prose, Table
from report_lib.plan import Evidence
from report_lib.records import Run

NAMES = {"linear_probe": "linear probe", "full_finetune": "full fine-tuning"}

# The homework report this study started from: one unseeded run each on a T4, best *test* epoch, original CIFAR-10.
PUBLISHED = {
    "linear_probe": {"test_accuracy": 0.7969, "test_loss": 0.6005, "train_seconds": 1423.19},
    "full_finetune": {"test_accuracy": 0.8059, "test_loss": 0.5826, "train_seconds": 1427.72},
}
PUBLISHED_TEST_IMAGES = 10_000

Study = Mapping[str, Sequence[Run]]  # approach -> its runs, one a seed, in the same order of seeds


# --- formats ---------------------------------------------------------------------------------------------------


NBSP = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line


def percent(fraction: float, digits: int = 1) -> str:
    return f"{100 * fraction:.{digits}f}{NBSP}%"


def interval(low: float, high: float, digits: int = 1) -> str:
    """A 95 % interval of fractions, in percent."""
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}{NBSP}%"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a minus as wide as a plus."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.3g}{NBSP}s"
    return f"{value:.0f}{NBSP}s" if value < 3600 else f"{value / 3600:.1f}{NBSP}h"


def p_value(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def mean_of(runs: Sequence[Run], name: str) -> float:
    return float(np.mean([run.info[name] for run in runs]))


def accuracy_of(runs: Sequence[Run]) -> stats.Estimate:
    return stats.accuracy(right_of(runs))


def data_title(run: Run, given: str) -> str:
    """What the report calls the data: the name the user gave, or the source's own."""
    return given or run.info["data"]["name"]


def device_of(runs: Sequence[Run]) -> str:
    """What the runs were computed on, and how precisely: a GPU's name, or CPU with its number of threads."""
    devices = []
    for made in (run.info["provenance"] for run in runs):
        where = made["device"] if made["device"] != "cpu" else f"CPU ({made['threads']} threads)"
        devices.append(f"{where}, {made['precision']}")
    return "; ".join(dict.fromkeys(devices))


def recall_of(runs: Sequence[Run]) -> list[float]:
    """Share of each class's test images that are recognised, mean over seeds."""
    counts = confusion_of(runs)
    return (counts.diagonal() / counts.sum(1)).tolist()


def confusion_of(runs: Sequence[Run]) -> np.ndarray:
    """Counts (classes, classes), row true, column predicted, of the test images of all seeds together."""
    counts = []
    for predictions in (run.predictions() for run in runs):
        predicted = predictions["test_logits"].argmax(1)
        counts.append(stats.confusion(predictions["test_labels"], predicted, len(runs[0].classes)))
    return np.sum(counts, axis=0)


def _spread(values: Sequence[float], scale: float, digits: int) -> str:
    """mean, with the standard deviation between seeds where there are several."""
    mean = f"{scale * np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {scale * np.std(values, ddof=1):.{digits}f}"


# --- one approach ----------------------------------------------------------------------------------------------


def epochs(runs: Sequence[Run]) -> Table:
    """Losses and validation accuracy after each epoch, mean ± standard deviation over seeds."""
    approach = runs[0].approach
    selected = [run.info["selected_epoch"] for run in runs]
    rows = []
    for index, epoch in enumerate(runs[0].epochs["epoch"]):
        values = {name: [run.epochs[name].iloc[index] for run in runs] for name in runs[0].epochs.columns}
        rows.append(
            (
                str(epoch),
                _spread(values["train_loss"], 1, 4),
                _spread(values["validation_loss"], 1, 4),
                _spread(values["validation_accuracy"], 100, 2),
                "✓" * (epoch in selected) if len(runs) == 1 else str(selected.count(epoch) or ""),
            )
        )
    last = "selected" if len(runs) == 1 else "selected by, seeds"
    return Table(
        f"tab-epochs-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: training and validation after each epoch"
        + ("." if len(runs) == 1 else f", mean ± standard deviation of {len(runs)} seeds."),
        ("epoch", "training loss, nats", "validation loss, nats", "validation accuracy, %", last),
        tuple(rows),
        "rrrrc",
    )


def test(runs: Sequence[Run]) -> Table:
    """What each seed's selected epoch does on the test images."""
    approach, images = runs[0].approach, runs[0].info["data"]["test"]
    rows = []
    for run in runs:
        info = run.info
        low, high = stats.wilson(round(info["test_accuracy"] * images), images)
        accuracies = (f"{100 * info['validation_accuracy']:.2f}", f"{100 * info['test_accuracy']:.2f}")
        reach = f"{100 * low:.2f} to {100 * high:.2f}"
        rows.append((str(run.seed), str(info["selected_epoch"]), *accuracies, reach, f"{info['test_loss']:.4f}"))
    return Table(
        f"tab-test-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: the selected epoch on {images:,} test images; "
        "the 95 % interval is Wilson's, over test images.",
        ("seed", "epoch", "validation accuracy, %", "test accuracy, %", "95 % interval, %", "test loss, nats"),
        tuple(rows),
        "rrrrrr",
    )


# --- the comparison --------------------------------------------------------------------------------------------


def compare(study: Study) -> dict:
    """Full fine-tuning minus linear probe, paired on the test images; numbers only."""
    probe, tuned = ([run.predictions() for run in study[approach]] for approach in NAMES)
    labels = probe[0]["test_labels"]
    right = [np.array([p["test_logits"].argmax(1) == labels for p in some]) for some in (probe, tuned)]
    loss = [np.array([stats.cross_entropy(p["test_logits"], labels) for p in some]) for some in (probe, tuned)]
    accuracy, losses = stats.paired_difference(right[0], right[1]), stats.paired_difference(loss[0], loss[1])
    tests = []
    for run, a, b in zip(study["linear_probe"], *right, strict=True):
        only_a, only_b, p = stats.mcnemar(a, b)
        tests.append({"seed": run.seed, "only_linear_probe": only_a, "only_full_finetune": only_b, "p": p})
    return {
        "direction": "full_finetune minus linear_probe",
        "accuracy_difference": {"mean": accuracy.mean, "ci95": [accuracy.low, accuracy.high]},
        "loss_difference": {"mean": losses.mean, "ci95": [losses.low, losses.high]},
        "ci95_method": accuracy.method,
        "mcnemar": tests,
        "accuracy_difference_is_clear": accuracy.clear,
        "chance_that_one_fine_tuning_run_beats_one_probe": stats.chance_to_win(
            *(np.array([run.info["test_accuracy"] for run in study[approach]]) for approach in NAMES)
        ),
        "train_seconds_ratio": mean_of(study["full_finetune"], "train_seconds")
        / mean_of(study["linear_probe"], "train_seconds"),
    }


def comparison(study: Study) -> Table:
    """The approaches side by side."""
    rows = []
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        rows.append(
            (
                NAMES[approach],
                _spread([run.info["validation_loss"] for run in runs], 1, 4),
                _spread([run.info["test_loss"] for run in runs], 1, 4),
                _spread([run.info["test_accuracy"] for run in runs], 100, 2),
                f"{100 * estimate.low:.2f} to {100 * estimate.high:.2f}",
                f"{mean_of(runs, 'train_seconds'):.1f}",
                f"{runs[0].info['trained_parameters']:,}",
            )
        )
    estimate = accuracy_of(study["linear_probe"])
    return Table(
        "tab-comparison",
        f"Both approaches at their selected epochs; n = {estimate.n}; 95 % intervals: {estimate.method}.",
        ("approach", "validation loss, nats", "test loss, nats", "test accuracy, %", "95 % interval, %",
         "training, s", "trained parameters"),
        tuple(rows),
        "lrrrrrr",
    )  # fmt: skip


def published_interval(approach: str) -> tuple[float, float]:
    """The binomial interval that the published accuracy lacks."""
    return stats.wilson(round(PUBLISHED[approach]["test_accuracy"] * PUBLISHED_TEST_IMAGES), PUBLISHED_TEST_IMAGES)


def reported(run: Run) -> tuple[float, float]:
    """(test accuracy, loss) as the run's own recipe reports them: the published ones end with the last epoch's loss."""
    loss = run.epochs["validation_loss"].iloc[-1] if run.info["recipe"]["recipe"] == "published" else None
    return run.info["test_accuracy"], run.info["test_loss"] if loss is None else float(loss)


def published(evidence: Evidence, data_name: str) -> Table:
    """The published figures beside those of every recipe here; theirs with the binomial interval that they lack."""
    rows = []
    for approach, theirs in PUBLISHED.items():
        low, high = published_interval(approach)
        span = f"{100 * low:.2f} to {100 * high:.2f}"
        rows.append((NAMES[approach], "as published", "1", f"{100 * theirs['test_accuracy']:.2f}", span,
                     f"{theirs['test_loss']:.4f}", f"{theirs['train_seconds']:.1f}"))  # fmt: skip
        for recipe in evidence.recipes:
            runs = evidence.runs[approach][recipe]
            ours = accuracy_of(runs)
            losses = [reported(run)[1] for run in runs]
            rows.append((NAMES[approach], f"here, {recipe}", str(ours.n),
                         _spread([run.info["test_accuracy"] for run in runs], 100, 2),
                         f"{100 * ours.low:.2f} to {100 * ours.high:.2f}", _spread(losses, 1, 4),
                         f"{mean_of(runs, 'train_seconds'):.1f}"))  # fmt: skip
    run = evidence.main["linear_probe"][0]
    return Table(
        "tab-published",
        "Published against here. As published: CIFAR-10, ImageNet weights, best test epoch, one T4. Here: "
        f"{data_title(run, data_name)}, {run.info['weights']['name']}, {run.info['recipe']['image_size']} px, "
        f"{device_of([run for runs in evidence.main.values() for run in runs])}; mean ± standard deviation of n seeds, "
        f"intervals: {ours.method}. Losses here are those of the selected epoch on the test images; as published, and "
        "in the recipe published, of the last epoch.",
        ("approach", "recipe", "n", "test accuracy, %", "95 % interval, %", "loss, nats", "training, s"),
        tuple(rows),
        "llrrrrr",
    )


# --- what defects, labels and recipes change -------------------------------------------------------------------

DEFECTS = {
    "select_on_test": "the test images select the epoch",
    "train_on_all": "nothing is held out, so the test images select",
    "normalisation": "inputs normalised by 0.5 and 0.5",
    "unstratified": "validation drawn without regard to class",
    "frozen_dropout": "dropout on in the frozen trunk",
    "dropout_ends": "dropout off after the first epoch",
    "batch_averages": "losses averaged over batches",
}


def right_of(runs: Sequence[Run]) -> np.ndarray:
    """Right or wrong, bool (seeds, N), of each test image."""
    return np.array([p["test_logits"].argmax(1) == p["test_labels"] for p in map(Run.predictions, runs)])


def defect_effects(evidence: Evidence) -> list[dict]:
    """What each defect, switched on alone, does to the accuracy and the loss that `corrected` would report."""
    effects = []
    for approach in NAMES:
        base = evidence.runs[approach].get("corrected", ())
        for name, runs in evidence.keyed(approach, "defect").items() if base else ():
            change = stats.paired_difference(right_of(base), right_of(runs))
            losses = [mean_of(some, "validation_loss") for some in (base, runs)]
            effects.append(
                {"approach": approach, "defect": name, "test_accuracy": mean_of(runs, "test_accuracy"),
                 "effect": change.mean, "effect_ci95": [change.low, change.high], "effect_is_clear": change.clear,
                 "effect_method": change.method,
                 "loss_effect": losses[1] - losses[0], "n": len(runs)}
            )  # fmt: skip
    return effects


def defects(evidence: Evidence) -> Table | Prose:
    """Each published defect, switched on alone in `corrected`, and what it does to the reported figures."""
    rows, effects = [], defect_effects(evidence)
    for one in effects:
        low, high = one["effect_ci95"]
        rows.append((NAMES[one["approach"]], DEFECTS[one["defect"]], f"{100 * one['test_accuracy']:.2f}",
                     signed(100 * one["effect"]), f"{signed(100 * low)} to {signed(100 * high)}",
                     signed(one["loss_effect"], 4)))  # fmt: skip
    if not rows:
        return Prose("This study has not switched the defects on one at a time (parameter `defects`).")
    return Table(
        "tab-defects",
        "What each defect of the published listings changes, switched on alone in the recipe corrected: reported test "
        "accuracy, its paired difference, and the difference in the loss that selects (the test loss, where the test "
        f"images do); n = {effects[0]['n']}, intervals: {effects[0]['effect_method']}.",
        ("approach", "defect", "accuracy, %", "effect, points", "95 % interval", "loss, nats"),
        tuple(rows),
        "llrrrr",
    )


def budget_points(evidence: Evidence) -> dict[str, list[tuple[float, Sequence[Run]]]]:
    """Approach -> (labelled images a class, validation included; runs), all images last."""
    points: dict[str, list[tuple[float, Sequence[Run]]]] = {}
    for approach in NAMES:
        some = [*evidence.keyed(approach, "budget").values(), evidence.best[approach]]
        counts = [(runs[0].info["data"]["train"] + runs[0].info["data"]["validation"]) for runs in some]
        classes = len(some[0][0].classes)
        # A budget that no class can fill is the same as all images.
        points[approach] = [
            (count / classes, runs)
            for count, runs in zip(counts, some, strict=True)
            if count < counts[-1] or runs is some[-1]
        ]
    return points


def budgets(evidence: Evidence) -> Table | Prose:
    """Accuracy of both approaches by number of labels, and their paired difference."""
    rows = []
    for (labels, probe), (_, tuned) in zip(*budget_points(evidence).values(), strict=True):
        change = stats.paired_difference(right_of(probe), right_of(tuned))
        accuracies = [_spread([run.info["test_accuracy"] for run in runs], 100, 2) for runs in (probe, tuned)]
        reach = f"{signed(100 * change.low)} to {signed(100 * change.high)}"
        batch = str(probe[0].info["recipe"]["batch_size"])
        rows.append((f"{labels:,.0f}", batch, *accuracies, signed(100 * change.mean), reach))
    if len(rows) == 1:
        return Prose("This study has not been run with fewer labels (parameter `budgets`).")
    recipe = evidence.best["linear_probe"][0].info["recipe"]
    return Table(
        "tab-budgets",
        f"Test accuracy by labelled images a class, {percent(recipe['val_fraction'], 0)} of which validate; recipe "
        f"{recipe['recipe']}, n = {len(probe)}. With few labels the batch is smaller, so that an epoch has more than a "
        f"step or two. The difference is full fine-tuning minus linear probe, paired; intervals: {change.method}.",
        ("labels a class", "batch", "linear probe, %", "full fine-tuning, %", "difference, points", "95 % interval"),
        tuple(rows),
        "rrrrrr",
    )


def cost(evidence: Evidence) -> Table:
    """What a run of each recipe costs, by quantity."""
    rows = []
    for approach in NAMES:
        for recipe in evidence.recipes:
            runs = evidence.runs[approach][recipe]
            info = runs[0].info
            passes = [f"{info[f'{way}_flops'] / 1e9:.3g}" for way in ("forward", "backward")]
            speed = (seconds(mean_of(runs, "train_seconds")), f"{mean_of(runs, 'images_per_second'):,.0f}")
            memory = f"{mean_of(runs, 'peak_memory_mib'):,.0f}"
            rows.append((NAMES[approach], recipe, f"{info['trained_parameters']:,}", *passes, *speed, memory))
    return Table(
        "tab-cost",
        "Cost of one run. Operations are those of one image once through the network, two for each multiply-add. Full "
        "fine-tuning needs both passes once an image and epoch. The linear probe needs its forward pass once an image; "
        "in the recipe published, with dropout in the trunk, its last layers once an image and epoch. Tuned "
        "fine-tuning contains the training of a probe.",
        ("approach", "recipe", "trained parameters", "forward, GFLOP", "backward, GFLOP", "training", "images/s",
         "memory, MiB"),
        tuple(rows),
        "llrrrrrr",
    )  # fmt: skip


def calibration_of(runs: Sequence[Run]) -> dict:
    """Expected calibration error and loss on the test images, as they are and temperature-scaled; means over seeds."""
    rows = []
    for predictions in map(Run.predictions, runs):
        t = stats.temperature(predictions["validation_logits"], predictions["validation_labels"])
        logits, labels = predictions["test_logits"], predictions["test_labels"]
        pair = [logits, logits / t]
        rows.append((t, *(stats.reliability(some, labels).error for some in pair),
                     *(stats.cross_entropy(some, labels).mean() for some in pair)))  # fmt: skip
    names = ("temperature", "ece", "ece_scaled", "test_loss", "test_loss_scaled")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def classes_of(runs: Sequence[Run]) -> list[stats.Estimate]:
    """Accuracy on each class's test images, with its interval."""
    right, labels = right_of(runs), runs[0].predictions()["test_labels"]
    return [stats.accuracy(right[:, labels == label]) for label in range(len(runs[0].classes))]


def provenance(evidence: Evidence) -> Table:
    """Where all runs came from, those of an approach and recipe in one row."""
    rows = []
    for approach, kinds in evidence.runs.items():
        for what, runs in kinds.items():
            made = [run.info["provenance"] for run in runs]
            commits = {(m["commit"] or "no repository")[:12] + " (modified)" * bool(m["dirty"]) for m in made}
            seeds = ", ".join(str(run.seed) for run in runs)
            finished = max(m["finished"] for m in made)[:16]
            rows.append((NAMES[approach], what.replace(":", ", ").replace("_", " "), seeds, ", ".join(sorted(commits)),
                         device_of(runs), finished))  # fmt: skip
    return Table(
        "tab-provenance",
        "The runs behind this report, and the commit that made them; results.json names each one's record.",
        ("approach", "recipe", "seeds", "commit", "device", "finished (UTC)"),
        tuple(rows),
        "llllll",
    )


def environment(study: Study) -> Table:
    """Versions, data fingerprint and weights hash of the first run."""
    info = study["linear_probe"][0].info
    made = info["provenance"]
    rows = [("Python", made["python"]), *made["packages"].items()]
    rows += [("data, sha256", info["data"]["fingerprint"]), ("weights, sha256", info["weights"]["sha256"] or "none")]
    rows += [("code, sha256", made["code"]), ("command", made["command"])]
    return Table("tab-environment", "What the runs were made with.", ("what", "value"), tuple(rows), "ll")


# --- results.json ----------------------------------------------------------------------------------------------


def results(profile: str, evidence: Evidence, data_name: str) -> dict:
    """Every number of the report. Accuracies are fractions, times seconds, losses per-sample means in nats."""
    study = evidence.main
    first = study["linear_probe"][0].info
    data = first["data"] | {"name": data_title(study["linear_probe"][0], data_name)}
    shared = ("data", "weights", "image_size", "epochs", "batch_size", "val_fraction", "precision")
    return {
        "profile": profile,
        "data": data,
        "weights": first["weights"],
        "recipe": {name: first["recipe"][name] for name in shared},
        "presented": first["recipe"]["recipe"],
        "approaches": {
            approach: {recipe: _result(evidence.runs[approach][recipe]) for recipe in evidence.recipes}
            for approach in NAMES
        },
        "comparison": compare(study),
        "comparisons": {recipe: compare(evidence.of(recipe)) for recipe in evidence.recipes},
        "defects": defect_effects(evidence),
        "label_budget": [
            {"labels_per_class": labels, **{a: _brief(r) for a, r in zip(NAMES, (probe, tuned), strict=True)},
             "comparison": compare({"linear_probe": probe, "full_finetune": tuned})}
            for (labels, probe), (_, tuned) in zip(*budget_points(evidence).values(), strict=True)
        ],
        "published": {a: v | {"test_accuracy_ci95": published_interval(a)} for a, v in PUBLISHED.items()},
        "provenance": first["provenance"],
    }  # fmt: skip


def _brief(runs: Sequence[Run]) -> dict:
    estimate = accuracy_of(runs)
    return {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n, "ci95": [estimate.low, estimate.high],
            "ci95_method": estimate.method}  # fmt: skip


def _result(runs: Sequence[Run]) -> dict:
    keys = ("selected_epoch", "selected_on", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss",
            "train_seconds", "features_seconds", "start_seconds", "validation_seconds", "test_seconds",
            "images_per_second", "peak_memory_mib", "trained_parameters", "parameters", "forward_flops",
            "backward_flops")  # fmt: skip
    made = [
        {"seed": run.seed, "record": run.path.name, "device": device_of([run]),
         "finished": run.info["provenance"]["finished"], **{key: run.info[key] for key in keys},
         "epochs": run.epochs.drop(columns="epoch").to_dict("records")}
        for run in runs
    ]  # fmt: skip
    recipe = {key: value for key, value in runs[0].info["recipe"].items() if key not in ("approach", "seed")}
    classes = {
        name: {"mean": e.mean, "ci95": [e.low, e.high]}
        for name, e in zip(runs[0].classes, classes_of(runs), strict=True)
    }
    held_out = runs[0].info["selected_on"] == "validation"
    return {
        "recipe": recipe,
        "runs": made,
        "test_accuracy": _brief(runs),
        "class_accuracy": classes,
        "confusion": confusion_of(runs).tolist(),
        # Temperatures are fitted on validation images, of which a recipe that selects on the test set has none.
        "calibration": calibration_of(runs) if held_out else None,
    }
