"""The whole line, as a user runs it: make, papermill, nbconvert, on a copy of the project."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import PROJECT

from report_lib import formats

PARTS = ("notebooks", "report_lib", "report", "Makefile", "pyproject.toml", "requirements.lock")
QUICK = ("EPOCHS=1", "SIZE=63", "BUDGETS=5")


class Project:
    def __init__(self, folder):
        self.folder = folder
        for part in PARTS:
            source = PROJECT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("demo", "cifar10", "yours", "__pycache__", ".work")
                shutil.copytree(source, folder / part, ignore=ignored)
            else:
                shutil.copy(source, folder / part)

    def make(self, *arguments):
        """(exit code, output) of make in this copy, with this interpreter and none of the caller's variables."""
        child = self.start(*arguments)
        output = child.communicate()[0]
        return child.returncode, output

    def start(self, *arguments):
        """make, in a process group of its own."""
        known = (
            "RECIPES BUDGETS DEFECTS WITH BUDGET PROFILE DATA DATA_NAME WEIGHTS SEEDS EPOCHS SIZE BATCH PER_CLASS "
            "DEVICE RUNS PDF OUT LAUNCHER MAKEFLAGS MAKELEVEL"
        )
        clean = {n: v for n, v in os.environ.items() if n not in known.split() and not n.startswith("REPORT_")}
        clean |= {"PYTHONPATH": str(self.folder)}
        return subprocess.Popen(
            ["make", *arguments, f"PYTHON={sys.executable}", "READY="],
            cwd=self.folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def built(self):
        return {p.name: p.stat().st_mtime_ns for p in (self.folder / "report" / "demo").iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = Project(tmp_path_factory.mktemp("project"))
    code, output = made.make("report", *QUICK)
    assert code == 0, output
    return made


def test_a_report_is_made(project):
    names = {"report.html", "report.pdf", "report.png", "results.json", "parameters.yaml"}
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
    assert results["data"]["train"] == 1154 and results["data"]["validation"] == 288 and results["data"]["test"] == 355
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
    assert len(results["defects"]) == 4 and [one["labels_per_class"] for one in results["label_budget"]][0] == 5
    assert results["provenance"]["device"] and results["provenance"]["precision"] and results["comparison"]["mcnemar"]


def test_the_numbers_of_results_stand_in_the_page(project):
    folder = project.folder / "report" / "demo"
    page, results = (folder / "report.html").read_text(), json.loads((folder / "results.json").read_text())
    for approach in results["approaches"].values():
        run = approach["corrected"]["runs"][0]
        low, high = approach["corrected"]["test_accuracy"]["ci95"]
        accuracy = formats.fixed(100 * run["test_accuracy"], formats.decimals(50 * (high - low)))
        assert f"{accuracy}\N{NO-BREAK SPACE}% (95 % interval" in page
        assert f'<td class="right">{run["test_loss"]:.2f}' in page
        assert f'<td class="right">{run["epochs"][0]["train_loss"]:.2f}' in page


def test_a_second_time_nothing_is_made(project):
    before = project.built()
    code, output = project.make("report", *QUICK)
    assert code == 0 and project.built() == before and "executing" not in output


def test_touching_a_notebook_executes_it_and_what_depends_on_it(project):
    before = project.built()
    (project.folder / "notebooks" / "02_full_finetune.ipynb").touch()
    code, output = project.make("report", *QUICK)
    assert code == 0, output
    after = project.built()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == set(after) - {"01_linear_probe.ipynb", "parameters.yaml"}
    assert "executing notebooks/01" not in output


def test_two_folders_get_the_same_report_but_for_times(project):
    code, output = project.make("-j2", "report", *QUICK, "OUT=elsewhere")
    assert code == 0, output
    first, second = (project.folder / out / "demo" for out in ("report", "elsewhere"))
    for name in ("results.json", "report.pdf", "report.html", "report.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_make_that_is_killed_leaves_nothing_that_looks_finished(project, tmp_path):
    """Kills make and all it started at random instants; what is there afterwards is right, and make goes on from it."""
    first, out = project.folder / "report" / "demo", tmp_path / "out"
    names = ("report.html", "report.pdf", "report.png", "results.json")
    rng = random.Random(0)
    for _ in range(8):
        child = project.start("report", *QUICK, f"OUT={out}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0.2, 9))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for name in names:
            if (out / "demo" / name).exists():
                assert (out / "demo" / name).read_bytes() == (first / name).read_bytes()
    code, output = project.make("report", *QUICK, f"OUT={out}")
    assert code == 0, output
    assert all((out / "demo" / name).read_bytes() == (first / name).read_bytes() for name in names)


def test_two_makes_at_once_and_a_clock_set_back_harm_nothing(project, tmp_path):
    children = [project.start("report", *QUICK, f"OUT={tmp_path}") for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    first, out = project.folder / "report" / "demo", tmp_path / "demo"
    assert (out / "report.html").read_bytes() == (first / "report.html").read_bytes()
    for path in (project.folder / "notebooks").iterdir():  # as if written tomorrow, before the clock was set back
        os.utime(path, (time.time() + 86_400,) * 2)
    code, output = project.make("report", *QUICK, f"OUT={tmp_path}")
    for path in (project.folder / "notebooks").iterdir():
        os.utime(path, (1_700_000_000,) * 2)
    assert code == 0, output
    assert (out / "results.json").read_bytes() == (first / "results.json").read_bytes()


def test_runs_are_jobs_of_their_own_after_which_a_report_trains_nothing(project, tmp_path):
    launcher = tmp_path / "launch"
    launcher.write_text(f"#!/bin/sh\necho launched >> '{tmp_path}/log'\nexec \"$@\"\n")
    launcher.chmod(0o755)
    study = ("EPOCHS=1", "SIZE=63", "BUDGETS=none", "DEFECTS=none", "RECIPES=corrected", "SEEDS=0,1",
             f"OUT={tmp_path}/out", f"RUNS={tmp_path}/a store", f"LAUNCHER={launcher}")  # fmt: skip
    code, output = project.make("-j2", "runs", *study)
    assert code == 0, output
    assert (tmp_path / "log").read_text().count("launched") == 4
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a store").glob("*-seed*")}
    assert len(made) == 4
    code, output = project.make("report", *study)
    assert code == 0 and "epoch 1/1" not in output
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "a store").glob("*-seed*")} == made
    code, output = project.make("verify", *study)
    assert code == 0 and "the same, bit for bit" in output


def test_a_broken_notebook_fails_and_leaves_nothing_finished(tmp_path):
    project = Project(tmp_path)
    path = tmp_path / "notebooks" / "01_linear_probe.ipynb"
    broken = nbformat.read(path, as_version=4)
    broken.cells[2].source += "\nraise RuntimeError('broken on purpose')"
    nbformat.write(broken, path)
    code, output = project.make("report", *QUICK)
    assert code != 0
    assert "error: notebooks/01_linear_probe.ipynb stopped: RuntimeError: broken on purpose" in output
    assert "Traceback" not in output
    assert set(project.built()) == {"parameters.yaml", "01_linear_probe.failed.ipynb"}


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("EPOCHS=-1", "epochs is -1"),
        ("DATA=no/such/tree", "data is 'no/such/tree'"),
        ("DATA=report_lib", "no train/ folder with images; expected is train/<class>/*"),
        ("WEIGHTS=Makefile", "which is no readable .safetensors or weights-only .pth file"),
        ("SEEDS=0,0", "seeds is '0,0'"),
        ("RECIPES=best", "recipes is 'best'"),
        ("BUDGETS=2", "budgets is '2'"),
        ("PROFILE=nope", "profile is 'nope'"),
        ("DEVICE=tpu", "tpu"),
        ("DATA=$$(touch pwned)'\";", "data is "),
    ],
)
def test_wrong_input_is_one_sentence_and_no_traceback(project, variable, says):
    code, output = project.make("report", variable, "OUT=wrong")
    assert code != 0 and says in output and "Traceback" not in output
    assert not list((project.folder / "wrong").rglob("*.ipynb")) and not (project.folder / "pwned").exists()


def test_latex_without_tex_says_so_in_one_line(project, tmp_path):
    for tool in ("bash", "grep", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [shutil.which("make"), "report", "PDF=latex"],
        cwd=project.folder, env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "PDF=latex needs xelatex" in done.stderr and done.stderr.count("\n") == 1
    code, output = project.make("report", "PDF=word")
    assert code != 0 and "PDF is 'word'; allowed are typst and latex" in output


def test_make_alone_is_help(project):
    code, output = project.make()
    assert code == 0 and all(word in output for word in ("report", "test", "lab", "lint", "clean", "PROFILE", "SEEDS"))
