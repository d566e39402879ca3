"""Two approaches compared -> words: who is ahead, and at what price."""

from report_lib.evidence import Comparison, compare, comparisons, costs, designs
from report_lib.evidence.measures import the
from report_lib.page.numbers import by_seed, factor, fixed, points, reach
from report_lib.runs import Study


def ahead(pair: Comparison) -> str:
    """Which of two approaches is ahead in test accuracy, and by how much."""
    difference, a, b = pair.accuracy, the(pair.a), the(pair.b)
    if pair.same_images_right:
        return f"{b} and {a} get the same test images right"
    if not difference.clear:
        return f"no difference between {b} and {a} is shown ({points(difference)})"
    low, high = sorted(abs(bound) for bound in (difference.low, difference.high))
    digits = reach(low, high)[1]
    first, second = (b, a) if difference.mean > 0 else (a, b)
    between = f"{fixed(100 * low, digits)} to {fixed(100 * high, digits)}"
    return f"{first} is ahead of {second} by {fixed(100 * abs(difference.mean), digits)} points ({between})"


def won(pair: Comparison) -> str:
    """With how many seeds the second approach has the higher test accuracy; nothing for a single one."""
    if len(pair.a) == 1:
        return ""
    more, same = pair.seeds_won
    return f"ahead with {more}{f' and level with {same}' * (same > 0)} of {len(pair.a)} seeds"


def times(pair: Comparison) -> str:
    """How long b trains beside a, such as "takes 31 times (20 to 44 by seed) as long to train"; nothing across
    devices."""
    if not pair.times:
        return ""
    longer = pair.times[0] >= 1
    mean, low, high = pair.times if longer else [1 / pair.times[at] for at in (0, 2, 1)]
    ratio = f"{factor(mean)} times{by_seed(factor(low), factor(high))}"
    return f"takes {ratio} as long to train" if longer else f"trains {ratio} as fast"


def more_images(pair: Comparison) -> str:
    """That the second approach trains on more images, as the published defects have it."""
    a, b = (runs[0].info["data"]["train"] for runs in (pair.a, pair.b))
    return f" ({b:,} training images against {a:,})" * (b != a)


def without_views(study: Study, pair: Comparison) -> str:
    """How long b trains beside a without the augmented views that a sees, where these bring it no clear gain; nothing
    where they do, or where the ladder did not ask."""
    rungs = designs.ladder(study, pair.a[0].approach) if pair.a[0].preset == "tuned" else []
    at = next((n for n, (name, _, _) in enumerate(rungs) if "augmentation" in name), 0)
    gain = rungs[at][2] if at else None
    if not gain or costs.views(pair.a[0]) < 2 or gain.clear and gain.mean > 0:
        return ""
    before = compare(rungs[at - 1][1], pair.b)
    if not before.times:
        return ""
    ratio, who = factor(before.times[0]), the(pair.a)
    without = f"{who} does without augmented views, which bring it no clear gain ({points(gain)})"
    return f"{ratio} times as long where {without}"


def trade(pair: Comparison) -> str:
    verdict, price = ahead(pair), times(pair)
    if price and pair.accuracy.clear and pair.accuracy.mean > 0:
        return f"{verdict}, and {price}"
    return f"{verdict}; {the(pair.b)} {price}" if price else verdict


def counted_on(study: Study) -> list[Comparison]:
    """Those of the presented preset, then the ones that count, between the best of each approach."""
    return list(dict.fromkeys([*comparisons(study.of()), *comparisons(study.best)]))
