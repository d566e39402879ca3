"""Pictures of strangers -> bytes that a page and a PDF can hold, with a size for print. Nothing is fetched."""

import base64
import binascii
import dataclasses
import io
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from . import drawing
from .origin import ExportError

LINE = 334.5  # points of a line of the PDF
DRAWN = LINE / 391  # of the size that it was drawn in has a drawing of ours in print: the widest fill a line
PAGE = 600.0  # points of height that a picture may have
KINDS = {"image/png": "png", "image/jpeg": "jpg", "image/svg+xml": "svg"}


@dataclasses.dataclass(frozen=True)
class Picture:
    """Bytes as PNG, JPEG or SVG; `width` in points, `chosen` by the author or else the picture's own."""

    data: bytes
    mime: str
    width: float
    alt: str
    chosen: bool = False

    @property
    def printed(self) -> float:
        """The width in print, where letters are smaller than on a screen."""
        return self.width if self.chosen else min(self.width, 0.75 * LINE)

    @property
    def source(self) -> str:
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"

    @property
    def ending(self) -> str:
        return KINDS[self.mime]


def picture(data: bytes, alt: str, warn: Callable[[str], None], width: float = 0.0) -> Picture:
    """A picture of any kind that pillow reads, or SVG; `width` in points, 0 for its own. `warn` is told of what is left
    out of it. Raises ExportError."""
    if b"<svg" in data[:4000].lower():
        svg = drawing.foreign(data.decode("utf-8", errors="replace"), warn)
        own, height = drawing.size(svg)
        return Picture(svg.encode(), "image/svg+xml", _fitting(width or own, own, height), alt, bool(width))
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            dots = float(image.info.get("dpi", (96, 96))[0] or 96)
            own, height = image.width * 72 / max(dots, 48), image.height * 72 / max(dots, 48)
            mime = Image.MIME.get(image.format or "", "")
            if mime not in ("image/png", "image/jpeg") or getattr(image, "is_animated", False):
                file = io.BytesIO()
                image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB").save(
                    file, "PNG"
                )
                data, mime = file.getvalue(), "image/png"
    except Exception as error:  # pillow raises of many kinds for what is no picture
        why = re.sub(r" ?<[^>]*>", "", str(error))  # without the address of an object
        raise ExportError(f"a picture that cannot be read ({why})") from error
    return Picture(data, mime, _fitting(width or own, own, height), alt, bool(width))


def decoded(text: str) -> bytes:
    """Raises ExportError for what is no base64."""
    try:
        return base64.b64decode(re.sub(r"\s", "", text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ExportError("a picture that is no base64") from error


def addressed(source: str, folders: list[str], attachments: dict) -> bytes:
    """The bytes behind an address in Markdown or HTML: data, an attachment, or a file beside the notebook.

    Raises ExportError, with the words that say why it is left out."""
    if source.lower().startswith("data:"):
        kind, _, content = source.partition(",")
        return decoded(content) if kind.lower().endswith(";base64") else urllib.parse.unquote_to_bytes(content)
    if source.startswith("attachment:"):
        name = urllib.parse.unquote(source.removeprefix("attachment:"))
        bundle = attachments.get(name) or {}
        for mime, content in bundle.items():
            text = "".join(content) if isinstance(content, list) else str(content)
            return text.encode() if mime == "image/svg+xml" and "<svg" in text else decoded(text)
        raise ExportError(f"the picture {name!r} is not attached to the cell")
    if re.match(r"[a-z][a-z0-9+.-]+:|//", source, re.IGNORECASE):
        raise ExportError(f"the picture {source[:80]!r} is not in the notebook, and a report fetches nothing")
    name = urllib.parse.unquote(source.split("?")[0])
    for folder in folders:
        if not Path(name).is_absolute() and (file := Path(folder, name)).is_file():
            return file.read_bytes()
    raise ExportError(f"the picture {name[:80]!r} is not there")


def in_html(
    kind: str, source: str, alt: str, nameless: str, folders: list[str], attachments: dict, warn: Callable[[str], None]
) -> Picture | None:
    """An element of HTML, as sanitize.cleaned hands it over: a drawing ("svg"), or an image's address; `nameless` are
    its words where it brings none. None where it is left out, which `warn` is told."""
    words, _, width = alt.partition("\0")
    try:
        data = source.encode() if kind == "svg" else addressed(source, folders, attachments)
        return picture(data, words or nameless, warn, points(width))
    except ExportError as error:
        warn(f"{error}; it is left out")
        return None


def points(width: str) -> float:
    """A width as Markdown and HTML have it, in points; 0 for none."""
    found = re.fullmatch(r"\s*([\d.]+)\s*(px|pt|in|cm|mm|%|em)?\s*", width)
    if not found:
        return 0.0
    unit = {"pt": 1.0, "in": 72.0, "cm": 28.35, "mm": 2.835, "%": LINE / 100, "em": 10.0}.get(found[2] or "px", 0.75)
    return min(float(found[1]) * unit, LINE)


def _fitting(width: float, own: float, height: float) -> float:
    """`width`, or what of it fits on a page."""
    tall = height * width / own if own else 0
    return max(1.0, min(width, LINE, width * PAGE / tall if tall > PAGE else width))
