"""Records -> the numbers that tables, figures and sentences show. Imports no torch."""

import re
import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import softmax

from report_lib import stats
from report_lib.plan import Evidence
from report_lib.recipe import InputError
from report_lib.records import Run

NAMES = {"linear_probe": "linear probe", "full_finetune": "full fine-tuning"}

# The homework report this study started from: one unseeded run each on a T4, best *test* epoch, original CIFAR-10.
PUBLISHED = {
    "linear_probe": {"test_accuracy": 0.7969, "test_loss": 0.6005, "train_seconds": 1423.19},
    "full_finetune": {"test_accuracy": 0.8059, "test_loss": 0.5826, "train_seconds": 1427.72},
}

PUBLISHED_TEST_IMAGES = 10_000
NEWCOMBE = "Newcombe, two samples"

EFFECTS = {  # the rows of the table of defects
    "select_on_test": "the test images select the epoch",
    "train_on_all": "nothing is held out (against: the test images select)",
    "normalisation": "inputs normalised by 0.5 and 0.5",
    "unstratified": "validation drawn without regard to class",
    "frozen_dropout": "dropout on in the frozen trunk",
    "dropout_ends": "dropout off after the first epoch",
    "batch_averages": "losses averaged over batches",
    "all": "all of them together: published",
}

Study = Mapping[str, Sequence[Run]]  # approach -> its runs, one a seed, in the same order of seeds


def the(runs: Sequence[Run]) -> str:
    """The approach's name within a sentence."""
    return f"the {NAMES['linear_probe']}" if runs[0].approach == "linear_probe" else NAMES[runs[0].approach]


def seconds_of(run: Run) -> float:
    """Training seconds with each epoch as long as the median one, so that a machine's pause in one doesn't count."""
    epochs = run.epochs["train_seconds"]
    return float(run.info["train_seconds"] - epochs.sum() + len(epochs) * epochs.median())


def training_seconds(runs: Sequence[Run]) -> tuple[float, float | None]:
    """(mean over seeds of `seconds_of`, their standard deviation; None for a single seed)."""
    values = [seconds_of(run) for run in runs]
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def images_per_second(runs: Sequence[Run]) -> float:
    """Training images a second, from the same seconds."""
    return float(np.mean([r.info["data"]["train"] * r.info["recipe"]["epochs"] / seconds_of(r) for r in runs]))


def disturbed(runs: Sequence[Run]) -> bool:
    """Whether other work must have shared the machine: the same training took one seed over 1.3 times as long as
    another, or one epoch over twice the median (epochs of less than a second aside)."""
    values = [seconds_of(run) for run in runs]
    epochs = [run.epochs["train_seconds"] for run in runs]
    return max(values) > 1.3 * min(values) or any(some.max() > max(1.0, 2 * some.median()) for some in epochs)


def mean_of(runs: Sequence[Run], name: str) -> float:
    """Mean over seeds of a number of run.json."""
    return float(np.mean([run.info[name] for run in runs]))


def accuracy_of(runs: Sequence[Run]) -> stats.Estimate:
    """Test accuracy of all seeds, with its interval."""
    return stats.accuracy(right_of(runs))


def right_of(runs: Sequence[Run]) -> np.ndarray:
    """Right or wrong, bool (seeds, N), of each test image."""
    return np.array([p["test_logits"].argmax(1) == p["test_labels"] for p in map(Run.predictions, runs)])


def probabilities(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(what the run holds each class for likely, float64 (N, classes); labels (N,)) of its test images."""
    arrays = run.predictions()
    return softmax(arrays["test_logits"].astype(float), axis=1), arrays["test_labels"]


def data_title(run: Run, given: str) -> str:
    """What the report calls the data: the name the user gave, or the source's own; and how many images it lacks."""
    name = run.info["data"]["name"]
    return given + "".join(re.findall(r" \(\d+ undecodable images left out\)$", name)) if given else name


def is_cifar10(run: Run) -> bool:
    """Whether the data have the classes of CIFAR-10 and as many test images."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return sorted(run.classes) == names and run.info["data"]["test"] == 10_000


def check_images(run: Run, fingerprint: str) -> None:
    """Raises InputError if images with this fingerprint are not those that the run was made with."""
    if run.info["data"]["fingerprint"] != fingerprint:
        raise InputError(
            f"data is {run.info['recipe']['data']!r}, whose images have changed since {run.path.name} was trained; run "
            "both approaches' notebooks again"
        )


def command_of(run: Run) -> str:
    """What started the run, without the folders of paths: those of one machine say nothing on another."""
    return shlex.join(map(_last, shlex.split(run.info["provenance"]["command"])))


def recipe_of(run: Run) -> dict:
    """The run's recipe, without its approach and seed; data and weights without their folders."""
    recipe = {key: value for key, value in run.info["recipe"].items() if key not in ("approach", "seed")}
    return recipe | {name: _last(recipe[name]) for name in ("data", "weights")}


def _last(word: str) -> str:
    """A path's last part, also after `--option=`; other words as they are."""
    return re.sub(r"^(--[^=/]*=)?.*/(?=[^/])", r"\1", word)


def device_of(runs: Sequence[Run]) -> str:
    """What the runs were computed on, and how precisely: a GPU's name, or CPU with its number of threads."""
    devices = []
    for made in (run.info["provenance"] for run in runs):
        threads = f"{made['threads']} thread{'s' * (made['threads'] != 1)}"
        where = made["device"] if made["device"] != "cpu" else f"CPU ({threads})"
        devices.append(f"{where}, {made['precision']}")
    return "; ".join(dict.fromkeys(devices))


def errors_of(runs: Sequence[Run]) -> tuple[float, float]:
    """Standard errors of (accuracy, loss) that the draw of selecting images gives one run, at its selected epoch."""
    found = []
    for one in map(Run.predictions, runs):
        kind = "validation" if len(one["validation_labels"]) else "test"
        logits, labels = one[f"{kind}_logits"], one[f"{kind}_labels"]
        right, loss = logits.argmax(1) == labels, stats.cross_entropy(logits, labels)
        found.append([some.std() / len(labels) ** 0.5 for some in (right, loss)])
    accuracy, loss = np.mean(found, axis=0)
    return float(accuracy), float(loss)


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
        "accuracy_difference": _difference(accuracy, right),
        "loss_difference": _difference(losses, loss),
        "ci95_method": accuracy.method,
        "mcnemar": tests,
        "accuracy_difference_is_clear": accuracy.clear,
        "chance_that_one_fine_tuning_run_beats_one_probe": stats.chance_to_win(
            *(np.array([run.info["test_accuracy"] for run in study[approach]]) for approach in NAMES)
        ),
        "train_seconds_ratio": training_seconds(study["full_finetune"])[0] / training_seconds(study["linear_probe"])[0],
    }


def _difference(found: stats.Difference, pair: Sequence[np.ndarray]) -> dict:
    """With the bootstrap's interval beside the other, for several seeds."""
    both = np.asarray(pair[1], float) - np.asarray(pair[0], float)
    drawn = {"bootstrap_ci95": stats.bootstrap(both, 2000)} if len(both) > 1 else {}
    return {"mean": found.mean, "ci95": [found.low, found.high], **drawn}


def recipe_effect(evidence: Evidence, approach: str) -> stats.Difference:
    """What the recipe tuned brings over corrected, paired on the same test images."""
    runs = evidence.runs[approach]
    return stats.paired_difference(right_of(runs["corrected"]), right_of(runs["tuned"]))


def kept_promise(runs: Sequence[Run]) -> stats.Difference:
    """Test accuracy minus what validation promised, for runs that select on validation images.

    The interval is of one run's images: the seeds' validation images overlap, so they are not so many samples more.
    """
    data = runs[0].info["data"]
    promised, kept = mean_of(runs, "validation_accuracy"), mean_of(runs, "test_accuracy")
    images = (data["validation"], data["test"])
    low, high = stats.newcombe((round(promised * images[0]), round(kept * images[1])), images)
    return stats.Difference(kept - promised, low, high, NEWCOMBE)


def test_interval(run: Run) -> tuple[float, float]:
    """Wilson's interval of one run's test accuracy."""
    images = run.info["data"]["test"]
    return stats.wilson(round(run.info["test_accuracy"] * images), images)


def _published_right(approach: str) -> int:
    return round(PUBLISHED[approach]["test_accuracy"] * PUBLISHED_TEST_IMAGES)


def published_interval(approach: str) -> tuple[float, float]:
    """The binomial interval that the published accuracy lacks."""
    return stats.wilson(_published_right(approach), PUBLISHED_TEST_IMAGES)


def published_difference() -> stats.Difference:
    """Published fine-tuning minus published probe, as independent proportions."""
    low, high = stats.newcombe(
        (_published_right("linear_probe"), _published_right("full_finetune")), (PUBLISHED_TEST_IMAGES,) * 2
    )
    gap = (_published_right("full_finetune") - _published_right("linear_probe")) / PUBLISHED_TEST_IMAGES
    return stats.Difference(gap, low, high, NEWCOMBE)


def reported_loss(run: Run) -> float:
    """The loss, nats, that the run's own recipe reports: published, the last epoch's; otherwise the selected one's."""
    published = run.info["recipe"]["recipe"] == "published"
    return float(run.epochs["validation_loss"].iloc[-1] if published else run.info["test_loss"])


def defect_effects(evidence: Evidence) -> list[dict]:
    """What each defect, switched on alone, does to the accuracy and the loss that `corrected` would report; and what
    all of them do together, which is the recipe `published`."""
    effects = []
    for approach in NAMES:
        found = dict(evidence.keyed(approach, "defect"))
        if found and "published" in evidence.runs[approach]:
            found["all"] = evidence.runs[approach]["published"]
        for name, runs in found.items():
            # Where nothing is held out the test images select, so that alone is what it is compared with.
            against = "select_on_test" if name == "train_on_all" and "select_on_test" in found else "corrected"
            some = found[against] if against in found else evidence.runs[approach]["corrected"]
            seeds = {run.seed for run in some} & {run.seed for run in runs}
            base, runs = ([run for run in kind if run.seed in seeds] for kind in (some, runs))
            change = stats.paired_difference(right_of(base), right_of(runs))
            losses = [mean_of(kind, "validation_loss") for kind in (base, runs)]
            effects.append(
                {"approach": approach, "defect": name, "against": against,
                 "test_accuracy": mean_of(runs, "test_accuracy"), "records": [run.path.name for run in runs],
                 "effect": change.mean, "effect_ci95": [change.low, change.high], "effect_is_clear": change.clear,
                 "effect_method": change.method, "same_images_right": bool((right_of(base) == right_of(runs)).all()),
                 "loss_effect": losses[1] - losses[0], "n": len(runs)}
            )  # fmt: skip
    return effects


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


def calibration_of(runs: Sequence[Run]) -> dict:
    """Expected calibration error and loss on the test images, as they are and temperature-scaled; means over seeds."""
    rows, matters = [], []
    for predictions in map(Run.predictions, runs):
        matters.append(stats.temperature_matters(predictions["validation_logits"], predictions["validation_labels"]))
        t = stats.temperature(predictions["validation_logits"], predictions["validation_labels"])
        logits, labels = predictions["test_logits"], predictions["test_labels"]
        pair = [logits, logits / t]
        rows.append((t, *(stats.reliability(some, labels).error for some in pair),
                     *(stats.cross_entropy(some, labels).mean() for some in pair)))  # fmt: skip
    names = ("temperature", "ece", "ece_scaled", "test_loss", "test_loss_scaled")
    spreads = {f"{name}_sd": float(np.std(some, ddof=1)) if len(rows) > 1 else None
               for name, some in zip(names, zip(*rows, strict=True), strict=True)}  # fmt: skip
    same = len({row[0] > 1 for row in rows}) == 1
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)) | spreads | {
        "n": len(rows), "temperature_is_not_1": all(matters) and same}  # fmt: skip


def reliability_of(runs: Sequence[Run], scaled: bool) -> stats.Reliability:
    """Reliability on the test images of all seeds together; `scaled` by each one's temperature from validation."""
    logits, labels = [], []
    for one in map(Run.predictions, runs):
        t = stats.temperature(one["validation_logits"], one["validation_labels"]) if scaled else 1.0
        logits.append(one["test_logits"] / t)
        labels.append(one["test_labels"])
    return stats.reliability(np.concatenate(logits), np.concatenate(labels))


def surest_mistakes(run: Run, count: int = 8) -> np.ndarray:
    """Indices of the wrongly predicted test images, those with the largest softmax probability first."""
    probability, labels = probabilities(run)
    wrong = np.flatnonzero(probability.argmax(1) != labels)
    return wrong[np.argsort(-probability.max(1)[wrong], kind="stable")][:count]


def agreement_of(study: Study) -> list[dict]:
    """For each seed, the numbers of test images that both approaches, only one, or neither gets right."""
    counts = []
    for run, a, b in zip(study["linear_probe"], *(right_of(study[approach]) for approach in NAMES), strict=True):
        cells = {"both": a & b, "only_linear_probe": a & ~b, "only_full_finetune": b & ~a, "neither": ~a & ~b}
        counts.append({"seed": run.seed, **{name: int(cell.sum()) for name, cell in cells.items()}})
    return counts


def classes_of(runs: Sequence[Run]) -> list[stats.Estimate]:
    """Accuracy on each class's test images, with its interval."""
    right, labels = right_of(runs), runs[0].predictions()["test_labels"]
    return stats.class_accuracies(right, labels, len(runs[0].classes))


def filter_change(run: Run) -> float:
    """Length of what fine-tuning added to the first layer's weights, as a fraction of their length before."""
    arrays = run.predictions()
    before = arrays["filters_before"].astype(float)
    # Not np.linalg.norm, whose last digit depends on the number of threads.
    return float((np.square(arrays["filters_after"] - before).sum() / np.square(before).sum()) ** 0.5)
