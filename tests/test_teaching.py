"""What a reader sees in a notebook is what ran: visible cells that are changed, and the exercises."""

import inspect
import json
import os

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from project import QUICK, Project

from report_lib import training
from report_lib.config import parameters
from report_lib.training.code import meaning


@pytest.fixture(scope="module")
def project(tmp_path_factory, trained):
    """A copy of the project, whose demo is quick: a study of which other tests have trained what this one needs."""
    project = Project(tmp_path_factory.mktemp("teaching") / "project", trained=trained)
    profile = project.folder / "report" / "profiles" / "demo.yaml"
    quick = parameters.from_make(dict(each.split("=") for each in QUICK))
    profile.write_text(json.dumps(yaml.safe_load(profile.read_text()) | quick))
    return project


def execute(project, notebook):
    """The notebook, executed where its author would, all cells from top to bottom."""
    before = dict(os.environ)
    os.environ |= {"REPORT_RUNS": str(project.folder / ".runs"), "REPORT_CACHE": str(project.folder / ".cache"),
                   "PYTHONPATH": str(project.folder), "REPORT_PROGRESS": "none"}  # fmt: skip
    try:
        resources = {"metadata": {"path": str(project.folder / "notebooks")}}
        return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    finally:
        os.environ.clear()
        os.environ |= before


@pytest.fixture(scope="module")
def executed(project):
    """Name -> the executed notebook, exercises included, in the order of the report."""
    notebooks = {}
    for name in ("01_linear_probe", "02_full_finetune", "03_analysis"):
        notebooks[name] = execute(project, nbformat.read(project.folder / "notebooks" / f"{name}.ipynb", 4))
    return notebooks


def texts(cell):
    """All that a cell has put out, as text."""
    return "\n".join(
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "")) for output in cell.outputs
    )


def outputs_of(notebook, ident):
    (cell,) = [cell for cell in notebook.cells if cell.id == ident]
    return [output.get("data", output) for output in cell.outputs]


@pytest.mark.parametrize("name", ["01_linear_probe", "02_full_finetune", "03_analysis"])
def test_the_exercises_run(executed, name):
    cells = [cell for cell in executed[name].cells if "exercise" in cell.metadata.get("tags", [])]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown" and "Try it" in cells[0].source and 3 <= len(code) <= 6
    assert executed[name].cells[-len(cells) :] == cells, "they stand at the end"
    for cell in code:
        assert cell.execution_count and not [output for output in cell.outputs if output.output_type == "error"]
    assert any(texts(cell).strip() for cell in code)


def test_results_are_a_data_frame(executed):
    frame = next(cell for cell in executed["01_linear_probe"].cells if cell.id == "frame")
    assert "dataframe" in frame.outputs[0].data["text/html"]
    assert "test_accuracy" in frame.outputs[0].data["text/plain"]


def test_a_layer_unfrozen_in_a_visible_cell_is_trained_and_shown_and_never_taken_for_the_plain_run(project, executed):
    store = project.folder / ".runs"
    plain = {path.name for path in store.glob("linear_probe-corrected-seed0-*")}
    changed = nbformat.read(project.folder / "notebooks" / "01_linear_probe.ipynb", 4)
    (cell,) = [cell for cell in changed.cells if "models.train_only(net, config)" in cell.source]
    cell.source = cell.source.replace(
        "models.train_only(net, config)", "models.train_only(net, config)\nnet.classifier[4].requires_grad_(True)", 1
    )
    changed.cells = [cell for cell in changed.cells if "exercise" not in cell.metadata.get("tags", [])]
    changed = execute(project, changed)
    assert {path.name for path in store.glob("linear_probe-corrected-seed0-*")} == plain
    (record,) = store.glob("linear_probe-corrected-modified-seed0-*")
    info = json.loads((record / "run.json").read_text())
    assert info["trained_parameters"] == 4096 * 4096 + 4096 + 4096 * 10 + 10
    assert "classifier.4.weight" in info["modified"]
    before = executed["01_linear_probe"]
    for ident in ("test", "cost", "frame", "curves"):  # the section shows what was trained
        assert outputs_of(changed, ident) != outputs_of(before, ident), ident
    (frame,) = [cell for cell in changed.cells if cell.id == "frame"]
    assert str(info["trained_parameters"]) in frame.outputs[0].data["text/html"]


def test_another_step_in_a_visible_cell_is_what_is_trained(project, executed):
    changed = nbformat.read(project.folder / "notebooks" / "01_linear_probe.ipynb", 4)
    (cell,) = [cell for cell in changed.cells if cell.id == "step"]
    cell.source = cell.source.replace("loss.backward()", "(10 * loss).backward()").replace("optimizer.step()", "pass")
    end = next(at for at, cell in enumerate(changed.cells) if cell.id == "frame")
    changed.cells = changed.cells[: end + 1]
    execute(project, changed)
    records = [json.loads((path / "run.json").read_text()) for path in (project.folder / ".runs").glob("*-modified-*")]
    (info,) = [info for info in records if "step" in info["modified"]]
    assert info["trained_parameters"] == 40_970


def test_the_visible_step_is_the_librarys(project):
    """Or the runs of the notebooks would bear the name of changed ones."""
    for name in ("01_linear_probe", "02_full_finetune"):
        notebook = nbformat.read(project.folder / "notebooks" / f"{name}.ipynb", 4)
        (cell,) = [cell for cell in notebook.cells if cell.id == "step"]

        assert meaning(cell.source + "\n") == meaning(inspect.getsource(training.step))
