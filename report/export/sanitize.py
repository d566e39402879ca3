"""HTML of strangers, in Markdown or as an output -> what may stand in a report, and words for what may not.

BeautifulSoup finds what runs, fetches or cannot be typeset; bleach, which many keep, then lets only plain elements
through; pandoc reads those into a tree that holds no raw markup at all.
"""

import re
from collections.abc import Callable

import bleach
from bs4 import BeautifulSoup, Comment

REMOVED = (
    "script style iframe object embed applet audio video canvas link meta base template noscript form input button "
    "select textarea frame frameset math marquee dialog portal map svg title head"
).split()
QUIET = {"style", "title", "meta", "head", "link"}  # looks and descriptions, no content
KEPT = set(
    "a abbr b blockquote br caption center cite code col colgroup dd del details dfn div dl dt em figcaption figure "
    "font h1 h2 h3 h4 h5 h6 hr i ins kbd li mark ol p pre q s samp section small span strike strong sub summary sup "
    "table tbody td tfoot th thead tr tt u ul var".split()
)
ATTRIBUTES = {"a": ["href", "id"], "td": ["colspan", "rowspan"], "th": ["colspan", "rowspan"], "ol": ["start"]}
SVG = re.compile(r"<svg\b.*?</svg\s*>", re.DOTALL | re.IGNORECASE)
FETCHES = re.compile(r"@import|\b(?:url|src|image-set)\(\s*['\"]?(?!\s*(?:#|data:))", re.IGNORECASE)
LOOKS = re.compile(r"(?:^|;|\s)(?:color|background(?:-color)?)\s*:", re.IGNORECASE)

Token = Callable[[str, str], str]  # (kind, content) -> the sign that stands for it


def cleaned(markup: str, warn: Callable[[str], None], picture: Callable[[str, str, str], str], looks: bool = True,
            block: bool = True) -> str:  # fmt: skip
    """`markup` without what runs, fetches or cannot be shown, each of which `warn` is told.

    `picture(kind, source, alt)` takes an image's address, or a drawing, and returns the words that stand for it.
    """
    markup = SVG.sub(lambda match: picture("svg", match[0], ""), markup)
    soup = BeautifulSoup(markup, "html.parser")
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    for tag in soup.find_all(REMOVED):
        if tag.decomposed:
            continue
        if tag.name not in QUIET and not _checkbox(tag):
            warn(f"<{tag.name}> is left out, since it {_why(tag.name)}")
        if tag.name == "style" and FETCHES.search(tag.get_text()) or tag.name == "link" and tag.has_attr("href"):
            warn(f"<{tag.name}> is left out, since it would fetch something")
        elif tag.name == "style" and looks:
            warn("<style> is left out; a report brings its own looks")
        tag.replace_with("\N{BALLOT BOX WITH CHECK}" if _checkbox(tag) and tag.has_attr("checked")
                         else "\N{BALLOT BOX}" if _checkbox(tag) else "")  # fmt: skip
    for tag in soup.find_all(True):
        for name in [name for name in tag.attrs if name.lower().startswith("on")]:
            warn(f"{name} of <{tag.name}> is left out, since it would run a script")
        if FETCHES.search(str(tag.get("style", ""))):
            warn(f"style of <{tag.name}> is left out, since it would fetch something")
        elif looks and LOOKS.search(str(tag.get("style", ""))) or looks and tag.name == "font" and tag.get("color"):
            warn(f"the colours of <{tag.name}> are left out")
    for tag in soup.find_all("summary"):
        tag.name = "p"
    for tag in soup.find_all("img"):
        width = str(tag.get("width", ""))
        words = picture("img", str(tag.get("src", "")).strip(), str(tag.get("alt", "")) + "\0" + width)
        paragraph = soup.new_tag("p")
        paragraph.string = words
        tag.replace_with(paragraph if words and block and tag.parent is soup else words)
    for tag in soup.find_all("a"):
        if tag.has_attr("name") and not tag.has_attr("id"):
            tag["id"] = tag["name"]
        if tag.has_attr("href") and not re.match(r"#|https?://|mailto:", str(tag["href"]).strip(), re.IGNORECASE):
            warn(f"the link to {str(tag['href'])[:80]!r} is left out; a report links to https://, mailto: or # only")
            del tag["href"]
    return bleach.clean(str(soup), tags=KEPT, attributes=ATTRIBUTES, protocols=["http", "https", "mailto"], strip=True)


def shows_anything(markup: str) -> bool:
    """Whether anything but looks and scripts is in it."""
    soup = BeautifulSoup(SVG.sub("drawing", markup), "html.parser")
    for tag in soup.find_all(REMOVED):
        tag.extract()
    return bool(soup.get_text().strip() or soup.find("img") or soup.find("table"))


def runs(markup: str) -> bool:
    """Whether it needs a script, a frame or a form to be what it is."""
    return bool(re.search(r"<(?:script|iframe|object|embed|input|canvas|button|select)\b", markup, re.IGNORECASE))


def _checkbox(tag: object) -> bool:
    return tag.name == "input" and str(tag.get("type", "")).lower() == "checkbox"  # type: ignore[attr-defined]


def _why(name: str) -> str:
    if name in ("script", "iframe", "object", "embed", "applet", "frame", "frameset", "portal", "template", "noscript"):
        return "would run or fetch something"
    if name in ("audio", "video"):
        return "cannot be printed"
    return "cannot stand in a report"
