"""The document from notebooks of the house: parts, numbers, references, strangers' words, drawings, the command."""

import base64
import io
import os
import re
import subprocess
import sys
from functools import partial
from html import escape, unescape
from pathlib import Path

import nbformat
import pytest
import typst
from export import assemble, drawing, exporter, fonts, holes, merge, metadata, outputs, pdf, tables
from export.origin import ExportError, Journal
from export.reading import tidied
from fontTools.ttLib import TTFont
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from report_lib.page import parts, plots

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20pt" height="10pt"><rect width="9" height="9"/></svg>'
STRANGE = ["<script>alert(1)</script>", "a_b%c&d#$", "猫", "[x](http://evil)", "*b* `c` $d$ @e \\f {g} #h",
           '"q" </style>', "| pipe", "\ufdd00\ufdd1 {python} 1", "<!-- eq-x -->"]  # fmt: skip


def part(kind, **content):
    return new_output("display_data", data={outputs.MIME: {"kind": kind, **content}})


def figure(label="fig-one", caption="A caption.", alt="An alternative text.", svg=SVG):
    return part("figure", label=label, caption=caption, alt=alt, svg=svg)


def table(label="tab-one", caption="Of things.", header=("name", "%"), rows=(("cat", "1.50"), ("dog", "2"))):
    return part("table", label=label, caption=caption, header=list(header), rows=[list(r) for r in rows], align="lr")


def notebook(*cells):
    return new_notebook(cells=list(cells))


def cell(*given, source="pass", tags=()):
    return new_code_cell(source, outputs=list(given), metadata={"tags": list(tags)})


def text(value):
    """As report_lib escapes strangers' words within a sentence."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(str(value).split()))


def html(nb):
    return exporter.HTMLReport().from_notebook_node(nb)[0]


def typst_of(nb):
    """The Typst source that would be compiled."""
    details = metadata.load()
    return pdf.Pdf(assemble.assemble(tidied(nb), Journal(), details.contribution)).source(details)


def made_pdf(nb):
    return exporter.PDFReport().from_notebook_node(nb)[0]


def warnings(nb):
    made = exporter.HTMLReport()
    made.from_notebook_node(nb)
    return made.journal.warnings


@pytest.fixture(autouse=True)
def no_fonts(request, monkeypatch):
    """Half a second of each page goes into its fonts, which few tests look at."""
    if "glyphs" not in request.node.name and "network" not in request.node.name:
        monkeypatch.setattr(fonts, "faces", lambda page, mathematical=True: "")


EVERY_KIND = {
    "figure": (figure(), "A caption."),
    "table": (table(), "1.50"),
    "prose": (part("prose", markdown="A *computed* sentence."), "computed"),
    "listing": (part("listing", label="lst-one", caption="Some code.", code="x = 'listed'"), "listed"),
    "stdout": (new_output("stream", name="stdout", text="printed <b>\n"), "printed"),
    "markdown": (new_output("display_data", data={"text/markdown": "some **bold** words"}), "bold"),
    "html": (new_output("execute_result", data={"text/html": "<table><tr><td>celled</td></tr></table>"}), "celled"),
    "latex": (new_output("display_data", data={"text/latex": "$\\displaystyle x^2$"}), None),
    "plain": (new_output("execute_result", data={"text/plain": "{'plainly': 1}"}), "plainly"),
    "json": (new_output("display_data", data={"application/json": {"jsonic": 1}}), "jsonic"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_output_reaches_both_documents(kind):
    output, word = EVERY_KIND[kind]
    nb = notebook(new_markdown_cell("# Title"), cell(output))
    page, source = html(nb), typst_of(nb)
    if word:
        assert word in page and word in source
    else:
        assert "<msup>" in page and "x^2" in source


def test_all_kinds_together_compile():
    nb = notebook(
        new_markdown_cell("# Title\n\nSee [Figure](#fig-one)."), *(cell(out) for out, _ in EVERY_KIND.values())
    )
    assert made_pdf(nb).startswith(b"%PDF") and len(html(nb)) > 5000 and not warnings(nb)


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([cell(new_output("error", ename="ValueError", evalue="no", traceback=[]))], "ended in ValueError: no"),
        ([new_markdown_cell("see [Figure](#fig-none)")], "refers to #fig-none, which nothing"),
        ([new_markdown_cell("see @tbl-none")], "refers to @tbl-none, which nothing"),
        ([cell(figure(), figure())], "the label 'fig-one' stands twice"),
        ([new_markdown_cell("as shown by [@nobody2020]")], "cites @nobody2020, which is not in report/references.bib"),
        ([cell(part("finish", label="fig-x"))], "cannot place"),
        ([cell(figure(alt=""))], "a figure 'fig-one' without alt"),
        ([cell(figure(caption=""))], "a figure 'fig-one' without caption"),
        ([cell(figure(caption=" "))], "a figure 'fig-one' without caption"),
        ([new_markdown_cell("see [Equation](#eq-none)")], "refers to #eq-none, which nothing"),
        ([new_markdown_cell("see [Table](#fig-one)"), cell(figure())], "calls #fig-one a Table; it is Figure.1"),
    ],
)
def test_what_would_be_wrong_stops_the_export(cells, says):
    with pytest.raises(ExportError, match=re.compile(says, re.DOTALL)):
        assemble.assemble(notebook(new_markdown_cell("# Title"), *cells), Journal())


@pytest.mark.parametrize("name", STRANGE)
def test_strangers_words_stay_words(name):
    nb = notebook(
        new_markdown_cell("# Title"),
        cell(part("prose", markdown=f"Worst at {text(name)} today.")),
        cell(table("tab-x", f"Of {name}.", (name, "n"), ((name, "1"),))),
        cell(figure("fig-x", f"Of {name}.", f"Alt {name}.")),
        cell(new_output("stream", name="stdout", text=name)),
    )
    page = html(nb)
    shown = re.sub("[\ufdd0-\ufdef]", "", name)  # noncharacters are no words
    assert page.count("<script") == 1 and "<script>alert" not in page and 'href="http' not in page
    words = unescape(re.sub(r"<[^>]*>", "", page[page.index("<main>") :]))
    assert words.count(shown) >= 6 and f'aria-label="Alt {escape(shown)}.' in page
    assert made_pdf(nb).startswith(b"%PDF")


def test_figures_tables_and_listings_are_numbered_and_referred_to():
    nb = notebook(
        new_markdown_cell("# Title\n\nFirst see [Figure](#fig-two), [Table](#tbl-one) and @tab-one or [-@fig-two]."),
        cell(figure()), cell(figure("fig-two", "Second.")), cell(table()),
    )  # fmt: skip
    page = html(nb).replace("\N{NO-BREAK SPACE}", " ")
    assert '<a href="#fig-two">Figure 2</a>' in page and page.count('<a href="#tab-one">Table 1</a>') == 2
    assert '<a href="#fig-two">2</a>' in page
    assert re.search(r'<figure id="fig-two">.*?<strong>Figure 2\.</strong> Second\.', page, re.DOTALL)
    assert "#strong[Figure~2.] Second." in typst_of(nb)


def test_labelled_formulas_are_numbered_and_referred_to():
    words = "# T\n\nBy [Equation](#eq-two),\n\n$$\nx^2\n$$ <!-- eq-one -->\n\nand\n\n$$ y $$ {#eq-two}\n\n$$ z $$"
    nb = notebook(new_markdown_cell(words))
    page, source = html(nb).replace("\N{NO-BREAK SPACE}", " "), typst_of(nb)
    assert '<a href="#eq-two">Equation 2</a>' in page and "eq-one -->" not in page + source
    assert re.search(r'id="eq-one" class="equation">\s*<math.*?<msup>.*?</math><span>\(1\)</span>', page, re.DOTALL)
    assert "<eq-one>" in source and "#link(<eq-two>)[Equation~2]" in source
    assert page.count('class="equation"') == 2 and made_pdf(nb).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ("<script>alert(1)</script>", "holds <script>"),
        ("<foreignObject/>", "holds <foreignObject>"),
        ('<rect onclick="x()"/>', "attribute 'onclick'"),
        ('<image href="http://evil/x.png"/>', "refers to 'http://evil/x.png' outside"),
        ('<image href="data:image/svg+xml;base64,AA"/>', "outside of itself"),
        ('<rect style="fill: url(http://evil)"/>', "attribute 'style'"),
        ('<rect style="fill: u\\72l(http:evil)"/>', "attribute 'style'"),
        ("<rect style=\"background: image-set('x.png' 1x)\"/>", "attribute 'style'"),
        ("<rect>", "no valid SVG"),
    ],
)
def test_a_drawing_of_ours_that_could_run_or_fetch_something_is_refused(inside, says):
    with pytest.raises(ExportError, match=says):
        html(notebook(new_markdown_cell("# T"), cell(figure(svg=SVG.replace("<rect", f"{inside}<rect")))))


def test_two_drawings_keep_their_ids_apart():
    drawing = SVG.replace(
        "<rect",
        '<style>* {fill: red}</style><defs><path id="p"/></defs><use href="#p"/>'
        "<pattern id='h'/><path style=\"fill: url('#h'); clip-path: url( #c)\"/><rect",
    )
    page = html(notebook(*(cell(figure(f"fig-{n}", svg=drawing)) for n in "ab"), new_markdown_cell("# T")))
    for n in "ab":
        assert f'id="fig-{n}-p"' in page and f'href="#fig-{n}-p"' in page
        assert f"fill: url(#fig-{n}-h); clip-path: url(#fig-{n}-c)" in page
    assert "fill: red" not in page  # a rule inside a drawing would hold for the whole page


def test_code_shows_where_it_wraps(monkeypatch):
    def drawn(code):
        nb = notebook(new_markdown_cell("# T"), cell(source=code, tags=["listing"]))
        made = typst.compile(typst_of(nb).encode(), format="svg", font_paths=fonts.for_typst(False))
        return "".join(page.decode() for page in (made if isinstance(made, list) else [made])).count("<use")

    fits = "x = 1"
    for terms, turns in ((12, 0), (18, 0), (22, 1), (44, 2)):  # the marks are the signs that are not in the code
        wraps = "x = " + " + ".join(["100"] * terms)
        signs = len(wraps.replace(" ", "")) - len(fits.replace(" ", ""))
        assert drawn(wraps) - drawn(fits) == signs + turns
    page = html(notebook(new_markdown_cell("# T"), cell(source="a = 1\nb = 2", tags=["listing"])))
    assert page.count('<span class="line in0">') == 2


def test_the_page_brings_the_glyphs_it_needs():
    page = html(notebook(new_markdown_cell("# Title\n\nThe naïve *probe* at $x$.")))
    found = re.findall(r'font-family: "([^"]+)".*?base64,([A-Za-z0-9+/=]+)', page)
    assert [name for name, _ in found] == ["Source Serif Pro"] * 3 + ["Report Math"]
    cmaps = [TTFont(io.BytesIO(base64.b64decode(data))).getBestCmap() for _, data in found]
    assert all(set(map(ord, "naïve")) <= set(cmap) for cmap in cmaps[:3]) and 0x1D465 in cmaps[3]
    assert "MATH" in TTFont(io.BytesIO(base64.b64decode(found[3][1])))


def test_signs_without_a_font_are_named():
    glyphless = "\U0001f9ff\u31de"
    nb = notebook(
        new_markdown_cell("# T\n\nNaïve “T” − ± × … ’ Ωж ☃"), cell(new_output("stream", name="stdout", text=glyphless))
    )
    if fonts.missing(glyphless, system=True):
        (said,) = warnings(nb)
        assert "the PDF shows a box for each" in said and "U+31DE" in said
    assert fonts.missing("Naïve “T” − ± × … ’ Ωж ☃ ∑\u200b\ufe0f") == ""


def test_code_is_shown_where_tagged_and_else_folded():
    nb = notebook(new_markdown_cell("# T"), cell(source="seen = 1", tags=["listing"]), cell(source="hidden = 2"))
    page, source = html(nb), typst_of(nb)
    assert "seen = 1" in source and "hidden = 2" not in source
    assert page.count('<div class="code">') == 1 and "hidden" in page.split('<div class="code">')[1]


def test_the_abstract_comes_first():
    nb = notebook(new_markdown_cell("# Later"), cell(part("prose", markdown="In short."), tags=["abstract"]))
    page = html(nb).partition("<main>")[2]
    assert page.index("At a glance") < page.index("In short.") < page.index("Later</h1>")


def test_references_stand_before_the_appendix_and_only_where_something_is_cited():
    nb = notebook(new_markdown_cell("# One [@kingma2015]"), new_markdown_cell("# Appendix: more {-}"))
    page = html(nb)
    assert page.index(">References</h1>") < page.index("Kingma, Diederik") < page.index("Appendix: more</h1>")
    assert "References</h1>" not in html(notebook(new_markdown_cell("# One")))
    assert "Appendix: more</h1>" in page[: page.index(">Statement of contribution</h1>")]
    assert page.index(">Statement of contribution</h1>") < page.index("@misc{contributors2026,")
    assert 'href="https://arxiv.org/abs/1412.6980"' in page and "https://arxiv.org/abs/1412.6980" in typst_of(nb)


def test_the_main_figure_stands_on_the_front_page_wherever_it_is_drawn():
    front = cell(part("prose", markdown="In short."), part("prose", markdown="Three claims."), tags=["abstract"])
    nb = notebook(new_markdown_cell("# Later"), cell(figure("fig-other"), figure()), front)
    tree = assemble.assemble(tidied(nb), Journal(), main_figure="fig-one")
    page = pdf.Pdf(tree).source(metadata.load())
    assert page.index("In short.") < page.index("<fig-one>") < page.index("Three claims.") < page.index("Later")
    assert "#strong[Figure~1.] A caption." in page and "#strong[Figure~2.]" in page
    assert "<fig-one>" in typst_of(
        notebook(new_markdown_cell("# Later"), cell(figure()))
    )  # where there is no front page


def test_sections_can_be_linked_to_and_the_contents_go_three_levels_deep():
    page = html(notebook(new_markdown_cell("# One\n\n## Two\n\n### Three")))
    assert '<h3 data-number="1.1.1" id="three"><a class="anchor" href="#three"' in page
    assert re.search(r'<nav id="toc".*<a href="#three"[^>]*>.*</nav>', page, re.DOTALL)


def test_names_are_said_once_decimals_stand_below_each_other_and_notes_below_the_rows():
    rows = (
        ("probe", "9.5 ± 0.25", "0123456789abcdef"),
        ("probe", "10 ± 1", "python -m x --seed 1"),
        ("tuned", "7 ± 2", "x"),
    )
    given = part("table", label="tab-x", caption="Of x.", header=["name", "%", "made by"], rows=[list(r) for r in rows],
                 align="lrl", notes=["Rounded to 2 %."])  # fmt: skip
    nb = notebook(new_markdown_cell("# T"), cell(given))
    page, source = html(nb), typst_of(nb)
    assert '<span class="again">probe</span>' in page and page.count('<tr class="group">') == 1
    assert '10<span class="pad">.0</span> ± 1<span class="pad">.00</span>' in page
    assert '<td class="right short"><span class="pad"></span>' not in page and "<code><span>0123456789abcdef" in page
    assert "<p>Rounded to 2\N{NO-BREAK SPACE}%.</p>" in page and "metadata((table(" in source
    assert source.count('"probe"') == 1 and 'hide(".0")' in source and 'box(raw("--seed"))' in source
    assert made_pdf(nb).startswith(b"%PDF")


@pytest.mark.parametrize(
    ("column", "pads"),
    [
        (["1.50", "2"], {1: (("2", False), (".00", True))}),
        (["\u221212 to \u22125", "\u22120.5 to +1.1"], {0: (("\u221212", False), (".0", True), (" to ", False),
                                                       ("\u22125", False), (".0", True))}),
        (["1.5", "2.5"], {}), (["1", "20"], {}), (["1.5", "the same"], {}),
        (["", "1.5", "2"], {2: (("2", False), (".0", True))}),
        # What fills a parenthesis goes behind it.
        (["2 (1 to 3)", "9.3 (9.2 to 10)"], {
            0: (("2", False), (".0", True), (" (", False), ("1", False), (" to ", False), ("3", False), (")", False),
                (".00", True))}),
    ],
)  # fmt: skip
def test_where_numbers_are_padded(column, pads):
    assert tables._padded(column) == pads


def test_what_code_printed_stands_with_it_in_another_frame():
    so, alone = (new_output("stream", name="stdout", text=text) for text in ("so", "alone"))
    nb = notebook(new_markdown_cell("# T"), cell(so, source="x", tags=["listing"]), cell(alone, source="y"))
    source = typst_of(nb)
    assert '#printing(raw("x"' in source and '#output("so", true)' in source and '#output("alone", false)' in source
    assert holes.MARK not in source[source.index("#printing") : source.index('#output("so"')]


def test_a_figure_that_leaves_a_hole_moves_below_text_of_its_section():
    tall = SVG.replace('width="20pt" height="10pt"', 'width="200pt" height="330pt"')
    words = "Words and words. " * 60
    cells = [new_markdown_cell(f"# T\n\n{words}\n\n{words}\n\n{words}"), cell(figure(svg=tall)),
             new_markdown_cell(f"BELOW. {words}\n\n# Next\n\nFurther.")]  # fmt: skip
    details = metadata.load()
    typeset = pdf.Pdf(assemble.assemble(tidied(notebook(*cells)), Journal()))
    source = typeset.source(details)
    tried = []

    def left(text):
        tried.append(text)
        return {"fig-one": 300.0} if text.index("BELOW") > text.index("<fig-one>") else {}

    filled = holes.filled(source, left)
    assert filled.index("BELOW") < filled.index("<fig-one>") < filled.index("Next") and len(filled) == len(source)
    assert holes.filled(source, lambda text: {"fig-one": 300.0}) == source  # where it does not help, all stays
    moved = typeset.compiled(source, False)[0]
    places = holes.left_by([b""], [("fig-one", 1, 700.0)])
    assert moved.startswith(b"%PDF") and places == {} and tried


def test_what_is_typeset_is_what_was_chosen_and_not_what_was_tried_last(monkeypatch):
    typeset = pdf.Pdf(assemble.assemble(tidied(notebook(new_markdown_cell("# T\n\nWords."))), Journal()))
    source = typeset.source(metadata.load())
    alone, first_page = typeset.compiled(source, False)
    assert Image.open(io.BytesIO(first_page)).size == (909, 1286)  # A4 at 110 dots an inch
    monkeypatch.setattr(holes, "filled", lambda text, left: left(text + "\n#pagebreak()\nLast.\n") or text)
    assert typeset.compiled(source, False) == (alone, first_page)


def test_no_figure_moves_over_a_heading_or_code_and_its_output():
    figure = "#figure([x], caption: [c]) <fig-one>"
    for fixed in ("= Next", "#heading(level: 1, numbering: none)[Next]", "#printing(raw(block: true))"):
        source = holes.MARK.join([fixed, figure, fixed, "Text."])
        assert list(holes.moves(source, "fig-one")) == []
    assert len(list(holes.moves(holes.MARK.join(["= T", "Before.", figure, "After."]), "fig-one"))) == 2
    code, table = '#raw("draw()", block: true)', "#loose(table(columns: 1, [x]))"
    for before, after in (
        (code, "Text."),
        ("= T", code),
        ("= T", table),
        ("#output([x], true)", "Text."),
        (table, table),
    ):
        assert list(holes.moves(holes.MARK.join(["= T", before, figure, after]), "fig-one")) == [], (
            "none leaves its code"
        )


def test_of_the_next_subsection_a_heading_and_its_first_paragraph_fill_the_page():
    figure = "#figure([x], caption: [c]) <fig-one>"
    blocks = ["== T", figure, "=== Next", "First.", "Second."]
    moved = ["== T", "=== Next\n\nFirst.", figure, "Second."]
    assert [each.split(holes.MARK) for each in holes.moves(holes.MARK.join(blocks), "fig-one")] == [moved]
    further = [each.split(holes.MARK) for each in holes.moves(holes.MARK.join(moved), "fig-one")]
    assert further == [[*moved[:2], "Second.", figure]]  # and never between that heading and its paragraph
    assert not [*holes.moves(holes.MARK.join([*blocks[:3], "#figure([y])"]), "fig-one")]


def tabbed(*sizes, each=1):
    """A cell with a tab for each (width, height) in points, with so many drawings of that size in each."""
    drawings = [SVG.replace('width="20pt" height="10pt"', f'width="{w}pt" height="{h}pt"') * each for w, h in sizes]
    return cell(*(
        part("figure", label=f"fig-{n}", caption=f"Of {n}.", alt="A line.", svg=svg, group="g", tab=f"tab {n}")
        for n, svg in enumerate(drawings)))  # fmt: skip


def test_figures_of_tabs_stand_in_a_row_of_the_pdf_where_they_fit():
    three = notebook(new_markdown_cell("# T"), tabbed((180, 150), (180, 150), (180, 150)))
    typeset = pdf.Pdf(assemble.assemble(tidied(three), Journal()))
    row = typeset.source(metadata.load())
    assert row.count("#tabbed(3, [") == 1 and row.count("#figure(") == 3 and row.count("], [") == 2
    assert typeset.compiled(row, False)[0].startswith(b"%PDF")
    for apart in ([(391, 150)] * 3, [(180, 900)] * 3, [(180, 150)]):  # small type, taller than a page, one alone
        assert "#tabbed" not in typst_of(notebook(new_markdown_cell("# T"), tabbed(*apart)))


@pytest.mark.parametrize(("each", "across", "beside"), [(2, 3, 1), (3, 1, 3), (4, 3, 1)])
def test_tabs_whose_drawings_would_fill_half_a_page_have_a_row_each(each, across, beside):
    """Two below each other stand in columns; three are too high for that; four are too wide for a row."""
    typeset = pdf.Pdf(
        assemble.assemble(tidied(notebook(new_markdown_cell("# T"), tabbed(*[(176, 170)] * 3, each=each))), Journal())
    )
    rows = typeset.source(metadata.load())
    assert rows.count(f"#tabbed({across}, [") == 1 and rows.count(f"grid(columns: {beside},") == 3
    assert typeset.compiled(rows, False)[0].startswith(b"%PDF")


def test_drawings_of_one_figure_stand_beside_each_other_and_share_no_id():
    two = SVG.replace("<rect", '<rect id="r"') * 2
    page = html(notebook(new_markdown_cell("# T"), cell(figure(svg=two))))
    ids = re.findall(r'id="(fig-one[^"]*)"', page)
    assert ids == ["fig-one", "fig-one-r", "fig-one-1-r"] and 'class="drawing several"' in page
    assert 'aria-label="An alternative text. Drawing 2 of 2."' in page
    with pytest.raises(ExportError, match="no valid SVG"):
        html(notebook(new_markdown_cell("# T"), cell(figure(svg=SVG + "<svg"))))
    source = typst_of(notebook(new_markdown_cell("# T"), cell(figure(svg=two))))
    assert "grid(columns: 2" in source and source.count("image(") == 2
    wide = SVG.replace('width="20pt"', 'width="391pt"') * 2
    assert "grid(columns: 1" in typst_of(notebook(new_markdown_cell("# T"), cell(figure(svg=wide))))


def test_what_announces_something_stays_with_it():
    """Above a formula, a list or code, a line that ends in a colon does not stand alone at the foot of a page."""
    source = typst_of(notebook(new_markdown_cell("# T\n\nThe loss is averaged:\n\n$$x = 1$$ {#eq-x}\n\nThis ends.")))
    assert "#announcing[\nThe loss is averaged:" in source.replace("\n\n", "\n") and "[\nThis ends" not in source


def test_a_hole_is_white_above_the_foot_of_a_page():
    page = b"#set page(width: 595pt, height: 842pt, margin: 60pt)\n#block(height: 200pt, width: 90pt, fill: black)"
    assert 520 < holes.white(typst.compile(page, format="png", ppi=holes.PPI)) < 540


def test_colours_of_drawings_turn_with_the_page():
    page = html(
        notebook(new_markdown_cell("# T"), cell(figure(svg=SVG.replace("<rect", '<rect style="fill: #DDDDDD"'))))
    )
    assert "fill: var(--cdddddd, #DDDDDD)" in page and re.search(r"--cdddddd: #3[0-9a-f]{5};", page)
    lightness = [int(drawing._dark(grey * 3)[1:3], 16) for grey in ("ff", "dd", "80", "00")]
    assert lightness == sorted(lightness) and lightness[0] < 0x20 and lightness[3] > 0xD0
    red, green, blue = (int(drawing._dark("0072b2")[n : n + 2], 16) for n in (1, 3, 5))
    assert blue > green > red  # still blue


def test_scripts_have_a_place_in_the_font_of_formulas():
    font = TTFont(io.BytesIO(base64.b64decode(fonts._woff(fonts.MATH, "x"))))
    constants = font["MATH"].table.MathConstants
    assert constants.SuperscriptShiftUp.Value == round(0.363 * 2048) and constants.FractionNumeratorShiftUp.Value > 500


def test_parts_of_one_group_become_tabs(monkeypatch):
    displayed = []
    monkeypatch.setattr(parts, "display", displayed.append)
    shown = parts.Figure("fig-one", "A caption.", "An alternative text.", SVG)
    parts.tabs("curves", corrected=shown, tuned=shown, published=None)
    outs = [new_output("display_data", data=each._repr_mimebundle_()) for each in displayed]
    assert [each.label for each in displayed] == ["fig-one", "fig-one-tuned"]
    page = html(notebook(new_markdown_cell("# T"), cell(*outs), cell(figure("fig-alone"))))
    assert page.count('<div class="tabs">') == 1 and re.findall('data-tab="(.*?)"', page) == ["corrected", "tuned"]
    assert page.index('id="fig-one-tuned"') < page.index('id="fig-alone"')
    assert typst_of(notebook(new_markdown_cell("# T"), cell(*outs))).count("#figure(") == 2


def test_in_a_notebook_drawings_have_paper_and_tables_their_notes():
    shown = parts.Figure("fig-one", "A <caption>.", "An alternative text.", SVG).looks()["text/html"]
    assert '<figure id="fig-one"><div style="background:#fff;' in shown and "<b>Figure.</b> A &lt;caption&gt;." in shown
    rows = parts.Table("tab-one", "Of x.", ("a",), (("1",),), "r", notes=("Noted.",)).looks()
    assert rows["text/html"].endswith("</table><p><small>Noted.</small></p>") and rows["text/plain"].endswith("Noted.")


def test_axes_end_at_shared_steps():
    axis = plots.plt.figure().subplots()
    axis.plot([1, 2], [43.0, 61.0])
    assert plots._stepped(axis, "accuracy") == (40, 80) and plots._stepped(axis, "loss") == (43, 61)
    for all_right in ([100, 100], [97, 100]):
        axis = plots.plt.figure().subplots()
        axis.plot(all_right)
        assert plots._stepped(axis, "accuracy") == (80, 100)


def test_the_page_names_itself_and_links_to_what_lies_beside_it(report):
    page = (report[0] / "out" / "report.html").read_text()
    assert '<a href="report.pdf">report.pdf</a>' in page and '<a href="results.json">results.json</a>' in page
    assert 'property="og:title" content="My $title"' in page and 'property="og:image" content="report.png"' in page
    assert '<meta name="description" content="An accuracy of' in page


def test_a_figure_carries_its_alternative_text():
    nb = notebook(new_markdown_cell("# T"), cell(figure()))
    assert 'role="img" aria-label="An alternative text."' in html(nb)
    assert 'alt: "An alternative text."' in typst_of(nb)


def test_html_asks_nothing_of_the_network():
    page = html(notebook(new_markdown_cell("# T\n\n$x$ [@kingma2015]"), *(cell(out) for out, _ in EVERY_KIND.values())))
    assert not re.findall(r'(?:src|<link[^>]*href)="(?!data:|#)[^"]*"', page)
    assert "@import" not in page and "fetch(" not in page and not re.findall(r"url\((?![\"']?(?:data:|#))", page)


def test_no_row_of_a_long_table_is_lost():
    rows = [(f"row {n}", str(n)) for n in range(400)]

    def pages(count):
        nb = notebook(new_markdown_cell("# T"), cell(table("tab-long", rows=rows[:count])))
        return len(typst.compile(typst_of(nb).encode(), format="svg", font_paths=fonts.for_typst(False)))

    assert pages(400) >= pages(100) + 4


# --- merging ---------------------------------------------------------------------------------------------------


def written(path, *cells):
    nbformat.write(notebook(*cells), path)
    return path


def test_merging_keeps_the_text_and_drops_the_plumbing(tmp_path):
    paths = [
        written(
            tmp_path / f"{name}.ipynb", new_markdown_cell(f"# {name}"), cell(source="p = 1", tags=["parameters"]),
            cell(source="p = 2", tags=["injected-parameters"]), cell(source="import x", tags=["setup"]),
            cell(source=name), new_markdown_cell("## Try it", metadata={"tags": ["exercise"]}), cell(source="tried"),
            new_markdown_cell("still trying"), new_markdown_cell("# After"),
        )
        for name in ("01_a", "02_b")
    ]  # fmt: skip
    whole = merge.merge(paths)
    assert [c.source for c in whole.cells] == ["# 01_a", "01_a", "# After", "# 02_b", "02_b", "# After"]
    nbformat.validate(whole)
    places = [merge.place_of(c) for c in whole.cells]
    assert [place.cell for place in places[:3]] == [1, 4, 8]  # what papermill injected does not count
    assert places[1].notebook == "01_a.ipynb" and places[1].heading == "01_a"


@pytest.mark.parametrize(
    "closing", ["# Conclusion", "# Limits of this study", "# References", "# Appendix: more {-}", ""]
)
def test_further_notebooks_stand_before_the_closing_sections(tmp_path, closing):
    first = written(tmp_path / "9.ipynb", new_markdown_cell("# Analysis"), new_markdown_cell("## Conclusion"),
                    *([new_markdown_cell(closing)] if closing else []))  # fmt: skip
    mine = written(tmp_path / "0_my_notes.ipynb", cell(source="x"))
    sources = [c.source for c in merge.merge([first], [mine]).cells]
    assert sources == ["# Analysis", "## Conclusion", "# My notes", "x", *([closing] if closing else [])]


@pytest.mark.parametrize("shown", [True, False])
def test_an_optional_section_without_any_output_is_left_out(tmp_path, shown):
    some = [new_output("stream", name="stdout", text="x")] * shown
    path = written(
        tmp_path / "a.ipynb", new_markdown_cell("# A"), new_markdown_cell("## B", metadata={"tags": ["optional"]}),
        cell(source="y"), new_markdown_cell("### C"), cell(*some, source="z"), new_markdown_cell("## D"),
    )  # fmt: skip
    sources = [c.source for c in merge.merge([path]).cells]
    assert sources == (["# A", "## B", "y", "### C", "z", "## D"] if shown else ["# A", "## D"])


# --- the command -----------------------------------------------------------------------------------------------


def export(folder, *arguments, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "export", *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "report"), **(env or {})},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A folder with a notebook and the report made of it."""
    folder = tmp_path_factory.mktemp("built")
    written(folder / "a.ipynb", new_markdown_cell("# T\n\nAn accuracy of 80.1 %."), cell(figure()), cell(table()))
    code, said = export(folder, "out", "report", "a.ipynb", "--link", "results.json", "--set", "main_figure=fig-one",
                        "--set", "title=My $title")  # fmt: skip
    assert code == 0, said
    return folder, said


def test_the_command_makes_all_files_and_says_what_it_saw(report):
    folder, said = report
    assert {p.name for p in (folder / "out").iterdir()} == {
        "report.html",
        "report.pdf",
        "report.png",
        "main_figure.png",
    }
    assert said == ("warning: a.ipynb, cell 1 (under “T”), line 3: '80.1 %' looks like a typed result; "
                    "let `{python} ...` compute it\n")  # fmt: skip
    assert "<title>My $title</title>" in (folder / "out" / "report.html").read_text()


def test_a_second_build_is_the_same_whatever_the_users_settings(report, tmp_path):
    folder, _ = report
    jupyter = tmp_path / "jupyter"
    (jupyter / "nbconvert" / "templates" / "base").mkdir(parents=True)
    for name in ("jupyter_nbconvert_config.py", "jupyter_config.py"):
        (jupyter / name).write_text(
            "c.Exporter.preprocessors = ['not.installed.Module']\nraise SystemExit('configured')\n"
        )
    (tmp_path / "matplotlibrc").write_text("text.color: white\nnonsense: 1\n")
    (tmp_path / "pandoc").mkdir()
    (tmp_path / "pandoc" / "default.csl").write_text("no style")
    hostile = {"JUPYTER_CONFIG_DIR": str(jupyter), "JUPYTER_PATH": str(jupyter), "XDG_DATA_HOME": str(tmp_path),
               "XDG_CONFIG_HOME": str(tmp_path), "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "HOME": str(tmp_path),
               "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}  # fmt: skip
    code, said = export(
        folder, "again", "report", "a.ipynb", "--link", "results.json", "--set", "main_figure=fig-one", "--set",
        "title=My $title", env=hostile,
    )  # fmt: skip
    assert code == 0, said
    for file in (folder / "out").iterdir():
        assert file.read_bytes() == (folder / "again" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ([new_markdown_cell("# T"), new_markdown_cell("see [Figure](#fig-none)")],
         "a.ipynb, cell 2 (under “T”) refers to #fig-none"),
        ([cell(new_output("error", ename="KeyError", evalue="'x'", traceback=[]))], "a.ipynb, cell 1: KeyError: 'x'"),
        ([new_markdown_cell("It is `{python} x`.")], "a.ipynb, cell 1: `{python} x` has no value"),
        (None, "is no notebook"),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence_and_leaves_the_last_report(report, tmp_path, broken, says):
    folder, _ = report
    before = {file.name: file.read_bytes() for file in (folder / "out").iterdir()}
    path = tmp_path / "a.ipynb"
    written(path, *broken) if broken else path.write_text("{")
    code, said = export(folder, "out", "report", path)
    assert code == 2 and says in said and said.startswith("error: ") and said.count("\n") == 1
    assert {file.name: file.read_bytes() for file in (folder / "out").iterdir()} == before


def test_nbconvert_itself_makes_the_same(report):
    folder, _ = report
    merged = merge.merge([folder / "a.ipynb"])
    nbformat.write(merged, folder / "merged.ipynb")
    page, resources = exporter.Report().from_filename(str(folder / "merged.ipynb"))
    assert page.replace("Adapting a pretrained AlexNet", "My $title").count("<figure") == 2
    assert {".pdf", ".png"} <= {Path(name).suffix for name in resources["outputs"]}
    assert partial(made_pdf, merged)()[:4] == b"%PDF"
