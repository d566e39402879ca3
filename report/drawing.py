"""A drawing (SVG) that may stand inside a page: its ids its own, and nothing in it that runs, fetches or styles."""

import re
from xml.etree import ElementTree

from assemble import ExportError

NAMESPACE = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
SHAPES = set(
    "svg g defs path use rect circle ellipse line polyline polygon text tspan image clipPath mask title desc "
    "linearGradient radialGradient stop pattern".split()
)
LEFT_OUT = {"metadata", "style"}  # matplotlib's one style rule stands in the page's own style sheet

ElementTree.register_namespace("", NAMESPACE)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def inlined(svg: str, label: str, alt: str) -> str:
    """`svg` for use inside HTML, named `alt` to those who cannot see it. Raises ExportError for what is no drawing."""
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise ExportError(f"the drawing {label!r} is no valid SVG ({error})") from error
    for node in list(root.iter()):
        for child in [child for child in node if _name(child) in LEFT_OUT]:
            node.remove(child)
    for node in root.iter():
        if _name(node) not in SHAPES:
            raise ExportError(f"the drawing {label!r} holds <{_name(node)}>, which does not belong into a drawing")
        for name, value in list(node.attrib.items()):
            node.set(name, _own(name, value, label))
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode")


def _name(node: ElementTree.Element) -> str:
    return str(node.tag).removeprefix(f"{{{NAMESPACE}}}")


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
