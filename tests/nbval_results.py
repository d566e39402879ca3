"""How `make nbval` compares a notebook's outputs: every result, with tolerances. A plugin for pytest beside nbval.

nbval alone asks for equal bytes, which neither times nor floating point on another processor give. Here words must be
equal, and numbers as near as computing them elsewhere can make them:

- What depends on the linear probe alone hardly varies: one image of a few hundred, two percent of a loss.
- Fine-tuning multiplies rounding errors from step to step, so it is given more room.
- Times, rates and memory are the machine's. They must be numbers.

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
    """How far a number may be off: percentages by `points`, others by a share of themselves and by `least`."""

    points: float
    share: float
    least: float
    drawn: float  # share of a drawing's size
    images: int = 0  # of which there are so many
    names: bool = False  # whether which class comes first, and so which pictures are shown, may change


TIGHT = Tolerance(points=1.0, share=0.03, least=0.01, drawn=0.01)
LOOSE = Tolerance(points=3.0, share=0.15, least=0.05, drawn=0.05, images=4, names=True)

NUMBER = re.compile(r"(?<![\w.#-])[+−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
MACHINES = re.compile(  # what follows a number that is the machine's and not the study's
    r"\s*\\?(?:s\b|ms\b|min\b|h\b|MiB|GiB|images per second|images/s|times (?:as|the training)|% of the time|"
    r"times as long)"
)
COUNTED = re.compile(r" test images only| only (?:the|full|fine)")  # right by one approach and not by the other
WHERE = re.compile(r"CPU \\?\(\d+ threads?\\?\)")
MACHINES_COLUMNS = re.compile(r", s$|images/s|MiB|^training$")
FREE = {  # columns that say where and when
    "tab-provenance": {"commit", "device", "finished (UTC)"},
    "tab-environment": {"value"},
}
CHOSEN = {"fig-mistakes", "fig-disagreements", "fig-neighbours"}  # of pictures that a ranking chooses
TIMED = {"fig-accuracy-time"}  # whose x is time
BINNED = {"fig-reliability"}  # whose bins may be empty
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")  # the demo's classes


def text_differs(test: str, ref: str, allowed: Tolerance) -> str:
    """What is wrong with a text, or nothing: its words are to be those of `ref`, its numbers near."""
    test, ref = (WHERE.sub("CPU", text) for text in (test, ref))
    pairs = [(NUMBER.split(text), list(NUMBER.finditer(text))) for text in (test, ref)]
    (words, found), (expected_words, expected) = pairs
    if len(found) != len(expected):
        return f"{len(found)} numbers instead of {len(expected)}: {test!r} instead of {ref!r}"
    for one, other in zip(words, expected_words, strict=True):
        if plain(one, allowed) != plain(other, allowed):
            return f"{one!r} instead of {other!r} in {test!r}"
    for one, other in zip(found, expected, strict=True):
        if MACHINES.match(ref, other.end()):
            continue
        if COUNTED.match(ref, other.end()) and abs(number(one[0]) - number(other[0])) <= allowed.images:
            continue
        percent = re.match(r"[\s\d.,+−to()-]*(?:%|points|percentage)", ref[other.end() :]) is not None
        if not near(number(one[0]), number(other[0]), percent, allowed):
            return f"{one[0]} instead of {other[0]} in {test!r}"
    return ""


def plain(words: str, allowed: Tolerance) -> str:
    """Words in which, if the tolerance says so, any class may stand for any other, and a sign for its opposite."""
    words = " ".join(words.split())
    return re.sub(rf"\b(?:{'|'.join(WORDS)})\b", "CLASS", words) if allowed.names else words


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def near(test: float, ref: float, percent: bool, allowed: Tolerance) -> bool:
    """Whether a number is as near to its reference as it must be."""
    if percent:
        return abs(test - ref) <= allowed.points
    return abs(test - ref) <= max(allowed.least * (1 if abs(ref) < 10 else 10), allowed.share * abs(ref))


def table_differs(test: dict, ref: dict, allowed: Tolerance) -> str:
    """What is wrong with a table, or nothing. A row that names the linear probe is compared tightly."""
    if test["header"] != ref["header"] or len(test["rows"]) != len(ref["rows"]):
        return f"head {test['header']} and {len(test['rows'])} rows instead of {ref['header']} and {len(ref['rows'])}"
    for row, expected in zip(test["rows"], ref["rows"], strict=True):
        for head, one, other in zip(ref["header"], row, expected, strict=True):
            if head in FREE.get(ref["label"], ()):
                continue
            if MACHINES_COLUMNS.search(head):
                one, other = NUMBER.sub("7", one), NUMBER.sub("7", other)
            within = dataclasses.replace(TIGHT, names=allowed.names) if "linear probe" in expected[0] else allowed
            unit = " %" if re.search("%|points", head) else ""
            wrong = text_differs(one + unit, other + unit, within)
            if wrong:
                return f"column {head!r}: {wrong}"
    return ""


def marks(svg: str) -> list[tuple[str, np.ndarray, str]]:
    """(kind, numbers of its geometry, colour or picture) of what a drawing consists of, its axes and texts apart."""
    found = []

    def walk(node: ET.Element, kind: str) -> None:
        tag, name = node.tag.split("}")[-1], re.sub(r"_\d+$", "", node.get("id", ""))
        if tag in ("defs", "clipPath", "metadata") or name.startswith("matplotlib.axis") or name == "text":
            return
        kind = name if tag == "g" and name else kind
        if tag == "path":
            numbers = re.findall(r"-?\d+(?:\.\d+)?", node.get("d", ""))
            found.append((kind, np.array(numbers, float), colour(node.get("style", ""))))
        elif tag == "use":
            found.append((kind, np.array([node.get("x", 0), node.get("y", 0)], float), ""))
        elif tag == "image":
            link = next(value for name, value in node.attrib.items() if name.endswith("href"))
            found.append(("image", np.zeros(0), link.split(",", 1)[1]))
        for child in node:
            walk(child, kind)

    walk(ET.fromstring(svg), "")
    return found


def colour(style: str) -> str:
    given = re.search(r"fill: (#[0-9a-f]{6})", style)
    return given[1] if given else ""


def drawing_differs(test: str, ref: str, label: str, allowed: Tolerance) -> str:
    """What is wrong with a drawing, or nothing: the same marks, where they were, in about the same colour."""
    ours, theirs = marks(test), marks(ref)
    if label in BINNED and allowed.names:
        same = {kind for kind, *_ in ours} == {kind for kind, *_ in theirs}
        return "" if same and near(len(ours), len(theirs), False, allowed) else f"{label} is drawn of other marks"
    if [kind for kind, *_ in ours] != [kind for kind, *_ in theirs]:
        return f"{label} is drawn of {len(ours)} marks instead of {len(theirs)}, or of others"
    size = float(re.search(r'viewBox="0 0 ([\d.]+)', ref)[1])  # type: ignore[index]
    for (kind, where, what), (_, expected, wanted) in zip(ours, theirs, strict=True):
        if kind == "image":
            if label not in CHOSEN and pixels_differ(what, wanted, allowed):
                return f"another picture in {label}"
            continue
        if len(where) != len(expected):
            return f"a {kind} of {label} has {len(where) // 2} points instead of {len(expected) // 2}"
        if label in TIMED:
            where, expected = where[1::2], expected[1::2]
        if len(where) and np.abs(where - expected).max() > allowed.drawn * size:
            return f"a {kind} of {label} lies {np.abs(where - expected).max():.0f} points off"
        if what and wanted and np.abs(rgb(what) - rgb(wanted)).max() > 255 * max(0.05, allowed.drawn * 2):
            return f"a {kind} of {label} is {what} instead of {wanted}"
    return ""


def rgb(given: str) -> np.ndarray:
    return np.array([int(given[at : at + 2], 16) for at in (1, 3, 5)])


def pixels_differ(test: str, ref: str, allowed: Tolerance) -> bool:
    ours, theirs = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float) for data in (test, ref)
    )
    return ours.shape != theirs.shape or np.abs(ours - theirs).mean() > 255 * allowed.drawn


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
        return wrong or table_differs(test, ref, allowed)
    if ref["label"] not in CHOSEN:
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


def compare(cell, test, ref, skip_compare=None):
    """Takes the place of nbval's own comparison."""
    allowed = TIGHT if "linear_probe" in cell.path.name else LOOSE
    wrong = differs(test, ref, allowed)
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
