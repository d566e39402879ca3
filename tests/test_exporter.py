import base64
import io
import os
import re
import shutil
from functools import partial
from html import escape, unescape
from pathlib import Path

import assemble
import exporter
import latex
import nbconvert
import nbformat
import pypandoc
import pytest
import scan
import typst
from fontTools.ttLib import TTFont
from merge import merge
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from report_lib import document

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20pt" height="10pt"><rect width="9" height="9"/></svg>'
STRANGE = [
    "<script>alert(1)</script>",
    "a_b%c&d#$",
    "猫",
    "[x](http://evil)",
    "*b* `c` $d$ @e \\f {g} #h",
    '"q" </style>',
    "| pipe",
]


def shown(part):
    return new_output("display_data", data=part._repr_mimebundle_())


def notebook(*cells):
    return new_notebook(cells=list(cells))


def cell(*outputs, source="pass", tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def html(nb):
    return exporter.HTMLReport().from_notebook_node(nb)[0]


def typst_of(nb, monkeypatch):
    """The Typst source that would be compiled."""
    with monkeypatch.context() as patch:
        patch.setattr(exporter.PDFReport, "finish", lambda self, body, blocks: body)
        return exporter.PDFReport().from_notebook_node(nb)[0]


def pdf(nb):
    return exporter.PDFReport().from_notebook_node(nb)[0]


FIGURE = document.Figure("fig-one", "A caption.", "An alternative text.", SVG)
TABLE = document.Table("tab-one", "Of things.", ("name", "%"), (("cat", "1.50"), ("dog", "2")), "lr")

EVERY_KIND = {
    "figure": (shown(FIGURE), "A caption."),
    "table": (shown(TABLE), "1.50"),
    "prose": (shown(document.Prose("A *computed* sentence.")), "computed"),
    "listing": (shown(document.Listing("lst-one", "Some code.", "x = 'listed'")), "listed"),
    "stdout": (new_output("stream", name="stdout", text="printed <b>\n"), "printed"),
    "markdown": (new_output("display_data", data={"text/markdown": "some **bold** words"}), "bold"),
    "html": (new_output("execute_result", data={"text/html": "<table><tr><td>celled</td></tr></table>"}), "celled"),
    "latex": (new_output("display_data", data={"text/latex": "$\\displaystyle x^2$"}), None),
    "plain": (new_output("execute_result", data={"text/plain": "{'plainly': 1}"}), "plainly"),
    "json": (new_output("display_data", data={"application/json": {"jsonic": 1}}), "jsonic"),
}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_output_reaches_both_documents(kind, monkeypatch):
    output, word = EVERY_KIND[kind]
    nb = notebook(new_markdown_cell("# Title"), cell(output))
    page, source = html(nb), typst_of(nb, monkeypatch)
    if word:
        assert word in page and word in source
    else:
        assert "<msup>" in page and "x^2" in source
    assert pdf(nb).startswith(b"%PDF")


def test_all_kinds_together_compile():
    nb = notebook(
        new_markdown_cell("# Title\n\nSee [Figure](#fig-one)."), *(cell(out) for out, _ in EVERY_KIND.values())
    )
    assert pdf(nb).startswith(b"%PDF") and len(html(nb)) > 5000


def test_progress_and_controls_leave_no_trace(monkeypatch):
    progress = new_output("stream", name="stderr", text="seed 0: 50%|#####")
    control = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"})
    nb = notebook(new_markdown_cell("# Title"), cell(progress, control))
    for text in (html(nb), typst_of(nb, monkeypatch)):
        assert "50%|" not in text and "HBox" not in text


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([cell(new_output("error", ename="ValueError", evalue="no", traceback=[]))], "ended in ValueError: no"),
        ([cell(new_output("display_data", data={"application/x-unheard-of": "1"}))], "no format can show"),
        ([new_markdown_cell("see [Figure](#fig-none)")], "refers to #fig-none, which nothing"),
        ([cell(shown(FIGURE), shown(FIGURE))], "two outputs have the label 'fig-one'"),
        ([new_markdown_cell("as shown by [@nobody2020]")], "pandoc refuses.*nobody2020"),
        ([new_markdown_cell("$$ \\undefinedmacro{x} $$")], "pandoc refuses"),
        (
            [cell(new_output("display_data", data={assemble.MIME: {"kind": "finish", "label": "fig-x"}}))],
            "cannot place",
        ),
        ([cell(new_output("display_data", data={"image/png": "", "text/plain": "a plot"}))], "picture without caption"),
        ([cell(shown(document.Figure("fig-x", "Seen.", "", SVG)))], "a figure 'fig-x' without alt"),
        ([cell(shown(document.Figure("fig-x", "", "Told.", SVG)))], "a figure 'fig-x' without caption"),
        ([new_markdown_cell("The probe reaches 79.69 %.")], r"cell 2 \(.*\) types the number '79.69' by hand"),
        ([new_markdown_cell("It took 5 seconds.")], "types the number '5' by hand"),
        ([new_markdown_cell("\\begin{equation}x\\end{equation}")], "holds '.*begin', raw markup"),
        ([new_markdown_cell("<b>bold</b>")], "holds '<b>', raw markup"),
        ([new_markdown_cell("see [Equation](#eq-none)")], "refers to #eq-none, which nothing"),
        ([new_markdown_cell("see [Table](#fig-one)"), cell(shown(FIGURE))], "calls #fig-one a Table; it is Figure 1"),
        ([new_raw_cell("lost")], "is a raw cell, which no format shows"),
        ([cell(shown(document.Figure("fig-x", " ", "Told.", SVG)))], "a figure 'fig-x' without caption"),
    ],
)
def test_what_would_be_lost_or_wrong_stops_the_export(cells, says):
    for make in (html, pdf):
        with pytest.raises(assemble.ExportError, match=re.compile(says, re.DOTALL)):
            make(notebook(new_markdown_cell("# Title"), *cells))


@pytest.mark.parametrize("name", STRANGE)
def test_strangers_words_stay_words(name, monkeypatch):
    nb = notebook(
        new_markdown_cell("# Title"),
        cell(shown(document.Prose(f"Worst at {document.text(name)} today."))),
        cell(shown(document.Table("tab-x", f"Of {name}.", (name, "n"), ((name, "1"),), "lr"))),
        cell(shown(document.Figure("fig-x", f"Of {name}.", f"Alt {name}.", SVG))),
        cell(new_output("stream", name="stdout", text=name)),
    )
    page = html(nb)
    assert page.count("<script") == 1 and "<script>alert" not in page and 'href="http' not in page
    text = unescape(re.sub(r"<[^>]*>", "", page[page.index("<main>") :]))
    assert text.count(name) >= 6 and f'aria-label="Alt {escape(name)}.' in page
    assert pdf(nb).startswith(b"%PDF")


def test_figures_tables_and_listings_are_numbered_and_referred_to():
    second = document.Figure("fig-two", "Second.", "alt", SVG)
    nb = notebook(
        new_markdown_cell("# Title\n\nFirst see [Figure](#fig-two) and [Table](#tab-one)."),
        cell(shown(FIGURE)), cell(shown(second)), cell(shown(TABLE)),
    )  # fmt: skip
    page = html(nb)
    assert '<a href="#fig-two">Figure 2</a>' in page and '<a href="#tab-one">Table 1</a>' in page
    assert '<figure id="fig-two">' in page and "<strong>Figure 2.</strong> Second." in page


def test_numbers_that_are_no_results_may_stand():
    words = "`lr = 0.001`, $0.5$, Approach 1, [@kingma2015, p. 12], [here](#x100) and\n\n1. first\n\n```\n79.69\n```"
    more = "8-bit integers of one epoch, five layers, one of them at [a place](https://example.org/2020)"
    assemble.check(f"# Approach 2: more {{-}}\n\n{words}\n\n$$ 4096 $$\n\n{more}", "here")


@pytest.mark.parametrize(
    "words",
    ["61.2", "reaches .61", "about sixty per cent", "sixty-one percent", "nine of ten", "two thirds of it",
     "half of it", "twice as fast", "tenfold", "8 per cent", "5x faster", "a factor of 5", "9 minutes", "1e-3", "¾",
     "２ points",
     "`61.2 %`", "$61.2$ %", "$61\\%$", "# Probe reaches 61", "[reaches 61 %; @kingma2015]", "see Figure 9"],
)  # fmt: skip
def test_no_spelling_of_a_result_may_be_typed(words):
    with pytest.raises(assemble.ExportError, match="by hand"):
        assemble.check(f"It says: {words}" if not words.startswith("#") else words, "here")


@pytest.mark.parametrize(
    "words",
    ["[x](javascript:alert)", "[x](<data:text/html,x>)", "[w]{style='background:url(http://e.invalid)'}",
     "`c`{.x onclick=y}", "![](x.png)", "::: {.x onclick=y}", "<!-- lost -->", "<b>bold</b>", "# T {onclick=x}", "[a]: http://e.invalid"],
)  # fmt: skip
def test_markup_that_runs_fetches_or_is_lost_is_refused(words):
    for made in (new_markdown_cell(words), cell(new_output("display_data", data={"text/markdown": words}))):
        with pytest.raises(assemble.ExportError, match="raw markup"):
            assemble.assemble(notebook(made))


@pytest.mark.parametrize(
    "markup",
    ["<a href='javascript:alert(1)'>x</a>", "<iframe src='http://e.invalid'></iframe>", 
     "<img src='http://e.invalid/x.png'>", "<a href='file:///etc/passwd'>x</a>"],
)  # fmt: skip
def test_html_of_a_notebook_cannot_run_or_fetch_anything(markup, monkeypatch):
    nb = notebook(new_markdown_cell("# T"), cell(new_output("execute_result", data={"text/html": f"<p>a</p>{markup}"})))
    for make in (html, partial(typst_of, monkeypatch=monkeypatch)):
        with pytest.raises(assemble.ExportError):
            make(nb)


def test_html_of_a_notebook_leaves_its_looks_and_scripts_behind(monkeypatch):
    table = (
        "<style>td {color: red}</style><script>alert(1)</script>"
        "<div style='background:url(http://e.invalid)' onclick='x()'><table class='dataframe' border=1>"
        "<tr style='text-align: right;'><th>a</th></tr><tr><td>1</td></tr></table>"
        "<span style='position:fixed'>after</span></div>"
    )
    nb = notebook(new_markdown_cell("# T"), cell(new_output("execute_result", data={"text/html": table})))
    page, source = html(nb), typst_of(nb, monkeypatch)
    body = page[page.index("<main>") : page.index("</main>")]
    assert "after" in body and "after" in source
    for trace in ("onclick", "e.invalid", "alert(1)", "fixed", "color: red"):
        assert trace not in body and trace not in source


def test_the_last_look_finds_what_came_through():
    scan.scan('<p><a href="#x">a</a><svg onload="x()"><script>y</script></svg><td style="text-align: left;">b</td></p>')
    for bad in (
        "<p onclick=x>",
        "<script>",
        "<a href=' javascript:x'>",
        "<p style='color:red'>",
        "<video>",
        "<svg></svg><p onx=1>",
    ):
        with pytest.raises(assemble.ExportError):
            scan.scan(bad)


def test_labelled_formulas_are_numbered_and_referred_to(monkeypatch):
    text = "# T\n\nBy [Equation](#eq-two),\n\n$$\nx^2\n$$ <!-- eq-one -->\n\nand\n\n$$ y $$ <!-- eq-two -->\n\n$$ z $$"
    nb = notebook(new_markdown_cell(text))
    page, source = html(nb), typst_of(nb, monkeypatch)
    assert '<a href="#eq-two">Equation 2</a>' in page and "eq-one -->" not in page + source
    assert re.search(
        r'<div class="equation" id="eq-one"><math.*?<msup>.*?</math><span>\(1\)</span></div>', page, re.DOTALL
    )
    assert "<eq-one>" in source and "#link(<eq-two>)[Equation 2]" in source
    assert page.count('class="equation"') == 2 and source.count('numbering: "(1)"') == 2
    assert pdf(nb).startswith(b"%PDF")


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
def test_a_drawing_that_could_run_or_fetch_something_is_refused(inside, says):
    drawing = SVG.replace("<rect", f"{inside}<rect")
    with pytest.raises(assemble.ExportError, match=says):
        html(notebook(new_markdown_cell("# T"), cell(shown(document.Figure("fig-x", "c.", "a.", drawing)))))


def test_two_drawings_keep_their_ids_apart():
    drawing = SVG.replace(
        "<rect",
        '<style>* {fill: red}</style><defs><path id="p"/></defs><use href="#p"/>'
        "<pattern id='h'/><path style=\"fill: url('#h'); clip-path: url( #c)\"/><rect",
    )
    page = html(
        notebook(
            *(cell(shown(document.Figure(f"fig-{n}", "c.", "a.", drawing))) for n in "ab"), new_markdown_cell("# T")
        )
    )
    for n in "ab":
        assert f'id="fig-{n}-p"' in page and f'href="#fig-{n}-p"' in page
        assert f"fill: url(#fig-{n}-h); clip-path: url(#fig-{n}-c)" in page
    assert "fill: red" not in page  # a rule inside a drawing would hold for the whole page


def test_code_shows_where_it_wraps(monkeypatch):
    def drawn(code):
        in_pages = partial(typst.compile, format="svg", font_paths=[str(exporter.TEXT)])
        with monkeypatch.context() as patch:
            patch.setattr(
                exporter.PDFReport, "compiled", lambda self, source: in_pages(str(source), root=source.parent)
            )
            whole = pdf(notebook(new_markdown_cell("# T"), cell(source=code, tags=["listing"])))
        return "".join(page.decode() for page in (whole if isinstance(whole, list) else [whole])).count("<use")

    fits = "x = 1"
    for terms, turns in ((12, 0), (25, 1), (36, 2)):  # the marks are the signs that are not in the code
        wraps = "x = " + " + ".join(["100"] * terms)
        signs = len(wraps.replace(" ", "")) - len(fits.replace(" ", ""))
        assert drawn(wraps) - drawn(fits) == signs + turns
    page = html(notebook(new_markdown_cell("# T"), cell(source="a = 1\nb = 2", tags=["listing"])))
    assert page.count('<span class="line in0">') == 2


def test_the_page_brings_the_glyphs_it_needs():
    page = html(notebook(new_markdown_cell("# Title\n\nThe naïve *probe* at $x$.")))
    faces = re.findall(r'font-family: "([^"]+)".*?base64,([A-Za-z0-9+/=]+)', page)
    assert [name for name, _ in faces] == ["Source Serif Pro"] * 3 + ["Report Math"]
    cmaps = [TTFont(io.BytesIO(base64.b64decode(data))).getBestCmap() for _, data in faces]
    assert all(set(map(ord, "naïve")) <= set(cmap) for cmap in cmaps[:3]) and 0x1D465 in cmaps[3]
    assert "MATH" in TTFont(io.BytesIO(base64.b64decode(faces[3][1])))


def test_code_is_shown_where_tagged_and_else_folded(monkeypatch):
    nb = notebook(new_markdown_cell("# T"), cell(source="seen = 1", tags=["listing"]), cell(source="hidden = 2"))
    page, source = html(nb), typst_of(nb, monkeypatch)
    assert "seen = 1" in source and "hidden = 2" not in source
    assert page.count("<details") == 1 and "hidden" in page.split("<details")[1]


def test_the_abstract_comes_first():
    nb = notebook(new_markdown_cell("# Later"), cell(shown(document.Prose("In short.")), tags=["abstract"]))
    page = html(nb)
    assert page.index("At a glance") < page.index("In short.") < page.index("Later</h1>")


def test_a_figure_carries_its_alternative_text(monkeypatch):
    nb = notebook(new_markdown_cell("# T"), cell(shown(FIGURE)))
    assert 'role="img" aria-label="An alternative text."' in html(nb)
    assert 'alt: "An alternative text."' in typst_of(nb, monkeypatch)


def test_html_asks_nothing_of_the_network():
    page = html(notebook(new_markdown_cell("# T\n\n$x$ [@kingma2015]"), *(cell(out) for out, _ in EVERY_KIND.values())))
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "@import" not in page and "fetch(" not in page and not re.findall(r"url\((?![\"']?(?:data:|#))", page)


def test_two_builds_are_identical():
    nb = notebook(new_markdown_cell("# T"), cell(shown(FIGURE)), cell(shown(TABLE)))
    assert pdf(nb) == pdf(nb) and html(nb) == html(nb)


def test_no_row_of_a_long_table_is_lost(monkeypatch):
    in_pages = partial(typst.compile, format="svg")
    monkeypatch.setattr(exporter.PDFReport, "compiled", lambda self, source: in_pages(str(source), root=source.parent))
    rows = tuple((f"row {n}", str(n)) for n in range(400))
    table = document.Table("tab-long", "Long.", ("name", "n"), rows, "lr")
    short = document.Table("tab-long", "Short.", ("name", "n"), rows[:100], "lr")
    pages = [len(pdf(notebook(new_markdown_cell("# T"), cell(shown(t))))) for t in (short, table)]
    assert pages[1] >= pages[0] + 5


def test_merging_keeps_the_text_and_drops_the_plumbing(tmp_path):
    for name in ("01_a", "02_b"):
        nb = notebook(
            new_markdown_cell(f"# {name}"), cell(source="p = 1", tags=["parameters"]),
            cell(source="p = 2", tags=["injected-parameters"]), cell(source="import x", tags=["setup"]),
            cell(source=name),
        )  # fmt: skip
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    whole = merge([tmp_path / "01_a.ipynb", tmp_path / "02_b.ipynb"])
    assert [c.source for c in whole.cells] == ["# 01_a", "01_a", "# 02_b", "02_b"]
    nbformat.validate(whole)


def test_listings_are_the_librarys_code_without_docstrings():
    code = document.listing("lst-x", "c", document.text).code
    assert code.startswith("def text(value: object) -> str:\n    return") and '"""' not in code


def test_latex_gets_the_same_text_numbers_and_references():
    words = "# T\n\nBy [Equation](#eq-x) [@kingma2015], [Figure](#fig-one).\n\n$$ x $$ <!-- eq-x -->"
    odd = document.Table("tab-odd", "Of a_b.", ("a_b%c&d#$", "n"), (("\\x{~^}", "1"),), "lr")
    html = cell(EVERY_KIND["html"][0])
    nb = notebook(new_markdown_cell(words), cell(shown(FIGURE), source="hidden = 1"), cell(shown(odd)), html)
    whole = latex.plain(nb)
    text = "\n".join(c.source for c in whole.cells)
    assert "[Equation 1](#eq-x)" in text and "[Figure 1](#fig-one)" in text and "Kingma and Ba" in text
    assert r"[]{#eq-x}$$x \tag{1}$$" in text and "[**Figure 1.**]{#fig-one} A caption\\." in text
    assert "hidden" not in text
    outputs = [output.data for c in whole.cells if c.cell_type == "code" for output in c.outputs]
    assert base64.b64decode(outputs[0]["application/pdf"]).startswith(b"%PDF")
    assert r"a\_b\%c\&d\#\$ & n \\" in outputs[1]["text/latex"]
    assert r"\textbackslash{}x\{\textasciitilde{}\textasciicircum{}\}" in outputs[1]["text/latex"]
    assert "celled" in outputs[2]["text/latex"]
    nbformat.validate(whole)


@pytest.mark.skipif(not shutil.which("xelatex"), reason="TeX is not installed")
def test_nbconverts_own_latex_path_typesets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(pypandoc.get_pandoc_path()).parent}:{os.environ['PATH']}")
    nb = notebook(new_markdown_cell("# T\n\n$$ x $$ <!-- eq-x -->"), *(cell(out) for out, _ in EVERY_KIND.values()))
    nbformat.write(latex.plain(nb), tmp_path / "latex.ipynb")
    made, _ = nbconvert.PDFExporter().from_filename(str(tmp_path / "latex.ipynb"))
    assert made.startswith(b"%PDF")


@pytest.mark.skipif(not shutil.which("xelatex"), reason="TeX is not installed")
@pytest.mark.parametrize(("made", "lost"), [(new_markdown_cell("of 猫"), "猫"), (cell(source="cat = '猫'"), "猫")])
def test_signs_that_tex_would_leave_out_stop_it(made, lost):
    latex.check_signs(notebook(new_markdown_cell("# Naïve “T” − ± × … ’"), cell(source="x = 'ä'")))
    with pytest.raises(assemble.ExportError, match=f"lacks {lost}; make the PDF without PDF=latex"):
        latex.check_signs(notebook(made))
