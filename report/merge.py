"""Executed notebooks -> one notebook, the document in reading order.

    python report/merge.py --output report.ipynb 01.ipynb 02.ipynb 03.ipynb

Part of the text: the notebooks in the given order, each with its own parameter and import cells left behind.
"""

import argparse
import os
from pathlib import Path

import nbformat

LEFT_BEHIND = {"parameters", "injected-parameters", "setup"}


def merge(paths: list[Path]) -> nbformat.NotebookNode:
    """One notebook of all the cells that belong to the text, ids made unique by their notebook's name."""
    whole = nbformat.v4.new_notebook()
    for path in paths:
        part = nbformat.read(path, as_version=4)
        whole.metadata = part.metadata
        for cell in part.cells:
            if not LEFT_BEHIND & set(cell.metadata.get("tags", [])):
                cell.id = f"{path.stem[:30]}-{cell.id}"[:64]
                whole.cells.append(cell)
    return whole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("notebooks", type=Path, nargs="+")
    options = parser.parse_args()
    aside = options.output.with_name(f".{options.output.name}-{os.getpid()}")
    nbformat.write(merge(options.notebooks), aside)
    aside.replace(options.output)
