"""How `make nbval` compares a notebook's outputs: every result, with tolerances. A plugin for pytest beside nbval.

nbval alone asks for equal bytes, which neither times nor floating point on another processor give. Here words and whole
numbers must be equal, and measured numbers as near as computing them elsewhere can make them:

- What depends on the linear probe alone hardly varies: one image of the few that were judged, one percent of a loss.
- Fine-tuning multiplies rounding errors from step to step, so it is given more room, and a ranking of its classes or
  mistakes may come out otherwise: there a class may stand for another one, a picture for another picture.
- Times, rates and memory are the machine's. They must be positive numbers.

`python tests/nbval_results.py executed.ipynb kept.ipynb` writes what is kept of an executed notebook.
"""

import base64
import dataclasses
import io
import re
import sys
import xml.etree.ElementTree as ET

import nbformat
import numpy as np
from PIL import Image

MIME = "application/vnd.report+json"


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far a measured number may be off."""

    points: float  # of a percentage
    class_points: float  # of one class's percentage, which has few images
    share: float  # of any other number
    nats: float  # of a loss, if that is more
    images: int  # of a count of images that one approach gets right and the other does not
    drawn: float  # share of a drawing's width or height
    paint: float  # share of the range of a colour
    ranks: bool  # whether the order of classes and mistakes may change


# Of the demo's 355 test images one is 0.3 points, of the 80 that validate 1.3; a class has 35 test images.
TIGHT = Tolerance(points=1.3, class_points=3.0, share=0.01, nats=0.01, images=1, drawn=0.02, paint=0.05, ranks=False)
LOOSE = Tolerance(points=3.0, class_points=6.0, share=0.15, nats=0.05, images=4, drawn=0.05, paint=0.12, ranks=True)

NUMBER = re.compile(r"(?<![\w.#-])[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
# What follows a number that is the machine's, and what follows or precedes others that have a tolerance of their own.
MACHINES = re.compile(
    r"\s*(?:s\b|ms\b|min\b|h\b|MiB|GiB|images per second|per second|images/s|% of the time"
    r"|times (?:as|the training|with \*)|\(\d+ of \d+\) s)"  # how many seeds needed that long
)
PERCENT = re.compile(r"[\s\d.,+−to()-]*(?:%|points|percentage)")
BOUND = re.compile(r"points,? \(?(?:[+−]?\d[\d.,]* to )?$")  # precedes the interval of a difference in points
OF_A_CLASS = re.compile(r"\s*(?:% of (?:its|that)|points\) and (?:gains|loses)|points\)\.)")
COUNTED = re.compile(r" test images only| only (?:the|full|fine)")
NATS = re.compile(r"(?:loss|temperature|nats)[^.;%]*$")
# What precedes how far a layer moved, which may be far less than a point.
MOVED = re.compile(r"\b(?:moved|least,|most,) by $")
SETTING = re.compile(r"(?:rate|decay|[\d.],)\s*$")  # such as "learning rate 0.0001, 0.0003"
WHERE = re.compile(r"CPU \\?\(\d+ threads?\\?\)")
BUSY = re.compile(  # said where the machine was busy, and how busy, where the system tells
    r" Single epochs took [\d.,]+\s*(?:s|h) to [\d.,]+\s*(?:s|h)\."
    r"| (?:Meanwhile|While times were measured,) other processes took [\d.%\sto]+ of the machine’s CPU time\."
)
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")  # the demo's
RANKED = re.compile(rf"\b(on|at|is|for|as) (?:{'|'.join(CLASSES)})\b")

MACHINES_COLUMNS = re.compile(r", s$|images/s|MiB|^training$|times as long")
EXACT_COLUMNS = re.compile(r"MFLOP|parameters|^n$|batch|seed|epoch$|labels a class")
PERCENT_COLUMNS = re.compile("%|points|95 % interval")
FREE_COLUMNS = {"tab-provenance": {"commit", "device", "finished (UTC)"}}  # where and when
FREE_ROWS = {"tab-environment": {"Python", "packages", "code, sha256", "command of the first"}}
CHOSEN = {"fig-mistakes", "fig-disagreements"}  # of pictures that a ranking of fine-tuning's mistakes chooses
TIMED = {"fig-accuracy-time"}  # whose x is time
BINNED = {"fig-reliability"}  # whose bins may hold few images or none
SORTED = {"fig-classes"}  # whose lines are in the order of what fine-tuning gains


# --- text ----------------------------------------------------------------------------------------------------------


def text_differs(test: str, ref: str, allowed: Tolerance, unit: str = "") -> str:
    """What is wrong with a text, or nothing. `unit` is what a table's head says of all its numbers, such as "%"."""
    test, ref = (BUSY.sub("", WHERE.sub("CPU", text)) for text in (test, ref))
    (words, found), (expected_words, expected) = (
        (NUMBER.split(text), list(NUMBER.finditer(text))) for text in (test, ref)
    )
    if len(found) != len(expected):
        return f"{len(found)} numbers instead of {len(expected)}: {test!r} instead of {ref!r}"
    if [plain(some, allowed) for some in words] != [plain(some, allowed) for some in expected_words]:
        return f"{test!r} instead of {ref!r}"
    for one, other in zip(found, expected, strict=True):
        if not near(one[0], other[0], ref[: other.start()], ref[other.end() :] + unit, allowed):
            return f"{one[0]} instead of {other[0]} in {test!r}"
    return ""


def plain(words: str, allowed: Tolerance) -> str:
    words = " ".join(words.split())
    return RANKED.sub(r"\1 CLASS", words) if allowed.ranks else words


def near(test: str, ref: str, before: str, after: str, allowed: Tolerance) -> bool:
    """Whether a number is as near to its reference as those that stand between such words must be."""
    one, other = (float(text.replace(",", "").replace("−", "-")) for text in (test, ref))
    off, last_place = abs(one - other), 1.5 * 10.0 ** -len(ref.partition(".")[2])
    if MACHINES.match(after):
        return one > 0
    if SETTING.search(before) and "e" not in ref:
        return one == other
    if MOVED.search(before):
        return off <= 2 * allowed.share * abs(other)
    if COUNTED.match(after):
        return off <= allowed.images
    if OF_A_CLASS.match(after):
        return off <= allowed.class_points
    if PERCENT.match(after) or BOUND.search(before):
        return off <= max(allowed.points, last_place)
    if "." not in ref and "e" not in ref:
        return one == other
    least = allowed.nats if NATS.search(before) or after.lstrip().startswith("nats") else 0.0
    return off <= max(least, allowed.share * abs(other)) or off <= last_place < abs(other)


# --- tables --------------------------------------------------------------------------------------------------------


def table_differs(test: dict, ref: dict, allowed: Tolerance) -> str:
    """What is wrong with a table, or nothing. A row that names the linear probe is compared tightly."""
    if (test["header"], test["align"], len(test["rows"])) != (ref["header"], ref["align"], len(ref["rows"])):
        return f"head {test['header']} and {len(test['rows'])} rows instead of {ref['header']} and {len(ref['rows'])}"
    for row, expected in zip(test["rows"], ref["rows"], strict=True):
        within = TIGHT if "linear probe" in expected[0] else allowed
        free = expected[0] in FREE_ROWS.get(ref["label"], ())
        for head, one, other in zip(ref["header"], row, expected, strict=True):
            wrong = cell_differs(head, one, other, within, ref["label"], free)
            if wrong:
                return f"column {head!r}: {wrong}"
    return ""


def cell_differs(head: str, test: str, ref: str, allowed: Tolerance, label: str, free: bool) -> str:
    if head in FREE_COLUMNS.get(label, ()) or (free and head == "value"):
        return "" if bool(test.strip()) == bool(ref.strip()) else f"{test!r} instead of {ref!r}"
    if EXACT_COLUMNS.search(head):
        return "" if test == ref else f"{test!r} instead of {ref!r}"
    if MACHINES_COLUMNS.search(head):
        return text_differs(test, ref, allowed, " s")
    if PERCENT_COLUMNS.search(head):
        return text_differs(test, ref, allowed, " %")
    return text_differs(test, ref, allowed, " nats" if "nats" in head else "")


# --- drawings ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mark:
    """A path, a marker or a picture: what it is part of, its points (N, 2), its paint, and a picture's bytes."""

    kind: str
    points: np.ndarray
    paint: dict[str, str]
    picture: bytes = b""


def marks(svg: str) -> tuple[list[Mark], list[str], tuple[float, float]]:
    """(what a drawing consists of, its axes apart; its texts, theirs included; the size of its first drawing)."""
    found: list[Mark] = []
    texts: list[str] = []

    def walk(node: ET.Element, kind: str, axis: bool) -> None:
        tag, name = node.tag.split("}")[-1], re.sub(r"_\d+$", "", node.get("id", ""))
        if tag in ("defs", "clipPath", "metadata"):
            return
        axis = axis or name.startswith("matplotlib.axis")
        kind = name if tag == "g" and name else kind
        paint = dict(re.findall(r"([\w-]+): ([^;]+)", node.get("style", "")))
        if tag == "text":
            texts.append("".join(node.itertext()))
        elif axis:
            pass
        elif tag == "path":
            numbers = np.array(re.findall(r"-?\d+(?:\.\d+)?", node.get("d", "")), float)
            found.append(Mark(kind, numbers.reshape(-1, 2), paint))
        elif tag == "use":
            found.append(Mark(kind, np.array([[node.get("x", 0), node.get("y", 0)]], float), paint))
        elif tag == "image":
            place = [node.get(side, "0") for side in ("x", "y", "width", "height")]
            numbers = re.findall(r"-?\d+(?:\.\d+)?", " ".join([*place, node.get("transform", "")]))
            link = next(value for name, value in node.attrib.items() if name.endswith("href"))
            points = np.array(numbers + ["0"] * (len(numbers) % 2), float).reshape(-1, 2)
            found.append(Mark("image", points, {}, base64.b64decode(link.split(",", 1)[1])))
        for child in node:
            walk(child, kind, axis)

    drawings = list(ET.fromstring(f"<figure>{svg}</figure>"))
    for root in drawings:
        walk(root, "", False)
    width, height = map(float, drawings[0].get("viewBox", "").split()[2:])
    return found, texts, (width, height)


def drawing_differs(test: str, ref: str, label: str, allowed: Tolerance) -> str:
    """What is wrong with a drawing, or nothing: the same marks and words, about where they were, in the same paint."""
    (ours, said, _), (theirs, expected, size) = marks(test), marks(ref)
    wrong = texts_differ(said, expected, label, allowed)
    if wrong:
        return f"{label} says {wrong}"
    if label in BINNED and allowed.ranks and len(ours) != len(theirs):
        same = {mark.kind for mark in ours} == {mark.kind for mark in theirs}
        return "" if same and abs(len(ours) - len(theirs)) <= 10 else f"{label} is drawn of other marks"
    if [mark.kind for mark in ours] != [mark.kind for mark in theirs]:
        return f"{label} is drawn of {len(ours)} marks instead of {len(theirs)}, or of others"
    off = []
    for one, other in zip(ours, theirs, strict=True):
        if one.points.shape != other.points.shape:
            return f"a {other.kind} of {label} has {len(one.points)} points instead of {len(other.points)}"
        if paint_differs(one.paint, other.paint, allowed):
            return f"a {other.kind} of {label} is painted {one.paint} instead of {other.paint}"
        if other.picture and picture_differs(one.picture, other.picture, allowed):
            return f"another picture in {label}"
        away = np.abs(one.points - other.points) / size
        off.append(away[:, 1] if label in TIMED else away.ravel())
    for number, one in enumerate(theirs):  # pictures that were different are not to become the same
        for before in range(number if one.picture else 0):
            if theirs[before].picture not in (b"", one.picture) and ours[before].picture == ours[number].picture:
                return f"the same picture twice in {label}"
    if label in SORTED and allowed.ranks:
        values = [np.sort(np.concatenate([mark.points[:, 0] for mark in some])) for some in (ours, theirs)]
        off = [np.abs(values[0] - values[1]) / size[0]]
    everything = np.concatenate(off) if off else np.zeros(1)
    worst = np.median(everything) if label in BINNED and allowed.ranks else everything.max(initial=0)
    return f"a mark of {label} lies {worst:.0%} of the drawing off" if worst > allowed.drawn else ""


def texts_differ(test: list[str], ref: list[str], label: str, allowed: Tolerance) -> str:
    """What is wrong with what is written in a drawing. Fine-tuning may change ticks, but not their magnitude."""
    if not allowed.ranks:
        if len(test) != len(ref):
            return f"{len(test)} words and numbers instead of {len(ref)}"
        wrong = (text_differs(one, other, allowed, " %") for one, other in zip(test, ref, strict=True))
        return next(filter(None, wrong), "")
    words = [sorted({word for word in some if not NUMBER.fullmatch(word.strip())}) for some in (test, ref)]
    if words[0] != words[1]:
        return f"{words[0]} instead of {words[1]}"
    largest = [
        max(
            (abs(float(word.replace("−", "-"))) for word in some if NUMBER.fullmatch(word) and "," not in word),
            default=1,
        )
        for some in (test, ref)
    ]
    same = label in TIMED or 0.5 <= largest[0] / max(largest[1], 1e-9) <= 2
    return "" if same else f"numbers up to {largest[0]} instead of {largest[1]}"


def paint_differs(test: dict[str, str], ref: dict[str, str], allowed: Tolerance) -> bool:
    if test.keys() != ref.keys():
        return True
    for name, wanted in ref.items():
        given = test[name]
        if name == "fill" and wanted.startswith("#") and given.startswith("#") and grey(wanted) and grey(given):
            if np.abs(rgb(given) - rgb(wanted)).max() > 255 * allowed.paint:  # a share, drawn as a shade
                return True
        elif given != wanted:
            return True
    return False


def rgb(given: str) -> np.ndarray:
    return np.array([int(given[at : at + 2], 16) for at in (1, 3, 5)], float)


def grey(given: str) -> bool:
    return len(given) == 7 and np.ptp(rgb(given)) == 0


def picture_differs(test: bytes, ref: bytes, allowed: Tolerance) -> bool:
    """Whether a picture is another one, block by block."""
    ours, theirs = (Image.open(io.BytesIO(data)).convert("RGB") for data in (test, ref))
    if ours.size != theirs.size:
        return True
    small = [np.asarray(picture.resize((16, 16), Image.Resampling.BOX), float) for picture in (ours, theirs)]
    return np.abs(small[0] - small[1]).max() > 255 * 2 * allowed.drawn


def choice_differs(test: dict, ref: dict, allowed: Tolerance) -> str:
    """What is wrong with a gallery of other pictures: about as many, none blank, each with classes and confidence."""
    (ours, said, _), (theirs, expected, _) = marks(test["svg"]), marks(ref["svg"])
    sizes = [{Image.open(io.BytesIO(mark.picture)).size for mark in some if mark.picture} for some in (ours, theirs)]
    count = sum(bool(mark.picture) for mark in ours)
    if abs(count - sum(bool(mark.picture) for mark in theirs)) > allowed.images or sizes[0] != sizes[1]:
        return f"{ref['label']} shows {count} pictures, or of other sizes: {sizes[0]}"
    if any(mark.picture and not np.ptp(np.asarray(Image.open(io.BytesIO(mark.picture)))) for mark in ours):
        return f"a picture of {ref['label']} is blank"
    entries = test["alt"].removeprefix("Pictures: ").split("; ")
    named = f"(?:{'|'.join(CLASSES)})"
    odd = [entry for entry in entries if not re.fullmatch(rf"{named} as {named} (?:\d\d?|100) %", entry)]
    if odd or len(entries) != count:
        return f"{ref['label']} has the words {odd or entries}"
    unknown = {word for word in said if not re.fullmatch(rf"{named}|\d+ %", word)} - set(expected)
    return f"{ref['label']} says {unknown}" if unknown else ""


# --- outputs -------------------------------------------------------------------------------------------------------


def part_differs(test: dict, ref: dict, allowed: Tolerance) -> str:
    """What is wrong with a part of the document, or nothing."""
    if (test["kind"], test.get("label")) != (ref["kind"], ref.get("label")):
        return f"a {test['kind']} {test.get('label')} instead of a {ref['kind']} {ref.get('label')}"
    if ref["kind"] == "listing":
        return "" if test == ref else f"{ref['label']} is not the code that was listed"
    if ref["kind"] == "prose":
        return text_differs(test["markdown"], ref["markdown"], allowed)
    wrong = text_differs(test["caption"], ref["caption"], allowed)
    if ref["kind"] == "table":
        notes = (" ".join(part.get("notes", ())) for part in (test, ref))
        return wrong or text_differs(*notes, allowed) or table_differs(test, ref, allowed)
    if ref["label"] in CHOSEN and allowed.ranks:
        return wrong or choice_differs(test, ref, allowed)
    wrong = wrong or text_differs(test["alt"], ref["alt"], allowed)
    return wrong or drawing_differs(test["svg"], ref["svg"], ref["label"], allowed)


def results(outputs: list[dict]) -> list:
    """Of a cell's outputs those that carry a result: what was printed, and the parts of the document."""
    printed = "".join("".join(out["text"]) for out in outputs if out.get("name") == "stdout")
    parts = [out["data"].get(MIME, "".join(out["data"].get("text/plain", ""))) for out in outputs if "data" in out]
    return [printed, *parts]


def differs(test: list[dict], ref: list[dict], allowed: Tolerance) -> str:
    """What is wrong with a cell's outputs, or nothing."""
    ours, theirs = results(test), results(ref)
    if len(ours) != len(theirs):
        return f"{len(ours) - 1} outputs instead of {len(theirs) - 1}"
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, dict) != isinstance(other, dict):
            return "an output of another kind"
        wrong = part_differs(one, other, allowed) if isinstance(other, dict) else text_differs(one, other, allowed)
        if wrong:
            return wrong
    return ""


def tolerance(name: str) -> Tolerance:
    """That of a notebook: 01 trains the probe and 04 looks at it."""
    return TIGHT if name.startswith(("01", "04")) else LOOSE


def compare(cell, test, ref, skip_compare=None):
    """Takes the place of nbval's own comparison."""
    wrong = differs(test, ref, tolerance(cell.path.name))
    cell.comparison_traceback = [wrong]
    return not wrong


def pytest_configure(config):
    from nbval.plugin import IPyNbCell

    IPyNbCell.compare_outputs = compare


def kept(path: str) -> nbformat.NotebookNode:
    """An executed notebook without what differs from one execution to the next and is no result."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": notebook.metadata.kernelspec, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata.get("tags", [])}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for out in cell.outputs:
                if "data" in out:
                    out["data"] = {kind: data for kind, data in out["data"].items() if "widget" not in kind}
    return notebook


if __name__ == "__main__":
    nbformat.write(kept(sys.argv[1]), sys.argv[2])
