"""What `make bench` measured (speed.json) -> tables and sentences of notebooks/05_speed.ipynb."""

import json

import numpy as np

from report_lib.config import APPROACHES
from report_lib.files import InputError, locate
from report_lib.page.numbers import NBSP, percent, seconds
from report_lib.page.parts import Prose, Table, text

BENCHED = ("linear_probe", "full_finetune")  # the approaches that the published listings have
NAMES = {name: APPROACHES[name].name for name in BENCHED}


def read(path: str) -> dict:
    """The measurements in `path`. Raises InputError if there are none."""
    try:
        return json.loads(locate(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"bench is {path!r}, which cannot be read ({error}); run make bench first") from error


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
    rate = bench["matrix_flops_per_second"]
    return Prose(
        f"Measured on {text(where)}, ours in {bench['precision']} and the published loop in float32, on "
        f"{bench['images']:,} images of {text(bench['data'])} at {bench['image_size']} px, {bench['repeats']} repeats "
        "by turns. The published loop was timed for one epoch, "
        f"since its other epochs do the same work but for dropout; ours for all "
        f"{bench['our_epochs_measured']['linear_probe']} epochs "
        f"of the linear probe, frozen features included, and for one of fine-tuning. The linear probe is "
        f"{probe['ratio']['median']:.3g} times as fast as published, and {probe['ratio_of_five_seeds']['median']:.3g} "
        f"times over five seeds, which share their frozen features; full fine-tuning is {tuned['ratio']['median']:.3g} "
        f"times as fast. It runs at {percent(tuned['share_of_matrix_rate'], 0)} of the rate of a large matrix product "
        f"on this device, {rate / 1e9:,.0f}{NBSP}GFLOP/s: were all of it such products, a factor of "
        f"{1 / tuned['share_of_matrix_rate']:.2g} would be left."
    )


def ratios(bench: dict) -> Table:
    """Images a second of both sides."""
    rows = []
    for approach in BENCHED:
        sides = bench[approach]
        theirs, ours = sides["published_images_per_second"], sides["ours_images_per_second"]
        rows.append((NAMES[approach], f"{theirs:.1f}", f"{ours:.1f}", _times(sides["ratio"])))
    rows.append((f"{NAMES['linear_probe']}, five seeds", "", "", _times(bench["linear_probe"]["ratio_of_five_seeds"])))
    return Table(
        "tab-speed",
        "Training images a second, each epoch's evaluation included: medians, and the ratio within one repeat as "
        "median (least to greatest).",
        ("approach", "published loop, 1/s", "here, 1/s", "ratio"),
        tuple(rows),
        "lrrr",
    )


def growth(bench: dict) -> Table:
    """Time and memory against the number of images, epochs and seeds."""
    rows = [
        (
            NAMES[row["approach"]],
            row["varied"],
            f"{row['value']:,}",
            seconds(row["seconds"]),
            f"{row['peak_memory_mib']:,.0f}",
        )
        for row in bench["scaling"]
    ]
    return Table(
        "tab-growth",
        "How the cost of a whole run grows, one quantity varied at a time, at 64 px; each in a process of its own.",
        ("approach", "varied", "value", "time", "peak memory, MiB"),
        tuple(rows),
        "llrrr",
    )


def trend(bench: dict) -> Prose:
    """Whether time is linear in images, and what further seeds cost."""
    sentences = []
    for approach in BENCHED:
        value, time = _series(bench, approach, "images")
        slope, start = np.polyfit(value, time, 1)
        fit = np.corrcoef(value, time)[0, 1] ** 2
        sentences.append(
            f"For the {NAMES[approach]} a straight line, {start:.2g}{NBSP}s and {1000 * slope:.2g}{NBSP}ms an image, "
            f"explains {percent(fit)} of the variance of time over images."
        )
    value, time = _series(bench, "linear_probe", "seeds")
    sentences.append(f"{value[-1]:.0f} seeds of the linear probe take {time[-1] / time[0]:.2g} times as long as one.")
    return Prose(" ".join(sentences))


def _series(bench: dict, approach: str, varied: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [row for row in bench["scaling"] if (row["approach"], row["varied"]) == (approach, varied)]
    return np.array([row["value"] for row in rows], float), np.array([row["seconds"] for row in rows])


def operators(bench: dict) -> Table:
    """Where one fine-tuning epoch's time goes."""
    rows = tuple((row["operator"], f"{100 * row['share']:.1f}") for row in bench["profile"])
    caption = "Where the time of full fine-tuning goes, by torch's operators."
    return Table("tab-operators", caption, ("operator", "share, %"), rows, "lr")
