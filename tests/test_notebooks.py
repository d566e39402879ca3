"""Conventions of the committed notebooks; `make lint` runs these."""

import ast
import subprocess

import nbformat
import papermill
import pytest
from export.words import check_words

import report_lib
from report_lib.config import PARAMETERS
from report_lib.files import PROJECT

# Those that come with the project; what users add may look as they like.
NAMES = ("01_linear_probe", "02_full_finetune", "03_analysis", "04_explore", "05_speed")
NOTEBOOKS = [PROJECT / "notebooks" / f"{name}.ipynb" for name in NAMES]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_valid_and_has_the_common_kernel(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_without_outputs(name):
    """In the last commit: whoever saves a notebook in JupyterLab has outputs in it until then."""
    git = subprocess.run(["git", "show", f"HEAD:notebooks/{name}.ipynb"], cwd=PROJECT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("no repository")
    for cell in code(nbformat.reads(git.stdout, 4)):
        assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert set(cell.metadata) <= {"tags"}, cell.id


def test_cells_are_short(notebook):
    for cell in code(notebook):
        most = 10 if "parameters" in cell.metadata.get("tags", []) else 15
        assert len(cell.source.splitlines()) <= most, cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_text_types_no_result_by_hand(path):
    assert check_words(path) == []


def test_there_is_one_import_cell(notebook):
    importing = [
        cell.id
        for cell in code(notebook)
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(cell.source)))
    ]
    assert len(importing) == 1


def test_what_it_imports_from_the_library_is_there(notebook):
    (cell,) = [c for c in code(notebook) if "import " in c.source and "setup" in c.metadata.get("tags", [])]
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.ImportFrom) and node.module == "report_lib":
            assert all(getattr(report_lib, alias.name) for alias in node.names)


def test_its_parameters_are_typed_and_those_of_a_study(notebook):
    cells = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    body = ast.parse(cells[0].source).body
    assert all(isinstance(node, ast.AnnAssign) for node in body)
    values = {node.target.id: ast.literal_eval(node.value) for node in body}
    if "bench" in values:  # no part of the study
        return
    assert set(values) <= set(PARAMETERS) and values.pop("profile") == "demo"
    assert set(values.values()) == {None}, "what the profile says"


def test_the_study_notebooks_have_the_same_parameters_and_end_in_exercises():
    cells = {}
    for path in NOTEBOOKS[:4]:
        notebook = nbformat.read(path, 4)
        cells[path.stem] = next(c.source for c in code(notebook) if "parameters" in c.metadata.get("tags", []))
        if path.stem < "04":
            assert notebook.cells[-1].metadata.tags == ["exercise"]
    assert len(set(cells.values())) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_explains_every_parameter(path):
    explained = papermill.inspect_notebook(str(path))
    (cell,) = [c for c in code(nbformat.read(path, 4)) if "parameters" in c.metadata.get("tags", [])]
    assert list(explained) == [node.target.id for node in ast.parse(cell.source).body]
    assert all(
        one["help"] and one["inferred_type_name"] in ("str", "int", "float", "bool") for one in explained.values()
    )
