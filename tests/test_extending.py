"""The README's worked example, and other networks: applied to a copy of the project, from which a report is built."""

import json
import re

import nbformat
import pytest
from project import Project

from report_lib.config import NETWORKS
from report_lib.files import PROJECT

pytestmark = pytest.mark.long
LEAST = ("EPOCHS=1", "PER_CLASS=20", "BATCH=32", "BUDGETS=5", "DEFECTS=linear_probe")  # QUICK, but for the size


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)


def third_approach():
    """(the registry's entry, the cells as (tags, source), the line of the Makefile), as the README has them."""
    (entry,) = [block for block in blocks("python") if "Approach(" in block]
    (listed,) = [block for block in blocks("python") if block.startswith("# %%")]
    cells = []
    for cell in re.split(r"^# %%", listed, flags=re.MULTILINE)[1:]:
        head, source = cell.split("\n", 1)
        cells.append((head.replace("tags:", "").split(), source.strip()))
    (line,) = re.findall(r"`(NOTEBOOKS := [^`]*)`", (PROJECT / "README.md").read_text())
    return entry, cells, line


@pytest.fixture(scope="module")
def three(tmp_path_factory, trained):
    """A copy of the project with the README's third approach, after its report has been built."""
    entry, cells, line = third_approach()
    project = Project(tmp_path_factory.mktemp("three") / "project", trained=trained)
    registry = project.folder / "report_lib" / "config" / "registries.py"
    last = '    "full_finetune": Approach("full fine-tuning", trains="all", colour="#D55E00", marker="s"),\n'
    text = registry.read_text()
    assert text.count(last) == 1
    registry.write_text(text.replace(last, last + entry))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Approach 3: last block")])
    for tags, source in cells:
        notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags}))
    nbformat.write(notebook, project.folder / "notebooks" / "02b_last_block.ipynb")
    makefile = project.folder / "Makefile"
    makefile.write_text(re.sub(r"^NOTEBOOKS := .*$", line, makefile.read_text(), flags=re.MULTILINE))
    return project.reported(("SIZE=63", *LEAST))


def test_a_third_approach_is_under_thirty_lines_in_three_files():
    entry, cells, _ = third_approach()
    lines = [line for text in (entry, *(source for _, source in cells)) for line in text.splitlines() if line.strip()]
    assert len(lines) + 1 < 30


def test_a_third_approach_has_its_section_its_curve_its_row_and_its_comparison(three):
    folder = three.folder / "report" / "demo"
    numbers = json.loads((folder / "results.json").read_text())
    assert list(numbers["approaches"]) == ["linear_probe", "full_finetune", "last_block"]
    pairs = set(numbers["comparisons"]["corrected"])
    assert pairs == {"full_finetune minus linear_probe", "last_block minus linear_probe"}
    run = numbers["approaches"]["last_block"]["corrected"]["runs"][0]
    assert run["trained_parameters"] == 590_080 + 37_752_832 + 16_781_312 + 40_970
    page = (folder / "report.html").read_text()
    assert re.search(r"Approach 3: last block</h1>", page) and page.count("last-block tuning") > 10
    assert "fig-curves-last-block" in page and "tab-test-last-block" in page
    budgets = page[page.index('id="fig-budgets"') :]
    assert all(name in budgets[: budgets.index("</figure>")] for name in ("linear probe", "full fine-tuning", "last-"))


def test_another_network_is_one_variable(tmp_path):
    project = Project(tmp_path / "project")
    study = ("NETWORK=resnet18", "WEIGHTS=none", "SIZE=32", "WITH=04_explore", *LEAST)
    project.reported(study)
    folder = project.folder / "report" / "demo"
    numbers = json.loads((folder / "results.json").read_text())
    page = (folder / "report.html").read_text()
    assert "<title>Adapting a pretrained ResNet-18</title>" in page and "AlexNet" not in page
    runs = [numbers["approaches"][a]["corrected"]["runs"][0] for a in ("linear_probe", "full_finetune")]
    assert [run["trained_parameters"] for run in runs] == [5130, 11_181_642]
    assert "frozen_dropout" not in {each["defect"] for each in numbers["defects"]}, "it has no dropout"
    assert "fig-neighbours" in page


def test_networks_follow_their_registry():
    assert {"alexnet", "vgg11_bn", "resnet18", "mobilenet_v3_small", "convnext_tiny"} <= NETWORKS.keys()
