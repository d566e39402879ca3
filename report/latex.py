"""The merged notebook -> one of plain cells, for nbconvert's own LaTeX exporter (make report PDF=latex).

    python report/latex.py --output latex.ipynb report.ipynb && jupyter nbconvert --to pdf latex.ipynb

Text, numbers and references are those of the other formats (assemble.py); TeX does the typesetting.
"""

import argparse
import base64
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pypandoc
import typst
import yaml
from assemble import Block, ExportError, assemble
from exporter import HERE, pandoc
from fontTools.ttLib import TTFont
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from webfonts import TEXT

# Plain Markdown in the end: nbconvert's template knows no citations, and no environment for references.
PLAIN = "markdown-citations-fenced_divs-native_divs-raw_html-raw_tex-raw_attribute"
# What pandoc's tables without caption count with; nbconvert's template does not define it.
UNCAPTIONED = r"\makeatletter\@ifundefined{c@none}{\newcounter{none}}{}\makeatother" + "\n"
SIGNS = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
SIGNS |= {sign: "\\" + sign for sign in "$&#_%"}


def plain(nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The document of `nb` in Markdown cells, code cells that show code, and code cells that show one output."""
    markdown, blocks = assemble(nb)
    cite = ["--citeproc", f"--bibliography={HERE / 'references.bib'}", "--fail-if-warnings", "--wrap=none"]
    text = pandoc(re.sub(r"\0(\d+)\0", r"block-\1-place", markdown), PLAIN, cite)
    whole = new_notebook()
    title = yaml.safe_load((HERE / "metadata.yaml").read_text(encoding="utf-8"))
    whole.metadata.update(title=f"{title['title']}: {title['subtitle']}", authors=[{"name": escaped(title["author"])}])
    whole.metadata["date"] = str(title["date"])
    whole.cells.append(new_markdown_cell(f"# Statement of contribution {{-}}\n\n{title['contribution']}"))
    for place, piece in enumerate(re.split(r"^block-(\d+)-place$", text, flags=re.MULTILINE)):
        if place % 2:
            whole.cells.extend(cells(blocks[int(piece)]))
        elif piece.strip():
            whole.cells.append(new_markdown_cell(piece.strip()))
    return whole


def check_signs(nb: nbformat.NotebookNode) -> None:
    """Raises ExportError for signs that TeX's own fonts lack, since TeX would leave them out with a note in its log."""
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    texts += [out.data.get("text/latex", "") for cell in nb.cells for out in cell.get("outputs", [])]
    codes = [cell.source for cell in nb.cells if cell.cell_type == "code"]
    codes += [out.data.get("text/plain", "") for cell in nb.cells for out in cell.get("outputs", [])]
    for font, some in (("lmroman10-regular.otf", texts), ("lmmono10-regular.otf", codes)):
        found = subprocess.run(["kpsewhich", font], capture_output=True, text=True).stdout.strip()
        if not found:
            print(f"{font} is not found, so it is not known which signs it lacks", file=sys.stderr)
            continue
        known = set(TTFont(found).getBestCmap()) | set(map(ord, "\n\t\N{NO-BREAK SPACE}\N{WORD JOINER}"))
        if lost := sorted({sign for text in some for sign in text if ord(sign) not in known}):
            raise ExportError(f"TeX's font {font} lacks {' '.join(lost)}; make the PDF without PDF=latex")


def cells(block: Block) -> list[nbformat.NotebookNode]:
    """A block as cells; folded code is left out."""
    content = block.content
    if block.kind == "code":
        return [new_code_cell(content["code"])] if content["shown"] else []
    if block.kind == "listing":
        return [caption(block), new_code_cell(content["code"])]
    if block.kind == "equation":
        formula = f"$${content['tex']} \\tag{{{block.number.split()[-1]}}}$$"
        return [new_markdown_cell(f"[]{{#{content['label']}}}{formula}")]
    if block.kind == "figure":
        return [shown({"application/pdf": base64.b64encode(vector(content["svg"])).decode()}), caption(block)]
    if block.kind == "table":
        return [caption(block), shown({"text/latex": table(content)})]
    if block.kind == "html":
        converted = pypandoc.convert_text(content["html"], "latex", format="html-raw_html")
        return [shown({"text/latex": UNCAPTIONED + converted})]
    return [shown({"text/plain": content["text"]})]


def shown(data: dict[str, str]) -> nbformat.NotebookNode:
    """A cell that shows `data`, its (empty) code left out by the tag."""
    return new_code_cell("", outputs=[new_output("display_data", data=data)], metadata={"tags": ["output-only"]})


def caption(block: Block) -> nbformat.NotebookNode:
    words = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", block.content["caption"])
    return new_markdown_cell(f"[**{block.number}.**]{{#{block.content['label']}}} {words}")


def escaped(text: str) -> str:
    return "".join(SIGNS.get(sign, sign) for sign in text)


def table(content: dict) -> str:
    """Booktabs, as wide as the text at most."""

    def row(values: list[str]) -> str:
        return (
            "{}" + " & ".join(map(escaped, values)) + r" \\"
        )  # {}: no [ or * of a first cell belongs to the row before

    body = "\n".join(row(list(cells)) for cells in content["rows"])
    head = row(list(content["header"]))
    lines = (
        rf"\begin{{tabular}}{{{content['align']}}}\toprule {head} \midrule"
        + f"\n{body}\n"
        + r"\bottomrule\end{tabular}"
    )
    return (
        rf"\begin{{center}}\adjustbox{{max width=\textwidth, max totalheight=0.9\textheight}}{{{lines}}}\end{{center}}"
    )


def vector(svg: str) -> bytes:
    """A drawing as a PDF of its own size; TeX reads no SVG."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "drawing.svg").write_text(svg, encoding="utf-8")
        source = Path(folder, "drawing.typ")
        source.write_text('#set page(width: auto, height: auto, margin: 0pt)\n#image("drawing.svg")', encoding="utf-8")
        return typst.compile(str(source), root=folder, font_paths=[str(TEXT)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("notebook", type=Path)
    options = parser.parse_args()
    document = plain(nbformat.read(options.notebook, as_version=4))
    try:
        check_signs(document)
    except ExportError as error:
        raise SystemExit(f"error: {error}") from error
    nbformat.write(document, options.output)
