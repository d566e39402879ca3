"""Records -> tables, the numbers that prose prints, and results.json. Imports no torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Table
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


def seconds(value: float) -> str:
    if value < 100:
        return f"{value:.3g}{NBSP}s"
    return f"{value:.0f}{NBSP}s" if value < 3600 else f"{value / 3600:.1f}{NBSP}h"


def p_value(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def mean_of(runs: Sequence[Run], name: str) -> float:
    return float(np.mean([run.info[name] for run in runs]))


def accuracy_of(runs: Sequence[Run]) -> stats.Estimate:
    return stats.accuracy(
        np.array([p["test_logits"].argmax(1) == p["test_labels"] for p in map(Run.predictions, runs)])
    )


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
        # With few discordant images the bootstrap of a single run is too sure of itself; the exact test is not.
        "accuracy_difference_is_clear": accuracy.clear and (len(tests) > 1 or tests[0]["p"] < 0.05),
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


def published(study: Study, data_name: str) -> Table:
    """The published figures beside ours; theirs with the binomial interval that they lack."""
    rows = []
    for approach, runs in study.items():
        theirs, ours = PUBLISHED[approach], accuracy_of(runs)
        low, high = published_interval(approach)
        for source, accuracy, reach, loss, time in (
            ("published", theirs["test_accuracy"], (low, high), theirs["test_loss"], theirs["train_seconds"]),
            ("here", ours.mean, (ours.low, ours.high), mean_of(runs, "test_loss"), mean_of(runs, "train_seconds")),
        ):
            span = f"{100 * reach[0]:.2f} to {100 * reach[1]:.2f}"
            rows.append((NAMES[approach], source, f"{100 * accuracy:.2f}", span, f"{loss:.4f}", f"{time:.1f}"))
    run = study["linear_probe"][0]
    return Table(
        "tab-published",
        "Published against here. Published: CIFAR-10, ImageNet weights, best test epoch, one T4. Here: "
        f"{data_title(run, data_name)}, {run.info['weights']['name']}, {run.info['recipe']['image_size']} px, epoch "
        f"selected on validation, {device_of([run for runs in study.values() for run in runs])}.",
        ("approach", "source", "test accuracy, %", "95 % interval, %", "loss, nats", "training, s"),
        tuple(rows),
        "llrrrr",
    )


def provenance(study: Study) -> Table:
    """Where every run came from."""
    rows = []
    for approach, runs in study.items():
        for run in runs:
            made = run.info["provenance"]
            commit = (made["commit"] or "no repository")[:12] + (" (modified)" if made["dirty"] else "")
            where = device_of([run])
            rows.append((NAMES[approach], str(run.seed), run.path.name[-12:], commit, where, made["finished"][:16]))
    return Table(
        "tab-provenance",
        "The runs behind this report, by the name of their record, and the commit that made them.",
        ("approach", "seed", "record", "commit", "device", "finished (UTC)"),
        tuple(rows),
        "lrllll",
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


def results(profile: str, study: Study, data_name: str) -> dict:
    """Every number of the report. Accuracies are fractions, times seconds, losses per-sample means in nats."""
    first = study["linear_probe"][0].info
    keys = ("selected_epoch", "validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_seconds",
            "features_seconds", "validation_seconds", "test_seconds", "images_per_second", "peak_memory_mib",
            "trained_parameters", "parameters")  # fmt: skip
    approaches: dict = {}
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        approaches[approach] = {
            first["recipe"]["recipe"]: {
                "runs": [
                    {"seed": run.seed, "record": run.path.name, "device": device_of([run]),
                     "finished": run.info["provenance"]["finished"], **{key: run.info[key] for key in keys},
                     "epochs": run.epochs.drop(columns="epoch").to_dict("records")}
                    for run in runs
                ],
                "test_accuracy": {"mean": estimate.mean, "sd": estimate.sd, "n": estimate.n,
                                  "ci95": [estimate.low, estimate.high], "ci95_method": estimate.method},
                "class_accuracy": dict(zip(runs[0].classes, recall_of(runs), strict=True)),
                "confusion": confusion_of(runs).tolist(),
            }
        }  # fmt: skip
    data = first["data"] | {"name": data_title(study["linear_probe"][0], data_name)}
    recipe = {name: first["recipe"][name] for name in sorted(first["recipe"].keys() - {"approach", "seed"})}
    return {
        "profile": profile,
        "data": data,
        "weights": first["weights"],
        "recipe": recipe,
        "approaches": approaches,
        "comparison": compare(study),
        "published": {a: v | {"test_accuracy_ci95": published_interval(a)} for a, v in PUBLISHED.items()},
        "provenance": first["provenance"],
    }
