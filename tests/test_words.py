# ruff: noqa: E501  (a case is a line)
"""What an author writes: any prose, raw markup, LaTeX as MathJax reads it, pictures, notes, numbers computed inline."""

import base64
import io
import json
import re

import nbclient
import nbformat
import pytest
from export import assemble, exporter, fonts, inline, merge, metadata, pdf, words
from export.origin import ExportError, Journal
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

PLAIN = (
    "CIFAR-10|ResNet-18|in 2012|ten epochs|3x3 kernels|the L2 norm|conv5|manifold|scaffold|Python 3.11.2|torch 2.11|2026-11-23|"
    "pages 12-15|10 classes|50,000 images|224 px|a learning rate of 0.001|a rate of 0.001 makes the loss fall|batches of 128|"
    "a 95 % interval|three times|run 3 times|three points need mention|8-bit|Section 3.2|`x = 0.5`|$0.5$|[@kingma2015, p. 12]|"
    "<https://x.org/50%25>|the 1980s|weight decay 0.01 lowers the loss|momentum 0.9|at 9:30|in 5 seconds|points of view|k = 5|"
    '138 million parameters|half of it|twice as many|a 2x2 grid|room 2.01|```\nacc = 79.69 %\n```|`{python} f"{x:.1%}"`'
).split("|")
TYPED = (
    "accuracy of 79.69 %|79.69%|61 per cent|sixty per cent|gains 4 points|0.9 points better|the accuracy is 0.7969|"
    "an accuracy of .80|loss 0.6005|a loss of about 0.58|0.58 loss|1423.19 s|took 1427.72 seconds|3.5 minutes|p = 0.03|"
    "p<0.05|p < .001|3.2 times|15 times as fast|5x faster|79.7 ± 0.3|79,69 %|`61.2 %`|$61\\%$|２ points|an error rate of 20.3"
).split("|")
EVIL = ["[x](javascript:alert)", "[x](<data:text/html,x>)", "[w]{style='background:url(http://e.invalid)'}",
        "`c`{.x onclick=y}", "![](http://e.invalid/x.png)", "<script>alert(1)</script>", "# T {onclick=x}",
        "<img src=x onerror=alert(1)>", "<a href='javascript:alert(1)'>x</a>", "<iframe src='http://e.invalid'></iframe>",
        "<style>body {background: url(http://e.invalid)}</style>", "<svg onload=alert(1)><script>x</script></svg>",
        "<b onclick='x()'>b</b>", "<object data='http://e.invalid'></object>", "`<script>`{=html}", "a<style>b</style>c"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_fonts(monkeypatch):
    monkeypatch.setattr(fonts, "faces", lambda page, mathematical=True: "")


def both(*cells):
    """(the page's body, the Typst source, the warnings), and the PDF compiles."""
    nb = new_notebook(cells=[c if isinstance(c, dict) else new_markdown_cell(c) for c in cells])
    made = exporter.HTMLReport()
    page = made.from_notebook_node(nb)[0]
    journal = Journal()
    typeset = pdf.Pdf(assemble.assemble(nb, journal))
    source = typeset.source(metadata.load())
    assert typeset.compiled(source, False)[0].startswith(b"%PDF")
    body = page[page.index("<main>") : page.index('<h1 id="cite-this-report"')]
    return body.replace("\N{NO-BREAK SPACE}", " "), source, made.journal.warnings


def png(colour="red", size=(40, 20)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("text", PLAIN)
def test_any_prose_gives_no_warning(text):
    assert words.typed_results(f"It is {text} here.\n\n{text}" if "```" not in text else text) == []


@pytest.mark.parametrize("text", TYPED)
def test_what_looks_like_a_typed_result_does(text):
    assert words.typed_results(f"It says {text} here.")


def test_a_warning_names_notebook_heading_cell_and_line_and_stops_nothing(tmp_path):
    path = tmp_path / "05_mine.ipynb"
    injected = new_code_cell("p = 1", metadata={"tags": ["injected-parameters"]})
    cells = [new_markdown_cell("# Mine"), injected, new_code_cell("x"),
             new_markdown_cell("Fine.\n\n## Part\n\nIt reaches\n79.69 % here.")]  # fmt: skip
    nbformat.write(new_notebook(cells=cells), path)
    (message,) = words.check_words(path)
    assert message.startswith(f"{path.name}, cell 3 (under “Part”), line 6: '79.69 %' looks like a typed result")
    made = exporter.HTMLReport()
    assert "79.69 %" in made.from_notebook_node(merge.merge([path]))[0] and made.journal.warnings == [message]


def test_raw_markup_does_what_it_says_where_it_is_harmless():
    page, source, said = both(
        "One<br>two, H<sub>2</sub>O, x<sup>3</sup>, <b>bold</b> and <i>it</i>, <u>under</u>, <kbd>K</kbd> <!-- gone -->List<int>.\n\n"
        "<details><summary>More</summary>\n\nInner **text**.\n\n</details>\n\n"
        "<table><tr><th>head</th></tr><tr><td>cell *em*</td></tr></table>\n\n<center>centred</center>\n\n<!-- \n gone \n-->\n\n"
        "<a id='here'></a>[there](#here)"
    )
    assert "One<br />" in page and "<sub>2</sub>" in page and "<sup>3</sup>" in page and "<strong>bold</strong>" in page
    assert "One #linebreak()" in source.replace("\\\n", " #linebreak() ").replace("  ", " ") or "One \\" in source
    assert "#sub[2]" in source and "#super[3]" in source and "#strong[bold]" in source and "#underline[under]" in source
    for text in (page, source):
        assert "More" in text and "Inner" in text and "centred" in text and "gone" not in text and "head" in text
    assert "List&lt;int&gt;" in page and "<td>cell <em>em</em></td>" in page and "cell #emph[em]" in source
    assert '<a href="#here">there</a>' in page and "#link(<here>)[there]" in source
    assert said == []


@pytest.mark.parametrize("text", EVIL)
def test_nothing_runs_or_fetches(text):
    output = new_code_cell(
        "x", outputs=[nbformat.v4.new_output("display_data", data={"text/markdown": f"Before\n\n{text}\n\nafter"})]
    )
    html_output = new_code_cell(
        "x", outputs=[nbformat.v4.new_output("display_data", data={"text/html": f"<p>Before</p>{text}<p>after</p>"})]
    )
    page, source, said = both(f"Before\n\n{text}\n\nafter", output, html_output)
    assert page.count("after") == (2 if "{=html}" in text else 3)  # an open <script> takes all that follows
    for tag in re.findall(r"<[a-z][^>]*>", page):
        assert not re.search(r"e\.invalid|javascript:|\bon\w+=|^<(?:script|iframe|object|style|svg)", tag), tag
    assert "e.invalid" not in re.sub(r'"[^"]*"', "", source) or "{" in text or "[" in text


def test_what_is_left_out_is_said():
    _, _, said = both(
        "# T\n\n<script>x</script> <iframe></iframe> <b onclick='x'>b</b> [l](data.csv) ![no](none.png) [gone](#nowhere)"
    )
    for words_said in ("<script> is left out", "<iframe> is left out", "onclick of <b>", "the link to 'data.csv'",
                       "the picture 'none.png' is not there", "the link to #nowhere leads nowhere"):  # fmt: skip
        assert any(words_said in message for message in said), words_said
    assert all(message.startswith("the text") for message in said)  # no notebook, no cell: this one was not merged


@pytest.mark.parametrize(("caption", "shown"), [
    ("one\n\ntwo", "one"), ("# head\n\ntext", "head"), ("- a\n- b", "ab"), ("|q|\n|-|\n|1|", ""), ("```\ncode\n```", ""),
])  # fmt: skip
def test_a_caption_that_is_no_paragraph_is_one_and_said(caption, shown):
    picture = {"image/png": base64.b64encode(png()).decode()}
    source = f"#| label: fig-a\n#| fig-alt: x\n#| fig-cap: {json.dumps(caption)}"
    body, typst, said = both(new_code_cell(source, outputs=[new_output("display_data", picture)]))
    assert f"Figure 1.</strong> {shown}".strip() + "\n</figcaption>" in body and shown in typst
    assert [f"a caption is one paragraph; of this one {shown!r} is left" in message for message in said] == [True]


HELD = {  # what a drawing or a page holds -> what is said of it
    "<script>x()</script>": "<script> in a drawing is left out, since it would run or fetch something",
    "<foreignObject><p xmlns='http://www.w3.org/1999/xhtml'>Some\n words</p></foreignObject>":
        "<foreignObject> with the words 'Some words' in a drawing is left out",
    "<iframe xmlns='http://www.w3.org/1999/xhtml' src='//e.invalid'/>": "<iframe> in a drawing",
    "<rect onclick='x()'/>": "onclick of <rect> in a drawing is left out, since it would run a script",
    "<image href='http://e.invalid/a.png'/>": "href of <image> in a drawing is left out, since it leads out",
    "<use xmlns:xlink='http://www.w3.org/1999/xlink' xlink:href='a.svg#b'/>": "href of <use> in a drawing",
    "<a href='javascript:x()'><rect/></a>": "href of <a> in a drawing",
    "<rect style='fill: url(http://e.invalid)'/>": "style of <rect> in a drawing is left out, since it leads out",
    "<style>@import 'http://e.invalid/a.css';</style>": "<style> in a drawing is left out, since it would fetch",
    "<style>rect {fill: url(http://e.invalid)}</style>": "<style> in a drawing is left out, since it would fetch",
    "<rect><animate attributeName='x'/></rect>": "<animate> in a drawing is left out, since it would move",
}  # fmt: skip


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("way", ["markdown", "output", "file"])
def test_what_is_removed_from_a_drawing_is_said_with_its_place(tmp_path, held, way):
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 2'>{held}<circle r='1'/></svg>"
    (tmp_path / "d.svg").write_text(svg)
    shown = {"markdown": new_markdown_cell(svg), "file": new_markdown_cell("![d](d.svg)"),
             "output": new_code_cell("#| fig-alt: d", outputs=[new_output("display_data", {"image/svg+xml": svg})])}  # fmt: skip
    nbformat.write(new_notebook(cells=[new_markdown_cell("# H"), shown[way]]), tmp_path / "n.ipynb")
    body, _, said = both(*merge.merge([tmp_path / "n.ipynb"]).cells)
    (message,) = [message for message in said if "drawing" in message]
    assert message.startswith("n.ipynb, cell 2 (under “H”)") and HELD[held] in message
    (kept,) = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", body)
    kept = base64.b64decode(kept).decode()
    assert "circle" in kept and "e.invalid" not in kept and "x()" not in kept and "words" not in kept


def test_a_drawing_of_which_nothing_is_removed_is_not_spoken_of():
    held = ("<style>rect {fill: url(#g)}</style><metadata/><linearGradient id='g'/><rect/><use href='#g'/>"
            f"<image href='data:image/png;base64,{base64.b64encode(png()).decode()}'/>")  # fmt: skip
    assert both(f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 4 2'>{held}</svg>")[2] == []


def test_looks_that_would_fetch_something_are_said():
    for text, words_said in {
        "<style>@import url(a.css);</style>": "<style> is left out, since it would fetch something",
        "<style>p {color: red}</style>": "<style> is left out; a report brings its own looks",
        "<link rel='stylesheet' href='http://e.invalid/a.css'>": "<link> is left out, since it would fetch",
        "<b style='background: url(http://e.invalid)'>b</b>": "style of <b> is left out, since it would fetch",
    }.items():  # fmt: skip
        assert [words_said in message for message in both(f"{text}\n\nT")[2]] == [True], text


def test_formulas_as_mathjax_reads_them():
    page, source, said = both(
        "\\begin{equation}\nE = mc^2 \\label{eq:energy}\n\\end{equation}\n\n\\begin{align*}\na &= b \\\\\nc &= d\n\\end{align*}\n\n"
        "By \\eqref{eq:energy}, $\\newcommand{\\R}{\\mathbb{R}}\\newcommand{\\n}[1]{\\lVert #1 \\rVert}$ let $x \\in \\R$.",
        "Elsewhere, too, $y \\in \\R$, $\\n{z}$; it costs $5, then $10, C:\\Users\\me. \\\\(w\\\\)",
    )
    assert page.count("ℝ") == 2 and "<annotation" in page and "newcommand" not in page + source
    assert '<a href="#eq-energy">Equation 1</a>' in page and "costs $5, then $10, C:\\Users\\me." in page
    assert "<eq-energy>" in source and "\\$5" in source and said == []


def test_numbers_of_ones_own_and_bare_environments_of_all_kinds():
    page, source, said = both(
        "# T\n\n$$ a = b \\tag{7} $$\n\nAs (7) says.\n\n\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}\n\n"
        "\\begin{align}\na &= b \\tag*{so}\n\\end{align}\n\n$$ e = f \\tag{3} $$ {#eq-x}\n\nBy [Equation](#eq-x)."
    )
    assert 'upright("(7)")' in source and 'upright("so")' in source and "mat(delim" in source and "begin" not in source
    assert "(7)" in page and "<mtable" in page and said == []
    assert 'upright("(3)")' not in source and '"(1)"' in source, "the report's own number is in its place"


def test_a_formula_that_cannot_be_read_stands_as_it_was_typed():
    page, source, said = both("# T\n\nSo $\\undefinedmacro{x}$ and $y$.")
    assert "<code>\\undefinedmacro{x}</code>" in page and "`\\undefinedmacro{x}`" in source and "<mi>y</mi>" in page
    assert len(said) == 1 and "the formula '\\\\undefinedmacro{x}' is no LaTeX" in said[0]


def test_lists_notes_tasks_rules_and_quotes(tmp_path):
    for name in "ab":
        cells = [new_markdown_cell(f"# {name}\n\nA[^1] and [link][home].\n- [x] done\n- [ ] open\n\n1) first\n2) second\n\n> said\n\n---\n\nterm"),
                 new_markdown_cell(f"[^1]: Note of {name}.\n\n[home]: https://{name}.org")]  # fmt: skip
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    whole = merge.merge([tmp_path / "a.ipynb", tmp_path / "b.ipynb"])
    page, source, said = both(*whole.cells)
    assert "Note of a." in page and "Note of b." in page and source.count("#footnote[") == 2 and said == []
    assert 'href="https://a.org"' in page and 'href="https://b.org"' in page and "<ol" in page and "☑ done" in page
    assert "horizontalrule" in source and "<blockquote>" in page and "<input" not in page


def test_pictures_attached_local_and_in_the_text(tmp_path):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a b.png").write_bytes(png())
    data = base64.b64encode(png("blue")).decode()
    cell = new_markdown_cell(
        f"![Alt A](attachment:x.png)\n\nin ![Alt B](pics/a%20b.png) line\n\n<img src='data:image/png;base64,{data}' alt='Alt C' width=30>\n\n"
        "![A *caption*](pics/a%20b.png){#fig-mine fig-alt='Alt D'}\n\nSee @fig-mine. ![x](pics/none.png)",
        attachments={"x.png": {"image/png": data}},
    )
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    page, source, said = both(*merge.merge([tmp_path / "a.ipynb"]).cells)
    for alt in "ABCD":
        assert f'alt="Alt {alt}"' in page and f'alt: "Alt {alt}"' in source
    assert "Figure 1.</strong> A <em>caption</em>" in page and '<a href="#fig-mine">Figure 1</a>' in page
    assert len(said) == 1 and said[0].startswith("a.ipynb, cell 1: the picture 'pics/none.png' is not there")


def test_mentions_and_addresses_are_no_citations():
    page, source, said = both("Use @property or me@example.com, @kingma2015 and @nobody2020.")
    assert "@property" in page and "mailto:me@example.com" in page and "Kingma" in page and "@nobody2020" in source
    assert len(said) == 1 and "@nobody2020 is not in references.bib" in said[0]


# --- numbers computed inline -------------------------------------------------------------------------------------


def executed(tmp_path, *cells, name="mine.ipynb"):
    path = tmp_path / name
    nbformat.write(new_notebook(cells=list(cells)), path)
    prepared = inline.prepare(path)
    try:
        nbclient.NotebookClient(prepared, kernel_name="python3").execute()
    except nbclient.exceptions.CellExecutionError:
        pass
    (tmp_path / "out").mkdir(exist_ok=True)
    nbformat.write(prepared, tmp_path / "out" / name)
    return tmp_path / "out" / name


def test_computed_numbers_stand_in_the_sentence(tmp_path):
    path = executed(
        tmp_path,
        new_code_cell("mean = 2 / 3; word = '<b>*x*</b> `{python} 1` $y$'; turns = iter('ab')"),
        new_markdown_cell('# Of `{python} word`\n\nIt is `{python} f"{mean:.2f}"`, ``{python} f"`{1}`"``, `{python} next(turns)` `{python} next(turns)`.\n\n'
                          "```\n`{python} not_run`\n```"),
        new_markdown_cell("Left: 79.69 %"),
    )  # fmt: skip
    whole = merge.merge([path])
    page, source, said = both(*whole.cells)
    assert (
        "It is 0.67, `1`, a b." in page
        and "0.67" in source
        and "Of &lt;b&gt;*x*&lt;/b&gt;" in page
        and "not_run" in page
    )
    assert len(said) == 1 and ", cell 3 (" in said[0]  # the inserted cell does not count
    assert page.count('<div class="code">') == 1 and "inserted for the report" not in page


def test_an_expression_that_fails_is_one_sentence_with_its_cell(tmp_path):
    path = executed(tmp_path, new_code_cell("x = 1"), new_markdown_cell("It is `{python} y + 1`."), new_code_cell("x"))
    sentence = merge.failure(path)
    assert sentence.endswith(
        "mine.ipynb, cell 2: `{python} y + 1` cannot be computed (NameError: name 'y' is not defined); what makes it "
        "goes above the text"
    )
    wrong = new_notebook(cells=[new_markdown_cell("It is `{python} 1 +`.")])
    nbformat.write(wrong, tmp_path / "wrong.ipynb")
    with pytest.raises(ExportError, match=r"wrong.ipynb, cell 1: `\{python\} 1 \+` is no expression"):
        inline.prepare(tmp_path / "wrong.ipynb")


def test_a_failed_cell_is_named_as_its_author_counts(tmp_path):
    path = executed(tmp_path, new_markdown_cell("# T `{python} 1`"), new_code_cell("1 / 0"))
    assert merge.failure(path).endswith(
        "mine.ipynb, cell 2 (under “T `{python} 1`”): ZeroDivisionError: division by zero"
    )


def test_a_notebook_run_by_hand_has_no_values_and_says_so(tmp_path):
    path = tmp_path / "hand.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x = 1"), new_markdown_cell("It is `{python} x`.")]), path)
    with pytest.raises(ExportError, match=r"hand.ipynb, cell 2: `\{python\} x` has no value"):
        merge.merge([path])


def test_exercises_are_neither_executed_nor_in_the_report(tmp_path):
    path = executed(
        tmp_path,
        new_markdown_cell("# T"),
        new_markdown_cell("## Try it `{python} nowhere`", metadata={"tags": ["exercise"]}),
        new_code_cell("1 / 0"),
        new_markdown_cell("Is it `{python} nowhere`?"),
        new_markdown_cell("## After\n\nIt is `{python} 1 + 1`."),
    )
    assert merge.failure(path) == ""
    whole = merge.merge([path])
    assert [merge.place_of(cell).cell for cell in whole.cells] == [1, 5]
    assert "It is 2." in both(*whole.cells)[0]
