"""The last look at a finished page: nothing in it may run, fetch, or carry a look of its own.

What strangers typed is escaped long before. This finds what a notebook's own Markdown or HTML output brought along.
"""

import re
from html.parser import HTMLParser

from assemble import ExportError

REFUSED = set(
    "applet audio base embed form frame frameset iframe img input link meta object script style video".split()
)
PLAIN_STYLE = re.compile(r"\s*(?:text-align: ?(?:left|right|center)|width: ?[\d.]+%);?\s*")  # what pandoc gives tables
LINKS = re.compile(r"(?:#|https?://|mailto:)", re.IGNORECASE)


def scan(body: str, where: str = "the text") -> None:
    """Raises ExportError for an element, attribute or address in the HTML `body` that has no business there."""
    parser = _Parser(where)
    parser.feed(body)
    parser.close()


class _Parser(HTMLParser):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.drawing = 0  # drawing.py has looked into those

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.drawing += tag == "svg"
        if self.drawing:
            return
        if tag in REFUSED:
            raise ExportError(f"{self.where} holds <{tag}>, which a report must not have")
        for name, value in attrs:
            if name == "style" and PLAIN_STYLE.fullmatch(value or ""):
                continue
            if name.startswith("on") or name in (
                "style",
                "src",
                "srcset",
                "action",
                "formaction",
                "srcdoc",
                "background",
            ):
                raise ExportError(f"{self.where} holds <{tag} {name}=...>, which could run or fetch something")
            if name == "href" and not LINKS.match((value or "").strip()):
                raise ExportError(
                    f"{self.where} links to {value!r}; a link starts with #, http://, https:// or mailto:"
                )

    def handle_endtag(self, tag: str) -> None:
        self.drawing -= tag == "svg" and self.drawing > 0
