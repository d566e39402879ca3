"""Records -> sentences: each approach, and the comparison. Imports no torch.

Every comparison is worded by its interval: what the numbers do not show is not said.
"""

import math
from collections.abc import Sequence

import numpy as np

from report_lib.document import Prose, text
from report_lib.formats import decimals, fixed, interval, p_value, percent, rate, reach, seconds, signed, spread
from report_lib.measures import (
    NAMES,
    PUBLISHED_TEST_IMAGES,
    Study,
    accuracy_of,
    compare,
    confusion_of,
    data_title,
    device_of,
    disturbed,
    errors_of,
    images_per_second,
    is_cifar10,
    kept_promise,
    mean_of,
    published_difference,
    recall_of,
    seconds_of,
    the,
    training_seconds,
)
from report_lib.plan import Evidence
from report_lib.recipe import named
from report_lib.records import Run


def _decimals(runs: Sequence[Run]) -> tuple[int, int]:
    """Decimals that the draw of images leaves meaningful, of an accuracy in percent and of a loss in nats."""
    accuracy, loss = errors_of(runs)
    return decimals(100 * accuracy), decimals(loss)


def _points(numbers: dict) -> str:
    """How far apart the two approaches are, in percentage points."""
    difference = numbers["accuracy_difference"]
    return fixed(100 * abs(difference["mean"]), reach(*difference["ci95"])[1])


def data(run: Run, data_name: str) -> Prose:
    """What the images are and how they were divided."""
    data, size = run.info["data"], run.info["recipe"]["image_size"]
    height, width = data["stored_size"]
    enlarged = f", and enlarged to {size} × {size} on the device" if (height, width) != (size, size) else ""
    pretrained = run.info["weights"]["sha256"] is not None
    source = " [@krizhevsky2009]" if is_cifar10(run) else ""
    origin = {"embedded": " [@le2015]", "imagenet": " [@deng2009]"}.get(run.info["recipe"]["weights"], "")
    return Prose(
        f"The data are {text(data_title(run, data_name))}: {data['train']:,} training, {data['validation']:,} "
        f"validation and {data['test']:,} test images of {len(data['classes'])} classes, stored as {width} × {height} "
        f"pixels{enlarged}{source}. The weights are {text(run.info['weights']['name'])}{origin}"
        + ("." if pretrained else ": the trunk knows nothing yet, which makes this run a control.")
    )


def balance(training: np.ndarray, validation: np.ndarray, classes: Sequence[str]) -> Prose:
    """How the classes share the images that train and validate; the labels of both are integers (N,)."""
    train, held_out = (np.bincount(labels, minlength=len(classes)) for labels in (training, validation))
    most, least = int(train.argmax()), int(train.argmin())
    if train[most] <= 1.5 * train[least]:
        said = "The classes are about equally common: "
        said += f"each trains with {train[most]:,} images" if train[most] == train[least] else (
            f"each trains with {train[least]:,} to {train[most]:,} images"
        )  # fmt: skip
    else:
        said = (
            f"The classes are not balanced: {text(classes[most])} trains with {train[most]:,} images, "
            f"{text(classes[least])} with {train[least]:,}. A network that always named {text(classes[most])} would be "
            f"right on {percent(float(train[most] / train.sum()))} of the training images"
        )
    alone = np.flatnonzero(held_out == 0)
    if held_out.sum() and len(alone):
        shown = ", ".join(text(classes[at]) for at in alone[:3]) + ", ..." * (len(alone) > 3)
        are = "class has" if len(alone) == 1 else "classes have"
        said += f". {len(alone)} {are} too few images to hold one out ({shown}), so validation says nothing of them"
    return Prose(said + ".")


def training(runs: Sequence[Run]) -> Prose:
    """Where validation was best, and whether the end of training still helped it."""
    accuracy, loss, train = (
        np.mean([run.epochs[name] for run in runs], axis=0)
        for name in ("validation_accuracy", "validation_loss", "train_loss")
    )
    who = f"seed {runs[0].seed}" if len(runs) == 1 else f"the mean of {len(runs)} seeds"
    digits, nats = _decimals(runs)
    best, lowest, last = int(accuracy.argmax()), int(loss.argmin()), len(loss) - 1
    peak = f"Validation accuracy ({who}) peaks at {percent(accuracy[best], digits)} in epoch {best + 1} of {last + 1}"
    at = f"validation loss is lowest in epoch {lowest + 1} ({loss[lowest]:.{nats}f})"
    if lowest == last:
        trend = "validation loss is lowest in the last epoch, so more epochs might still help"
    elif loss[last] < 1.05 * loss[lowest]:
        trend = f"{at} and about the same, {loss[last]:.{nats}f}, at the end"
    elif train[last] < train[lowest] and best < last:
        trend = (
            f"{at} and has risen to {loss[last]:.{nats}f} at the end, while training loss fell from "
            f"{train[lowest]:.{nats}f} to {train[last]:.{nats}f}: what is learned after epoch {lowest + 1} does not "
            "carry over to other pictures"
        )
    elif train[last] < train[lowest]:
        trend = f"{at} and has risen to {loss[last]:.{nats}f} at the end: the network grows surer of its mistakes"
    else:
        trend = f"{at} and has risen to {loss[last]:.{nats}f} at the end, as has training loss: training is unstable"
    return Prose(f"{peak}; {trend}.")


def test(runs: Sequence[Run]) -> Prose:
    """Test accuracy with its interval, against what validation promised."""
    estimate, images = accuracy_of(runs), runs[0].info["data"]["test"]
    slug = runs[0].approach.replace("_", "-")
    digits, nats = decimals(50 * (estimate.high - estimate.low)), _decimals(runs)[1]
    if runs[0].info["selected_on"] == "test":
        return Prose(
            f"The best of all epochs on the {images:,} test images is right for {rate(estimate)} (n = "
            f"{estimate.n}). Since the test images selected that epoch, this is no estimate for new images."
        )
    promised = mean_of(runs, "validation_accuracy")
    change = kept_promise(runs)
    low, high = change.low, change.high
    if low <= 0 <= high:
        verdict = "no more than the draw of images explains, so selection has not visibly flattered the model"
    elif change.mean < 0:
        verdict = (
            "more than the draw of images explains: selection has flattered the model, or the test images are harder"
        )
    else:
        verdict = "more than the draw of images explains: the test images are easier than those held out"
    between, points = reach(low, high)
    varied = f", standard deviation {fixed(100 * estimate.sd, digits)} points" if estimate.sd is not None else ""
    return Prose(
        f"On the {images:,} test images, read once and only for the selected epoch, {the(runs)} is right "
        f"for {rate(estimate)} (95 % interval {interval(estimate.low, estimate.high, digits)}, "
        f"{estimate.method}; n = {estimate.n} seed{'s' * (estimate.n > 1)}{varied}), with a loss of "
        f"{mean_of(runs, 'test_loss'):.{nats}f} nats per sample. Validation had promised {percent(promised, digits)}; "
        f"the difference, {signed(100 * change.mean, points)} points (95 % interval {between}), is {verdict}. "
        f"[Table](#tab-test-{slug}) has every seed, [Figure](#fig-confusion-{slug}) what is taken for what."
    )


def settings(run: Run) -> Prose:
    """How the presented recipe trains, in its own values."""
    recipe, data = run.info["recipe"], run.info["data"]
    steps = recipe["epochs"] * math.ceil(data["train"] / recipe["batch_size"])  # the last batch may be smaller
    return Prose(
        f"Here that means a learning rate of {recipe['learning_rate']:g}, the same all along, for {recipe['epochs']} "
        f"epochs of batches of {recipe['batch_size']:,}, which makes {steps:,} steps."
    )


def cost(runs: Sequence[Run]) -> Prose:
    """Time, throughput, memory and trained parameters of one run, averaged over seeds."""
    info = runs[0].info
    parts = ""
    if features := mean_of(runs, "features_seconds"):
        parts = f", {seconds(features)} of it for the frozen features, which are computed once"
    share = 100 * info["trained_parameters"] / info["parameters"]
    mean = " on average" if len(runs) > 1 else ""
    return Prose(
        f"Training {info['recipe']['epochs']} epochs took {took(runs)}{mean}{parts} "
        f"({images_per_second(runs):,.0f} images per second; validation another "
        f"{seconds(mean_of(runs, 'validation_seconds'))}) on {text(device_of(runs))}, "
        f"with at most {max(run.info['peak_memory_mib'] for run in runs):,.0f} MiB of memory. "
        f"It trains {info['trained_parameters']:,} of {info['parameters']:,} parameters ({share:.3g} %).{rough(runs)}"
    )


def took(runs: Sequence[Run]) -> str:
    """Training time, with the standard deviation between seeds where there are several."""
    mean, deviation = training_seconds(runs)
    if deviation is None or mean >= 3600:
        return seconds(mean)
    return f"{spread([seconds_of(run) for run in runs], 1, decimals(deviation))}\N{NO-BREAK SPACE}s"


def rough(*several: Sequence[Run]) -> str:
    """The caveat that times need which were taken beside other work."""
    if not any(map(disturbed, several)):
        return ""
    return (
        " The machine did other work meanwhile, which these times show: the same training took unequal times. They are "
        "rough, and rather too long than too short."
    )


def conclusion(runs: Sequence[Run]) -> Prose:
    """What one approach alone has shown: how far above guessing it is, and its weakest class."""
    classes, recall, estimate = runs[0].classes, recall_of(runs), accuracy_of(runs)
    images = confusion_of(runs).sum(1)
    chance = float(images.max() / images.sum())
    verdict = "well above" if estimate.low > 2 * chance else "above" if estimate.low > chance else "not clearly above"
    best, worst = int(np.argmax(recall)), int(np.argmin(recall))
    spread = "It recognises every class equally well."
    if recall[best] > recall[worst]:
        spread = (
            f"It is best at {text(classes[best])} ({percent(recall[best])} of its test images) and worst at "
            f"{text(classes[worst])} ({percent(recall[worst])})."
        )
    return Prose(
        f"With {rate(estimate)}, {the(runs)} is {verdict} the {percent(chance)} of always naming "
        f"the commonest class. {spread}"
    )


def difference(study: Study) -> Prose:
    """Which approach is more accurate, if either can be called so."""
    numbers = compare(study)
    found, tests = numbers["accuracy_difference"], numbers["mcnemar"]
    diff, (low, high) = found["mean"], found["ci95"]
    between, digits = reach(low, high)
    n = len(tests)
    points = f"{signed(100 * diff, digits)} percentage points (95 % interval {between}"
    where = f"full fine-tuning minus linear probe is {points}, {numbers['ci95_method']}; n = {n})"
    clear = numbers["accuracy_difference_is_clear"]
    if not any(t["only_full_finetune"] + t["only_linear_probe"] for t in tests):
        return Prose("No difference in test accuracy can be claimed: both get the same test images right.")
    if not clear:
        verdict = f"No difference in test accuracy can be claimed: {where}."
    elif diff > 0:
        verdict = f"Full fine-tuning is more accurate than the linear probe: {where}."
    else:
        verdict = f"The linear probe is more accurate than full fine-tuning: {where}."
    listed = "; ".join(
        f"seed {t['seed']}: {t['only_full_finetune']:,} test images only fine-tuning gets right, "
        f"{t['only_linear_probe']:,} only the probe, {p_value(t['p'])}"
        for t in tests
    )
    said = f"{verdict} McNemar's exact test on the images where they disagree says: {listed}."
    if not clear and any(t["p"] < 0.05 for t in tests) and n > 1:
        said += (
            " That test asks whether these very networks differ on such images, the interval whether other seeds would "
            f"again: {n} seeds are too few to say so."
        )
    if n > 1:
        drawn = reach(*found["bootstrap_ci95"])[0]
        chance = numbers["chance_that_one_fine_tuning_run_beats_one_probe"]
        wins = chance * n * n
        said += (
            f" Fine-tuning has the higher test accuracy in {wins:g} of the {n * n} pairs of one fine-tuned run and one "
            f"probe (ties count half). A bootstrap that draws seeds and images again gives {drawn} points"
            + (", which is too narrow with so few seeds." if n < 10 else ".")
        )
    return Prose(said)


def loss(study: Study) -> Prose:
    """Validation losses, and the paired difference in test loss."""
    numbers = compare(study)["loss_difference"]
    low, high = numbers["ci95"]
    lower = "full fine-tuning" if numbers["mean"] < 0 else "the linear probe"
    claim = f"lower for {lower}" if low > 0 or high < 0 else "not distinguishable"
    between, digits = reach(low, high, 1)
    at = {a: f"{mean_of(runs, 'validation_loss'):.{_decimals(runs)[1]}f}" for a, runs in study.items()}
    return Prose(
        f"At the selected epochs the validation loss is {at['linear_probe']} for the linear probe and "
        f"{at['full_finetune']} for full fine-tuning. On the test images the loss is {claim}: fine-tuning minus probe "
        f"is {signed(numbers['mean'], digits)} nats (95 % interval {between}). [Figure](#fig-validation-loss) follows "
        "the validation loss through training."
    )


def time(study: Study) -> Prose:
    """Training time of both, as a ratio."""
    probe, tuned = (study[approach] for approach in NAMES)
    ratio = training_seconds(tuned)[0] / training_seconds(probe)[0]
    longer = "Full fine-tuning" if ratio >= 1 else "The linear probe"
    devices = {device_of([run]) for runs in study.values() for run in runs}
    same = "on the same device" if len(devices) == 1 else f"on different devices ({text('; '.join(sorted(devices)))})"
    said = (
        f"{longer} took {times(study)} as long to train ({took(probe)} for the probe, {took(tuned)} for fine-tuning, "
        f"{same})"
    )
    if len(devices) > 1:
        return Prose(f"{said}, so the times say little about the approaches.")
    return Prose(
        f"{said}. The frozen trunk needs one forward pass over the images in all, full fine-tuning a forward and a "
        "backward pass in every epoch. An epoch is counted as long as the median one, so that a pause of the machine "
        f"in one of them makes no difference.{rough(probe, tuned)} [Figure](#fig-accuracy-time) sets accuracy against "
        "time for every recipe."
    )


def times(study: Study) -> str:
    """How many times as long the slower approach trained, "about" where seeds differ much."""
    pairs = zip(*([seconds_of(run) for run in study[approach]] for approach in NAMES), strict=True)
    ratio = training_seconds(study["full_finetune"])[0] / training_seconds(study["linear_probe"])[0]
    factors = [tuned / probe if ratio >= 1 else probe / tuned for probe, tuned in pairs]
    factor = max(ratio, 1 / ratio)
    varied = float(np.std(factors, ddof=1)) if len(factors) > 1 else 0.1 * factor
    about = "about " if any(map(disturbed, study.values())) else ""
    return f"{about}{fixed(factor, min(1, decimals(varied)))} times"


def published(evidence: Evidence) -> Prose:
    """Whether the published difference is one, and whether ours may be compared with it."""
    gap = published_difference()
    between = reach(gap.low, gap.high)[0]
    run = evidence.main["linear_probe"][0].info
    as_published = {"data": "cifar10", "weights": "imagenet", "image_size": 224, "epochs": 10, "batch_size": 128,
                    "learning_rate": 0.001, "val_fraction": 0.2, "per_class": 0}  # fmt: skip
    words = {"image_size": "image size", "batch_size": "batch", "learning_rate": "learning rate",
             "val_fraction": "share held out", "per_class": "number of labelled images"}  # fmt: skip
    differs = [words.get(name, name) for name, value in as_published.items() if run["recipe"][name] != value]
    return Prose(
        f"The published approaches differ by {100 * gap.mean:.2f} percentage points; as two independent proportions of "
        f"{PUBLISHED_TEST_IMAGES:,} images (95 % interval {between}) "
        + ("they differ" if gap.clear else "no difference can be claimed")
        + ". Each is one unseeded run, chosen by its test accuracy. "
        + (
            f"More differs here than the approach ({', '.join(differs)}), so the published rows and ours stand side by "
            "side and are not to be compared with each other; within one source they are."
            if differs
            else "Data, weights, image size, epochs, batch and learning rate are the same here, so the rows of the "
            "recipe published may be compared with them; the other recipes also select differently."
        )
    )


def abstract(evidence: Evidence, data_name: str) -> Prose:
    """The first page's summary: which data, which weights, what was run, what came out."""
    study = evidence.main
    run = study["linear_probe"][0]
    recipe, size = run.info["recipe"], run.info["recipe"]["image_size"]
    seeds = [str(run.seed) for run in study["linear_probe"]]
    listed = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(seeds)})"
    rates = {}
    for approach, runs in study.items():
        estimate = accuracy_of(runs)
        digits = decimals(50 * (estimate.high - estimate.low))
        rates[approach] = f"{rate(estimate)} ({interval(estimate.low, estimate.high, digits)})"
    others = [name for name in evidence.recipes if name != recipe["recipe"]]
    also = f", beside it {' and '.join(f'*{name}*' for name in others)}" if others else ""
    labelled = ""
    if recipe["per_class"]:
        used = run.info["data"]["train"] + run.info["data"]["validation"]
        labelled = f"; {recipe['per_class']:,} labelled images of each class are used, {used:,} in all"
    count = sum(len(runs) for kinds in evidence.runs.values() for runs in kinds.values())
    devices = text(device_of([run for runs in study.values() for run in runs]))
    best = ""
    if "tuned" in others:
        tuned = [f"{rate(accuracy_of(runs))}" for runs in evidence.of("tuned").values()]
        best = f" With the recipe *tuned* they reach {tuned[0]} and {tuned[1]}; {_ahead(evidence.of('tuned'))}."
    return Prose(
        f"- **Data:** {text(data_title(run, data_name))}{labelled}.\n"
        f"- **Weights:** {text(run.info['weights']['name'])}.\n"
        f"- **Run:** recipe *{recipe['recipe']}*, which is the published text done right{also}; {recipe['epochs']} "
        f"epochs, {size} × {size} pixels, {listed}, on {devices}; {count} runs in all.{overridden(evidence)}\n"
        f"- **Outcome:** of {run.info['data']['test']:,} test images the linear probe gets "
        f"{rates['linear_probe']} right and full fine-tuning {rates['full_finetune']}; {_ahead(study)}.{best} "
        "Intervals are of 95 %."
    )


def overridden(evidence: Evidence) -> str:
    """Says so where a learning rate was given, and stands in recipes in place of their own."""
    given = {
        name: runs[0].info["recipe"]["learning_rate"]
        for approach in NAMES
        for name, runs in evidence.runs[approach].items()
        if name in evidence.recipes and runs[0].info["recipe"]["learning_rate"] != named(approach, name).learning_rate
    }
    if not given:
        return ""
    rates = " and ".join(f"{value:g}" for value in sorted(set(given.values())))
    names = " and ".join(f"*{name}*" for name in given)
    return f" A learning rate of {rates} was given, in place of what {names} would take."


def _ahead(study: Study) -> str:
    """Who is ahead and by how much, if anybody is."""
    numbers = compare(study)
    if not numbers["accuracy_difference_is_clear"]:
        return "no difference between them can be claimed"
    low, high = sorted(abs(bound) for bound in numbers["accuracy_difference"]["ci95"])
    digits = reach(low, high)[1]
    better = "full fine-tuning" if numbers["accuracy_difference"]["mean"] > 0 else "the linear probe"
    between = f"{fixed(100 * low, digits)} to {fixed(100 * high, digits)}"
    return f"{better} is ahead by {_points(numbers)} percentage points ({between})"


def verdict(evidence: Evidence) -> Prose:
    """The trade-off of the presented recipe, and of tuned, in quantities that were measured."""
    if "tuned" not in evidence.recipes:
        return Prose(_verdict(evidence.main))
    corrected, tuned = _verdict(evidence.main), _verdict(evidence.of("tuned"))
    return Prose(f"With the recipe **corrected**: {corrected}\n\nWith the recipe **tuned**: {tuned}")


def _verdict(study: Study) -> str:
    numbers = compare(study)
    if len({device_of([run]) for runs in study.values() for run in runs}) > 1:
        return (
            "The runs were made on different devices, so their times cannot be weighed against their accuracies. "
            + difference(study).markdown.split(" McNemar")[0]
        )
    gain, ratio = 100 * numbers["accuracy_difference"]["mean"], numbers["train_seconds_ratio"]
    cost = f"{times(study)} the training time" if ratio >= 1 else f"{percent(ratio, 0)} of the training time"
    if not numbers["accuracy_difference_is_clear"]:
        cheaper = "the linear probe" if ratio >= 1 else "full fine-tuning"
        between = reach(*numbers["accuracy_difference"]["ci95"])[0]
        return (
            f"No difference in accuracy can be claimed (anything within {between} points is compatible with these "
            f"runs), while full fine-tuning took {cost} of the linear probe. What is shown is the cost, and it speaks "
            f"for {cheaper}; whether accuracy does too, these runs leave open."
        )
    if gain < 0:
        return (
            f"The linear probe is ahead by {_points(numbers)} percentage points, and full fine-tuning took {cost} of "
            "the probe; on these data, with this recipe, "
            + ("nothing speaks for it." if ratio >= 1 else "only its shorter time speaks for it.")
        )
    probe = rate(accuracy_of(study["linear_probe"]))
    return (
        f"Full fine-tuning is ahead by {_points(numbers)} percentage points of test accuracy, at {cost} of the "
        "linear probe. "
        + (
            f"Where accuracy counts, that is the approach to take; where training time is short, the probe offers "
            f"{probe} for {percent(1 / ratio)} of the time."
            if ratio >= 1
            else "It is the better choice in both."
        )
    )
