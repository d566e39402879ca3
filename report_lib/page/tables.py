"""Runs -> tables. A column's decimals follow its median uncertainty."""

from collections.abc import Sequence

import numpy as np

from report_lib.config import APPROACHES
from report_lib.evidence import compare, comparisons, measures
from report_lib.evidence.measures import accuracy, standard_errors, the
from report_lib.evidence.stats import Estimate
from report_lib.page.numbers import (
    capital,
    decimals,
    deviation,
    fixed,
    in_seconds,
    listed,
    methods,
    p_value,
    percent,
    reach,
    signed,
    spread,
)
from report_lib.page.parts import Table
from report_lib.runs import Run, Runs, Study


def _column(uncertainties: Sequence[float]) -> int:
    """Decimals of a column whose values have these uncertainties: one that is small by luck does not set them."""
    return decimals(float(np.median(uncertainties)))


def _percent_column(estimates: Sequence[Estimate]) -> int:
    return _column([50 * (e.high - e.low) for e in estimates])


def _of(runs: Sequence[Run], name: str) -> list[float]:
    return [run.info[name] for run in runs]


def _name(runs: Runs) -> str:
    return APPROACHES[runs[0].approach].name


def _between(low: float, high: float, digits: int) -> str:
    return f"{fixed(100 * low, digits)} to {fixed(100 * high, digits)}"


# --- one approach ----------------------------------------------------------------------------------------------


def epochs(runs: Runs) -> Table:
    """Losses and validation accuracy after each epoch, mean ± standard deviation over seeds."""
    (of_accuracy, of_loss), columns = standard_errors(runs), []
    for name, scale, error in (("train_loss", 1, of_loss), ("validation_loss", 1, of_loss),
                               ("validation_accuracy", 100, of_accuracy)):  # fmt: skip
        values = np.array([run.epochs[name] for run in runs]).T
        digits = _column([scale * (deviation(seeds) or 0 if len(runs) > 1 else error) for seeds in values])
        columns.append([spread(seeds, scale, digits) for seeds in values])
    selected = _of(runs, "selected_epoch")
    marks = ["•" * (epoch in selected) if len(runs) == 1 else str(selected.count(epoch) or "")
             for epoch in runs[0].epochs["epoch"]]  # fmt: skip
    return Table(
        f"tab-epochs-{runs[0].approach.replace('_', '-')}",
        f"{capital(_name(runs))}: training and validation after each epoch"
        + ("." if len(runs) == 1 else f", mean ± standard deviation of {len(runs)} seeds."),
        ("epoch", "training loss, nats", "validation loss, nats", "validation accuracy, %",
         "selected" if len(runs) == 1 else "selected by, seeds"),
        tuple(zip(map(str, runs[0].epochs["epoch"]), *columns, marks, strict=True)),
        "rrrrc",
    )  # fmt: skip


def test(runs: Runs) -> Table:
    """What each seed's selected epoch does on the test images."""
    digits, nats = (decimals(scale * error) for scale, error in zip((100, 1), standard_errors(runs), strict=True))
    rows = [
        (str(run.seed), str(run.info["selected_epoch"]), fixed(100 * run.info["validation_accuracy"], digits),
         fixed(100 * run.info["test_accuracy"], digits), _between(*measures.test_interval(run), digits),
         fixed(run.info["test_loss"], nats))
        for run in runs
    ]  # fmt: skip
    return Table(
        f"tab-test-{runs[0].approach.replace('_', '-')}",
        f"{capital(_name(runs))}: the selected epoch on {runs[0].info['data']['test']:,} test images; the 95 % "
        "interval is Wilson’s, over test images.",
        ("seed", "epoch", "validation accuracy, %", "test accuracy, %", "95 % interval, %", "test loss, nats"),
        tuple(rows),
        "rrrrrr",
    )


# --- the comparison --------------------------------------------------------------------------------------------


def comparison(study: Study) -> Table:
    """The approaches side by side, presented preset first, then the best, where that is another."""
    shown = [*study.of().values(), *(runs for a, runs in study.best.items() if runs != study.of().get(a))]
    digits, nats = _percent_column([accuracy(r) for r in shown]), _column([standard_errors(r)[1] for r in shown])
    rows = [
        (_name(runs), runs[0].preset, spread(_of(runs, "test_accuracy"), 100, digits),
         _between(accuracy(runs).low, accuracy(runs).high, digits), spread(_of(runs, "validation_loss"), 1, nats),
         spread(_of(runs, "test_loss"), 1, nats), f"{runs[0].info['trained_parameters']:,}")
        for runs in shown
    ]  # fmt: skip
    return Table(
        "tab-comparison",
        f"The approaches at their selected epochs, n = {listed((str(len(r)) for r in shown), 'or')}; 95 % intervals: "
        f"{methods(map(accuracy, shown))}.",
        ("approach", "preset", "test accuracy, %", "95 % interval, %", "validation loss, nats", "test loss, nats",
         "trained parameters"),
        tuple(rows),
        "llrrrrr",
    )  # fmt: skip


def discordant(study: Study) -> Table | None:
    """McNemar's counts of every preset, means over seeds; None for a single approach."""
    rows = []
    for pair in (pair for preset in study.presets for pair in comparisons(study.of(preset))):
        counts = [
            f"{np.mean([row[key] for row in pair.counts]):,.0f}" for key in ("both", "only_b", "only_a", "neither")
        ]
        p = [row["p"] for row in pair.counts]
        test = p_value(p[0]) if len(p) == 1 else f"p < 0.05 for {sum(value < 0.05 for value in p)} of {len(p)} seeds"
        rows.append((pair.a[0].preset, _name(pair.b), _name(pair.a), *counts, test))
    if not rows:
        return None
    return Table(
        "tab-discordant",
        f"Test images that both approaches, only one or neither get right{', means of the seeds' * (len(p) > 1)}, and "
        "McNemar’s exact test, which concerns these very networks; whether others would differ too, intervals say.",
        ("preset", "approach", "other", "both", "only the approach", "only the other", "neither", "McNemar’s test"),
        tuple(rows),
        "lllrrrrl",
    )


def published(study: Study, published: dict) -> Table | None:
    """The homework report's figures, as printed, beside those of every preset here, with the binomial interval that
    they lack; None where the study is not the homework's."""
    if not study.is_homework:
        return None
    every = [runs for preset in study.presets for runs in study.of(preset).values()]
    digits, rows = _percent_column([accuracy(runs) for runs in every]), []
    for approach in study.approaches:
        if theirs := published.get(approach):
            low, high = measures.published_interval(published, approach)
            rows.append((APPROACHES[approach].name, "as published", "1", f"{100 * theirs['test_accuracy']:.2f}",
                         f"{100 * low:.1f} to {100 * high:.1f}", f"{theirs['train_seconds']:,.0f}"))  # fmt: skip
        for runs in (r for r in every if r[0].approach == approach):
            ours = accuracy(runs)
            rows.append((_name(runs), f"here, {runs[0].preset}", str(ours.n),
                         spread(_of(runs, "test_accuracy"), 100, digits), _between(ours.low, ours.high, digits),
                         in_seconds(_of(runs, "train_seconds"))))  # fmt: skip
    info = study.first.info
    return Table(
        "tab-published",
        "As published: CIFAR-10, ImageNet weights, the best test epoch, one T4. Here: "
        f"{study.settings['data_name'] or info['data']['name']}, {info['weights']['name']}, "
        f"{info['config']['image_size']} px, {measures.device_of(study.all_runs)}; mean ± standard deviation of n "
        f"seeds, intervals: {methods(map(accuracy, every))}.",
        ("approach", "preset", "n", "test accuracy, %", "95 % interval, %", "training, s"),
        tuple(rows),
        "llrrrr",
    )


def cost(study: Study) -> Table:
    """What a run of each preset costs, by quantity."""
    rows, several = [], len(study.settings["seeds"]) > 1
    for runs in (study.runs(a, preset) for a in study.approaches for preset in study.presets):
        if runs:
            info, features = runs[0].info, measures.mean_of(runs, "features_seconds")
            passes = [_figures(info[f"{way}_flops"] / 1e6) for way in ("forward", "backward")]
            rows.append((_name(runs), runs[0].preset, f"{info['trained_parameters']:,}", *passes,
                         in_seconds(_of(runs, "train_seconds")), in_seconds([features]) if features else "",
                         f"{max(_of(runs, 'peak_memory_mib')):,.0f}"))  # fmt: skip
    return Table(
        "tab-cost",
        f"Cost of one run{', mean ± standard deviation of the seeds' if several else ''}. Operations are those of one "
        "image once through the network, two for each multiply-add. Frozen features are computed once, for all epochs "
        "and seeds; their time is contained in that of training, and so is that of a probe that a run starts from. "
        "Memory is the most that any seed took.",
        ("approach", "preset", "trained parameters", "forward, MFLOP", "backward, MFLOP", "training, s", "features, s",
         "memory, MiB"),
        tuple(rows),
        "llrrrrrr",
    )  # fmt: skip


def _figures(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


# --- what defects and labels change ----------------------------------------------------------------------------


def defects(study: Study) -> Table | None:
    """Each published defect, switched on alone in `corrected`, and what it does to the reported accuracy."""
    rows, effects = [], measures.defect_effects(study)
    for each in effects:
        effect, (between, digits) = each["effect"], reach(each["effect"].low, each["effect"].high)
        change = (signed(100 * effect.mean, digits), between)
        if each["same_images_right"]:
            digits, change = 1, ("0", "the same images right")
        reported = fixed(100 * measures.mean_of(each["runs"], "test_accuracy"), digits)
        rows.append((_name(each["runs"]), each["label"], reported, *change))
    if not rows:
        return None
    n = listed((str(len(each["runs"])) for each in effects), "or")
    return Table(
        "tab-defects",
        f"What each defect of the published listings changes, switched on alone in the preset corrected, n = {n}: "
        "reported test accuracy and its paired difference; 95 % intervals: "
        f"{methods(each['effect'] for each in effects)}. To select on the test images cannot lower what is "
        "reported, so its interval is cut at zero.",
        ("approach", "defect", "accuracy, %", "effect, points", "95 % interval"),
        tuple(rows),
        "llrrr",
    )


def budgets(study: Study) -> Table | None:
    """Accuracy of the approaches by number of labels, and their paired differences; None without budgets."""
    rows, differences = [], []
    for labels, runs in measures.budget_curve(study):
        pairs = [compare(runs[study.approaches[0]], other) for other in list(runs.values())[1:]]
        differences += [pair.accuracy for pair in pairs]
        spans = [reach(pair.accuracy.low, pair.accuracy.high) for pair in pairs]
        digits = spans[0][1] if spans else _percent_column([accuracy(r) for r in runs.values()])
        first = next(iter(runs.values()))
        rows.append((f"{labels:,.0f}", str(first[0].info["config"]["batch_size"]), str(len(first)),
                     *(spread(_of(r, "test_accuracy"), 100, digits) for r in runs.values()),
                     *(cell for pair, (between, places) in zip(pairs, spans, strict=True)
                       for cell in (signed(100 * pair.accuracy.mean, places), between))))  # fmt: skip
    if not rows:
        return None
    config, names = study.best[study.approaches[0]][0].info["config"], [APPROACHES[a].name for a in study.approaches]
    against = " to " + the(study.best[study.approaches[0]])
    heads = [head for name in names[1:] for head in (f"{name}, difference{against if len(names) > 2 else ''}, points",
                                                     "95 % interval")]  # fmt: skip
    return Table(
        "tab-budgets",
        f"Test accuracy by labelled images per class, {percent(config['val_fraction'], 0)} of which validate; preset "
        f"{config['preset']}, n seeds. With few labels the batch is smaller, so that an epoch has more than a step or "
        f"two. Differences{against} are paired; intervals: {methods(differences) if differences else 'none'}.",
        ("labels per class", "batch", "n", *(f"{name}, %" for name in names), *heads),
        tuple(rows),
        "r" * (3 + len(names) + len(heads)),
    )


# --- where it all came from ------------------------------------------------------------------------------------


def provenance(study: Study) -> Table:
    """Where all runs came from: a row for each preset of an approach, one for its defects and one for its budgets."""
    rows, devices = [], {measures.device_of((run,)) for run in study.all_runs}
    for approach in study.approaches:
        grouped = {preset: study.runs(approach, preset) for preset in study.presets}
        grouped["each defect alone"] = sum(study.defects(approach).values(), ())
        grouped[f"budgets {', '.join(map(str, study.budgets(approach)))}"] = sum(study.budgets(approach).values(), ())
        for name, runs in grouped.items():
            if not runs:
                continue
            origins = [run.info["provenance"] for run in runs]
            commits = dict.fromkeys((o["commit"] or "no repository")[:12] + _changes(o) for o in origins)
            where = (measures.device_of(runs),) if len(devices) > 1 else ()
            seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
            rows.append((APPROACHES[approach].name, name, str(len(runs)), seeds, ", ".join(commits), *where,
                         max(o["finished"] for o in origins)[:16]))  # fmt: skip
    several = len(devices) > 1
    return Table(
        "tab-provenance",
        f"The runs behind this report, and the commit that made them{'' if several else f', all on {min(devices)}'}; "
        "results.json names each one’s record.",
        ("approach", "preset", "runs", "seeds", "commit", *("device",) * several, "finished (UTC)"),
        tuple(rows),
        "llrlll" + "l" * several,
    )


def _changes(origin: dict) -> str:
    """What git said of changes to the commit that a run was made with."""
    if origin["commit"] is None or origin["dirty"] is False:
        return ""
    return " (modified)" if origin["dirty"] else " (perhaps modified)"


def environment(study: Study) -> Table:
    """Versions, data fingerprint and weights hash of the presented runs, and what started the first of them."""
    origins, info = [r.info["provenance"] for runs in study.of().values() for r in runs], study.first.info
    names = dict.fromkeys(name for each in origins for name in each["packages"])
    rows = [("Python", _each([each["python"] for each in origins]))]
    rows += [(name, _each([each["packages"].get(name, "none") for each in origins])) for name in names]
    rows += [("data, sha256", info["data"]["fingerprint"]), ("weights, sha256", info["weights"]["sha256"] or "none")]
    rows += [("code, sha256", _each([each["code"] for each in origins]))]
    rows += [("command of the first", measures.command_of(study.first))]
    return Table("tab-environment", "What the presented runs were made with.", ("what", "value"), tuple(rows), "ll")


def _each(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))
