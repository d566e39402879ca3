"""`make nbval`: the committed executed notebooks come out again, and planted faults don't pass."""

import base64
import copy
import io
import platform
import re
import xml.etree.ElementTree as ET

import nbformat
import nbval_results
import pytest
from export.assemble import assemble
from export.inline import prepare
from export.merge import merge
from export.origin import Journal
from nbval_results import LOOSE, TIGHT, text_differs
from PIL import Image
from project import Project
from test_notebooks import NAMES

from report_lib.files import PROJECT

KEPT = PROJECT / "tests" / "executed"


def test_every_kept_notebook_is_the_one_that_would_be_executed():
    for path in KEPT.glob("*.ipynb"):
        kept = nbformat.read(path, 4).cells
        source = prepare(PROJECT / "notebooks" / path.name).cells
        kept = [cell for cell in kept if "injected-parameters" not in cell.metadata.get("tags", [])]
        assert [cell.source for cell in kept] == [cell.source for cell in source], "run make nbval-reference"
    assert {path.stem for path in KEPT.glob("*.ipynb")} == set(NAMES[:4])


def test_all_kept_notebooks_make_one_report():
    """The explorer too, which is in no report by default: each label once, no reference to nothing."""
    main = sorted(KEPT.glob("0[1-3]*.ipynb"))
    document = assemble(merge(main, sorted(KEPT.glob("04*.ipynb"))), Journal())
    labels = [block.content["label"] for block in document.pool.blocks() if block.kind == "figure"]
    assert "fig-neighbours" in labels and len(labels) == len(set(labels))


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    return Project(tmp_path_factory.mktemp("nbval") / "project", "tests")


@pytest.fixture(scope="module")
def presented(copied):
    """The executed notebooks up to their conclusions; what follows trains other runs and shows only their number."""
    folder = copied.folder / "tests" / "presented"
    folder.mkdir()
    for name in ("01_linear_probe", "02_full_finetune"):
        notebook = nbformat.read(copied.folder / "tests" / "executed" / f"{name}.ipynb", 4)
        end = next(at for at, cell in enumerate(notebook.cells) if "study.train_all" in cell.source)
        notebook.cells = notebook.cells[:end]
        nbformat.write(notebook, folder / f"{name}.ipynb")
    return "KEPT=tests/presented/{}.ipynb"


@pytest.mark.long
def test_all_results_come_out_again(copied):
    code, output = copied.make("nbval")
    assert code == 0 and " passed" in output, output[-3000:]


@pytest.mark.long
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors have no AVX2")
def test_a_processor_of_fewer_instructions_gives_the_same_results(copied, presented):
    """Without AVX-512, in torch without AVX2, and on one thread: rounding differs in every sum."""
    fewer = {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    code, output = copied.make("nbval", presented.format("02_full_finetune"), **fewer)
    assert code == 0 and " passed" in output, output[-3000:]


FAULTS = {
    "the labels are shifted by one": (
        "report_lib/page/pictures.py", "np.flatnonzero(labels == label)", "np.flatnonzero(labels == label - 1)",
        "fig-samples",
    ),
    "the trunk is not frozen": (
        "report_lib/models/networks.py", "parameter.requires_grad_(name in trained)", "parameter.requires_grad_(True)",
        "instead of",
    ),
    "the head's learning rate is ten times larger": (
        "report_lib/training/loop.py", '"lr": rate}', '"lr": 10 * rate}', "instead of",
    ),
    "the test set selects": (
        "report_lib/training/task.py", "    if config.select_on_test:", "    if True:", "instead of",
    ),
    "the split's seed changes": (
        "report_lib/data/tensors.py", '(config.seed, "split")', '(config.seed + 1, "split")', "instead of",
    ),
    "a column is swapped": (
        "report_lib/page/tables.py", '{"seed": str(run.seed), "epoch": str(run.info["selected_epoch"])}',
        '{"seed": str(run.info["selected_epoch"]), "epoch": str(run.seed)}', "column",
    ),
    "a figure lacks its data": (
        "report_lib/page/plots.py", '        draw_seeds(right, runs, "validation_accuracy", scale=100)\n', "",
        "fig-curves",
    ),
}  # fmt: skip


def test_every_fault_still_has_its_place():
    for fault, (file, old, new, _) in FAULTS.items():
        assert (PROJECT / file).read_text().count(old) == 1 and old != new, fault


# Each in a cell of its own, so that one execution shows that each is seen.
OF_PAGES = ("the labels are shifted by one", "a column is swapped", "a figure lacks its data")


@pytest.mark.long
@pytest.mark.parametrize("faults", [OF_PAGES, *((fault,) for fault in FAULTS if fault not in OF_PAGES)], ids=", ".join)
def test_a_planted_fault_does_not_pass(copied, presented, faults):
    right = {copied.folder / FAULTS[fault][0]: (copied.folder / FAULTS[fault][0]).read_text() for fault in faults}
    for fault in faults:
        file, old, new, _ = FAULTS[fault]
        path = copied.folder / file
        path.write_text(path.read_text().replace(old, new))
    try:
        code, output = copied.make("nbval", presented.format("01_linear_probe"))
    finally:
        for path, text in right.items():
            path.write_text(text)
    assert code != 0 and "Cell outputs differ" in output and "Error" not in output.split("Traceback:")[0], output[
        -3000:
    ]
    assert all(FAULTS[fault][3] in output for fault in faults), output[-3000:]


# --- the comparison itself ---------------------------------------------------------------------------------------


def parts(name):
    """Label (or kind and number) -> part of the document, of what is kept of a notebook."""
    found = {}
    for number, cell in enumerate(nbformat.read(KEPT / name, 4).cells):
        for out in cell.get("outputs", []):
            part = out.get("data", {}).get(nbval_results.MIME)
            if part:
                found[part.get("label") or f"{part['kind']} {number}"] = part
    return found


PARTS = {path.name: parts(path.name) for path in sorted(KEPT.glob("*.ipynb"))}
EACH = [pytest.param(name, label, id=f"{name[:2]}-{label}") for name, some in PARTS.items() for label in some]


def passes(name, label, **changed):
    ref = PARTS[name][label]
    return not nbval_results.part_differs(copy.deepcopy(ref) | changed, ref, nbval_results.tolerance(name))


@pytest.mark.parametrize(("name", "label"), EACH)
def test_every_part_is_like_itself_and_unlike_one_with_a_fault(name, label):
    part = PARTS[name][label]
    assert passes(name, label)
    for field in {"markdown", "caption", "code"} & part.keys():
        assert not passes(name, label, **{field: part[field] + " Wrong."})
        assert not passes(name, label, **{field: part[field].replace("the", "no", 1)}) or "the" not in part[field]
    if part["kind"] == "table":
        rows = part["rows"]
        assert not passes(name, label, rows=rows[:-1])
        assert not passes(name, label, rows=[[*row[:-1], row[-1] + "?"] for row in rows]) or label == "tab-provenance"
        assert not passes(name, label, header=part["header"][::-1])
    if part["kind"] == "figure":
        svg = part["svg"]
        start = svg.index('<g id="axes_1">')
        faults = [svg[:start] + "</g></svg>"]
        faults.append(re.sub(r"(<text[^>]*>)[^<]*", r"\1WRONG", svg) if "<text" in svg else "")
        faults.append(svg.replace("#0072b2", "#d55e00"))
        faults.append(re.sub(r"(<image[^>]*?href=\"data:image/png;base64,)[^\"]*", rf"\1{WHITE}", svg))
        for fault in faults:
            assert fault in ("", svg) or not passes(name, label, svg=fault)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


WHITE = png("white")


def moved(svg, by):
    """All lines of a figure's drawings so much lower, their axes left where they are."""
    drawings = ET.fromstring(f"<figure>{svg}</figure>")
    for group in drawings.iter("{http://www.w3.org/2000/svg}g"):
        if group.get("id", "").startswith("line2d_") and not any("use" in child.tag for child in group.iter()):
            for path in group.iter("{http://www.w3.org/2000/svg}path"):
                path.set(
                    "d", re.sub(r"([ML]) (\S+) (\S+)", lambda m: f"{m[1]} {m[2]} {float(m[3]) + by}", path.get("d"))
                )
    return "".join(ET.tostring(drawing, encoding="unicode") for drawing in drawings)


@pytest.mark.parametrize(
    ("name", "label"),
    [("01_linear_probe.ipynb", "fig-curves-linear-probe"), ("02_full_finetune.ipynb", "fig-curves-full-finetune"),
     ("03_analysis.ipynb", "fig-validation")],
)  # fmt: skip
def test_lines_that_moved_are_noticed(name, label):
    svg = PARTS[name][label]["svg"]
    assert passes(name, label, svg=moved(svg, 1)) and not passes(name, label, svg=moved(svg, 15))


def test_a_confusion_matrix_of_other_shares_is_noticed():
    name, label = "03_analysis.ipynb", "fig-confusion"
    svg = PARTS[name][label]["svg"]
    assert not passes(name, label, svg=re.sub(r"fill: #[0-9a-f]{6}", "fill: #808080", svg))
    assert not passes(name, label, svg=re.sub(r"(<text[^>]*>)\d+<", r"\g<1>0<", svg))


def test_layers_that_never_moved_are_noticed():
    name, label = "03_analysis.ipynb", "fig-layers"
    part = PARTS[name][label]
    assert "classifier.4" in part["svg"] and not passes(name, label, alt=re.sub(r"[\d.]+\s%", "0 %", part["alt"]))


def test_columns_that_are_swapped_are_noticed():
    for name, some in PARTS.items():
        for label, part in some.items():
            for a in range(len(part.get("header", ()))):
                for b in range(a):
                    free = nbval_results.FREE_COLUMNS.get(label, set())
                    if {part["header"][a], part["header"][b]} & free or part["header"][a].endswith("interval"):
                        continue
                    rows = [[row[{a: b, b: a}.get(at, at)] for at in range(len(row))] for row in part["rows"]]
                    like = nbval_results.MACHINES_COLUMNS.search(part["header"][a])
                    if rows != part["rows"] and not like and passes(name, label, rows=rows):
                        near = [(row[a], row[b]) for row in part["rows"]]
                        assert (name, label) in ALIKE, f"{label}: {part['header'][b]} and {part['header'][a]} {near}"


# Two accuracies, and two losses, that are as near to each other as they may be to themselves on another machine.
ALIKE = {("02_full_finetune.ipynb", "tab-test-full-finetune"), ("03_analysis.ipynb", "tab-comparison")}


@pytest.mark.parametrize(
    ("test", "ref", "same"),
    [
        ("40,970 of 57,044,810 parameters are trained", "40,970 of 57,044,810 parameters are trained", True),
        ("40,960 of 57,044,810 parameters are trained", "40,970 of 57,044,810 parameters are trained", False),
        ("300 train, 80 validate", "320 train, 80 validate", False),
        ("right on 82.3 %", "right on 82.9 %", True),
        ("right on 82 %", "right on 83 %", True),
        ("right on 82.3 %", "right on 84.9 %", False),
        ("82.3 % (77.9 to 85.9 %)", "82.3 % (78.9 to 85.9 %)", True),
        ("82.3 % (77.9 to 85.9 %)", "82.3 % (72.9 to 85.9 %)", False),
        ("best at two (94.3 % of its test images)", "best at two (91.4 % of its test images)", True),
        ("a loss of 0.85 nats", "a loss of 0.86 nats", True),
        ("a loss of 0.85 nats", "a loss of 0.88 nats", False),
        ("learning rate 0.03, weight decay 0.1", "learning rate 0.0003, weight decay 0.1", False),
        ("learning rate 0.001, 0.003;", "learning rate 0.001, 0.01;", False),
        ("p < 0.05", "p < 0.001", False),
        ("leads (+18 points, +14 to +23)", "leads (+18 points, +14 to +22)", True),
        ("leads (+18 points, +14 to +23)", "leads (+18 points, +14 to +33)", False),
        ("ahead by 40 points (35 to 45)", "ahead by 40 points (34 to 45)", True),
        ("took 11.3 s", "took 1,340 s", True),
        ("took long", "took 1,340 s", False),
        ("worse by −0.62", "worse by 0.62", False),
        ("the probe is ahead", "the probe is behind", False),
        ("each is one unseeded run", "each is two unseeded run", False),
        ("on CPU \\(2 threads\\)\\, float32.", "on CPU \\(1 thread\\)\\, float32.", True),
    ],
)
def test_numbers_are_to_be_near_and_words_equal(test, ref, same):
    assert (text_differs(test, ref, TIGHT) == "") is same
    assert (text_differs(ref, test, TIGHT) == "") is same


def test_a_time_is_a_positive_number():
    assert text_differs("took 0 s", "took 1,340 s", LOOSE) and text_differs("took -5 s", "took 1,340 s", LOOSE)


def test_a_time_with_the_seeds_that_took_it_is_the_machines_and_their_number_is_not():
    head = "to 56.0 %, as the linear probe, s"
    differs = lambda test: nbval_results.cell_differs(head, test, "0.22 (1 of 3)", TIGHT, "tab-same-answer", False)  # noqa: E731
    assert not differs("0.34 (1 of 3)") and differs("0.22 (2 of 3)") and differs("0 of 3")


def test_only_what_a_ranking_chooses_may_be_of_another_class():
    assert not text_differs("12 times with *corrected*", "13 times with *corrected*", TIGHT), "a ratio of times"
    assert not text_differs("most on seven (+9.1 points)", "most on two (+8.7 points)", LOOSE)
    assert text_differs("most on seven (+9.1 points)", "most on two (+8.7 points)", TIGHT)
    assert text_differs("most on seven (+29.1 points)", "most on two (+8.7 points)", LOOSE)
    assert text_differs("are one unseeded run", "are two unseeded run", LOOSE)
