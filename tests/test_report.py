"""The whole line, as a user runs it: make, papermill, nbconvert, on a copy of the project."""

import json
import os
import re

import nbformat
import pytest
from project import QUICK, Project

from report_lib.page import numbers


@pytest.fixture(scope="module")
def project(tmp_path_factory, trained):
    return Project(tmp_path_factory.mktemp("project"), trained=trained).reported(QUICK)


def test_a_report_is_made(project):
    names = {"report.html", "report.pdf", "report.png", "main_figure.png", "results.json", "parameters.yaml"}
    executed = {"01_linear_probe.ipynb", "02_full_finetune.ipynb", "03_analysis.ipynb"}
    assert set(project.built()) == names | executed
    folder = project.folder / "report" / "demo"
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    page = (folder / "report.html").read_text()
    for title in ("Statement of contribution", "Approach 1: linear probe", "Approach 2: full fine-tuning", "Analysis",
                  "Conclusion", "References", "Appendix: provenance"):  # fmt: skip
        assert re.search(rf">(?:<span[^>]*>[\d.]+</span> )?{title}</h[12]>", page), title
    front = page[: page.index('id="approach-1')]
    assert "handwritten digits" in front and "Tiny ImageNet" in front
    assert "batch/s" not in page  # progress stays in the terminal


def test_results_hold_what_the_contract_says(project):
    results = json.loads((project.folder / "report" / "demo" / "results.json").read_text())
    assert results["data"]["train"] == 160 and results["data"]["validation"] == 40 and results["data"]["test"] == 355
    assert len(results["weights"]["sha256"]) == 64 and len(results["data"]["fingerprint"]) == 64
    for approach in ("linear_probe", "full_finetune"):
        assert set(results["approaches"][approach]) == {"published", "corrected", "tuned"}
        one = results["approaches"][approach]["corrected"]
        (run,) = one["runs"]
        assert set(run["epochs"][0]) >= {"train_loss", "validation_loss", "validation_accuracy"}
        assert {"seed", "selected_epoch", "test_accuracy", "test_loss", "train_seconds", "images_per_second",
                "peak_memory_mib"} <= set(run)  # fmt: skip
        assert one["test_accuracy"]["mean"] == run["test_accuracy"] and one["test_accuracy"]["n"] == 1
        low, high = one["test_accuracy"]["ci95"]
        assert low < run["test_accuracy"] < high
    assert [one["defect"] for one in results["defects"]][-1] == "all" and len(results["defects"]) == 6
    assert [one["labels_per_class"] for one in results["label_budgets"]][0] == 5
    assert results["provenance"]["device"] and results["provenance"]["precision"]
    assert results["comparisons"]["tuned"].keys() == {"full_finetune minus linear_probe"}


def test_the_numbers_of_results_stand_in_the_page(project):
    folder = project.folder / "report" / "demo"
    page, results = (folder / "report.html").read_text(), json.loads((folder / "results.json").read_text())
    for approach in results["approaches"].values():
        run = approach["corrected"]["runs"][0]
        assert f"{numbers.percent(run['test_accuracy'])} (95\N{NO-BREAK SPACE}% interval" in page
        assert any(f'<td class="right short">{run["test_loss"]:.{digits}f}</td>' in page for digits in range(5))


def test_a_second_time_nothing_is_made(project):
    before = project.built()
    code, output = project.make("report", *QUICK)
    assert code == 0 and project.built() == before and "executing" not in output


@pytest.mark.parametrize(
    ("finished", "executed"), [("", {"02_full_finetune", "03_analysis"}), ("yes", {"02_full_finetune"})]
)
def test_touching_a_notebook_executes_it_and_what_depends_on_it(project, finished, executed):
    path = project.folder / "notebooks" / "02_full_finetune.ipynb"
    before = path.stat().st_mtime_ns
    path.touch()
    files = ("report/demo/report.html", "report/demo/results.json")  # make hands --old-file to no other make
    code, output = project.make(
        "--dry-run", "--old-file=report/demo/parameters.yaml", *files, *QUICK, f"FINISHED={finished}"
    )
    os.utime(path, ns=(before, before))
    assert code == 0, output
    assert set(re.findall(r"executing notebooks/(\w+)", output)) == executed
    assert "-m report_lib results" in output and "-m export " in output


@pytest.mark.parametrize(
    ("source", "tags", "error"),
    [("raise SystemExit", [], "SystemExit"), ("1 / 0", ["raises-exception"], "ZeroDivisionError: division by zero")],
)
def test_a_notebook_that_stops_leaves_the_last_good_report(project, source, tags, error):
    """SystemExit ends an execution that counts as whole, so that the typesetting refuses it."""
    cells = [nbformat.v4.new_markdown_cell("# Mine"), nbformat.v4.new_code_cell(source, metadata={"tags": tags})]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), project.folder / "notebooks" / "mine.ipynb")
    before = project.built()
    code, output = project.make("report", *QUICK, "WITH=notebooks/mine.ipynb")
    assert code != 0 and f"error: notebooks/mine.ipynb, cell 2 (under “Mine”): {error}" in output
    after = project.built()
    assert {name: after.get(name) for name in before} == before


def test_a_broken_notebook_fails_and_leaves_nothing_finished(tmp_path, trained):
    project = Project(tmp_path, trained=trained)
    path = tmp_path / "notebooks" / "01_linear_probe.ipynb"
    broken = nbformat.read(path, as_version=4)
    broken.cells[2].source += "\nraise RuntimeError('broken on purpose')"
    nbformat.write(broken, path)
    code, output = project.make("report", *QUICK)
    assert code != 0
    assert (
        "error: notebooks/01_linear_probe.ipynb, cell 3 (under “Approach 1: linear probe”): RuntimeError: broken on"
        in output
    )
    assert "Traceback" not in output
    others = {"02_full_finetune.ipynb", "03_analysis.ipynb"}  # which read finished runs, and wait for none
    assert set(project.built()) - others == {"parameters.yaml", "01_linear_probe.failed.ipynb"}


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("EPOCHS=-1", "epochs is -1"),
        ("DATA=no/such/tree", "data is 'no/such/tree'"),
        ("DATA=notebooks", "has no train/ folder with images"),
        ("WEIGHTS=Makefile", "which is no readable .safetensors or weights-only .pth file"),
        ("SEEDS=0,0", "seeds is (0, 0)"),
        ("PRESETS=best", "presets is ('best',)"),
        ("BUDGETS=2", "budgets is (2,)"),
        ("PROFILE=nope", "profile is 'nope'"),
        ("DEVICE=tpu", "tpu"),
        ("DATA=$(touch pwned)'\";", "data is '$(touch pwned)"),
        ("WITH=nothing.ipynb", "WITH names 'nothing', but there is no notebooks/nothing.ipynb"),
        ("EPOCS=3", "make has no variable EPOCS; did you mean EPOCHS?"),
        ("NETWORK=resnet18", "weights is 'embedded', which is an AlexNet; for resnet18 allowed are"),
    ],
)
def test_wrong_input_is_one_sentence_and_no_traceback(project, variable, says):
    code, output = project.make("report", variable, "OUT=wrong")
    assert code != 0 and says in output and "Traceback" not in output
    assert not list((project.folder / "wrong").rglob("*.ipynb")) and not (project.folder / "pwned").exists()


def test_a_profile_by_its_path_has_the_folder_of_its_name_and_places_may_be_typed(project):
    (project.folder / "mine.yaml").write_text("data: notebooks\n")
    code, output = project.make("report", "PROFILE=mine.yaml", "OUT=other", "REPORT_CACHE=aside")
    assert code != 0 and "has no train/ folder with images" in output and "no variable" not in output
    assert [path.name for path in (project.folder / "other").iterdir()] == ["mine"]


def test_make_alone_is_help(project):
    code, output = project.make()
    assert code == 0 and all(word in output for word in ("report", "test", "lab", "lint", "clean", "PROFILE", "SEEDS"))
