"""`make nbval`: the committed executed notebooks come out again, and planted faults don't pass."""

import copy

import nbformat
import nbval_results
import pytest
from nbval_results import LOOSE, TIGHT, text_differs
from project import Project

from report_lib.recipe import PROJECT

KEPT = PROJECT / "tests" / "executed"
FIRST = "KEPT=tests/executed/01_linear_probe.ipynb"


def test_every_kept_notebook_is_the_one_that_would_be_executed():
    for path in KEPT.glob("*.ipynb"):
        kept, source = (nbformat.read(p, 4).cells for p in (path, PROJECT / "notebooks" / path.name))
        kept = [cell for cell in kept if "injected-parameters" not in cell.metadata.get("tags", [])]
        assert [cell.source for cell in kept] == [cell.source for cell in source], "run make nbval-reference"
    assert {path.name for path in KEPT.glob("*.ipynb")} == {
        p.name for p in (PROJECT / "notebooks").glob("0[1-4]*.ipynb")
    }


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("nbval") / "project", "tests")


def test_all_results_come_out_again(copied):
    code, output = copied.make("nbval")
    assert code == 0 and " passed" in output, output[-3000:]


FAULTS = {
    "the labels are shifted by one": (
        "report_lib/data.py", "    return Images(arrays.name,",
        "    train_labels = (train_labels + 1) % len(arrays.classes)\n    return Images(arrays.name,", "fig-samples",
    ),
    "the trunk is not frozen": (
        "report_lib/model.py", "parameter.requires_grad_(_of_head(name))", "parameter.requires_grad_(True)",
        "57,044,810",
    ),
    "the head's learning rate is ten times larger": (
        "report_lib/model.py", "(True, recipe.learning_rate)", "(True, 10 * recipe.learning_rate)", "instead of",
    ),
    "the test set selects": (
        "report_lib/train.py", "        if recipe.select_on_test:", "        if True:", "instead of",
    ),
    "the split's seed changes": (
        "report_lib/data.py", '(recipe.seed, "split")', '(recipe.seed + 1, "split")', "instead of",
    ),
    "a column is swapped": (
        "report_lib/tables.py", "(str(epoch), *(column[index] for column in table.values()),",
        "(str(epoch), *(table[n][index] for n in ('validation_loss', 'train_loss', 'validation_accuracy')),", "column",
    ),
    "a figure lacks its data": (
        "report_lib/figures.py", '        draw_seeds(accuracy, runs, "validation_accuracy", scale=100)\n', "",
        "fig-curves",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_does_not_pass(copied, fault):
    file, old, new, said = FAULTS[fault]
    path = copied.folder / file
    right = path.read_text()
    assert right.count(old) == 1
    path.write_text(right.replace(old, new))
    try:
        code, output = copied.make("nbval", FIRST)
    finally:
        path.write_text(right)
    assert code != 0 and "Cell outputs differ" in output and "Error" not in output.split("Traceback:")[0], output[
        -3000:
    ]
    assert any(word in output for word in said.split("|")), output[-3000:]


# --- the comparison itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test", "ref", "same"),
    [
        ("41 of 57 are trained", "40 of 57 are trained", True),
        ("400 of 570 are trained", "500 of 570 are trained", False),
        ("right on 82.3 %", "right on 82.9 %", True),
        ("right on 82.3 %", "right on 84.9 %", False),
        ("82.3 % (77.9 to 85.9)", "82.3 % (79.9 to 85.9)", True),  # the interval, whose unit stands before it
        ("loss 0.85 nats", "loss 0.86 nats", True),
        ("loss 0.85 nats", "loss 0.95 nats", False),
        ("took 11.3 s", "took 1,340 s", True),
        ("took long", "took 1,340 s", False),
        ("worse by −0.62", "worse by 0.62", False),
        ("the probe is ahead", "the probe is behind", False),
        ("on CPU \\(2 threads\\)\\, float32.", "on CPU \\(1 threads\\)\\, float32.", True),
    ],
)
def test_numbers_are_to_be_near_and_words_equal(test, ref, same):
    assert (text_differs(test, ref, TIGHT) == "") is same
    assert (text_differs(ref, test, TIGHT) == "") is same


def test_only_what_a_ranking_chooses_may_be_of_another_class():
    assert not text_differs("most on seven (+9.1 points)", "most on two (+8.7 points)", LOOSE)
    assert text_differs("most on seven (+9.1 points)", "most on two (+8.7 points)", TIGHT)
    assert text_differs("most on seven (+29.1 points)", "most on two (+8.7 points)", LOOSE)


@pytest.mark.parametrize("name", sorted(path.name for path in KEPT.glob("*.ipynb")))
def test_every_output_is_like_itself_and_unlike_one_with_a_hole(name):
    """Whatever a cell gave: the same again passes, and nothing instead of it does not."""
    for cell in nbformat.read(KEPT / name, 4).cells:
        outputs = cell.get("outputs", [])
        allowed = TIGHT if "linear_probe" in name else LOOSE
        assert not nbval_results.differs(copy.deepcopy(outputs), outputs, allowed)
        if outputs:
            assert nbval_results.differs([], outputs, allowed)
        for position, out in enumerate(outputs):
            part = out.get("data", {}).get(nbval_results.MIME)
            if part and part["kind"] == "figure" and part["label"] not in nbval_results.CHOSEN:
                holed = copy.deepcopy(outputs)
                svg = holed[position]["data"][nbval_results.MIME]["svg"]
                start = svg.index('<g id="axes_1">')
                holed[position]["data"][nbval_results.MIME]["svg"] = svg[:start] + "</g></svg>"
                assert nbval_results.differs(holed, outputs, allowed)
            if part and part["kind"] == "table" and len(part["rows"]) > 1:
                holed = copy.deepcopy(outputs)
                holed[position]["data"][nbval_results.MIME]["rows"].pop()
                assert nbval_results.differs(holed, outputs, allowed)
