"""Runs -> tables. A column's decimals follow its median uncertainty."""

from collections.abc import Sequence

import numpy as np

from report_lib.config import APPROACHES
from report_lib.evidence import comparisons, costs, designs, measures
from report_lib.evidence.measures import accuracy, standard_errors, the
from report_lib.evidence.stats import Difference
from report_lib.page.numbers import (
    DIGITS,
    capital,
    decimals,
    fixed,
    in_seconds,
    methods,
    p_value,
    reach,
    signed,
    spread,
)
from report_lib.page.parts import Table, table
from report_lib.page.words import judge
from report_lib.runs import Run, Runs, Study

INTERVAL = "95 % interval"


def _column(uncertainties: Sequence[float]) -> int:
    """Decimals of a column whose values have these uncertainties: one that is small by luck does not set them."""
    return decimals(float(np.median(uncertainties)))


def _of(runs: Sequence[Run], name: str) -> list[float]:
    return [run.info[name] for run in runs]


def name_of(runs: Runs) -> str:
    return APPROACHES[runs[0].approach].name


def between(low: float, high: float) -> str:
    return f"{fixed(100 * low, DIGITS)} to {fixed(100 * high, DIGITS)}"


def accuracies(runs: Runs) -> str:
    """Test accuracy in percent, mean and deviation."""
    return spread(_of(runs, "test_accuracy"), 100, DIGITS)


def training_time(runs: Runs) -> str:
    """Training time; without a deviation where most of it is of features that were measured once."""
    spent = _of(runs, "train_seconds")
    return in_seconds([float(np.mean(spent))] if costs.features_shared(runs) else spent)


def change_of(difference: Difference | None, head: str = "difference, points") -> dict[str, str]:
    """Two cells: a paired difference in points under `head`, and its interval; blank where there is none."""
    if difference is None:
        return {head: "", INTERVAL: ""}
    span, digits = reach(difference.low, difference.high)
    return {head: signed(100 * difference.mean, digits), INTERVAL: span}


# --- one approach ----------------------------------------------------------------------------------------------


def test(runs: Runs) -> Table:
    """What each seed's selected epoch does on the test images."""
    nats, chosen = decimals(standard_errors(runs)[1]), judge(runs) == "validation"
    rows = [
        {"seed": str(run.seed), "epoch": str(run.info["selected_epoch"])}
        | ({"validation accuracy, %": fixed(100 * run.info["validation_accuracy"], DIGITS)} if chosen else {})
        | {
            "test accuracy, %": fixed(100 * run.info["test_accuracy"], DIGITS),
            "95 % interval, %": between(*measures.test_interval(run)),
            "test loss, nats": fixed(run.info["test_loss"], nats),
        }
        for run in runs
    ]
    return table(  # type: ignore[return-value]
        f"tab-test-{runs[0].approach.replace('_', '-')}",
        f"{capital(name_of(runs))}: the selected epoch on {runs[0].info['data']['test']:,} test images, with Wilson’s "
        "95 % interval.",
        rows,
        left=0,
    )


# --- the comparison --------------------------------------------------------------------------------------------


def comparison(study: Study) -> Table:
    """The approaches side by side, presented preset first, then the best, where that is another."""
    shown = measures.shown(study)
    nats = _column([standard_errors(runs)[1] for runs in shown])
    rows = [
        {
            "approach": name_of(runs),
            "preset": runs[0].preset,
            "n": str(len(runs)),
            "test accuracy, %": accuracies(runs),
            "95 % interval, %": between(accuracy(runs).low, accuracy(runs).high),
            "validation loss, nats": spread(_of(runs, "validation_loss"), 1, nats) * (judge(runs) == "validation"),
            "test loss, nats": spread(_of(runs, "test_loss"), 1, nats),
        }
        for runs in shown
    ]
    return table(  # type: ignore[return-value]
        "tab-comparison",
        "The approaches at their selected epochs, mean ± standard deviation of n seeds.",
        rows,
        [f"95 % intervals: {methods(map(accuracy, shown))}."],
    )


def discordant(study: Study) -> Table | None:
    """McNemar's counts of every preset, means over seeds; None for a single approach."""
    pairs = [pair for preset in study.presets for pair in comparisons(study.of(preset))]
    if not pairs:
        return None
    several = len(study.approaches) > 2
    first, second = the(pairs[0].a), "the other approach" if several else the(pairs[0].b)
    rows = []
    for pair in pairs:
        both, only_a, only_b, neither = (
            f"{np.mean([row[key] for row in pair.counts]):,.0f}" for key in ("both", "only_a", "only_b", "neither")
        )
        p = [row["p"] for row in pair.counts]
        test = {"McNemar’s test": p_value(p[0])}
        if len(p) > 1:
            sure = [np.sign(row["only_b"] - row["only_a"]) for row in pair.counts if row["p"] < 0.05]
            test = {"p < 0.05": f"{sure.count(1)} up, {sure.count(-1)} down, of {len(p)} seeds"}
        other = {"other approach": name_of(pair.b)} if several else {}
        counts = {"both": both, f"only {first}": only_a, f"only {second}": only_b, "neither": neither}
        rows.append({"preset": pair.a[0].preset} | other | counts | test)
    return table(
        "tab-discordant",
        "How many test images both approaches get right, only one of them, or neither"
        f"{', means of the seeds' * (len(p) > 1)}; and McNemar’s exact test.",
        rows,
        [f"{f'Up: {second} gets more images right. ' * (len(p) > 1)}McNemar’s test is about these very networks; the "
         "intervals of differences also cover new seeds."],
        "l" * (1 + several) + "rrrrl",
    )  # fmt: skip


def published(study: Study, published: dict) -> Table | None:
    """The homework report's figures, as printed, beside those of every preset here, with the binomial interval that
    they lack; None where the study is not the homework's."""
    if not study.is_homework:
        return None
    rows: list[dict[str, str]] = []
    for approach in study.approaches:
        if theirs := published.get(approach):
            rows.append(
                {
                    "approach": APPROACHES[approach].name,
                    "preset": "as published",
                    "n": "1",
                    "test accuracy, %": f"{100 * theirs['test_accuracy']:.2f}",
                    "95 % interval, %": between(*designs.published_interval(published, approach)),
                    "training, s": f"{theirs['train_seconds']:,.0f}",
                }
            )
        for runs in (r for r in study.of_presets if r[0].approach == approach):
            ours = accuracy(runs)
            rows.append(
                {
                    "approach": name_of(runs),
                    "preset": f"here, {runs[0].preset}",
                    "n": str(ours.n),
                    "test accuracy, %": accuracies(runs),
                    "95 % interval, %": between(ours.low, ours.high),
                    "training, s": training_time(runs),
                }
            )
    info = study.first.info
    return table(
        "tab-published",
        "The homework report’s figures, each of one run, beside ours, mean ± standard deviation of n seeds.",
        rows,
        ["Published: CIFAR-10, ImageNet weights, 224 px, the best test epoch, a T4; binomial interval. Its time of "
         "full fine-tuning includes the test images after each epoch; ours never does.",
         f"Here: {study.settings['data_name'] or info['data']['name']}, {info['weights']['name']}, "
         f"{info['config']['image_size']} px, {measures.device_of(study.all_runs)}; intervals: "
         f"{methods(map(accuracy, study.of_presets))}."],
    )  # fmt: skip


def calibration(study: Study) -> Table | None:
    """How sure the networks are, before and after temperature scaling; None where none held out images to fit it on."""
    found = {runs: numbers for runs in measures.shown(study) if (numbers := measures.calibration(runs))}
    nats = _column([standard_errors(runs)[1] for runs in found] or [1.0])
    rows = [
        {"approach": name_of(runs), "preset": runs[0].preset}
        | change_of(numbers["overconfidence"], "confidence − accuracy, points")
        | {
            "temperature": f"{numbers['temperature']:.2f}",
            "ECE, %": fixed(100 * numbers["ece"], DIGITS),
            "ECE scaled, %": fixed(100 * numbers["ece_scaled"], DIGITS),
            "loss, nats": fixed(numbers["test_loss"], nats),
            "loss scaled, nats": fixed(numbers["test_loss_scaled"], nats),
        }
        for runs, numbers in found.items()
    ]
    return table(
        "tab-calibration",
        "Mean confidence minus accuracy on the test images; expected calibration error (ECE) and loss as trained and "
        "with a temperature fitted on validation images; means over seeds.",
        rows,
        [f"95 % intervals: {methods(numbers['overconfidence'] for numbers in found.values())}."] if found else (),
    )


def cost(study: Study) -> Table:
    """What a run of each preset costs, by quantity."""
    rows, work = [], {}
    for runs in (study.runs(a, preset) for a in study.approaches for preset in study.presets):
        if runs:
            info, features = runs[0].info, measures.mean_of(runs, "features_seconds")
            forward, backward = (_figures(info[f"{name}_flops"] / 1e6) for name in ("forward", "backward"))
            work[name_of(runs)] = f"{info['trained_parameters']:,}, {forward} and {backward} MFLOP"
            rows.append(
                {
                    "approach": name_of(runs),
                    "preset": runs[0].preset,
                    "training, s": training_time(runs),
                    "features, s": in_seconds([features]) if features else "",
                    "images/s": f"{np.mean([costs.training_rate(run) for run in runs]):,.0f}",
                    "memory, MiB": f"{costs.peak_memory(runs):,.0f}",
                }
            )
    return table(  # type: ignore[return-value]
        "tab-cost",
        "Cost of one run, mean ± standard deviation of the seeds.",
        rows,
        ["Trained parameters, and operations for one image, forward and backward (a multiply-add is two): "
         + "; ".join(f"{name}, {what}" for name, what in work.items()) + ".",
         "Training: features and a probe to start from included, validation not; without deviation where several seeds "
         "share features. Images/s: of the training steps. Memory: the most of any seed."],
    )  # fmt: skip


def _figures(value: float) -> str:
    """Three significant figures, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.6f}"


# --- where it all came from ------------------------------------------------------------------------------------


def provenance(study: Study) -> Table:
    """Where all runs came from: a row for the runs of an approach that share their seeds, commit and device."""
    rows, devices = [], {measures.device_of((run,)) for run in study.all_runs}
    several = len(devices) > 1
    for approach in study.approaches:
        grouped = {preset: study.runs(approach, preset) for preset in study.presets}
        labels = ", ".join(map(str, study.side(approach, "budget")))
        names = {"defect": "defects", "step": "ladder", "control": "controls", "budget": f"budgets {labels}"}
        grouped |= {name: sum(study.side(approach, kind).values(), ()) for kind, name in names.items()}
        alike: dict[tuple, dict[str, Runs]] = {}
        for name, runs in grouped.items():
            origins = [run.info["provenance"] for run in runs]
            commits = dict.fromkeys((o["commit"] or "no repository")[:12] + _changes(o) for o in origins)
            seeds = sorted({run.seed for run in runs})
            if runs:
                row = (tuple(seeds), ", ".join(commits), measures.device_of(runs))
                alike.setdefault(row, {})[name] = runs
        for (seeds, commit, device), members in alike.items():
            every = sum(members.values(), ())
            whole = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
            rows.append(
                {
                    "approach": APPROACHES[approach].name,
                    "presets and others (runs)": ", ".join(f"{name} ({len(runs)})" for name, runs in members.items()),
                    "runs": str(len(every)),
                    "seeds": f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds)),
                    "commit": commit,
                }
                | ({"device": device} if several else {})
                | {"finished (UTC)": max(run.info["provenance"]["finished"] for run in every)[:16]}
            )
    return table(  # type: ignore[return-value]
        "tab-provenance",
        f"The runs behind this report, and the commit that made them{'' if several else f', all on {min(devices)}'}; "
        "results.json names each one’s record.",
        rows,
        left="llrlll" + "l" * several,
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
    told = {
        "Python": _each([each["python"] for each in origins]),
        "packages": "; ".join(f"{name} {_each([o['packages'].get(name, 'none') for o in origins])}" for name in names),
        "data, sha256": info["data"]["fingerprint"],
        "weights, sha256": info["weights"]["sha256"] or "none",
        "code, sha256": _each([each["code"] for each in origins]),
        "command of the first": measures.command_of(study.first),
    }
    rows = [{"what": what, "value": value} for what, value in told.items()]
    return table("tab-environment", "What the presented runs were made with.", rows)  # type: ignore[return-value]


def _each(values: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(values))
