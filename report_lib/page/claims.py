"""A study -> what it says of the homework report's claims: the first page, the conclusion, the limits."""

from collections.abc import Sequence

import numpy as np

from report_lib.config import APPROACHES, MEANINGS, Config
from report_lib.evidence import Comparison, compare, comparisons, costs, designs, measures
from report_lib.evidence.measures import accuracy, mean_of, the
from report_lib.page.findings import by_labels, decisive, led, not_ahead_with, worthwhile
from report_lib.page.numbers import by_seed, capital, factor, interval, listed, percent, points, rate, seconds
from report_lib.page.pairs import ahead, counted_on, more_images, times, trade, without_views, won
from report_lib.page.parts import Prose, text
from report_lib.page.words import count, say, took
from report_lib.runs import Run, Study


def recommended(study: Study) -> str:
    """Which approach to take for images like the study's, and up to how many labels not; nothing for a single one."""
    pairs = comparisons(study.best)
    if not pairs:
        return ""
    better = [pair for pair in pairs if pair.accuracy.clear and pair.accuracy.mean > 0]
    if better:
        choice = max(better, key=lambda pair: pair.accuracy.mean).b
    else:  # none is shown to be more accurate than the first: the cheapest of those that are as good
        equal = [pairs[0].a, *(pair.b for pair in pairs if not pair.accuracy.clear and pair.times)]
        choice = min(equal, key=lambda runs: mean_of(runs, "train_seconds"))
    info, level = study.first.info["data"], not_ahead_with(study, choice[0].approach)
    labels = (info["train"] + info["validation"]) / len(study.first.classes)
    fewer = f"; with {listed(level, 'or')} it is not shown to be ahead of {the(pairs[0].a)}" if level else ""
    dearer = any(pair.b == choice and pair.times and pair.times[0] > 1 for pair in pairs)
    where = " where accuracy counts for more than training time" * dearer
    return f"with {labels:,.0f} labels per class take **{the(choice)}** (preset *{choice[0].preset}*){where}{fewer}"


def abstract(study: Study) -> Prose:
    """The first page's summary: what came out, what to use, which data and weights, and what was run."""
    info, best = study.first.info, list(study.best.values())
    config, used = info["config"], info["data"]["train"] + info["data"]["validation"]
    fewer = "up to " * (used < config["per_class"] * len(study.first.classes))
    labels = f"{fewer}{config['per_class']:,} per class, {used:,} in all" if config["per_class"] else f"{used:,}"
    others = [f"*{name}*" for name in study.presets if name != study.presented]
    rate_given, counts = study.settings["learning_rate"], comparisons(study.best)
    alike = [counts[0].a, *(pair.b for pair in counts)] if counts else best  # runs of the seeds that all have
    rates = [f"{the(runs)} is right on {rate(accuracy(runs))} ({interval(accuracy(runs))})" for runs in alike]
    main = " (the main comparison)" * bool(counts)
    named = f"With the preset {listed(f'*{runs[0].preset}*' for runs in best)}{main}"
    same = f", on the {len(alike[0])} seeds that all approaches have" * (len({len(runs) for runs in best}) > 1)
    earlier = [f"with the preset *{pair.b[0].preset}*, {ahead(pair)}" for pair in counted_on(study)
               if pair not in counts]  # fmt: skip
    told = say(f"{named}, {listed(rates)} of the {info['data']['test']:,} test images{same}", *map(ahead, counts),
               *earlier, "all intervals are 95 % intervals")  # fmt: skip
    price = [", and ".join(filter(None, (f"with *{pair.b[0].preset}*, {the(pair.b)} {times(pair)} as {the(pair.a)}",
                                         without_views(study, pair)))) for pair in counts if pair.times]  # fmt: skip
    several = len(measures.budget_curve(study)) > 1
    each = "numbers of labels" if several else f"{used / len(study.first.classes):,.0f} labels per class"
    bound = f"this holds for these weights, images and {each} ([more](#limits-of-this-study))"
    meant = [f"*{name}* {MEANINGS[name]}" if name in MEANINGS else f"*{name}*" for name in study.presets]
    presented = f"The approach sections present *{study.presented}*."
    lines = [
        f"**Outcome.** {told.markdown if told else ''}",
        *([f"**Cost.** {cost.markdown}"] if (cost := say(*price)) else []),
        *([f"**For images like these,** {choice}."] if (choice := recommended(study)) else []),
        f"**Limits.** {capital(bound)}.",
        *([f"**Presets:** {'; '.join(meant)}. {presented}"] if others else []),
        f"**Data:** {text(study.settings['data_name'] or info['data']['name'])}; labelled images: {labels}.",
        f"**Network:** {info['network']['name']}; weights: {text(info['weights']['name'])}.",
        f"**Runs:** {f'preset *{study.presented}*; ' * (not others)}{_epochs(study)}, {config['image_size']} × "
        f"{config['image_size']} pixels, {_seeds(study)}; {len(study.all_runs)} runs in all, on "
        f"{text(measures.device_of(study.all_runs))}."
        + (f" The learning rate {rate_given:g} was given, in place of the presets’ own." if rate_given else ""),
    ]
    return Prose("\n".join(f"- {line}" for line in lines))


def _epochs(study: Study) -> str:
    """How many epochs the runs of all presets have."""
    least, *more = sorted({runs[0].info["config"]["epochs"] for runs in study.of_presets})
    return f"{least} to {more[-1]} epochs" if more else count(least, "epoch")


def _seeds(study: Study) -> str:
    """How many seeds each approach has, once where all have as many."""
    number = {the(runs): len(runs) for runs in study.of().values()}
    if len(set(number.values())) == 1:
        return count(len(study.runs(next(iter(study.of())))), "seed")
    return listed(f"{count(seeds, 'seed')} of {name}" for name, seeds in number.items())


def claims(study: Study, published: dict) -> Prose | None:
    """Three claims of the homework report, and what became of each here; None where the study is not the homework's."""
    if not (answers := _answers(study, published)):
        return None
    theirs = [approach for approach in study.approaches if approach in published][:2]
    a, b = (APPROACHES[approach].the for approach in theirs)
    gap = designs.published_difference(published, *theirs)
    took_there = listed(seconds(published[approach]["train_seconds"]) for approach in theirs)
    took_there += "".join(f"; in another place {seconds(elsewhere)}" for approach in theirs
                          if (elsewhere := published[approach].get("train_seconds_elsewhere")))  # fmt: skip
    heads = [
        f"**{capital(b)} gains {100 * gap.mean:.1f} points.** One unseeded run of each, at its best test epoch, "
        f"gives {points(gap)}, taken as unpaired, since its predictions were not published: "
        f"{'a' if gap.clear else 'no'} difference is shown.",
        f"**Both take about the same time** ({took_there}).",
        f"**{capital(a)} is of particular value where labels or compute are limited.** This was not tested there.",
    ]
    (_, accuracies), *others = answers  # who is ahead stands above
    told = [f"{heads[0]} {accuracies}", *(" ".join(part for part in (head, short, more) if part)
                                          for head, (short, more) in zip(heads[1:], others, strict=True))]  # fmt: skip
    lines = [f"{number}. {each}" for number, each in enumerate(told, 1)]
    return Prose(
        f"The homework report {published['source']} makes, among others, three claims. What became of them:\n\n"
        + "\n".join(lines)
    )


def _answers(study: Study, published: dict) -> list[tuple[str, str]] | None:
    """What this study says of accuracy, time and scarcity, each in short, and what more the first page says; None where
    it is not the homework's."""
    theirs = [approach for approach in study.approaches if approach in published][:2]
    if not study.is_homework or len(theirs) < 2:
        return None
    pairs = {preset: compare(*(runs[approach] for approach in theirs)) for preset in study.presets
             if set(theirs) <= (runs := study.of(preset)).keys()}  # fmt: skip
    best = compare(*(study.best[approach] for approach in theirs))
    shown, b = pairs.get(study.presented, best), the(best.b)
    each = "; ".join(f"*{preset}*{more_images(pair)}, {points(pair.accuracy)}{f', {won(pair)}' if won(pair) else ''}"
                     for preset, pair in pairs.items())  # fmt: skip
    kept, anew = costs.operations_ratios(shown.a, shown.b)
    spent = [published[approach]["train_seconds"] for approach in theirs]
    timed = [
        (factor(pair.times[0]), f" with *{preset}*{more_images(pair)}") for preset, pair in pairs.items() if pair.times
    ]
    long = listed(f"{ratio} times{f' as long to train as {the(best.a)}' * (n == 0)}{preset}"
                  for n, (ratio, preset) in enumerate(timed)) if timed else ""  # fmt: skip
    kept_or_not = f", and {factor(kept)} times where frozen features are kept" if kept and kept != anew else ""
    work = (
        f"Counted in operations, preset *{study.presented}*, {b} takes {factor(anew)} times as much in a loop that "
        f"runs the frozen trunk in every epoch{kept_or_not}. The two times measured there differ by "
        f"{percent(abs(spent[1] / spent[0] - 1))}: waiting for images may be why, which was not tested."
    )
    labels = led(study, theirs)
    scarce = f" {capital(where_scarce(study, theirs))}."
    return [
        (f"In the main comparison, {ahead(best)}.", f"{capital(b)} minus {the(best.a)}: {each}."),
        (f"{capital(b)} takes {long}." if timed else "", work),
        (f"Labels: {labels}.{scarce}" if labels else "", f"Compute: {overtakes(best)}." if best.times else ""),
    ]


def where_scarce(study: Study, approaches: Sequence[str]) -> str:
    """What becomes of the claim that the first approach is the choice where labels are scarce."""
    leads = [labels for labels, sign, _ in by_labels(study, *approaches) if sign < 0]
    first = APPROACHES[approaches[0]].the
    if leads:
        return f"so with {listed(leads)} labels per class {first} is the more accurate one"
    return f"so with few labels {first} is nowhere shown to be the more accurate one; its cost speaks for it"


def overtakes(pair: Comparison) -> str:
    """When the second approach has the validation accuracy that the first one selects."""
    target, a, b = costs.selected_accuracy(pair.a), the(pair.a), the(pair.b)
    sentence = (f"with *{pair.a[0].preset}*, {a} is done after {took(pair.a)} and then right on {percent(target)} of "
                "the validation images")  # fmt: skip
    passed = costs.reached(pair.b, target)
    found = passed.of_those_that_do
    if not found:
        return f"{sentence}; {b} does not reach that{' with any seed' * (len(passed.seconds) > 1)}"
    when, span = float(np.median(found)), by_seed(seconds(min(found)), seconds(max(found)))
    middle = "a median of " * (len(found) > 1)
    planned = count(pair.b[0].info["config"]["epochs"], "epoch")
    sentence += f"; {b}, planned for {planned}, passes that after {middle}{seconds(when)}{span}"
    if len(found) < len(passed.seconds):
        return f"{sentence}, with {len(found)} of {len(passed.seconds)} seeds"
    return f"{sentence}{', and so is ahead whatever the time' * (when <= mean_of(pair.a, 'train_seconds'))}"


def verdict(study: Study, published: dict | None = None) -> Prose | None:
    """The conclusion: three claims, or else the trade-offs; which step, which control helps; what to use."""
    pairs = counted_on(study)
    if not pairs:
        return None
    if answers := published and _answers(study, published):
        on = zip(("Accuracy", "Time", "Scarcity"), answers, strict=True)
        lines = [f"{number}. *{subject}.* {short}" for number, (subject, (short, _)) in enumerate(on, 1) if short]
        first = f"As to these claims of the homework report {published['source']}:\n\n" + "\n".join(lines)
    else:
        first = say(*(f"with the preset *{pair.b[0].preset}*, {trade(pair)}" for pair in pairs)).markdown  # type: ignore
    more = [*decisive(study), *worthwhile(study), f"for images like these, {recommended(study)}"]
    return Prose(f"{first}\n\n{say(*more).markdown}")  # type: ignore[union-attr]


def limits(study: Study, known: Sequence[str] = (), cards: dict | None = None) -> Prose:
    """What the study's own facts leave open; `known` is what others found out about the data, `cards` what the cards of
    weights say, by sha256."""
    run, name = study.first, study.settings["data_name"] or study.first.info["data"]["name"]
    device = text(measures.device_of(study.all_runs))
    info, config, weights = run.info["data"], run.info["config"], run.info["weights"]
    used, size, usual = info["train"] + info["validation"], config["image_size"], Config.image_size
    again = "; they were compressed anew, so no accuracy here compares with one on the original files"
    memorised = f"of those training images {used:,} are used here, so fewer test images have such a duplicate"
    parts = {
        "Weights": (
            f"they are {text(weights['name'])}; with others another approach may be ahead",
            (cards or {}).get(weights["sha256"], ""),
        ),
        "Images and labels": (
            f"the images are {text(name)}{again * ('jpeg' in name.lower())}",
            f"the network sees them at {size} × {size} pixels, and not at the {usual} × {usual} that it was made for"
            * (size < usual),
            f"{used / len(run.classes):,.0f} labelled images per class are used, those that validate included",
            *known,
            memorised if known and config["per_class"] else "",
        ),
        "Intervals": (
            f"every accuracy is measured on the same {info['test']:,} test images; the intervals cover others drawn "
            "alike, not pictures of another origin",
            f"a seed draws {_drawn_by_seed(run)}; the pretrained weights are the same for all",
        ),
        "Times": (f"they are those of {device}, and on another device their ratios will differ",),
    }
    return Prose("\n".join(f"- **{name}.** {say(*told).markdown}" for name, told in parts.items()))  # type: ignore


def _drawn_by_seed(run: Run) -> str:
    few = ["the labelled images"] * (run.info["config"]["per_class"] > 0)
    drawn = ["which of them validate", "the new head", "the order of the images", "how they are moved", "dropout"]
    return listed([*few, *drawn])
