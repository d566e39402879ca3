"""The rooms of report_lib: how many there are, that each knows only those below it, and none the report."""

import ast
import re

import pytest

from report_lib.config import parameters
from report_lib.files import PROJECT

ROOMS = ("files", "config", "data", "models", "training", "runs", "evidence", "page")
LIBRARY = PROJECT / "report_lib"
MODULES = sorted(LIBRARY.rglob("*.py"))
BESIDE = {"__init__", "__main__"}


def name_of(path):
    return path.relative_to(LIBRARY).with_suffix("").as_posix()


def imported(path):
    """The modules of report_lib that a module imports, wherever in it, as "room/module"."""
    package = ["report_lib", *path.relative_to(LIBRARY).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "report_lib" and "." in name:
                yield name.removeprefix("report_lib.").replace(".", "/")


def test_there_are_at_most_nine_rooms_in_one_order():
    there = {path.stem for path in LIBRARY.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there == {*ROOMS, *BESIDE} and len(ROOMS) <= 9


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_import_points_downward(path):
    room = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    if room in BESIDE:
        return
    for name in imported(path):
        other = name.split("/")[0]
        assert other in ROOMS, f"{name_of(path)} imports {name}"
        assert ROOMS.index(other) <= ROOMS.index(room), f"{name_of(path)} imports {name}, which lies above it"


def test_no_module_imports_in_a_circle():
    modules = {name_of(path): path for path in MODULES if path.stem not in BESIDE}

    def needs(name):
        for other in imported(modules[name]):
            while other and other not in modules:  # a name in a module
                other = other.rpartition("/")[0]
            if other and other != name:
                yield other

    graph = {name: set(needs(name)) for name in modules}
    while graph:
        leaves = {name for name, below in graph.items() if not below & graph.keys()}
        assert leaves, f"in a circle: {sorted(graph)}"
        graph = {name: below for name, below in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_long_and_each_first_line_says_what_it_is_for(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert (ast.get_docstring(ast.parse(text)) or "").strip()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_library_knows_nothing_of_the_report(path):
    """Neither an import nor a path leads into report/; where the profiles lie is said in pyproject.toml."""
    tree = ast.parse(path.read_text())
    names = [
        name
        for node in ast.walk(tree)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [])
    ]  # fmt: skip
    folders = {entry.name for entry in (PROJECT / "report").iterdir() if entry.is_dir()}
    assert not {name.split(".")[0] for name in names} & (folders | {"report", "notebooks", "tests", "exporter"})
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts += [
        f"{node.right.value}/x"
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant)
    ]  # as in PROJECT / "report"
    assert not [text for text in texts if re.search(r"(^|[^\w/])report/\w", text)]
    assert parameters.profiles().is_relative_to(PROJECT / "report")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_recipe_means_nothing_any_more(path):
    assert "recipe" not in path.read_text().lower() and "recipe" not in path.name
