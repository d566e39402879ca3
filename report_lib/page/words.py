"""Runs -> sentences. Every comparison is worded by its interval: what the numbers do not show is not said.

What a study has not run is not spoken of: such a function returns None, and its cell shows nothing. A notebook puts
sentences of its own together with `say`, `ahead`, `times` and the functions of `numbers`.
"""

import math
from collections.abc import Sequence

import numpy as np

from report_lib.data.folders import counted
from report_lib.evidence import Comparison, compare, comparisons, measures
from report_lib.evidence.measures import accuracy, mean_of, the
from report_lib.page.numbers import (
    by_seed,
    decimals,
    factor,
    fixed,
    interval,
    listed,
    percent,
    points,
    rate,
    reach,
    seconds,
    signed,
)
from report_lib.page.parts import Prose, text
from report_lib.runs import Run, Runs, Study


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _nats(runs: Runs, value: float) -> str:
    return f"{value:.{decimals(measures.standard_errors(runs)[1])}f}"


def _took(runs: Runs) -> str:
    """Training time, with its range where there are several seeds."""
    spent = [run.info["train_seconds"] for run in runs]
    return f"{seconds(float(np.mean(spent)))}{by_seed(seconds(min(spent)), seconds(max(spent)))}"


def _epoch_range(runs: Runs) -> str:
    """What tells how far times can be relied upon: a machine that does other work meanwhile has unequal epochs."""
    epochs = np.concatenate([run.epochs["train_seconds"] for run in runs])
    uneven = epochs.max() > max(1.0, 2 * np.median(epochs))
    return f"single epochs took {seconds(epochs.min())} to {seconds(epochs.max())}" if uneven else ""


# --- one approach ----------------------------------------------------------------------------------------------


def data(run: Run, data_name: str = "") -> Prose:
    """What the images are, what was left out or changed, how they were divided, and where the weights are from."""
    info, config, facts = run.info["data"], run.info["config"], run.info["data"]["facts"]
    size, (height, width), weights = config["image_size"], info["stored_size"], run.info["weights"]
    cited = " [@krizhevsky2009]" * measures.is_cifar10(run)
    origin = {"embedded": " [@le2015]", "imagenet": " [@deng2009]"}.get(config["weights"], "")
    untrained = ": the trunk knows nothing yet, which makes this run a control" * (weights["sha256"] is None)
    left_out = [text(counted(number, kind)) for kind, number in (facts.get("left_out") or {}).items() if number]
    return say(  # type: ignore[return-value]
        f"the data are {text(data_name or info['name'])}{cited}: {info['train']:,} training, {info['validation']:,} "
        f"validation and {info['test']:,} test images of {len(info['classes'])} classes, stored as {width} × {height} "
        f"pixels{f' and enlarged to {size} × {size} on the device' * ((height, width) != (size, size))}",
        f"left out: {listed(left_out)}" if left_out else "",
        f"test images that are exact copies of training images: {facts['copies']:,}" if facts.get("copies") else "",
        *(text(note.rstrip(".")) for note in facts.get("notes") or ()),
        f"the weights of {run.info['network']['name']} are {text(weights['name'])}{origin}{untrained}",
    )


def balance(training: np.ndarray, validation: np.ndarray, classes: Sequence[str]) -> Prose:
    """How the classes share the images that train and validate; the labels of both are integers (N,)."""
    train, held_out = (np.bincount(labels, minlength=len(classes)) for labels in (training, validation))
    most, least = int(train.max()), int(train.min())
    common, rare = (text(classes[int(at)]) for at in (train.argmax(), train.argmin()))
    sentences = [f"every class trains with {most:,} images"]
    if most > 1.5 * least:
        sentences = [
            f"the classes are not balanced: {common} trains with {most:,} images, {rare} with {least:,}",
            f"always naming {common} would be right on {percent(most / train.sum())} of the training images",
        ]
    elif most > least:
        sentences = [f"the classes are about equally common, with {least:,} to {most:,} training images each"]
    alone = [text(classes[int(at)]) for at in np.flatnonzero(held_out == 0)] if held_out.sum() else []
    if alone:
        names = ", ".join(alone[:3]) + ", ..." * (len(alone) > 3)
        have = "class has" if len(alone) == 1 else "classes have"
        sentences.append(f"{len(alone)} {have} too few images to hold one out ({names}), so validation says nothing of "
                         f"{'it' if len(alone) == 1 else 'them'}")  # fmt: skip
    return say(*sentences)  # type: ignore[return-value]


def settings(run: Run) -> Prose:
    """How a run trains, in its own values, and what a notebook has changed."""
    config = run.info["config"]
    steps = config["epochs"] * math.ceil(run.info["data"]["train"] / config["batch_size"])  # the last may be smaller
    rise = f"rises over the first {percent(config['warmup'], 0)} of the steps and " * (config["warmup"] > 0)
    falls = "" if config["schedule"] == "constant" else f", {rise}falls as a cosine"
    shift = round(config["shift"] * max(run.info["data"]["stored_size"]))
    return say(  # type: ignore[return-value]
        f"with the preset *{run.preset}* the learning rate, {config['learning_rate']:g}{falls or ', is constant'}",
        f"{_count(config['epochs'], 'epoch')} of batches of {config['batch_size']:,} make {steps:,} steps",
        f"weight decay is {config['weight_decay']:g}" * (config["weight_decay"] > 0),
        f"the pretrained layers learn at {config['trunk_rate']:g} times that rate" * (config["trunk_rate"] != 1),
        "features are standardised over the training images" * config["standardise"],
        "the head starts from one that was tuned on frozen features" * (config["start"] == "probe"),
        "training pictures are mirrored at random" * config["flip"],
        f"training pictures are shifted at random by up to {_count(shift, 'pixel')}" * (shift > 0),
        f"this notebook has changed the run: {text(run.info['modified'])}" if run.info["modified"] else "",
    )


def training(runs: Runs) -> Prose:
    """Where validation was best, and whether the end of training still helped it."""
    right, loss, train = (
        np.mean([run.epochs[name] for run in runs], axis=0)
        for name in ("validation_accuracy", "validation_loss", "train_loss")
    )
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"the mean of {len(runs)} seeds"
    best, lowest, last = int(right.argmax()), int(loss.argmin()), len(loss) - 1
    digits, epochs = decimals(100 * measures.standard_errors(runs)[0]), {run.info["selected_epoch"] for run in runs}
    trend = f"validation loss is lowest in epoch {lowest + 1} ({_nats(runs, loss[lowest])})"
    if lowest == last:
        trend = "validation loss is lowest in the last epoch, so more epochs might still help"
    elif loss[last] < 1.05 * loss[lowest]:
        trend += f" and about the same, {_nats(runs, loss[last])}, at the end"
    else:
        fell = f"while training loss fell from {_nats(runs, train[lowest])} to {_nats(runs, train[last])}"
        trend += f" and has risen to {_nats(runs, loss[last])} at the end, "
        trend += fell if train[last] < train[lowest] else "as has training loss: training is unstable"
    return Prose(
        f"Validation accuracy ({who}) peaks at {percent(right[best], digits)} in epoch {best + 1} of {last + 1}; "
        f"{trend}. Selected: epoch{'s' * (len(epochs) > 1)} {listed(map(str, sorted(epochs)))}."
    )


def test(runs: Runs) -> Prose:
    """Test accuracy with its interval, and how far validation was above it."""
    estimate, images = accuracy(runs), runs[0].info["data"]["test"]
    gaps = [gap for gap in map(measures.selection_gap, runs) if gap]
    if not gaps:
        return say(  # type: ignore[return-value]
            f"the best of all epochs on the {images:,} test images is right for {rate(estimate)} (n = {estimate.n})",
            "since the test images selected that epoch, this is no estimate for new images",
        )
    digits = decimals(50 * (estimate.high - estimate.low))
    varied = f", standard deviation {fixed(100 * estimate.sd, digits)} points" if estimate.sd is not None else ""
    mean, below = float(np.mean([gap.mean for gap in gaps])), sum(gap.mean < 0 for gap in gaps)
    verdict = f"{signed(100 * mean, digits)} points on average, and below zero for {below} of {len(gaps)} seeds"
    if len(gaps) == 1:
        verdict = f"{points(gaps[0])}: {'more' if gaps[0].clear else 'no more'} than the draw of the images explains"
    return Prose(
        f"On the {images:,} test images, read once and only for the selected epoch, {the(runs)} is right for "
        f"{rate(estimate)} (95 % interval {interval(estimate)}, {estimate.method}; n = {_count(estimate.n, 'seed')}"
        f"{varied}), with a loss of {_nats(runs, mean_of(runs, 'test_loss'))} nats per sample. Test minus "
        f"validation accuracy is {verdict}."
    )


def cost(runs: Runs) -> Prose:
    """Time, throughput and memory of one run."""
    info, features = runs[0].info, mean_of(runs, "features_seconds")
    parts = f"at {mean_of(runs, 'images_per_second'):,.0f} images per second"
    if features:
        parts = f"{seconds(features)} of it for the frozen features, computed once for all epochs and seeds"
    return say(  # type: ignore[return-value]
        f"training {_count(info['config']['epochs'], 'epoch')} took {_took(runs)} on {text(measures.device_of(runs))}, "
        f"{parts}",
        f"validation took another {seconds(mean_of(runs, 'validation_seconds'))}, and memory at most "
        f"{max(run.info['peak_memory_mib'] for run in runs):,.0f} MiB",
        _epoch_range(runs),
    )


def conclusion(runs: Runs) -> Prose:
    """What one approach alone has shown: its accuracy, and its best and weakest class."""
    classes, estimate, count = runs[0].classes, accuracy(runs), measures.confusion(runs)
    images = count.sum(1)
    recall, chance = count.diagonal() / images, float(images.max() / images.sum())
    best, worst = (
        f"{text(classes[at])} ({percent(recall[at])} of its test images)" for at in np.argsort(recall)[[-1, 0]]
    )
    unclear = f", not clearly more than the {percent(chance)} of always naming the commonest class"
    extremes = f"best at {best} and worst at {worst}" if recall.max() > recall.min() else "equally good at all classes"
    sentence = f"{the(runs)} is right for {rate(estimate)} of the test images{unclear * (estimate.low <= chance)}"
    return say(sentence, f"it is {extremes}")  # type: ignore[return-value]


# --- approaches compared ---------------------------------------------------------------------------------------


def say(*sentences: str) -> Prose | None:
    """Sentences of a notebook's own as one paragraph, each with a capital and a stop; None if there are none."""
    whole = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence]
    return Prose(" ".join(whole)) if whole else None


def ahead(pair: Comparison, b: str = "") -> str:
    """Which of two approaches is ahead in test accuracy, and by how much; `b` stands for the second one's name."""
    difference, a, b = pair.accuracy, the(pair.a), b or the(pair.b)
    if pair.same_images_right:
        return f"{b} and {a} get the same test images right"
    if not difference.clear:
        return f"no difference between {b} and {a} is shown ({points(difference)})"
    low, high = sorted(abs(bound) for bound in (difference.low, difference.high))
    digits = reach(low, high)[1]
    first, second = (b, a) if difference.mean > 0 else (a, b)
    between = f"{fixed(100 * low, digits)} to {fixed(100 * high, digits)}"
    return f"{first} is ahead of {second} by {fixed(100 * abs(difference.mean), digits)} points ({between})"


def times(pair: Comparison) -> str:
    """How long b trains beside a, such as "trains 31 times (20 to 44 by seed) as long"; nothing across devices."""
    if not pair.times:
        return ""
    longer = pair.times[0] >= 1
    mean, low, high = pair.times if longer else [1 / pair.times[at] for at in (0, 2, 1)]
    return f"trains {factor(mean)} times{by_seed(factor(low), factor(high))} as {'long' if longer else 'fast'}"


def _trade(pair: Comparison, b: str = "") -> str:
    verdict, price = ahead(pair, b), times(pair)
    if price and pair.accuracy.clear and pair.accuracy.mean > 0:
        return f"{verdict}, and {price}"
    return f"{verdict}; {b or the(pair.b)} {price}" if price else verdict


def recommended(study: Study) -> str:
    """Which approach to take for images like the study's, and the numbers that say so; nothing for a single one."""
    pairs = comparisons(study.best)
    if not pairs:
        return ""
    better = [pair for pair in pairs if pair.accuracy.clear and pair.accuracy.mean > 0]
    if better:
        best = max(better, key=lambda pair: pair.accuracy.mean)
        return f"take **{the(best.b)}** (preset *{best.b[0].preset}*): {_trade(best, 'it')}"
    # None is shown to be more accurate than the first: the cheapest of those that are as good.
    equal = [pairs[0].a, *(pair.b for pair in pairs if not pair.accuracy.clear and pair.times)]
    choice = min(equal, key=lambda runs: mean_of(runs, "train_seconds"))
    reasons = [_trade(compare(choice, runs)) for runs in study.best.values() if runs != choice]
    return f"take **{the(choice)}** (preset *{choice[0].preset}*): {'; '.join(reasons)}"


def abstract(study: Study) -> Prose:
    """The first page's summary: which data and weights, what was run, what came out, and what to use."""
    info, shown = study.first.info, list(study.of().values())
    config, used = info["config"], info["data"]["train"] + info["data"]["validation"]
    seeds = [str(run.seed) for run in shown[0]]
    labels = f"{config['per_class']:,} per class, {used:,} in all" if config["per_class"] else f"{used:,}"
    others = [f"*{name}*" for name in study.presets if name != study.presented]
    rates = [f"{the(runs)} gets {rate(accuracy(runs))} ({interval(accuracy(runs))})" for runs in shown]
    outcome = "; ".join([f"{listed(rates)} right", *map(ahead, comparisons(study.of()))])
    if tuned := [f"{the(runs)} {rate(accuracy(runs))}" for runs in study.best.values() if runs not in shown]:
        outcome += f". Tuned: {'; '.join([listed(tuned), *map(ahead, comparisons(study.best))])}"
    rate_given = study.settings["learning_rate"]
    lines = [
        f"**Data:** {text(study.settings['data_name'] or info['data']['name'])}; labelled images: {labels}.",
        f"**Network:** {info['network']['name']}; weights: {text(info['weights']['name'])}.",
        f"**Runs:** preset *{study.presented}*{f', beside it {listed(others)}' if others else ''}; "
        f"{_count(config['epochs'], 'epoch')}, {config['image_size']} × {config['image_size']} pixels, "
        f"seed{'s' * (len(seeds) > 1)} {listed(seeds)}; {len(study.all_runs)} runs in all, on "
        f"{text(measures.device_of(study.all_runs))}."
        + (f" The learning rate {rate_given:g} was given, in place of the presets’ own." if rate_given else ""),
        f"**Outcome:** of {info['data']['test']:,} test images {outcome}. Intervals are of 95 %.",
    ]
    if choice := recommended(study):
        lines.append(f"**For images like these,** {choice}.")
    return Prose("\n".join(f"- {line}" for line in lines))


def verdict(study: Study) -> Prose | None:
    """The trade-off of the presented preset and of the best, in quantities that were measured, and what to use."""
    pairs = dict.fromkeys([*comparisons(study.of()), *comparisons(study.best)])
    trades = [f"with the preset *{pair.b[0].preset}*, {_trade(pair)}" for pair in pairs]
    return say(*trades, f"for images like these, {recommended(study)}") if trades else None


def time(study: Study) -> Prose | None:
    """Training times as ratios, as measured and by operations alone."""
    sentences = []
    for pair in comparisons(study.of()):
        a, b = the(pair.a), the(pair.b)
        if not pair.times:
            where = text(measures.device_of(pair.a + pair.b))
            sentences.append(f"{a} and {b} trained on different devices ({where}), so their times are not compared")
            continue
        kept, anew = (measures.operations(pair.b[0], c) / measures.operations(pair.a[0], c) for c in (True, False))
        again = f", or {factor(anew)} in a loop that runs the frozen trunk again in every epoch" if anew != kept else ""
        sentences += [f"{b} {times(pair)} as {a}, {_took(pair.b)} against {_took(pair.a)} on the same device",
                      f"by operations alone the factor is {factor(kept)}{again}"]  # fmt: skip
    return say(*sentences)


# --- the homework report ---------------------------------------------------------------------------------------


def claims(study: Study, published: dict) -> Prose | None:
    """The homework report's three claims, and what became of each here; None where the study is not the homework's."""
    theirs = [approach for approach in study.approaches if approach in published][:2]
    if not study.is_homework or len(theirs) < 2:
        return None
    pairs = {preset: compare(*(runs[approach] for approach in theirs)) for preset in study.presets
             if set(theirs) <= (runs := study.of(preset)).keys()}  # fmt: skip
    shown = pairs[study.presented]
    a, b, labels, price = the(shown.a), the(shown.b), "; ".join(_leads(study)), times(shown)
    gap = measures.published_difference(published, *theirs)
    took = listed(seconds(published[approach]["train_seconds"]) for approach in theirs)
    lines = [
        f"**Accuracy: {b} gains {100 * gap.mean:.1f} points.** Two unseeded runs, each at its best test epoch, show "
        f"{'a' if gap.clear else 'no'} difference ({points(gap)}). Here: "
        f"{'; '.join(f'*{preset}*, {ahead(pair)}' for preset, pair in pairs.items())}.",
        f"**Time: both take the same** ({took}). That loop waits for its images, whatever it trains. "
        + (f"Here, preset *{study.presented}*, {b} {price} as {a}." if price else ""),
        f"**Scarcity: {a} is the choice where labels or compute are scarce.** "
        + (f"Labels: {labels}. " if labels else "")
        + (f"Compute: {b} {price}." if price else ""),
    ]
    lead = f"The homework report ({text(published['source'])}) makes three claims. What became of them:\n\n"
    return Prose(lead + "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)))


# --- what presets, defects and labels change -------------------------------------------------------------------


def defects(study: Study) -> Prose | None:
    """Which published defects change what is reported, and which cannot be said to."""
    effects = [each for each in measures.defect_effects(study) if each["defect"] != "all"]
    if not effects:
        return None
    sentences = []
    for verb, sign in (("raise", 1), ("lower", -1)):
        clear = [each for each in effects if each["effect"].clear and each["effect"].mean * sign > 0]
        names = [f"“{each['label']}” ({the(each['runs'])}, {points(each['effect'])})" for each in clear]
        sentences.append(f"what clearly {verb}s the reported accuracy: {'; '.join(names)}" if names
                         else f"no defect alone clearly {verb}s the reported accuracy")  # fmt: skip
    chance = fixed(0.05 * len(effects), 1)
    return say(*sentences, f"of {len(effects)} intervals of 95 %, {chance} would be expected to exclude zero by chance")


def _leads(study: Study) -> list[str]:
    """Which approach is ahead with how many labels, and where they cross; nothing without budgets."""
    curve, sentences = measures.budget_curve(study), []
    for at in range(1, len(study.approaches) if curve else 1):
        last, last_sign = "", 0
        for labels, runs in ((f"{labels:,.0f}", list(runs.values())) for labels, runs in curve):
            pair = compare(runs[0], runs[at])
            a, b, sign = the(pair.a), the(pair.b), int(pair.accuracy.clear * np.sign(pair.accuracy.mean))
            who = {1: f"{b} leads {a}", -1: f"{a} leads {b}", 0: f"neither {a} nor {b} leads"}[sign]
            sentences.append(f"with {labels} labels per class {who} ({points(pair.accuracy)})")
            if sign * last_sign < 0:
                sentences.append(f"they cross between {last} and {labels} labels per class")
            last, last_sign = (labels, sign) if sign else (last, last_sign)
    return sentences


def budgets(study: Study) -> Prose | None:
    """Which approach is ahead with how many labels, and where they cross."""
    return say(*_leads(study))


# --- what goes wrong -------------------------------------------------------------------------------------------


def classes(study: Study) -> Prose | None:
    """On which classes approaches differ, and where most."""
    sentences = []
    for pair in comparisons(study.of()):
        names, gains = pair.a[0].classes, [difference.mean for difference in pair.classes]
        most, least = int(np.argmax(gains)), int(np.argmin(gains))
        up, down = (sum(d.clear and d.mean * sign > 0 for d in pair.classes) for sign in (1, -1))
        b, a = the(pair.b), the(pair.a)
        sentences.append(f"of {len(names)} classes, {b} is clearly ahead of {a} on {up} and behind on {down}")
        if gains[most] > gains[least]:
            extremes = [f"{text(names[at])} ({points(pair.classes[at])})" for at in (most, least)]
            sentences.append(f"the extremes, {listed(extremes)}, would be less extreme in other runs")
    return say(*sentences)


def calibration(study: Study) -> Prose | None:
    """How sure the networks are against how right they are, before and after temperature scaling."""
    sentences = []
    for runs in study.of().values():
        if not (numbers := measures.calibration(runs)):
            continue
        over = numbers["overconfidence"]
        sure = "is too sure of itself" if over.mean > 0 else "is too modest"
        span = listed([f"{value:.2f}" for value in (min(numbers["temperatures"]), max(numbers["temperatures"]))], "to")
        before, after = (_nats(runs, numbers[name]) for name in ("test_loss", "test_loss_scaled"))
        sentences += [
            f"{the(runs)} {sure if over.clear else 'is not clearly miscalibrated'}: mean confidence minus accuracy is "
            f"{points(over)}",
            f"a temperature of {span}, fitted on validation images, takes its expected calibration error from "
            f"{percent(numbers['ece'])} to {percent(numbers['ece_scaled'])} and its loss from {before} to {after} nats",
        ]
    return say(*sentences)
