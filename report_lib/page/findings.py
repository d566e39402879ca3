"""Approaches compared -> the sentences of the analysis. Every comparison is worded by its interval.

What a study has not run is not spoken of: such a function returns None, and its cell shows nothing.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from report_lib.config import APPROACHES
from report_lib.evidence import Comparison, compare, comparisons, costs, designs, measures
from report_lib.evidence.measures import accuracy, mean_of, the
from report_lib.evidence.stats import Difference
from report_lib.page.numbers import factor, fixed, listed, percent, points, rate, seconds
from report_lib.page.pairs import ahead, counted_on, more_images, times, without_views, won
from report_lib.page.parts import Prose, text
from report_lib.page.words import company, count, disturbed, say, took
from report_lib.runs import Runs, Study

UNEVEN = 1.25  # ratio of the longest to the shortest time for the same work, above which it is spoken of


def timed(study: Study) -> Runs:
    """The runs whose times are compared."""
    return tuple(run for pair in counted_on(study) for run in (*pair.a, *pair.b))


# --- accuracy --------------------------------------------------------------------------------------------------


def intervals(study: Study) -> Prose:
    """What the intervals of this study cover."""
    seeds = {len(runs) for runs in study.best.values()}
    if seeds == {1}:
        return say(  # type: ignore[return-value]
            "with one seed, an interval covers new test images alone: of one accuracy it is Wilson’s [@wilson1927], of "
            "a difference that of a bootstrap, which draws the images again and again [@efron1993]"
        )
    freedom = listed((str(number - 1) for number in sorted(seeds)), "or")
    return say(  # type: ignore[return-value]
        "an interval covers new seeds and new test images: the variances of both are added, seeds by Student’s t with "
        f"{freedom} degrees of freedom [@howe1974]; with so few, it is approximate, and more often too wide than "
        "too narrow",
        "a difference is computed seed by seed and image by image" + (
            ", between the seeds that both approaches have" if len(seeds) > 1 else ""),
        "a difference is called clear where its interval excludes zero",
    )  # fmt: skip


def differences(study: Study) -> Prose | None:
    """Each preset's comparisons, and which of them counts."""
    sentences = []
    for preset in study.presets:
        for pair in comparisons(study.of(preset)):
            counts = " (the main comparison)" * (pair in comparisons(study.best))
            wins = f"; {the(pair.b)} is {won(pair)}" if won(pair) else ""
            sentences.append(f"with the preset *{preset}*{counts}{more_images(pair)}, {ahead(pair)}{wins}")
    return say(*sentences)


def selection(study: Study) -> Prose | None:
    """Whether selection has flattered validation accuracy, judged on all runs together."""
    if not (found := designs.flattery(study)):
        return None
    verdict = "so validation flatters the selected epochs, and the test images, which selected nothing, count"
    if found.difference.clear and found.difference.mean < 0:
        verdict = "so validation does not flatter the selected epochs"
    elif not found.difference.clear:
        verdict = "no more than the draw of the images explains"
    return say(
        f"validation accuracy exceeds test accuracy in {found.above} of the {found.runs} runs that validation selected",
        "runs of one seed share their validation images, so a seed counts once: test minus validation accuracy is "
        f"{points(-found.difference)}, {verdict}",
    )


def agreement(study: Study) -> Prose | None:
    """Whether two approaches agree less than two seeds of one."""
    sentences = []
    for preset in dict.fromkeys((study.presented, next(iter(study.best.values()))[0].preset)):
        found = designs.agreements(study, preset)
        within = [each for each in found if each.names[0] == each.names[1]]
        unlike = {pair.b[0].approach for pair in comparisons(study.of(preset)) if pair.accuracy.clear}
        for each in found:
            if each not in within and within:
                names = [APPROACHES[name].the for name in each.names]
                own = [two.mean for two in within if two.names[0] in each.names]
                level = "less often than two seeds of either do" if each.mean < min(own) else (
                    "less often than two seeds of one of them do" if each.mean < max(own)
                    else "no less often than two seeds of either do")  # fmt: skip
                part = "; part of that is their unequal accuracy" * (
                    level.startswith("less") and study.approaches[0] in each.names and bool(unlike & {*each.names})
                )
                sentences.append(f"with the preset *{preset}*, {listed(names)} name the same class on "
                                 f"{percent(each.mean)} of the test images, {level}{part}")  # fmt: skip
    return say(*sentences)


# --- time ------------------------------------------------------------------------------------------------------


def time(study: Study) -> Prose | None:
    """Training times as ratios, as measured and by operations alone."""
    sentences = []
    for pair in counted_on(study):
        a, b, preset = the(pair.a), the(pair.b), pair.b[0].preset
        if not pair.times:
            where = text(measures.device_of(pair.a + pair.b))
            sentences.append(f"{a} and {b} trained on different devices ({where}), so their times are not compared")
            continue
        epochs = [runs[0].info["config"]["epochs"] for runs in (pair.b, pair.a)]
        unlike = f", for {count(epochs[0], 'epoch')} and not {epochs[1]}" * (epochs[0] != epochs[1])
        sentences.append(f"with the preset *{preset}*, {b} {times(pair)} as {a}, {took(pair.b)} against "
                         f"{took(pair.a)}{unlike}")  # fmt: skip
        kept, anew = costs.operations_ratios(pair.a, pair.b)
        if kept is None:  # the record does not say what of the network ran once
            sentences.append(f"counted in operations, it takes {factor(anew)} times as much if no features were kept")
        else:
            again = f", and {factor(anew)} times if the frozen features were not kept" * (kept != anew)
            sentences.append(f"counted in operations, it takes {factor(kept)} times as much{again}")
        if costs.views(pair.a[0]) > 1 and (features := mean_of(pair.a, "features_seconds")):
            without = without_views(study, pair)
            brings = f"; {b} takes {without}" if without else ""
            views = f"{costs.views(pair.a[0])} views of each picture"
            sentences.append(
                f"of its {took(pair.a)}, {a} spends {seconds(features)} on the features of {views}{brings}"
            )
        spent = [run.info["train_seconds"] for run in pair.b]
        if max(spent) > UNEVEN * min(spent):
            sentences.append(f"the same work took {seconds(min(spent))} to {seconds(max(spent))} by seed, so a ratio "
                             f"is known to a factor of {fixed(max(spent) / min(spent), 1)} only")  # fmt: skip
    if shared := [pair.a for pair in counted_on(study) if costs.features_shared(pair.a)]:
        sentences.append("the time of the frozen features was measured once and counts for every seed, so the range of "
                         "a ratio is that of the other times")  # fmt: skip
        sentences += map(disturbed, shared)
    told = any(map(disturbed, shared)) or not sentences
    return say(*sentences, "" if told else company(timed(study)))


# --- what presets, defects and labels change -------------------------------------------------------------------


def _clear(named: Sequence[tuple[str, Difference]], sign: int) -> list[str]:
    return [f"{name} ({points(found)})" for name, found in _sure(named, sign)]


def searches(study: Study, searches: Mapping[str, dict]) -> Prose | None:
    """How the settings of `tuned` were found; `searches` are their records, by approach, "_few" where labels are."""
    made: dict[str, list[str]] = {}  # how a search was made -> the approaches that were searched so
    for approach in study.approaches if "tuned" in study.presets else ():
        for name in (approach, f"{approach}_few"):
            if search := searches.get(name):
                of, tried = search["conditions"], len(search["trials"])
                labels = f"{of['per_class']:,}" if of["per_class"] else "all"
                other = ", with other weights than here" * (of["weights"] != study.weights_sha)
                how = (f"in {tried} trials each with {labels} labels per class, judged on {of['validation_images']:,} "
                       f"validation images at {of['image_size']} pixels{other}")  # fmt: skip
                made.setdefault(how, []).append(the(study.best[approach]))
    if not made:
        return None
    alike = {tuple(names): [how for how in made if made[how] == names] for names in made.values()}
    sentences = [f"the settings of {listed(names)} were searched {', and '.join(how)}" for names, how in alike.items()]
    sentences.append("of the trials within one standard error of the best, one with the fewest epochs was taken")
    if own := [
        the(study.best[approach])
        for approach in study.approaches
        if approach in study.best and approach not in searches and f"{approach}_few" not in searches
    ]:
        sentences.append(f"no search was made for {listed(own)}, which has the settings of another approach")
    used = [searches[name] for name in (*study.approaches, *(f"{a}_few" for a in study.approaches)) if name in searches]
    same = {search["conditions"]["seed"] for search in used} & {run.seed for run in study.all_runs}
    if same:
        sentences.append(f"the searches used seed {listed(map(str, sorted(same)))}, which is among those compared")
    every = [(approach, searches[name]) for approach in study.approaches
             for name in (approach, f"{approach}_few") if name in searches]  # fmt: skip
    won = [f"the {side} won for {'; '.join(edges)}" for side, extreme in (("largest", max), ("smallest", min))
           if (edges := [*filter(None, (_at_the_edge(study, *search, extreme) for search in every))])]  # fmt: skip
    if won:
        sentences.append(f"of the few values that were tried, {', and '.join(won)}: values beyond may be better")
    return say(*sentences)


def _at_the_edge(study: Study, approach: str, search: dict, extreme: Callable) -> str:
    """Which settings of an approach's search won with the largest or smallest value of all that were tried; not the
    fewest epochs, which the search prefers."""
    won = [name.replace("_", " ") for name, value in search["winner"].items() if (name, extreme) != ("epochs", min)
           and len(tried := {row[name] for row in search["trials"]}) > 1 and value == extreme(tried)]  # fmt: skip
    labels = search["conditions"]["per_class"]
    at = f" ({labels:,} labels)" if labels else ""
    return f"{listed(won)} of {the(study.best[approach])}{at}" if won else ""


def tuned(study: Study) -> Prose | None:
    """What tuning changes of each approach's accuracy, and which of its steps clearly do, where they were run."""
    sentences = []
    for approach in study.approaches:
        if not (pair := designs.tuning(study, approach)):
            continue
        steps = [(name, found) for name, _, found in designs.ladder(study, approach) if found]
        told = [f"it clearly {word} {listed(clear)}" for word, sign in (("gains from", 1), ("loses by", -1))
                if (clear := _clear(steps, sign))]  # fmt: skip
        if unclear := [name for name, found in steps if not found.clear]:
            told.append(f"no clear effect is shown for {listed(unclear)}")
        by_step = f"; step by step ([Table](#tab-ladder)), {', and '.join(told)}" * bool(steps)
        sentences.append(f"from *corrected* to *tuned*, {the(pair.b)} changes by {points(pair.accuracy)}{by_step}")
    return say(*sentences)


def decisive(study: Study) -> list[str]:
    """The one step from `corrected` to `tuned` that helps each approach most, where one clearly helps."""
    told = []
    for approach in study.approaches:
        steps = [(found, runs, name) for name, runs, found in designs.ladder(study, approach) if found and found.clear]
        found, runs, name = max(steps, key=lambda step: step[0].mean, default=(None, (), ""))
        if found and found.mean > 0:
            told.append(f"what helps {the(runs)} most on the way to *tuned* is “{name}” ({points(found)}; "
                        f"n = {len(runs)})")  # fmt: skip
    return told


def worthwhile(study: Study) -> list[str]:
    """The controls that are clearly ahead of the preset that they are one of."""
    told = []
    for name, pair in designs.controls(study):
        if pair.accuracy.clear and pair.accuracy.mean > 0:
            info, beside = pair.b[0].info, f"{the(pair.a)} with *{pair.a[0].preset}*"
            told.append(f"the control “{name}”, which trains {info['trained_parameters']:,} of {info['parameters']:,} "
                        f"parameters, is right on {rate(accuracy(pair.b))} ({points(pair.accuracy)} beside {beside}; "
                        f"n = {len(pair.b)})")  # fmt: skip
    return told


def defects(study: Study) -> Prose | None:
    """Which published defects change what is reported, and which cannot be said to."""
    every = designs.defect_effects(study)
    effects = [each for each in every if each["defect"] != "all"]
    if not effects:
        return None
    drawn = [each for each in effects if each["defect"] != "select_on_test"]
    none, sentences = "of the other defects, none" if len(drawn) < len(effects) else "no defect", []
    for verb, sign in (("raise", 1), ("lower", -1)):
        named = [(f"“{each['label']}” with {the(each['runs'])}", each["effect"]) for each in drawn]
        clear = "; ".join(_clear(named, sign))
        sentences.append(f"these clearly {verb} the reported accuracy: {clear}" if clear
                         else f"{none} alone clearly {verb}s the reported accuracy")  # fmt: skip
    chosen = [f"{points(each['effect'])} by seed, for {the(each['runs'])}" if each["effect"].high
              else f"nothing, for {the(each['runs'])}" for each in effects if each not in drawn]  # fmt: skip
    if chosen:
        sentences.insert(0, "what the best test epoch adds to the one that validation would have selected, never less "
                         f"than nothing: {'; '.join(chosen)}")  # fmt: skip
    alone = {each["approach"] for each in effects}
    for each in every:
        if each["defect"] == "all":
            single = ", none of which was run alone" * (each["approach"] not in alone)
            sentences.append(f"all defects together change it for {the(each['runs'])} by {points(each['effect'])}"
                             f"{single}")  # fmt: skip
    return say(*sentences)


def by_labels(study: Study, a: str, b: str) -> list[tuple[str, int, Comparison]]:
    """(labels per class, who leads: 1 the second, -1 the first, 0 neither, their comparison), ascending."""
    found = []
    for labels, runs in measures.budget_curve(study):
        if a in runs and b in runs:
            pair = compare(runs[a], runs[b])
            found.append((f"{labels:,.0f}", int(pair.accuracy.clear * np.sign(pair.accuracy.mean)), pair))
    return found


def _crossing(signs: Sequence[tuple[str, int, Comparison]]) -> list[str]:
    clear = [(labels, sign) for labels, sign, _ in signs if sign]
    return [
        f"they cross between {less} and {more} labels per class"
        for (less, before), (more, after) in itertools.pairwise(clear)
        if before != after
    ]


def led(study: Study, approaches: Sequence[str]) -> str:
    """Who leads with how many labels, and where they cross, in one sentence; nothing without budgets."""
    signs = by_labels(study, *approaches)
    names = [APPROACHES[approach].the for approach in approaches]
    parts = []
    for sign, who in ((-1, f"{names[0]} leads"), (0, "neither is shown to lead"), (1, f"{names[1]} leads")):
        if labels := [labels + _alone(pair, signs) for labels, found, pair in signs if found == sign]:
            parts.append(f"{who} at {listed(labels)} per class")
    return "; ".join(parts + _crossing(signs))


def _alone(pair: Comparison, signs: Sequence[tuple[str, int, Comparison]]) -> str:
    """That a comparison rests on one seed, where others have more."""
    seeds = [min(len(each.a), len(each.b)) for *_, each in signs]
    return " (one seed)" * (min(len(pair.a), len(pair.b)) == 1 < max(seeds))


def not_ahead_with(study: Study, approach: str) -> list[str]:
    """With which few labels per class an approach is not shown to be ahead of the first, which it is with more; none
    where that is not so."""
    signs = by_labels(study, study.approaches[0], approach) if approach != study.approaches[0] else []
    level = list(itertools.takewhile(lambda point: point[1] <= 0, signs))
    return [labels for labels, _, _ in level] if len(level) < len(signs) else []


def budgets(study: Study) -> Prose | None:
    """Which approach leads with how many labels, and where they cross."""
    return say(*(led(study, (study.approaches[0], other)) for other in study.approaches[1:]))


# --- what goes wrong -------------------------------------------------------------------------------------------


def classes(study: Study) -> Prose | None:
    """On which classes approaches differ, and where most."""
    sentences = []
    for pair in counted_on(study):
        named = list(zip(map(text, pair.a[0].classes), pair.classes, strict=True))
        up, down = (sorted(_sure(named, sign), key=lambda each: -abs(each[1].mean)) for sign in (1, -1))
        sides = [f"{side} on {_of_all(len(found), len(named))}"
                 + (f" ({'most on ' * (len(found) > 1)}{found[0][0]}: {points(found[0][1])})" if found else "")
                 for side, found in ((f"clearly ahead of {the(pair.a)}", up), ("clearly behind", down))]  # fmt: skip
        sentences.append(f"with the preset *{pair.b[0].preset}*, {the(pair.b)} is {' and '.join(sides)}")
    return say(*sentences, "the largest of many differences tends to be smaller in other runs, and by chance alone one "
               "interval in twenty would exclude zero" if sentences else "")  # fmt: skip


def _of_all(number: int, whole: int) -> str:
    if number == whole:
        return f"all {whole} classes"
    return f"{number or 'none'} of the {whole} classes"


def _sure(named: Sequence[tuple[str, Difference]], sign: int) -> list[tuple[str, Difference]]:
    return [(name, found) for name, found in named if found.clear and found.mean * sign > 0]


def calibration(study: Study) -> Prose | None:
    """Which networks are more or less sure than they are right, on the predictions of all seeds together."""
    judged: dict[str, list[str]] = {}
    for runs in measures.shown(study):
        if numbers := measures.calibration(runs):
            over = numbers["overconfidence"]
            how = f"{'over' if over.mean > 0 else 'under'}confident on average" if over.clear else ""
            judged.setdefault(how, []).append(f"{the(runs)} (*{runs[0].preset}*, {points(over)})")
    return say(*(f"{how}, by mean confidence minus accuracy: {listed(names)}" if how else
                 f"neither over- nor underconfident, as far as these runs show: {listed(names)}"
                 for how, names in judged.items()))  # fmt: skip
