"""Records -> tables. Imports no torch. A column's decimals follow its median uncertainty."""

from collections.abc import Mapping, Sequence

import numpy as np

from report_lib import stats
from report_lib.document import Prose, Table
from report_lib.formats import decimals, deviation, either, fixed, in_seconds, percent, reach, signed, spread
from report_lib.measures import (
    EFFECTS,
    NAMES,
    PUBLISHED,
    Study,
    accuracy_of,
    budget_points,
    command_of,
    data_title,
    defect_effects,
    device_of,
    errors_of,
    images_per_second,
    mean_of,
    published_interval,
    reported_loss,
    right_of,
    seconds_of,
    test_interval,
    training_seconds,
)
from report_lib.plan import Evidence
from report_lib.records import Run


def _column(uncertainties: Sequence[float]) -> int:
    """Decimals of a column whose values have these uncertainties: one that is small by luck does not set them."""
    return decimals(float(np.median(uncertainties)))


def _methods(estimates: Sequence[stats.Estimate | stats.Difference]) -> str:
    """How these intervals were made."""
    return either(one.method for one in estimates)


def _time(runs: Sequence[Run]) -> str:
    """Training time in seconds, with the standard deviation between seeds where there are several."""
    mean, varied = training_seconds(runs)
    return in_seconds(mean) if varied is None else spread([seconds_of(run) for run in runs], 1, decimals(varied))


# --- one approach ----------------------------------------------------------------------------------------------


def epochs(runs: Sequence[Run]) -> Table:
    """Losses and validation accuracy after each epoch, mean ± standard deviation over seeds."""
    approach, table = runs[0].approach, {}
    chance = dict(zip(("validation_accuracy", "validation_loss", "train_loss"), (*errors_of(runs), None), strict=True))
    for name, scale in (("train_loss", 1), ("validation_loss", 1), ("validation_accuracy", 100)):
        values = np.array([run.epochs[name] for run in runs]).T
        known = [deviation(some) for some in values] if len(runs) > 1 else [chance[name] or chance["validation_loss"]]
        digits = _column([scale * (value or 0) for value in known])
        table[name] = [spread(some, scale, digits) for some in values]
    selected = [run.info["selected_epoch"] for run in runs]
    rows = [
        (str(epoch), *(column[index] for column in table.values()),
         "•" * (epoch in selected) if len(runs) == 1 else str(selected.count(epoch) or ""))
        for index, epoch in enumerate(runs[0].epochs["epoch"])
    ]  # fmt: skip
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
    digits, losses = (decimals(scale * error) for scale, error in zip((100, 1), errors_of(runs), strict=True))
    rows = []
    for run in runs:
        info = run.info
        low, high = test_interval(run)
        accuracies = [fixed(100 * info[name], digits) for name in ("validation_accuracy", "test_accuracy")]
        between = f"{fixed(100 * low, digits)} to {fixed(100 * high, digits)}"
        rows.append(
            (str(run.seed), str(info["selected_epoch"]), *accuracies, between, fixed(info["test_loss"], losses))
        )
    return Table(
        f"tab-test-{approach.replace('_', '-')}",
        f"{NAMES[approach].capitalize()}: the selected epoch on {images:,} test images; "
        "the 95 % interval is Wilson’s, over test images.",
        ("seed", "epoch", "validation accuracy, %", "test accuracy, %", "95 % interval, %", "test loss, nats"),
        tuple(rows),
        "rrrrrr",
    )


# --- the comparison --------------------------------------------------------------------------------------------


def comparison(study: Study) -> Table:
    """The approaches side by side."""
    estimates = [accuracy_of(runs) for runs in study.values()]
    digits = _column([50 * (e.high - e.low) for e in estimates])
    nats = _column([errors_of(runs)[1] for runs in study.values()])
    rows = []
    for (approach, runs), estimate in zip(study.items(), estimates, strict=True):
        rows.append(
            (
                NAMES[approach],
                spread([run.info["validation_loss"] for run in runs], 1, nats),
                spread([run.info["test_loss"] for run in runs], 1, nats),
                spread([run.info["test_accuracy"] for run in runs], 100, digits),
                f"{fixed(100 * estimate.low, digits)} to {fixed(100 * estimate.high, digits)}",
                _time(runs),
                f"{runs[0].info['trained_parameters']:,}",
            )
        )
    return Table(
        "tab-comparison",
        f"Both approaches at their selected epochs; n = {estimates[0].n}; 95 % intervals: {_methods(estimates)}.",
        ("approach", "validation loss, nats", "test loss, nats", "test accuracy, %", "95 % interval, %",
         "training, s", "trained parameters"),
        tuple(rows),
        "lrrrrrr",
    )  # fmt: skip


def published(evidence: Evidence, data_name: str) -> Table:
    """The published figures, as they were printed, beside those of every recipe here; theirs with the binomial
    interval that they lack."""
    rows, every = [], [runs for some in evidence.runs.values() for key, runs in some.items() if key in evidence.recipes]
    digits = _column([50 * (e.high - e.low) for e in map(accuracy_of, every)])
    nats = _column([errors_of(runs)[1] for runs in every])
    for approach, theirs in PUBLISHED.items():
        low, high = published_interval(approach)
        span = f"{100 * low:.1f} to {100 * high:.1f}"
        rows.append((NAMES[approach], "as published", "1", f"{100 * theirs['test_accuracy']:.2f}", span,
                     f"{theirs['test_loss']:.4f}", f"{theirs['train_seconds']:,.0f}"))  # fmt: skip
        for recipe in evidence.recipes:
            runs = evidence.runs[approach][recipe]
            ours = accuracy_of(runs)
            rows.append((NAMES[approach], f"here, {recipe}", str(ours.n),
                         spread([run.info["test_accuracy"] for run in runs], 100, digits),
                         f"{fixed(100 * ours.low, digits)} to {fixed(100 * ours.high, digits)}",
                         spread([reported_loss(run) for run in runs], 1, nats),
                         _time(runs)))  # fmt: skip
    run = evidence.main["linear_probe"][0]
    return Table(
        "tab-published",
        "Published against here. As published: CIFAR-10, ImageNet weights, best test epoch, one T4. Here: "
        f"{data_title(run, data_name)}, {run.info['weights']['name']}, {run.info['recipe']['image_size']} px, "
        f"{device_of([run for runs in evidence.main.values() for run in runs])}; mean ± standard deviation of n seeds, "
        f"intervals: {_methods([accuracy_of(runs) for runs in every])}. Losses here are those of the selected epoch "
        "on the test images; as published, and in the recipe published, of the last epoch.",
        ("approach", "recipe", "n", "test accuracy, %", "95 % interval, %", "loss, nats", "training, s"),
        tuple(rows),
        "llrrrrr",
    )


def cost(evidence: Evidence) -> Table:
    """What a run of each recipe costs, by quantity."""
    rows = []
    for approach in NAMES:
        for recipe in evidence.recipes:
            runs = evidence.runs[approach][recipe]
            info = runs[0].info
            passes = [_figures(info[f"{way}_flops"] / 1e6) for way in ("forward", "backward")]
            speed = (_time(runs), f"{images_per_second(runs):,.0f}")
            memory = f"{mean_of(runs, 'peak_memory_mib'):,.0f}"
            rows.append((NAMES[approach], recipe, f"{info['trained_parameters']:,}", *passes, *speed, memory))
    return Table(
        "tab-cost",
        "Cost of one run, with the number of trained "
        f"parameters{', mean ± standard deviation of the seeds' if len(runs) > 1 else ''}. Operations are those of "
        "one image once through the network, two for each multiply-add. Full fine-tuning needs both passes once an "
        "image and epoch. The linear probe needs its forward pass once an image; in the recipe published, with "
        "dropout in the trunk, its last layers once an image and epoch. Tuned fine-tuning contains the training of a "
        "probe.",
        ("approach", "recipe", "parameters", "forward, MFLOP", "backward, MFLOP", "training, s", "images/s",
         "memory, MiB"),
        tuple(rows),
        "llrrrrrr",
    )  # fmt: skip


def _figures(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


# --- what defects and labels change ----------------------------------------------------------------------------


def defects(evidence: Evidence) -> Table | Prose:
    """Each published defect, switched on alone in `corrected`, and what it does to the reported figures."""
    effects = defect_effects(evidence)
    if not effects:
        return Prose("This study has not switched the defects on one at a time (parameter `defects`).")
    rows = []
    for one in effects:
        between, digits = reach(*one["effect_ci95"])
        change = (signed(100 * one["effect"], digits), between)
        if one["same_images_right"]:
            digits, change = 1, ("0", "the same images right")
        rows.append((NAMES[one["approach"]], EFFECTS[one["defect"]], fixed(100 * one["test_accuracy"], digits), *change,
                     signed(one["loss_effect"], 3)))  # fmt: skip
    return Table(
        "tab-defects",
        "What each defect of the published listings changes, switched on alone in the recipe corrected: reported test "
        "accuracy, its paired difference, and the difference in the loss that selects (the test loss, where the test "
        f"images do); n = {' or '.join(map(str, sorted({one['n'] for one in effects})))}, 95 % intervals: "
        f"{either(one['effect_method'] for one in effects)}.",
        ("approach", "defect", "accuracy, %", "effect, points", "95 % interval", "loss, nats"),
        tuple(rows),
        "llrrrr",
    )


def budgets(evidence: Evidence) -> Table | Prose:
    """Accuracy of both approaches by number of labels, and their paired difference."""
    rows, changes = [], []
    for (labels, probe), (_, tuned) in zip(*budget_points(evidence).values(), strict=True):
        change = stats.paired_difference(right_of(probe), right_of(tuned))
        changes.append(change)
        between, digits = reach(change.low, change.high)
        accuracies = [spread([run.info["test_accuracy"] for run in runs], 100, digits) for runs in (probe, tuned)]
        batch = str(probe[0].info["recipe"]["batch_size"])
        rows.append((f"{labels:,.0f}", batch, str(len(probe)), *accuracies, signed(100 * change.mean, digits), between))
    if len(rows) == 1:
        return Prose("This study has not been run with fewer labels (parameter `budgets`).")
    recipe = evidence.best["linear_probe"][0].info["recipe"]
    return Table(
        "tab-budgets",
        f"Test accuracy by labelled images a class, {percent(recipe['val_fraction'], 0)} of which validate; recipe "
        f"{recipe['recipe']}, n seeds. With few labels the batch is smaller, so that an epoch has more than a "
        f"step or two. The difference is full fine-tuning minus linear probe, paired; intervals: {_methods(changes)}.",
        (
            "labels a class",
            "batch",
            "n",
            "linear probe, %",
            "full fine-tuning, %",
            "difference, points",
            "95 % interval",
        ),
        tuple(rows),
        "rrrrrrr",
    )


# --- where it all came from ------------------------------------------------------------------------------------


def provenance(evidence: Evidence) -> Table:
    """Where all runs came from: a row for each recipe of an approach, one for its defects and one for its budgets."""
    rows, devices = [], device_of([run for kinds in evidence.runs.values() for runs in kinds.values() for run in runs])
    for approach, kinds in evidence.runs.items():
        grouped: dict[str, list[Run]] = {}
        for what, some in kinds.items():
            grouped.setdefault(_row_of(what, kinds), []).extend(some)
        for what, runs in grouped.items():
            made = [run.info["provenance"] for run in runs]
            commits = ", ".join(sorted({(m["commit"] or "no repository")[:12] for m in made}))
            states = {_changes(m) for m in made}
            state = states.pop() if len(states) == 1 else " (some modified)"
            seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
            finished = max(m["finished"] for m in made)[:16]
            where = () if ";" not in devices else (device_of(runs),)
            rows.append((NAMES[approach], what, str(len(runs)), seeds, commits + state, *where, finished))
    return Table(
        "tab-provenance",
        "The runs behind this report, and the commit that made them"
        + ("" if where else f", all on {devices}")
        + "; results.json names each one’s record.",
        ("approach", "recipe", "runs", "seeds", "commit", *("device",) * len(where), "finished (UTC)"),
        tuple(rows),
        "llrlll" + "l" * len(where),
    )


def _row_of(what: str, kinds: Mapping[str, object]) -> str:
    """The row of the table of provenance that runs which show `what`, one of `kinds`, are in."""
    kind, _, _ = what.partition(":")
    if kind == "budget":
        return f"budgets {', '.join(name.partition(':')[2] for name in kinds if name.startswith('budget:'))}"
    return "each defect alone" if kind == "defect" else what


def _changes(made: dict) -> str:
    """What git said of changes to the commit that a run was made with."""
    if made["commit"] is None or made["dirty"] is False:
        return ""
    return " (modified)" if made["dirty"] else " (perhaps modified)"


def environment(study: Study) -> Table:
    """Versions, data fingerprint and weights hash of the presented runs, and what started the first of them."""
    runs = [run for some in study.values() for run in some]
    made, info = [run.info["provenance"] for run in runs], runs[0].info
    names = dict.fromkeys(name for one in made for name in one["packages"])
    rows = [("Python", _each([one["python"] for one in made]))]
    rows += [(name, _each([one["packages"].get(name, "none") for one in made])) for name in names]
    rows += [("data, sha256", info["data"]["fingerprint"]), ("weights, sha256", info["weights"]["sha256"] or "none")]
    rows += [("code, sha256", _each([one["code"] for one in made])), ("command of the first", command_of(runs[0]))]
    return Table("tab-environment", "What the presented runs were made with.", ("what", "value"), tuple(rows), "ll")


def _each(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))
