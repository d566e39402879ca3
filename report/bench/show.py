"""What `make bench` measured -> tables and sentences of notebooks/05_speed.ipynb."""

import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from report_lib.config import APPROACHES, NETWORKS
from report_lib.evidence.stats import Difference
from report_lib.files import InputError, locate
from report_lib.page.numbers import NBSP, percent, points, seconds
from report_lib.page.parts import Prose, Table, table, text

BENCHED = ("linear_probe", "full_finetune")  # the approaches that the published listings have
NAMES = {name: APPROACHES[name].name for name in BENCHED}
KEPT = Path(__file__).with_name("speed.json")  # comes with the project
PRECISION = KEPT.with_name("precision.json")
GUIDE = KEPT.parents[1] / "guide" / "speed.md"  # says what KEPT holds
MEASURED = Path(__file__).with_name("measured.json")  # of this machine
WIDTH = 100  # characters of a terminal's line


def read(path: str = "") -> dict:
    """The measurements in `path`; if none is given, those of this machine, or else those that come with the project.

    Raises InputError if they cannot be read.
    """
    chosen = locate(path) if path else MEASURED if MEASURED.is_file() else KEPT
    try:
        return json.loads(chosen.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"bench is {str(chosen)!r}, which cannot be read ({error}); run make bench first") from error


def _times(ratio: dict) -> str:
    return f"{ratio['median']:.3g} ({ratio['min']:.3g} to {ratio['max']:.3g})"


def summary(bench: dict) -> Prose:
    """Where, on what and how it was measured, and what came out."""
    probe, tuned = (bench[approach] for approach in BENCHED)
    where = (
        f"{bench['threads']} threads of a CPU ({bench['cpu_capability']})"
        if bench["device"] == "cpu"
        else bench["device"]
    )
    return Prose(
        f"Measured on {bench['finished'][:10]} with {text(where)}, ours in {bench['precision']} and the published loop "
        f"in float32, on {bench['images']:,} images of {text(bench['data'])} at {bench['image_size']} px, "
        f"{bench['repeats']} repeats by turns. The published loop was timed for one epoch, "
        f"since its other epochs do the same work but for dropout; ours for all "
        f"{bench['our_epochs_measured']['linear_probe']} epochs "
        f"of the linear probe, frozen features included, and for one of fine-tuning. The linear probe is "
        f"{probe['ratio']['median']:.3g} times as fast as published, and {probe['ratio_of_five_seeds']['median']:.3g} "
        f"times over five seeds, which share their frozen features; full fine-tuning is {tuned['ratio']['median']:.3g} "
        "times as fast."
    )


def bounds(bench: dict) -> Prose:
    """What keeps each approach from being faster on this machine."""
    probe, tuned = (bench[approach] for approach in BENCHED)
    rates = bench["best_flops_per_second"][bench["precision"]]
    kind = max(rates, key=rates.__getitem__)
    return Prose(
        f"The best that this device was seen to do in {bench['precision']}, over several shapes of matrix product, "
        f"convolution and linear layer, the network's own included, is {rates[kind] / 1e9:,.0f}{NBSP}GFLOP/s, in a "
        f"{kind}. Full fine-tuning, evaluation included, runs at {percent(tuned['share_of_best_rate'], 0)} of that: "
        f"with the same operations a factor of {1 / tuned['share_of_best_rate']:.2g} is all that could be left, and an "
        f"epoch can be no more than {tuned['ratio']['median'] / tuned['share_of_best_rate']:.2g} times as fast as "
        "published; to reach the same accuracy faster than that takes fewer epochs or smaller pictures. The "
        f"linear probe spends {percent(probe['share_of_features'], 0)} of its time on the one forward pass through the "
        f"frozen trunk, and runs at {percent(probe['share_of_best_rate'], 0)} of the best rate: with the same "
        "operations, all of them at that rate, it could be "
        f"{probe['ratio']['median'] / probe['share_of_best_rate']:.2g} times as fast as published."
    )


def rates(bench: dict) -> Table:
    """The best rates of this device."""
    found = bench["best_flops_per_second"]
    rows = [
        {"work": kind} | {precision: f"{of_kind[kind] / 1e9:,.0f}" for precision, of_kind in found.items()}
        for kind in next(iter(found.values()))
    ]
    caption = "The best rate of each kind of work over several shapes, forward and backward, in GFLOP/s."
    return table("tab-rates", caption, rows, left=1)  # type: ignore[return-value]


def answer(bench: dict) -> Table:
    """Seconds until the validation accuracy that `corrected` selects."""
    rows = []
    for approach in BENCHED:
        for at, row in enumerate(bench["answer"][approach]):
            theirs = row["published loop"]
            for name in ("published loop", "corrected", "tuned"):
                one, first, ratio = row[name], name == "published loop", ""
                if one["epoch"] and not first:
                    least = "" if theirs["epoch"] else "more than "
                    ratio = f"{least}{theirs['seconds'] / one['seconds']:.3g}"
                rows.append(
                    {
                        "approach": NAMES[approach] if at == 0 and first else "",
                        "seed": str(row["seed"]),
                        "trained by": name,
                        "best accuracy": percent(one["best_accuracy"]),
                        "reached in epoch": str(one["epoch"] or "not reached"),
                        "time": seconds(one["seconds"]),
                        "ratio": ratio,
                    }
                )
    return table(  # type: ignore[return-value]
        "tab-answer",
        "Seconds until the validation accuracy that the preset corrected selects is reached, in one run of each, "
        f"frozen features included, on {bench['answer_labels']} labelled images per class. Where it is not reached, "
        "the time is that of all epochs. The ratio is the published loop's time, on the same images, over ours, where "
        "ours reaches it.",
        rows,
        left="lrlrrrr",
    )


def ratios(bench: dict) -> Table:
    """Images a second of both sides."""
    rows = [
        {
            "approach": NAMES[approach],
            "published loop, 1/s": f"{bench[approach]['published_images_per_second']:.1f}",
            "here, 1/s": f"{bench[approach]['ours_images_per_second']:.1f}",
            "ratio": _times(bench[approach]["ratio"]),
        }
        for approach in BENCHED
    ]
    five = {"approach": f"{NAMES['linear_probe']}, five seeds", "published loop, 1/s": "", "here, 1/s": ""}
    rows.append(five | {"ratio": _times(bench["linear_probe"]["ratio_of_five_seeds"])})
    return table(  # type: ignore[return-value]
        "tab-speed",
        "Training images a second, each epoch's evaluation included: medians, and the ratio within one repeat as "
        "median (least to greatest).",
        rows,
        left=1,
    )


def growth(bench: dict) -> Table:
    """Time and memory against the number of images, epochs and seeds, and the network."""
    rows = [
        {
            "approach": NAMES[row["approach"]],
            "varied": row["varied"],
            "value": NETWORKS[row["value"]].name if row["varied"] == "network" else f"{row['value']:,}",
            "pixels a side": str(row["image_size"]),
            "time": seconds(row["seconds"]),
            "peak memory, MiB": f"{row['peak_memory_mib']:,.0f}",
        }
        for row in bench["scaling"]
    ]
    return table(  # type: ignore[return-value]
        "tab-growth",
        "How the cost of a whole run grows, one quantity varied at a time, each in a process of its own.",
        rows,
    )


def trend(bench: dict) -> Prose:
    """Whether time is linear in images, and what further seeds cost."""
    sentences = []
    for approach in BENCHED:
        value, time = _series(bench, approach, "images")
        slope, start = np.polyfit(value, time, 1)
        fit = np.corrcoef(value, time)[0, 1] ** 2
        size = _size(bench, approach, "images")
        sentences.append(
            f"For {APPROACHES[approach].the} at {size} px a straight line, {start:.2g}{NBSP}s and "
            f"{1000 * slope:.2g}{NBSP}ms an image, explains {percent(fit)} of the variance of time over images."
        )
    value, time = _series(bench, "linear_probe", "seeds")
    sentences.append(f"At {_size(bench, 'linear_probe', 'seeds')} px, {value[-1]:.0f} seeds of the linear probe take "
                     f"{time[-1] / time[0]:.2g} times as long as one.")  # fmt: skip
    return Prose(" ".join(sentences))


def _size(bench: dict, approach: str, varied: str) -> int:
    """Pixels a side of the pictures of a series."""
    return next(row["image_size"] for row in bench["scaling"] if (row["approach"], row["varied"]) == (approach, varied))


def _series(bench: dict, approach: str, varied: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in bench["scaling"] if (row["approach"], row["varied"]) == (approach, varied)]
    return np.array([row["value"] for row in rows], float), np.array([row["seconds"] for row in rows])


def operators(bench: dict) -> Table:
    """Where one fine-tuning epoch's time goes."""
    rows = [{"operator": row["operator"], "share, %": f"{100 * row['share']:.1f}"} for row in bench["profile"]]
    caption = "Where the time of full fine-tuning goes, by torch's operators."
    return table("tab-operators", caption, rows, left=1)  # type: ignore[return-value]


def precisions(found: dict) -> Prose:
    """What bfloat16 changes, as bench.precision has measured it."""
    lines = []
    for approach in BENCHED:
        one, (low, high) = found[approach], found[approach]["difference_ci95"]
        lines.append(
            f"{NAMES[approach]} {points(Difference(one['difference'], low, high, 'Student, paired'))}, where float32 "
            f"alone has a standard deviation of {100 * one['sd_between_seeds_float32']:.1f} points between seeds"
        )
    return Prose(
        f"Test accuracy in bfloat16 minus that in float32, preset {found['preset']}, with the 95 % interval paired "
        f"over {len(found['seeds'].split(','))} seeds, on {text(found['data'])} at {found['image_size']} px, "
        f"{found['per_class']} labelled images per class: {'; '.join(lines)}."
    )


def told(bench: dict) -> str:
    """What came out, for a terminal."""
    shown = []
    for part in (make(bench) for make in (summary, ratios, bounds, answer, trend)):
        if isinstance(part, Prose):
            shown.append(textwrap.fill(re.sub(r"\\(\W)", r"\1", part.markdown), WIDTH))
        else:
            rows = pd.DataFrame(part.rows, columns=list(part.header))
            shown.append(f"{textwrap.fill(part.caption, WIDTH)}\n\n{rows.to_string(index=False)}")
    return "\n\n".join(shown)


def guide(bench: dict) -> str:
    """The guide's page on speed, as `make bench KEEP=1` and bench.precision write it."""
    makers = (summary, ratios, bounds, rates, answer, trend)
    parts: list[Prose | Table] = [*(make(bench) for make in makers), precisions(read(str(PRECISION)))]
    shown = "\n\n".join(part.markdown if isinstance(part, Prose) else _as_markdown(part) for part in parts)
    return f"""# How fast it is

`make bench` runs the published training loop (`report/bench/published.py`, written for nothing else) and ours by turns
on the same images, for about five minutes, says what came out, and keeps it in `report/bench/measured.json`;
`make report WITH=05_speed` shows it as an appendix. `make bench KEEP=1` replaces the figures that come with the
project, and this page; `PYTHONPATH=.:report python -m bench.precision`, which compares bfloat16 with float32, its last
paragraph.

Pictures stay 8-bit until a batch is on the device; what is frozen is computed once and kept memory-mapped in `.cache`;
bfloat16 is used where the hardware multiplies in it (CUDA since Ampere, CPUs with AMX or AVX512_BF16). The record of
each run says in which precision it was made, and how busy other processes kept the machine meanwhile.

{shown}
"""


def _as_markdown(table: Table) -> str:
    rule = tuple({"l": ":--", "r": "--:"}[side] for side in table.align)
    lines = "\n".join(f"| {' | '.join(row)} |" for row in (table.header, rule, *table.rows))
    return f"{lines}\n\n*{table.caption}*"
