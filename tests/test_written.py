# ruff: noqa: E501  (a case is a line)
"""What students write and their libraries put out: it stands in both formats, or a warning says what does not."""

import base64
import io
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest
import typst
from export import assemble, drawing, exporter, fonts, formulas, inline, metadata, pdf, tables
from export.origin import Journal
from export.reading import begins, exercises, tidied
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image


def picture(size=(60, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 0, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


RED = f"data:image/png;base64,{picture()}"
md = new_markdown_cell


@pytest.fixture(autouse=True)
def no_fonts(monkeypatch):
    """Half a second of each page goes into its fonts."""
    monkeypatch.setattr(fonts, "faces", lambda page, mathematical=True: "")


def out(data, source="x"):
    return new_code_cell(source, outputs=[new_output("display_data", data=data)])


def shown(source="x"):
    return out({"image/png": picture(), "text/plain": "<Figure>"}, source)


def printed(text, source="x"):
    return new_code_cell(source, outputs=[new_output("stream", name="stdout", text=text)])


def written(*cells):
    """(words of the HTML, its source, the Typst source, the warnings)."""
    nb = new_notebook(cells=list(cells))
    made = exporter.HTMLReport()
    page = made.from_notebook_node(nb)[0]
    page = page[page.index("<main") : page.rindex("Statement of contribution")]
    journal = Journal()
    source = pdf.Pdf(assemble.assemble(tidied(nb), journal)).source(metadata.load())
    plain = " ".join(unescape(re.sub(r"<[^>]+>", "", page)).split())
    return (
        plain,
        page,
        source[source.index("// --- the document itself ---") :],
        list(dict.fromkeys(made.journal.warnings + journal.warnings)),
    )


# --- formulas --------------------------------------------------------------------------------------------------

FORMULAS = [
    r"|A \cap B| / |A \cup B|", r"\bigcap_i A_i", r"\sqcap", r"\Cap", r"f_t \odot c_{t-1}", r"\bigodot", r"\ominus",
    r"a \otimes b", r"\bigotimes_i a_i", r"\llbracket y \rrbracket", r"\begin{vmatrix}a & b\\ c & d\end{vmatrix}",
    r"\begin{Vmatrix}a\end{Vmatrix}", r"\left\|\begin{matrix}a\end{matrix}\right\|", r"\frac{}{}", "√", "A ∩ B", "a ⊗ b",
    "a ⊙ b", "« x »", "ħ", "⟦x⟧", r"\text{sect}\ \hat{y} = \operatorname*{arg\,max}_k z_k", r"\mathcal{L}(\theta)",
    r"\begin{cases} 1 & x > 0 \\ 0 & \text{else} \end{cases}", r"\lVert w \rVert_2^2", r"\big\|x\big\|_2", r"X \perp\!\!\!\perp Y",
    r"\|x\|_2", r"\left\|x\right\|_2^2", r"\mid x\mid_2", r"\bigl\langle x\bigr\rangle", r"f\!\left(x\right)",
]  # fmt: skip


@pytest.mark.parametrize("tex", FORMULAS)
def test_a_formula_of_the_trade_is_set_by_typst(tex):
    made, unread = formulas.typeset([("InlineMath", tex), ("DisplayMath", tex)])
    assert not unread and len(made) == 2 and not formulas.refused(list(made.values()))


def test_determinants_and_norms_keep_their_bars_and_words_stay():
    tex = r"\begin{vmatrix}a\end{vmatrix} \begin{Vmatrix}b\end{Vmatrix} \text{a sect and times.circle}"
    (made,) = formulas.typeset([("InlineMath", tex)])[0].values()
    assert made.index('delim: "|"') < made.index('delim: "‖"') and '"a sect and times.circle"' in made


def test_what_typst_refuses_is_shown_as_typed_with_its_place(monkeypatch):
    renamed = formulas._renamed
    monkeypatch.setattr(formulas, "_renamed", lambda part, tex: "$no.such$" if "Q" in tex else renamed(part, tex))
    nb = new_notebook(cells=[md("# Mine\n\nGood $x^2$ and bad $Q_1$.")])
    journal = Journal()
    source = pdf.Pdf(assemble.assemble(tidied(nb), journal)).source(metadata.load())
    assert "$x^2$" in source and "Q_1" in source and "no.such" not in source
    assert ["Q_1" in warning and "no LaTeX that can be typeset" in warning for warning in journal.warnings] == [True]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([*r"\{}^_&|xα1 ()[]", r"\frac", r"\cap ", r"\left(", r"\text{"]), max_size=12).map("".join)
)
def test_any_formula_is_set_or_counted_as_unread(tex):
    made, unread = formulas.typeset([("InlineMath", tex)])
    assert unread or not formulas.refused(list(made.values()))


# --- what stands in both formats -------------------------------------------------------------------------------

PAIR = "<table><tr><th>p</th></tr><tr><td>{}</td></tr></table>"
# name: (cells, what both formats show, what neither does, the warning or None)
CASES = {
    "formula with spaces": ([md(r"Rate $ \alpha + 1 $ costs $ 5 or $ 6.")], ["costs $ 5 or $ 6"], [r"$ \alpha"], None),
    "formula in an item": ([md("1. Of\n    $ x^2 $ and so on\n\nWords\n\n    kept = $ y^2 $")], ["and so on", "kept = $ y^2 $"], ["$ x^2"], None),
    "table below a line": ([md("**Results**\n| a | b |\n|---|---|\n| 17 | 18 |")], ["17", "18"], ["|---", "| 17"], None),
    "fence of quarto": ([md("```{python}\n# load\nx = 1\n\n# no heading\n```")], ["# no heading"], ["{python}"], None),
    "fence with a title": ([md('```python title="a.py"\ny = 2\n```')], ["y = 2"], ["title="], None),
    "powers and options": ([md("10^-3,10^-4 and (2^3)*(2^4), ~3-~5, --epochs 3")], ["10^-3,10^-4", "(2^3)*(2^4)", "~3-~5", "--epochs"], [], None),
    "two labelled pictures": ([md(f"![A]({RED}){{#fig-a}} ![B]({RED}){{#fig-b}}\n\nSee @fig-b.")], ["A", "B"], ["#fig-a}"], None),
    "picture in a list": ([md(f"- ![inside]({RED}){{#fig-l}}\n\nSee @fig-l.")], ["inside"], ["fig-l}"], None),
    "label in a formula": ([md("$$ x \\label{eq:mine} $$\n\nwith \\eqref{eq:mine}.")], ["with"], ["label{"], None),
    "link to an anchor": ([md('<a id="plot"></a> here\n\n[Figure](#plot)')], ["Figure"], [], None),
    "label of a block": ([md("::: {#fig-q}\nsome\n:::\n\nSee @fig-q.")], ["some", "Figure"], [], "@fig-q has no number"),
    "heading called as the bibliography": ([md("## References\n\n[refs](#references) by [@guo2017]\n\n## Places\n\n## Toc")], ["refs", "Places"], [], None),
    "odd label": ([md(f"![A]({RED}){{#fig-r²}}\n\nSee @fig-r².")], ["A"], [], None),
    "picture in a cell": ([out({"text/html": PAIR.format(f'<img alt="red" src="{RED}">'), "text/plain": "x"})], ["p"], [], None),
    "link in a cell": ([out({"text/html": PAIR.format('<a href="https://x.invalid/y">there</a>'), "text/plain": "x"}, '#| tbl-cap: "Of links"\n#| label: tbl-k')], ["there", "https://x.invalid/y", "Of links"], ["{#tab"], None),
    "paragraphs in a cell": ([out({"text/html": PAIR.format("<p>one</p><p>two</p>"), "text/plain": "x"})], ["one two"], ["onetwo"], None),
    "altair": ([out({"text/html": "<div id=v></div><script>1</script>", "text/plain": "alt.Chart(...)"})], [], ["alt.Chart"], "needs a script"),
    "vega": ([out({"application/vnd.vegalite.v5+json": {}, "text/plain": "<VegaLite 5 object>\n\nIf you see this message"})], [], ["If you see"], "vegalite"),
    "latex with words": ([out({"text/latex": r"The mean is $\mu = 3$", "text/plain": "x"})], ["The mean is"], [r"$\mu"], None),
    "latex in brackets": ([out({"text/latex": r"\[ x^2 \]", "text/plain": "x"})], [], [r"\["], None),
    "formula and words": ([out({"text/latex": "$$x^2$$ is the square", "text/plain": "x"})], ["is the square"], ["$$"], None),
    "captioned markdown table": ([out({"text/markdown": "| a |\n|---|\n| 12 |", "text/plain": "x"}, '#| tbl-cap: "By tabulate"\n#| label: tbl-t'), md("See @tbl-t.")], ["12", "By tabulate"], ["|"], None),
    "label without caption": ([out({"text/html": PAIR.format("5"), "text/plain": "x"}, "#| label: tbl-n"), md("See @tbl-n.")], ["5"], [], "has no caption"),
    "listing by its label": ([new_code_cell('#| lst-cap: "My loop"\n#| label: lst-m\nfor x in y: pass'), md("See @lst-m.")], ["My loop", "for x in y"], [], None),
    "options behind a magic": ([shown('%%time\n\n# | fig-cap: "After magic"\n# | fig-alt: "red"\nplot()')], ["After magic"], ["fig-cap"], None),
    "too many captions": ([shown('#| fig-cap: [One, Two, Three]\n#| fig-alt: red\nplot()')], ["One"], ["Two"], "its fig-cap has 3 texts, of which 1"),
    "captions of parts": ([shown('#| fig-subcap: [x, y]\n#| fig-alt: red\nplot()')], [], [], "'fig-subcap' has no effect here"),
    "not to be run": ([new_code_cell("#| eval: false\nx / 0")], ["x / 0"], ["eval:"], None),
    "formula with blanks alone": ([md("Of $ n $ and $ k + 1 $ seeds")], ["seeds"], ["$ n $", "$ k"], None),
    "heading of html": ([md("<h2>Head</h2>\n\nSee it.\n\n<details><summary>More</summary>\n\ninside\n\n</details>")], ["Head", "See it.", "More", "inside"], [], None),
    "dashes that are no option": ([md("<!--TODO hide this-->\n\n$$ E=mc^2 $$ <!--eq-own-->\n\nSee [Equation](#eq-own), $a --b$ and https://x.invalid/?e=f&g=--h\n\n    run --fast a_b = $PATH")], ["run --fast a_b = $PATH", "g=--h", "Equation"], ["TODO", "eq-own--"], None),
    "sources with a comma": ([md("Shown [@guo2017, @kumar2022] and [see @howe1974, @mcnemar1947].")], ["Guo", "Kumar", "Howe", "McNemar"], ["@"], None),
    "references with a comma": ([md(f"![A]({RED}){{#fig-a}}\n\n![B]({RED}){{#fig-b}}\n\nSee [@fig-a, @fig-b].")], ["A", "B"], ["fig-a,"], None),
    "options with a colon": ([shown('#| label: fig-c\n#| fig-cap: Result: it rises.\n#| fig-alt: red\nplot()'), md("See @fig-c.")], ["Result: it rises."], [], "are read line by line"),
    "marked-up words in a cell": ([out({"text/html": PAIR.format("10<sup>3</sup> and <b>best</b>"), "text/plain": "x"})], ["best"], ["10 3"], None),
    "hidden results": ([printed("unseen", "#| results: hide")], [], ["unseen"], None),
    "results as markdown": ([printed("**strong** words", "#| results: asis")], ["words"], ["**"], None),
    "code that is not folded": ([new_code_cell("#| code-fold: show\nvisible = 1")], ["visible = 1"], ["code-fold"], None),
    "sizes": ([shown('#| fig-width: 4\n#| fig-alt: red\nplot()')], [], [], "'fig-width' has no effect here; give the size to what draws"),
    "an odd option": ([shown('#| results: [a, b]\n#| fig-alt: red\nplot()')], [], [], "has no effect here"),
    "layout": ([shown('#| layout-ncol: 2\n#| fig-alt: red\nplot()')], [], [], "'layout-ncol: 2' has no effect here"),
    "callout with a title": ([md('::: {.callout-note title="Mind this"}\nIt matters.\n:::')], ["Mind this", "It matters."], [":::"], None),
    "callout with a heading": ([md("::: {.callout-tip}\n## A tip\n\nUse it.\n:::")], ["A tip", "Use it."], [":::", "1.1"], None),
    "words between rules": ([md("---\n**Author:** me\n\n**Date:** today\n\n---")], ["Author:", "Date:"], ["<table"], None),
    "words in brackets": ([md("## Plain\n\nThese [Plain] words.")], ["[Plain] words"], [], None),
    "rules of an array": ([md(r"$$\begin{array}{c|c} a & b \\ \hline c & d \end{array}$$")], [], [], "rules of an array"),
    "a size is no result": ([md(f"![A]({RED}){{width=40%}}")], [], ["40%"], None),
    "expression in an option": ([shown('#| fig-cap: "At `{python} x`"\n#| fig-alt: red\nplot()')], ["At"], [], "holds an expression"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_stands_in_both_formats_or_a_warning_says_why_not(name):
    cells, words, never, warning = CASES[name]
    plain, page, source, warnings = written(*cells)
    typeset = (
        source.replace("\\n", "\n")
        .replace("\\", "")
        .replace("\n", " ")
        .replace("~", " ")
        .replace("\N{NO-BREAK SPACE}", " ")
    )
    plain, words = plain.replace("~", " "), [word.replace("~", " ") for word in words]
    for word in words:
        assert word in plain or word in page, word
        assert word in typeset, (word, typeset[-1500:])
    for word in never:
        assert word not in plain and word not in typeset, word
    assert [w for w in warnings if warning is None or warning in w] if warning else not warnings, warnings


def test_colours_of_a_terminal_and_bold_cells_stand_in_both_formats():
    styled = '<style>#T_a_row0_col0 {font-weight: bold}</style><table><tr><th>p</th></tr><tr><td id="T_a_row0_col0">9</td></tr></table>'
    red = printed("all \x1b[31mred\x1b[0m and \x1b[1mbold\x1b[0m")
    _, page, source, _ = written(red, out({"text/html": styled, "text/plain": "x"}))
    assert 'fill: rgb("#a80000"), raw("red")' in source and 'weight: 700, raw("bold")' in source and "ansi-red" in page
    assert '#strong("9")' in source and "font-weight: 700" in page
    power = out({"text/html": PAIR.format("10<sup>3</sup> and <b>best</b>"), "text/plain": "x"})
    _, page, source, _ = written(power)
    assert "10<sup>3</sup>" in page and "10#super[3]" in source and "#strong[best]" in source


def test_a_computed_word_may_be_markdown_and_no_script():
    cell = md("It is `{python} best` and `{python} plain`.")
    cell.metadata["report"] = {"values": [
        {"expression": "best", "text": "**first** <script>alert(1)</script>", "markdown": True},
        {"expression": "plain", "text": "**second**"}]}  # fmt: skip
    _, page, source, _ = written(cell)
    assert "<strong>first</strong>" in page and "**second**" in page and "<script>alert" not in page
    assert "#strong[first]" in source


@pytest.mark.parametrize("terms", [9, 40])
def test_a_wide_formula_and_a_long_word_of_code_stay_on_the_page(terms):
    tex = " + ".join(f"x_{{{n}}}" for n in range(terms))
    cells = [md(f"# T\n\n$$ {tex} $$\n\n$$ {tex} $$ {{#eq-w}}\n\nand `{'x' * 8 * terms}`.")]
    source = pdf.Pdf(assemble.assemble(tidied(new_notebook(cells=cells)), Journal())).source(metadata.load())
    made = typst.compile(source.encode(), format="png", ppi=72, font_paths=fonts.for_typst(False))
    with Image.open(io.BytesIO(made if isinstance(made, bytes) else made[0])) as page:
        ink = np.asarray(page.convert("L"))[100:700] < 128  # without running title and number of the page
    line = slice(int(2 / 2.54 * 72) - 2, int(14 / 2.54 * 72) + 4)
    assert ink[:, line].any() and not ink[:, : line.start].any() and not ink[:, line.stop :].any()


def test_code_in_a_list_keeps_its_indentation():
    *_, source, _ = written(md("1. First:\n\n   ```python\n   def f(x):\n       return 1\n   ```"))
    assert 'raw("def f(x):\\n    return 1"' in source


def test_a_number_can_stand_in_a_formula_and_in_what_a_picture_says():
    cell = md(f"$a = `{{python}} x`$ and ![red, `{{python}} y`]({RED})")
    cell.metadata["report"] = {"values": [{"expression": "x", "text": "41"}, {"expression": "y", "text": "42"}]}
    plain, page, source, warnings = written(cell)
    assert "a = 41" in source and "red, 42" in source and 'alt="red, 42"' in page and not warnings


@pytest.mark.parametrize("text", ["<!-- old: `{python} acc` -->", "`` `{python} acc` ``", "```\n`{python} acc`\n```\n"])
def test_what_only_speaks_of_expressions_is_none(text):
    assert inline.expressions(f"{text} and `{{python}} now`") == ["now"]


@pytest.mark.parametrize(
    "heading", ["## After", '<a id="res"></a>\n## After', "<!-- a -->\n\n## After", "After\n---", "After\n==="]
)
def test_a_section_ends_where_the_next_begins_however_that_is_written(heading):
    cells = [md("## Exercise", metadata={"tags": ["exercise"]}), md("solve"), md(f"{heading}\n\nIMPORTANT")]
    assert exercises(cells) == {0, 1} and begins(cells[2])[1] == "After"


def test_a_comment_in_code_is_no_heading_and_a_rule_none_either():
    assert begins(md("text\n\n---\n")) == (0, "") and begins(md("- a\n---")) == (0, "")


def test_a_drawing_of_a_page_is_a_file_of_its_own():
    said = []
    made = drawing.foreign('<svg width="4" height="1"><rect width="3" height="1"/></svg>', said.append)
    assert 'xmlns="http://www.w3.org/2000/svg"' in made and "<rect" in made and not said


@pytest.mark.parametrize(
    ("colour", "seen"),
    [("rgba(255,0,0,.5)", "#ff8080"), ("#ff000080", "#ff7f7f"), ("rgb(1, 2, 3)", "#010203"), ("#fd0", "#ffdd00"),
     ("transparent", ""), ("rgba(0,0,0,x)", "")],
)  # fmt: skip
def test_a_colour_that_lets_light_through_is_what_one_sees_on_white(colour, seen):
    assert tables.hexadecimal(colour) == seen


# --- what is larger than a page --------------------------------------------------------------------------------


def frame(data, source="df", **how):
    with pd.option_context("display.max_colwidth", None, "display.max_columns", None):
        return out({"text/html": data.to_html(**how), "text/plain": "x"}, source)


LONG = pd.DataFrame({"n": range(1000, 1020), "text": ["many words " * 30] * 20})


@pytest.mark.parametrize(
    ("cells", "count"),
    [([frame(LONG)], 2), ([frame(LONG, '#| tbl-cap: "Long"\ndf')], 2), ([shown(), shown()], 1),
     ([new_code_cell('#| fig-cap: "All"\n#| fig-alt: lines\nx', outputs=[
         new_output("display_data", data={"image/png": picture((800, 500)), "text/plain": "x"})] * 9)], 3)],
    ids=["frame", "captioned frame", "small pictures", "pictures under one caption"],
)  # fmt: skip
def test_what_is_taller_than_a_page_goes_on_on_the_next(cells, count, tmp_path):
    import typst

    nb = new_notebook(cells=[md("# Mine"), *cells])
    source = pdf.Pdf(assemble.assemble(tidied(nb), Journal()))
    text = source.source(metadata.load())
    for name, data in source.files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.typ").write_text(text)
    assert len(pdf._pages(typst.Compiler(str(tmp_path / "a.typ"), root=str(tmp_path)).compile(format="svg"))) == count


def test_a_table_wider_than_any_page_is_set_small_or_said():
    head = "".join(f"| column{n} " for n in range(16))
    *_, source, warnings = written(md(f"{head}|\n{'|---' * 16}|\n{'| 0.1234 ' * 16}|"))
    size = float(re.search(r"#show table: set text\(([\d.]+)pt\)", source)[1])
    assert 4.5 <= size < 9 and not warnings
    assert "wider than a page" in " ".join(
        written(md("| a " * 90 + "|\n" + "|---" * 90 + "|\n" + "| 0.123456 " * 90 + "|"))[3]
    )
