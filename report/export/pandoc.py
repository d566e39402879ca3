"""pandoc as a function: many texts -> their syntax trees in one call, one tree -> HTML or Typst; and small helpers.

A tree is pandoc's JSON: blocks and inlines are {"t": kind, "c": content}. No raw markup of an author gets into a
tree that is written, so what stands in the document is what the tree can say.
"""

import functools
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .origin import ExportError

# As JupyterLab reads Markdown, where pandoc differs by default.
MARKDOWN = (
    "markdown-raw_tex-raw_attribute-latex_macros-implicit_figures-native_divs-native_spans-auto_identifiers"
    "-yaml_metadata_block-pandoc_title_block-fancy_lists-example_lists-blank_before_header-blank_before_blockquote"
    "-line_blocks-superscript-subscript-markdown_in_html_blocks+markdown_in_html_blocks+lists_without_preceding_blankline"
    "+autolink_bare_uris+tex_math_double_backslash-multiline_tables-simple_tables-implicit_header_references"
)
HTML = "html-raw_html-native_divs-native_spans-auto_identifiers"
MARK = re.compile("^\ufdd2(\\d+)\ufdd2$")

Node = dict
Blocks = list[Node]


@functools.cache
def binary() -> str:
    """The pandoc that pypandoc_binary brings; pypandoc itself would ask it for versions and formats on each call."""
    import pypandoc

    return str(Path(pypandoc.__file__).parent / "files" / "pandoc")


def run(arguments: list[str], text: str = "") -> tuple[str, list[dict]]:
    """(what pandoc writes, its messages). Raises ExportError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.json")
        done = subprocess.run(
            [binary(), *arguments, f"--log={log}", "--quiet", f"--data-dir={folder}"],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        messages = json.loads(log.read_text(encoding="utf-8") or "[]") if log.exists() else []
    if done.returncode:
        raise ExportError(f"pandoc refuses the text: {' '.join(done.stderr.decode(errors='replace').split())}")
    return done.stdout.decode(), messages


def read(texts: list[str], form: str = MARKDOWN) -> list[Blocks]:
    """The blocks of each text, each read by itself, so that notes and links of one are not those of another."""
    if not texts:
        return []
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, text in enumerate(texts):
            name = Path(folder, f"{number:05d}.md")
            mark = f"\ufdd2{number}\ufdd2"
            # A heading, which no text that follows can make something else, says where each begins.
            name.write_text(f"<h6>{mark}</h6>\n{text}" if form == HTML else f"# {mark}\n\n{text}\n", encoding="utf-8")
            names.append(str(name))
        tree = json.loads(run(["-f", form, "-t", "json", "--sandbox", "--file-scope", *names])[0])
    read: list[Blocks] = []
    for block in tree["blocks"]:
        if block["t"] == "Header" and MARK.match(stringify(block["c"][2])):
            read.append([])
        else:
            read[-1].append(block)
    if len(read) != len(texts):
        raise ExportError("pandoc reads the text in another way than it was written")
    return read


def stringify(node: object) -> str:
    """The words of a node or of a list of nodes."""
    if isinstance(node, list):
        return "".join(map(stringify, node))
    if not isinstance(node, dict):
        return ""
    kind, content = node.get("t"), node.get("c")
    if kind in ("Str",):
        return str(content)
    if kind in ("Space", "SoftBreak", "LineBreak"):
        return " "
    if kind in ("Code", "Math", "CodeBlock"):
        return str(content[1])  # type: ignore[index]
    if kind == "Quoted":
        return "\N{LEFT DOUBLE QUOTATION MARK}" + stringify(content[1]) + "\N{RIGHT DOUBLE QUOTATION MARK}"  # type: ignore[index]
    if kind in ("Note", "RawInline", "RawBlock"):
        return ""
    return stringify(content)


def inlines(text: str) -> list[Node]:
    """`text` as inlines that show exactly these words."""
    nodes: list[Node] = []
    for word in re.split(r"([ \t\n]+)", text):
        if word.strip(" \t\n"):
            nodes.append({"t": "Str", "c": word})
        elif word:
            nodes.append({"t": "Space"})
    return nodes


def para(nodes: list[Node]) -> Node:
    return {"t": "Para", "c": nodes}


def plain(nodes: list[Node]) -> Node:
    return {"t": "Plain", "c": nodes}


def raw(form: str, text: str) -> Node:
    return {"t": "RawBlock", "c": [form, text]}


def raw_inline(form: str, text: str) -> Node:
    return {"t": "RawInline", "c": [form, text]}


def link(target: str, words: list[Node]) -> Node:
    return {"t": "Link", "c": [["", [], []], words, [target, ""]]}


def heading(level: int, text: str, *classes: str) -> Node:
    return {"t": "Header", "c": [level, ["", list(classes), []], inlines(text)]}


def walk(node: object, change: Callable[[Node], list[Node] | None]) -> object:
    """The tree with each node replaced by what `change` makes of it; None: look into it. Goes from outside in."""
    if isinstance(node, list):
        walked: list = []
        for item in node:
            replaced = change(item) if isinstance(item, dict) and "t" in item else None
            if replaced is None:
                walked.append(walk(item, change))
            else:
                walked.extend(replaced)
        return walked
    if isinstance(node, dict):
        return {key: walk(value, change) for key, value in node.items()}
    return node


def every(node: object, kind: str) -> list[Node]:
    """All nodes of a kind, in the order of the text."""
    if isinstance(node, list):
        return [found for item in node for found in every(item, kind)]
    if isinstance(node, dict):
        return [node] * (node.get("t") == kind) + [found for value in node.values() for found in every(value, kind)]
    return []
