"""A drawing (SVG) that may stand inside a page: its ids its own, and nothing in it that runs, fetches or styles."""

import re
from collections.abc import Callable
from xml.etree import ElementTree

from .origin import ExportError

NAMESPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
SHAPES = set(
    "svg g defs path use rect circle ellipse line polyline polygon text tspan image clipPath mask title desc "
    "linearGradient radialGradient stop pattern".split()
)
LEFT_OUT = {"metadata", "style"}  # matplotlib's one style rule stands in the page's own style sheet
MOVES = set("animate animateTransform animateMotion animateColor set discard".split())
RUNS = set("script foreignObject iframe embed object handler listener audio video canvas".split()) | MOVES
FETCHES = re.compile(r"\\|//|javascript:|@import|(?:url|src|image-set)\s*\((?!\s*['\"]?#)", re.IGNORECASE)

COLOUR = re.compile(r"#([0-9a-fA-F]{6})\b")
VARIABLE = re.compile(r"var\(--c([0-9a-f]{6}),")
NIGHT = (0.21, 0.92)  # lightness of dark paper, and of ink on it

ElementTree.register_namespace("", NAMESPACE)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def inlined(svg: str, label: str, alt: str) -> str:
    """`svg` for use inside HTML, named `alt` to those who cannot see it. Raises ExportError for what is no drawing."""
    root = _parsed(svg, f"the drawing {label!r}")
    for node in list(root.iter()):
        for child in [child for child in node if _name(child) in LEFT_OUT]:
            node.remove(child)
    for node in root.iter():
        if _name(node) not in SHAPES:
            raise ExportError(f"the drawing {label!r} holds <{_name(node)}>, which does not belong into a drawing")
        for name, value in list(node.attrib.items()):
            node.set(name, _own(name, value, label))
            if name in ("style", "fill", "stroke"):
                node.set(name, COLOUR.sub(lambda found: f"var(--c{found[1].lower()}, {found[0]})", node.get(name, "")))
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def night(page: str) -> str:
    """CSS with what each colour of the drawings in `page` becomes on dark paper."""
    return " ".join(f"--c{colour}: {_dark(colour)};" for colour in sorted(set(VARIABLE.findall(page))))


def _dark(colour: str) -> str:
    """The colour with its hue, and the lightness turned round: what was faint on white is faint on dark (OKLab)."""
    import numpy as np

    to_lms = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    to_lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    srgb = np.array([int(colour[n : n + 2], 16) / 255 for n in (0, 2, 4)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = to_lab @ np.cbrt(to_lms @ linear)
    lab[0] = NIGHT[0] + (NIGHT[1] - NIGHT[0]) * max(0.0, 1 - lab[0]) ** 0.7
    linear = np.clip(np.linalg.inv(to_lms) @ (np.linalg.inv(to_lab) @ lab) ** 3, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * part):02x}" for part in srgb)


def several(svg: str) -> list[str]:
    """The drawings of a figure, which stand one after the other. Raises ExportError for what is no drawing."""
    if svg.count("<svg") < 2:
        return [svg]
    return [ElementTree.tostring(root, encoding="unicode") for root in _parsed(f"<g>{svg}</g>", "a drawing")]


def foreign(svg: str, warn: Callable[[str], None]) -> str:
    """A stranger's `svg` for use as an image file, without what runs or fetches, of which `warn` is told.

    Raises ExportError for no drawing."""
    root = _parsed(svg, "a drawing")
    for node in root.iter():  # as it may stand inside a page, but not in a file of its own
        if not node.tag.startswith("{"):
            node.tag = f"{{{NAMESPACE}}}{node.tag}"
    if _name(root) != "svg":
        raise ExportError("a drawing that is no valid SVG")
    if "<?xml-stylesheet" in svg:
        warn("the style sheet of a drawing is left out, since a report fetches nothing")
    for node in list(root.iter()):
        for child in [child for child in node if _local(child) in RUNS]:
            words = " ".join("".join(child.itertext()).split())
            lost = f" with the words {words[:60]!r}" if words and _local(child) == "foreignObject" else ""
            why = "would move" if _local(child) in MOVES else "would run or fetch something"
            warn(f"<{_local(child)}>{lost} in a drawing is left out, since it {why}")
            node.remove(child)
    for node in root.iter():
        if _name(node) == "style" and FETCHES.search(node.text or ""):
            warn("<style> in a drawing is left out, since it would fetch something")
            node.text = ""
        for name, value in list(node.attrib.items()):
            inside = value.startswith("#") or re.match(r"data:image/(png|jpeg|gif|webp);base64,", value)
            runs, link = name.lower().startswith("on"), name in ("href", LINK)
            if runs or link and not inside or not link and not name.startswith("{") and FETCHES.search(value):
                why = "it would run a script" if runs else "it leads out of the drawing"
                warn(f"{'href' if link else name} of <{_local(node)}> in a drawing is left out, since {why}")
                del node.attrib[name]
    return ElementTree.tostring(root, encoding="unicode")


def size(svg: str) -> tuple[float, float]:
    """(width, height) of a drawing in points."""
    root = _parsed(svg, "a drawing")
    box = [float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", root.get("viewBox", ""))]
    sizes = [_points(root.get("width", "")), _points(root.get("height", ""))]
    if len(box) == 4:
        if not sizes[0] and not sizes[1]:
            sizes = [225.0, 225.0 * box[3] / (box[2] or 1)]  # the width that browsers give it
        sizes = [sizes[0] or sizes[1] * box[2] / (box[3] or 1), sizes[1] or sizes[0] * box[3] / (box[2] or 1)]
    return (sizes[0] or 225.0, sizes[1] or 112.5)


def _points(length: str) -> float:
    found = re.fullmatch(r"\s*([\d.]+)\s*(px|pt|in|cm|mm)?\s*", length)
    return float(found[1]) * {"pt": 1, "in": 72, "cm": 28.35, "mm": 2.835}.get(found[2] or "", 0.75) if found else 0.0


def _parsed(svg: str, what: str) -> ElementTree.Element:
    if "<!ENTITY" in svg.upper():
        raise ExportError(f"{what} declares entities, which a drawing has no need of")
    try:
        return ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ExportError(f"{what} is no valid SVG ({error})") from error


def _name(node: ElementTree.Element) -> str:
    return str(node.tag).removeprefix(f"{{{NAMESPACE}}}")


def _local(node: ElementTree.Element) -> str:
    """A node's name, whatever its namespace."""
    return str(node.tag).rpartition("}")[2]


def _own(name: str, value: str, label: str) -> str:
    """An attribute's value with the ids in it made this drawing's own."""
    if name == "id":
        return f"{label}-{value}"
    if name in ("href", LINK):
        if value.startswith("#"):
            return f"#{label}-{value[1:]}"
        if re.match(r"data:image/(png|jpeg);base64,", value):
            return value
        raise ExportError(f"the drawing {label!r} refers to {value[:60]!r} outside of itself")
    own = re.sub(r"url\(\s*(['\"]?)#([^'\")]+)\1\s*\)", rf"url(#{label}-\2)", value)
    rest = own.replace(f"url(#{label}-", "")
    if name.lower().startswith("on") or re.search(r"\\|//|javascript:|(?:url|src|image-set)\s*\(", rest, re.IGNORECASE):
        raise ExportError(f"the drawing {label!r} has an attribute {name!r} that could run or fetch something")
    return own
