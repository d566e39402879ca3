"""Executed notebooks -> OUTDIR/NAME.html, .pdf, .png and main_figure.png.

    PYTHONPATH=report python -m export OUTDIR NAME executed/01.ipynb executed/02.ipynb [--with executed/mine.ipynb]

All files are made before the first is replaced, so that the last good report survives whatever fails. Warnings say
what was left out and where; an error is one sentence, and the exit code 2.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import metadata
from .merge import check, merge
from .origin import ExportError


def export(
    folder: Path,
    name: str,
    main: list[Path],
    further: list[Path],
    details: metadata.Metadata,
    links: Sequence[str] = (),
) -> list[str]:
    """Writes the report's files, whose page links to `links` and to the notebooks beside it, and returns the warnings.

    Raises ExportError, and then has written nothing."""
    from .exporter import Report

    check([*main, *further])
    notebooks = [path.name for path in [*main, *further] if path.resolve().parent == folder.resolve()]
    exporter = Report(details=details, beside=[*links, *notebooks])
    exporter.log.disabled = True  # the warnings are printed once, by main()
    try:
        page, resources = exporter.from_notebook_node(merge(main, further), {"unique_key": name})
    except ExportError:
        say(exporter.journal.warnings)  # among which may be why
        raise
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{name}-*"):  # by one that was killed
        if time.time() - left.stat().st_mtime > 86_400:
            shutil.rmtree(left, ignore_errors=True)
    aside = folder / f".{name}-{os.getpid()}"
    aside.mkdir(exist_ok=True)
    try:
        (aside / f"{name}.html").write_text(page, encoding="utf-8")
        for file, data in resources["outputs"].items():
            (aside / file).write_bytes(data)
        for file in sorted(aside.iterdir(), key=lambda file: (file.suffix == ".html", file.name)):  # the page last
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exporter.journal.warnings


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUTDIR")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("notebooks", type=Path, nargs="+", help="executed, in reading order")
    parser.add_argument(
        "--with",
        dest="further",
        type=Path,
        nargs="*",
        default=[],
        metavar="NOTEBOOK",
        help="executed; they stand before the conclusion",
    )
    parser.add_argument(
        "--metadata", type=Path, default=metadata.FILE, help="the title page; default: report/metadata.yaml"
    )
    parser.add_argument(
        "--link", action="append", default=[], metavar="FILE", help="a file beside the report that its page links to"
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the title page")
    options = parser.parse_args(arguments)
    try:
        changes = {}
        for given in options.set:
            field, equals, value = given.partition("=")
            if not equals:
                raise ExportError(f"--set is {given!r}; it is FIELD=VALUE")
            changes[field] = value
        details = metadata.load(options.metadata, changes)
        warnings = export(options.folder, options.name, options.notebooks, options.further, details, options.link)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = error.filename or options.folder
        print(f"error: {where} cannot be read or written ({error.strerror or error})", file=sys.stderr)
        return 2
    say(warnings)
    return 0


def say(warnings: Sequence[str]) -> None:
    for message in warnings:
        print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
