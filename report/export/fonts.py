"""The typefaces of both formats, which never depend on what a machine has installed, and the signs they lack."""

import base64
import contextlib
import functools
import importlib.util
import io
import logging
import re
from pathlib import Path

from .origin import Journal, Place


def _folder(package: str, *below: str) -> Path:
    """A folder of an installed package, which is not imported: that would read the user's settings."""
    spec = importlib.util.find_spec(package)
    assert spec and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], *below)


TEXT = _folder("font_source_serif_pro", "files")
# matplotlib brings the only freely licensed font with a MATH table that pip installs; MathML looks ragged without one.
MORE = _folder("matplotlib", "mpl-data", "fonts", "ttf")
MATH = MORE / "DejaVuSerif.ttf"
FACES = (
    ("Source Serif Pro", "normal", 400, TEXT / "SourceSerifPro-Regular.ttf"),
    ("Source Serif Pro", "italic", 400, TEXT / "SourceSerifPro-It.ttf"),
    ("Source Serif Pro", "normal", 700, TEXT / "SourceSerifPro-Bold.ttf"),
    ("Report Math", "normal", 400, MATH),
)
# DejaVu's table leaves at zero where scripts, limits and fractions stand, so that they float and collide; TeX's values,
# in thousandths of the size of the type, do not.
PLACES = dict(
    SubscriptShiftDown=250, SubscriptTopMax=344, SubscriptBaselineDropMin=200, SuperscriptShiftUp=363,
    SuperscriptShiftUpCramped=289, SuperscriptBottomMin=108, SuperscriptBaselineDropMax=250, SubSuperscriptGapMin=160,
    SuperscriptBottomMaxWithSubscript=344, UpperLimitGapMin=120, UpperLimitBaselineRiseMin=150, LowerLimitGapMin=120,
    LowerLimitBaselineDropMin=600, FractionNumeratorShiftUp=394, FractionNumeratorDisplayStyleShiftUp=677,
    FractionDenominatorShiftDown=345, FractionDenominatorDisplayStyleShiftDown=686, StackTopShiftUp=444,
    StackTopDisplayStyleShiftUp=677, StackBottomShiftDown=345, StackBottomDisplayStyleShiftDown=686,
)  # fmt: skip
# Signs that are never drawn, whatever the font: joiners, directions, variants.
UNDRAWN = re.compile(r"[\s\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e01ef]")


def faces(page: str, mathematical: bool = True) -> str:
    """CSS with the fonts' glyphs for the characters of `page`, and for the formulas in it."""
    upright = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    italic = "".join(chr(0x1D434 + place) for place in range(52)) + "".join(chr(0x1D6E2 + p) for p in range(58))
    signs = "".join(sorted(set(page)))
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: {weight}; '
        f"src: url(data:font/woff;base64,{_woff(path, signs + (upright + italic if path == MATH else ''))}) "
        'format("woff"); }'
        for family, style, weight, path in FACES
        if mathematical or path != MATH
    )


def _woff(path: Path, text: str) -> str:
    """The glyphs for `text`, in base64; the same bytes for the same text."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools").setLevel(logging.ERROR)
    options = subset.Options(
        flavor="woff", layout_features=["kern", "liga", "lnum", "tnum", "ssty"], notdef_outline=True,
        drop_tables=["FFTM", "name"], hinting=False,
    )  # fmt: skip
    font = TTFont(path, recalcTimestamp=False, lazy=True)
    if path == MATH:
        constants = font["MATH"].table.MathConstants
        for name, thousandths in PLACES.items():
            getattr(constants, name).Value = round(thousandths * font["head"].unitsPerEm / 1000)
    names = font["name"]  # browsers ask for it; to look for what in it is used takes longer than all else
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=set(map(ord, text)))
    subsetter.subset(font)
    font["name"] = names
    file = io.BytesIO()
    font.flavor = "woff"
    font.save(file)
    return base64.b64encode(file.getvalue()).decode()


@functools.cache
def _signs_of(path: str, number: int = -1) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    with contextlib.suppress(Exception):  # a font of the system that cannot be read covers nothing
        return frozenset(TTFont(path, lazy=True, fontNumber=number).getBestCmap() or {})
    return frozenset()


def missing(text: str, system: bool = False) -> str:
    """The signs of `text` that none of the fonts has; `system` counts what else this machine has."""
    wanted = {sign for sign in set(text) if ord(sign) > 0x17F and not UNDRAWN.match(sign)}
    for path in (FACES[0][3], MORE / "DejaVuSans.ttf", MATH, MORE / "DejaVuSansMono.ttf", MORE / "STIXGeneral.ttf"):
        if wanted and path.exists():
            wanted -= {sign for sign in wanted if ord(sign) in _signs_of(str(path))}
    if wanted and system:
        import typst

        for font in typst.Fonts(True, False, []).fonts():
            if wanted and font.path:
                wanted -= {sign for sign in wanted if ord(sign) in _signs_of(font.path, font.index)}
    return "".join(sorted(wanted))


@functools.lru_cache(maxsize=2)
def for_typst(system: bool) -> object:
    """The fonts of a PDF: ours only, so that two machines make the same bytes, unless a sign needs more."""
    import typst

    return typst.Fonts(system, True, [str(TEXT), str(MORE)])


def look_for_missing(texts: list[tuple[Place, str]], journal: Journal) -> bool:
    """Warns of signs that become boxes in the PDF; says whether the fonts of this machine are needed."""
    lost = missing("".join(text for _, text in texts))
    if not lost:
        return False
    boxes = missing(lost, system=True)
    for place, text in texts:
        if here := sorted(set(boxes) & set(text)):
            shown = " ".join(f"{sign} (U+{ord(sign):04X})" for sign in here[:8]) + " \N{HORIZONTAL ELLIPSIS}" * (
                len(here) > 8
            )
            journal.warn(place, f"no font at hand has {shown}; the PDF shows a box for each")
    return set(boxes) != set(lost)
