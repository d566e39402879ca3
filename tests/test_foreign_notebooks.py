# ruff: noqa: E501  (a case is a line)
"""What notebooks really hold, made by the libraries themselves in one kernel: each comes out in both formats as its
author would expect, or is left out with a warning that says what and where."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest
from export import assemble, execute, exporter, fonts, inline, isolated, merge, metadata, pdf
from export.origin import Journal
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

REPORT = Path(__file__).resolve().parents[1] / "report"
FIRST = """
import logging, sys, warnings
import matplotlib.pyplot as plt, numpy as np, pandas as pd
from IPython.display import *
df = pd.DataFrame({'name': ['cat', 'dog'], 'n': [1, 20], 'share': [0.5, 12.25]})
class Chart:  # as plotly, altair and others do
    def __init__(self, **bundle): self.bundle = {k.replace('__', '/').replace('_', '.'): v for k, v in bundle.items()}
    def _repr_mimebundle_(self, include=None, exclude=None): return self.bundle
def png():
    import io; file = io.BytesIO(); plt.figure(figsize=(1, 1)).savefig(file); plt.close(); return file.getvalue()
"""
NO_ALT = "a picture has no alternative text"
# name: (code, what both formats show, what neither does, the warning)
CASES = {
    "frame": ("df", ["cat", "12.25"], ["style scoped", "dataframe"], None),
    "frame with caption": ("#| label: tbl-frame\n#| tbl-cap: A *frame*.\ndf", ["cat"], ["#|"], None),
    "long frame": ("pd.DataFrame({'k': range(500)})", ["499", "500 rows × 1 columns"], ["250"], None),
    "all rows": ("pd.set_option('display.max_rows', None)\npd.DataFrame({'k': range(500)})", ["199"], ["450"],
                 "it has 500 rows, of which the first 200 are shown"),
    "wide frame": ("pd.DataFrame(np.eye(3, 30))", ["3 rows × 30 columns", "..."], [], None),
    "very wide": ("pd.set_option('display.max_columns', None)\npd.DataFrame(np.full((3, 45), 123.456), columns=[f'c{n}' for n in range(45)])",
                  ["c0", "c44"], [], None),
    "grouped": ("df.groupby('name')[['n', 'share']].agg(['min', 'max'])", ["share", "max"], [], None),
    "multiindex": ("pd.DataFrame({'v': [1, 2, 3]}, index=pd.MultiIndex.from_tuples([('a', 1), ('a', 2), ('b', 1)], names=['g', 'k']))",
                   ["g", "k"], [], None),
    "series": ("df['n']", ["Name: n"], [], None),
    "strange words": ("pd.DataFrame({'<script>alert(1)</script>': ['$x$ *y* #z']})", ["alert(1)", "$x$ *y* #z"], [], None),
    "styler": ("df.style.highlight_max(subset=['n'], color='#ffdd00')", ["cat", "#ffdd00"], ["T_"], None),
    "styler bars": ("df.style.bar(subset=['n'])", ["cat"], ["gradient"], "its bars are left out"),
    "plain plot": ("plt.plot([1, 2]); plt.show()", ["A picture made by the code of cell"], ["Figure size"], NO_ALT),
    "two plots": ("plt.plot([1, 2])\nplt.show()\nplt.plot([2, 1])\nplt.show()", ["A picture made"], [], NO_ALT),
    "captioned plot": ("#| label: fig-plot\n#| fig-cap: \"Of $x^2$: **bold**.\"\n#| fig-alt: A rising line.\nplt.plot([1, 2])",
                       ["A rising line."], ["Line2D", "#|"], None),
    "two captioned": ("#| fig-cap: [First one., Second one.]\n#| fig-alt: Lines.\nfor n in range(2): plt.plot([n, 1]); plt.show()",
                      ["First one.", "Second one."], [], None),
    "one caption for two": ("#| fig-cap: For both.\n#| fig-alt: Lines.\nfor n in range(2): plt.plot([n, 1]); plt.show()", ["For both."], [], None),
    "displayed figure": ("#| fig-alt: Shown.\nf, a = plt.subplots(); a.plot([1]); plt.close(f); display(f)", ["Shown."], [], None),
    "svg figure": ("from matplotlib_inline.backend_inline import set_matplotlib_formats\nset_matplotlib_formats('svg')\nplt.plot([3, 1]); plt.show()\nset_matplotlib_formats('png')",
                   ["A picture made"], [], NO_ALT),
    "histogram": ("plt.hist([1, 2, 2])", ["A picture made"], ["BarContainer", "array("], NO_ALT),
    "image": ("Image(png())", ["A picture made"], [], NO_ALT),
    "remote image": ("Image(url='http://e.invalid/a.png')", [], ["e.invalid"], "'http://e.invalid/a.png' is not in the notebook"),
    "svg": ("SVG('<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><style>rect {fill: red}</style><rect width=\"9\" height=\"9\"/></svg>')",
            ["A picture made"], [], NO_ALT),
    "no picture": ("display({'image/png': 'bm8gcG5n'}, raw=True)", [], [], "a picture that cannot be read"),
    "sympy": ("import sympy; sympy.Matrix([[1, sympy.Symbol('alpha')**2]])", ["α"], ["displaystyle", "Matrix"], None),
    "latex": ("Latex(r'\\begin{align}a &= b\\end{align}')", ["a"], ["begin"], None),
    "markdown": ("display(Markdown('**bold** <br> $x$ and <script>alert(2)</script>'))", ["bold"], ["alert(2)"], "<script> is left out"),
    "html": ("HTML('<h4>Head</h4><ul><li>item <b>b</b></li></ul>')", ["Head", "item"], [], None),
    "html with script": ("HTML('<p>kept</p><script>alert(3)</script>')", ["kept"], ["alert(3)"], "<script> is left out"),
    "html with svg": ("HTML('<p>p</p><svg viewBox=\"0 0 4 2\"><rect width=\"4\" height=\"2\"/></svg>')", ["A picture made"], [], None),
    "progress on stdout": ("from tqdm import tqdm\nfor i in tqdm(range(3), file=sys.stdout): pass\nprint('done')", ["done"], ["it/s", "%|"], None),
    "progress on stderr": ("for i in tqdm(range(3)): pass", [], ["it/s", "%|"], None),
    "progress as widget": ("from tqdm.notebook import tqdm as bar\nfor i in bar(range(3)): pass", [], ["HBox", "%|"], None),
    "carriage return": ("for i in range(9): print(f'step {i}', end='\\r')\nprint('step 9 end')", ["step 9 end"], ["step 1"], None),
    "colours": ("print('\\x1b[31;1mred\\x1b[0m and \\x1b[38;5;208mown\\x1b[0m')", ["red", "own"], ["[31"], None),
    "control characters": ("print('bell\\x07 feed\\x0c null\\x00 esc\\x1b[2J odd\\ud800'.encode('utf-8', 'replace').decode())", ["odd"], ["\x07", "\x0c", "[2J"], None),
    "warning": ("warnings.warn('careful'); print('after')", ["after"], ["careful", "UserWarning"], "Python warned (UserWarning: careful)"),
    "silenced warning": ("#| warning: false\nwarnings.warn('hushed')", [], ["hushed"], None),
    "logging": ("logging.warning('logged words')", [], ["logged words"], "what it wrote on stderr is left out: WARNING:root:logged words"),
    "long output": ("for i in range(300): print('line', i)", ["line 59", "240 more lines"], ["line 299"], "its output has 300 lines"),
    "long line": ("print('wide ' * 3000)", ["wide"], [], "a line of 15,000 signs; of one line the first 2,000 are shown"),
    "widget": ("import ipywidgets\nipywidgets.IntSlider()", [], ["IntSlider"], "a widget is left out"),
    "script chart": ("Chart(text__html='<div id=c></div><script>draw()</script>', application__vnd_plotly_v1='{}')", [], ["draw()"],
                     "an output is left out, since it needs a script"),
    "chart with picture": ("import base64\nChart(text__html='<script>draw()</script>', image__png=base64.b64encode(png()).decode())",
                           ["A picture made"], ["draw()"], NO_ALT),
    "estimator": ("from sklearn.linear_model import LogisticRegression\nLogisticRegression(C=3)", ["LogisticRegression(C=3)"], ["sk-"], None),
    "javascript": ("Javascript('alert(4)')", [], ["alert(4)"], "application/javascript"),
    "frame in a page": ("IFrame('http://e.invalid', 10, 10)", [], ["e.invalid"], "needs a script or a frame"),
    "audio": ("Audio(np.zeros(99), rate=8000)", [], ["<audio"], "looks, sound or film"),
    "video": ("Video('http://e.invalid/v.mp4')", [], ["v.mp4"], "looks, sound or film"),
    "json": ("JSON({'jsonic': [1]})", ["jsonic"], [], None),
    "geojson": ("GeoJSON({'type': 'Point'})", [], ["Point"], "application/geo+json"),
    "unknown": ("display({'application/x-unheard': 'bytes'}, raw=True)", [], ["bytes"], "application/x-unheard"),
    "unknown with text": ("display({'application/x-unheard': 'bytes', 'text/plain': 'said so'}, raw=True)", ["said so"], ["bytes"], None),
    "array": ("np.arange(3)", ["array([0, 1, 2])"], [], None),
    "set": ("{'<b>', 'x'} - {'x'}", ["{'<b>'}"], [], None),
    "caught": ("try:\n    1 / 0\nexcept Exception as e:\n    print('caught', e)", ["caught division by zero"], [], None),
    "magic": ("%timeit -n1 -r1 pass", ["per loop"], [], None),
    "echo": ("#| echo: true\nshown_code = 1", ["shown_code"], ["#|"], None),
    "not echoed": ("#| echo: false\nhidden_code = 1; print('seen')", ["seen"], ["hidden_code"], None),
    "no output": ("#| output: false\nprint('unsaid')", [], ["unsaid\n"], None),
    "not included": ("#| include: false\nprint('left')", [], ["left"], None),
    "as it is": ("#| output: asis\nprint('A **strong** word')", ["strong"], ["**strong**"], None),
    "misspelt option": ("#| fig-capp: x\nprint('still')", ["still"], [], "'fig-capp' is not known; is 'fig-cap' meant?"),
    "no yaml": ("#| fig-cap: a: b\nprint('still')", ["still"], [], "its cell options are no YAML"),
    "caption without picture": ("#| fig-cap: Lonely.\nprint('words')", ["words"], ["Lonely"], "it has a fig-cap, but shows no picture"),
    "tables in tables": ("HTML('<table><tr><td>x<table><tr><td>inner1</td><td>inner2</td></tr></table></td><td><ul><li>a<li>b</ul></td></tr></table>')",
                         ["x inner1 inner2", "a b"], ["xinner1", "ab<"], None),
    "signs of a drawing without font": ("SVG('<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"90\" height=\"20\"><text y=\"9\">\u31de</text></svg>')", [], [],
                                        "no font at hand has"),
    "signs without font": ("print('\\u31de')", [], [], "no font at hand has"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(name -> HTML, name -> Typst, the warnings, the page) of a notebook with a section for each case, without any
    metadata, executed under hostile settings of its user."""
    folder = tmp_path_factory.mktemp("foreign")
    cells = [new_code_cell(FIRST)]
    for name, (code, *_) in CASES.items():
        cells += [new_markdown_cell(f"# {name}"), new_code_cell(code)]
    cells += [new_markdown_cell("# end\n\nSee @fig-plot, [Figure](#fig-plot), @tbl-frame and [Table](#tab-frame).")]
    whole = json.loads(nbformat.writes(new_notebook(cells=cells)))
    for cell in whole["cells"]:
        del cell["id"], cell["metadata"]
    path = folder / "05_mine.ipynb"
    path.write_text(json.dumps({"cells": whole["cells"], "nbformat": 4, "nbformat_minor": 2}))
    executed(path, folder, hostile(folder))
    assert not (sentence := merge.failure(folder / "out.ipynb")), sentence
    nb = merge.merge([], [folder / "out.ipynb"])
    journal = Journal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fonts, "faces", lambda page, mathematical=True: "")
        maker = exporter.HTMLReport()
        page = maker.from_notebook_node(nb)[0]
    typeset = pdf.Pdf(assemble.assemble(nb, journal))
    source = typeset.source(metadata.load())
    assert typeset.compiled(source, False)[0].startswith(b"%PDF")
    by_html = dict(
        re.findall(r"<h1 [^>]*><a [^>]*></a><span[^>]*>\d+</span> (.*?)</h1>(.*?)(?=<h1 |</main>)", page, re.DOTALL)
    )
    by_typst = dict(re.findall(r"^= (.*?)\n<[^>\n]*>\n(.*?)(?=^= |\Z)", source, re.DOTALL | re.MULTILINE))
    return by_html, by_typst, maker.journal.warnings, page


def hostile(folder):
    """A user's settings, each of which would change a notebook that is executed."""
    home = folder / "home"
    startup = home / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "0.py").write_text("import builtins; builtins.print = lambda *a, **k: None")
    (home / ".ipython" / "profile_default" / "ipython_config.py").write_text(
        "c.InteractiveShell.ast_node_interactivity = 'all'"
    )
    (home / ".config" / "matplotlib").mkdir(parents=True)
    for place in (home / ".config" / "matplotlib" / "matplotlibrc", home / "matplotlibrc"):
        place.write_text("figure.facecolor: black\ntext.color: white\nfigure.figsize: 1, 1\n")
    kernel = home / ".local" / "share" / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "mine", "language": "python"}))
    (home / ".jupyter").mkdir()
    (home / ".jupyter" / "jupyter_config.py").write_text("raise SystemExit('configured')")
    (home / "start.py").write_text("raise SystemExit('started')")
    return {"HOME": str(home), "MATPLOTLIBRC": str(home / "matplotlibrc"), "MPLBACKEND": "agg", "FORCE_COLOR": "1",
            "JUPYTER_PATH": str(kernel.parents[1]), "PYTHONSTARTUP": str(home / "start.py"), "IPYTHONDIR": str(home / ".ipython"),
            "JUPYTER_CONFIG_DIR": str(home / ".jupyter"), "PYTHONWARNINGS": "error", "TQDM_DISABLE": "1", "TZ": "Asia/Tokyo"}  # fmt: skip


def executed(path, folder, settings):
    """As make does it: prepared, then executed by papermill under the project's own settings."""
    (folder / "notebooks").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "export.isolated", sys.executable, "-m", "export.execute", str(path), "out.ipynb", "none"],
        env={**os.environ, **settings, "PYTHONPATH": str(REPORT)}, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    assert (folder / "out.ipynb").exists(), done.stderr


@pytest.mark.parametrize(
    ("code", "metadata", "status", "said"),
    [
        ("1 / 0", {}, 1, "error: mine.ipynb, cell 1: ZeroDivisionError: division by zero"),
        ("print('error: none')\nimport os; os._exit(3)", {}, 1, "error: mine.ipynb stopped: its kernel died"),
        (
            "1",
            {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}},
            2,
            "error: mine.ipynb is written for",
        ),
    ],
)
def test_a_notebook_that_stops_says_where_and_why_in_its_last_line(
    code, metadata, status, said, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    Path("notebooks").mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(code)], metadata=metadata), "mine.ipynb")
    assert execute.main(["mine.ipynb", "out.ipynb", "none"]) == status
    assert capfd.readouterr().err.splitlines()[-1].startswith(said)
    assert Path("out.ipynb").exists() == said.endswith("zero")


@pytest.mark.parametrize("name", CASES)
def test_each_comes_out_in_both_formats_or_says_why_not(made, name):
    code, shown, hidden, warning = CASES[name]
    by_html, by_typst, warnings, _ = made
    html, typst = by_html[name], by_typst[name]
    visible = re.sub(r'<div class="code">.*?</div>', "", html, flags=re.DOTALL)
    words = unescape(visible) + unescape(re.sub(r"<annotation.*?</annotation>|<[^>]*>", "", visible, flags=re.DOTALL))
    without = re.sub(r"<annotation.*?</annotation>", "", words, flags=re.DOTALL)
    for text in shown:
        assert text in words.replace("\N{NO-BREAK SPACE}", " "), f"HTML lacks {text}: {words[:800]}"
        typeset = typst.replace("\N{NO-BREAK SPACE}", " ").replace("\\", "").replace("\u2060", "")
        assert text in typeset or text in ("α",) and "alpha" in typst, f"Typst lacks {text}: {typst[:800]}"
    for text in hidden:
        assert text not in without and text not in typst, text
    cell = 2 * list(CASES).index(name) + 3
    mine = [message for message in warnings if message.startswith(f"05_mine.ipynb, cell {cell} (under “{name}”)")]
    assert not mine if warning is None else any(warning in message for message in mine), mine


def test_nothing_runs_or_fetches(made):
    *_, page = made
    body = re.sub(
        r'<div class="code">.*?</div>',
        "",
        page[page.index("<main>") : page.index('<h1 id="cite-this-report"')],
        flags=re.DOTALL,
    )
    for tag in re.findall(r"<[a-z][^>]*>", body):
        assert not re.search(
            r"^<(?:script|iframe|object|embed|audio|video|link|input|style)|\son\w+=|(?:src|href)=\"(?!data:image|#|https?:|mailto:)",
            tag,
        ), tag[:200]
    assert "e.invalid" not in body


def test_captions_numbers_and_references(made):
    by_html, by_typst, _, page = made
    plain = page.replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"Figure 1\.</strong> Of <math.*?</math>: <strong>bold</strong>\.", plain, re.DOTALL)
    assert plain.count('<a href="#fig-plot">Figure 1</a>') == 2 and plain.count('<a href="#tab-frame">Table 1</a>') == 2
    assert "Table 1.</strong> A <em>frame</em>." in plain and "#strong[Table~1.]" in by_typst["frame with caption"]
    assert by_html["plain plot"].count("<img") == 1 and by_html["two plots"].count("<img") == 2
    assert (
        by_html["one caption for two"].count("<img") == 2 and by_html["one caption for two"].count("<figcaption") == 1
    )
    assert "stack(" in by_typst["one caption for two"]


def test_tables_are_tables(made):
    by_html, by_typst, *_ = made
    assert '<th class="right">n</th>' in by_html["frame"] and '<td class="left short">cat</td>' in by_html["frame"]
    assert "align: (right, left, right, right,)" in by_typst["frame"] and "table.header(" in by_typst["frame"]
    assert 'rowspan="2"' in by_html["multiindex"] and "rowspan: 2" in by_typst["multiindex"]
    assert 'colspan="2"' in by_html["grouped"] and "colspan: 2" in by_typst["grouped"]
    assert 'style="background: #ffdd00' in by_html["styler"] and 'rgb("#ffdd00")' in by_typst["styler"]
    assert re.search(r'class="ansi-[a-z]+ ansi-bold|class="ansi-bold ansi-red', by_html["colours"])


def test_settings_of_the_user_change_nothing(made):
    by_html, *_, page = made
    assert "carriage return" in by_html and "step 9 end" in by_html["carriage return"]
    width = re.search(r'width="(\d+)"', by_html["plain plot"])
    assert width and int(width[1]) > 400  # not the inch that the user's matplotlibrc asks for


@pytest.mark.parametrize("version", [3, 4])
def test_notebooks_of_older_formats(tmp_path, version):
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"metadata": {}, "cells": [
        {"cell_type": "heading", "level": 2, "source": ["Old"], "metadata": {}},
        {"cell_type": "code", "input": ["1"], "language": "python", "metadata": {}, "collapsed": False, "prompt_number": 1,
         "outputs": [{"output_type": "pyout", "prompt_number": 1, "text": ["older"], "metadata": {}}]}]}]}  # fmt: skip
    new = {"nbformat": 4, "cells": [{"cell_type": "markdown", "source": ["## Old\n", "text"]},
                                    {"cell_type": "code", "source": "1", "outputs": [{"output_type": "stream", "name": "stdout", "text": ["older"]}]}]}  # fmt: skip
    (tmp_path / "a.ipynb").write_text(json.dumps(old if version == 3 else new))
    nb = merge.merge([tmp_path / "a.ipynb"])
    assert [cell.cell_type for cell in nb.cells] == ["markdown", "code"] and nb.cells[0].source.startswith("## Old")
    assert "older" in exporter.HTMLReport().from_notebook_node(nb)[0]
    assert inline.prepare(tmp_path / "a.ipynb").metadata.kernelspec.name == "python3"


def test_the_environment_of_a_kernel_holds_no_settings_of_the_user(tmp_path):
    given = {
        "HOME": "/h",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "p",
        "MPLBACKEND": "agg",
        "FORCE_COLOR": "1",
        "IPYTHONDIR": "/mine",
        "PYTHONOPTIMIZE": "2",
        "PYTHONIOENCODING": "ascii",
    }
    found = isolated.environment(given, tmp_path)
    assert found["OMP_NUM_THREADS"] == "1" and found["PYTHONPATH"] == "p" and found["HOME"] == "/h"
    assert not {"PYTHONOPTIMIZE", "PYTHONIOENCODING"} & set(found)
    assert "MPLBACKEND" not in found and "FORCE_COLOR" not in found and found["IPYTHONDIR"].startswith(str(tmp_path))
