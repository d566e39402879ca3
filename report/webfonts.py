"""The typeface of the PDF for the HTML report: what a page needs of each font, embedded. A formula font, too."""

import base64
import io
from pathlib import Path

import font_source_serif_pro
import matplotlib
from fontTools import subset
from fontTools.ttLib import TTFont

TEXT = Path(font_source_serif_pro.font_directory)
# matplotlib brings the only freely licensed font with a MATH table that pip installs; MathML looks ragged without one.
MATH = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"
FACES = (
    ("Source Serif Pro", "normal", 400, TEXT / "SourceSerifPro-Regular.ttf"),
    ("Source Serif Pro", "italic", 400, TEXT / "SourceSerifPro-It.ttf"),
    ("Source Serif Pro", "normal", 700, TEXT / "SourceSerifPro-Bold.ttf"),
    ("Report Math", "normal", 400, MATH),
)


def faces(page: str) -> str:
    """CSS with the fonts' glyphs for the characters of `page`, and for the formulas in it."""
    upright = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    italic = "".join(chr(0x1D434 + place) for place in range(52)) + "".join(chr(0x1D6E2 + p) for p in range(58))
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: {weight}; '
        f"src: url(data:font/woff;base64,{_woff(path, page + (upright + italic if family == 'Report Math' else ''))}) "
        'format("woff"); }'
        for family, style, weight, path in FACES
    )


def _woff(path: Path, text: str) -> str:
    """The glyphs for `text`, in base64; the same bytes for the same text."""
    options = subset.Options(
        flavor="woff", layout_features=["kern", "liga", "lnum", "tnum", "ssty"], notdef_outline=True
    )
    font = TTFont(path, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=set(map(ord, text)))
    subsetter.subset(font)
    file = io.BytesIO()
    font.flavor = "woff"
    font.save(file)
    return base64.b64encode(file.getvalue()).decode()
