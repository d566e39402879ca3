"""A notebook, executed with nobody watching: prepared (inline.py), run by papermill, saved when it has ended.

    PYTHONPATH=report python -m export.isolated python -m export.execute notebooks/01.ipynb OUTPUT.ipynb PARAMETERS.yaml

One that stops is saved as far as it came; the last line then says in which cell and why, and the exit code is 1.
"""

import argparse
import logging
import sys
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError
from papermill import PapermillExecutionError, execute_notebook

from .inline import prepare
from .merge import failure
from .origin import ExportError


def execute(notebook: Path, output: Path, parameters: str) -> None:
    """Writes `output`, of a notebook whose parameter `profile` is `parameters` and which runs in the folder notebooks.

    Raises ExportError for one that cannot be prepared, and what papermill raises where a cell fails."""
    source = output.with_suffix(".source.ipynb")
    nbformat.write(prepare(notebook), source)
    try:
        execute_notebook(
            str(source), str(output), {"profile": parameters}, kernel_name="python3", cwd="notebooks",
            progress_bar=False, log_output=True, request_save_on_cell_execute=False,
        )  # fmt: skip
    finally:
        source.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export.execute", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("parameters", help="the file that the notebook takes for its profile")
    options = parser.parse_args(arguments)
    logging.basicConfig(level="INFO", format="%(message)s")
    try:
        execute(options.notebook, options.output, options.parameters)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except PapermillExecutionError as error:
        print(error, file=sys.stderr)
        print(f"error: {failure(options.output) or failure(options.output, tagged=True)}", file=sys.stderr)
        return 1
    except DeadKernelError:
        print(
            f"error: {options.notebook} stopped: its kernel died, as it does where memory is lacking; finished runs "
            "are kept, and the same command goes on from them", file=sys.stderr,
        )  # fmt: skip
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
