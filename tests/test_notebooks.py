"""Conventions of the committed notebooks; `make lint` runs these."""

import ast

import assemble
import nbformat
import papermill
import pytest

from report_lib import profiles
from report_lib.recipe import PROJECT

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_three_of_the_study_are_there():
    assert {"01_linear_probe", "02_full_finetune", "03_analysis"} <= {path.stem for path in NOTEBOOKS}


def test_it_is_valid_and_has_the_common_kernel(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_it_is_committed_without_outputs(notebook):
    for cell in code(notebook):
        assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert set(cell.metadata) <= {"tags"}, cell.id


def test_cells_are_short_and_define_nothing(notebook):
    for cell in code(notebook):
        assert len(cell.source.splitlines()) <= 15 or "parameters" in cell.metadata.get("tags", []), cell.id
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, defined) for node in ast.walk(ast.parse(cell.source))), cell.id


def test_its_text_types_no_result_by_hand(notebook):
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            assemble.check(cell.source, f"cell {index + 1}")


def test_there_is_one_import_cell(notebook):
    importing = [
        cell.id
        for cell in code(notebook)
        if any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(ast.parse(cell.source)))
    ]
    assert len(importing) == 1


def test_its_parameters_are_those_of_the_profiles_typed_and_with_the_demos_values(notebook):
    cells = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    body = ast.parse(cells[0].source).body
    assert all(isinstance(node, ast.AnnAssign) for node in body)
    values = {node.target.id: ast.literal_eval(node.value) for node in body}
    if "bench" in values:  # no part of the study
        return
    assert values == profiles.resolve("demo", {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_explains_every_parameter(path):
    explained = papermill.inspect_notebook(str(path))
    (cell,) = [c for c in code(nbformat.read(path, 4)) if "parameters" in c.metadata.get("tags", [])]
    assert list(explained) == [node.target.id for node in ast.parse(cell.source).body]
    assert all(
        one["help"] and one["inferred_type_name"] in ("str", "int", "float", "bool") for one in explained.values()
    )


def test_the_analysis_needs_no_torch():
    imports = "import sys; from report_lib import figures, prose, records, sources, speed, tables, document, profiles; "
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", imports + "assert 'torch' not in sys.modules"], check=True)
