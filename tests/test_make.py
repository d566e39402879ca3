"""make under hard conditions: killed, twice at once, with its clock set back, as many jobs."""

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

import pytest
from project import LEAST, Project, finish

from report_lib.__main__ import main


@pytest.fixture(scope="module")
def unmade(tmp_path_factory):
    """A copy of the project in which nothing has been made."""
    return Project(tmp_path_factory.mktemp("unmade") / "project")


@pytest.fixture(scope="module")
def project(tmp_path_factory, trained):
    return Project(tmp_path_factory.mktemp("project"), trained=trained).reported(LEAST)


def kill_at(child, folder, pattern):
    """Kills make and all it started as soon as `pattern` matches something new in `folder`."""
    before, late = set(folder.glob(pattern)), time.monotonic() + 300
    while set(folder.glob(pattern)) <= before:
        assert child.poll() is None and time.monotonic() < late, f"make never came to {pattern}"
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@pytest.mark.long
def test_make_that_is_killed_leaves_nothing_that_looks_finished(project, tmp_path):
    """Kills in each notebook, before and while the report is written, and at random instants; what is there
    afterwards is right, and make goes on from it."""
    first, out = project.folder / "report" / "demo", tmp_path / "out"
    names = ("report.html", "report.pdf", "report.png", "results.json")
    rng, finished = random.Random(0), {}
    stages = [f"{name}.*.source.ipynb" for name in ("01_linear_probe", "02_full_finetune", "03_analysis")]
    for stage in [*stages, "03_analysis.ipynb", None, None, None]:  # the last one: while the report is rendered
        child = project.start("report", *LEAST, f"OUT={out}", *["-j1"] * bool(stage))
        if stage is not None:
            kill_at(child, out / "demo" / (".work" if "*" in stage else ""), stage)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(rng.uniform(0.2, 9))
            with contextlib.suppress(ProcessLookupError):  # it had finished
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        for path in (out / "demo").glob("0*.ipynb"):  # is never executed again
            assert path.stat().st_mtime_ns == finished.setdefault(path.name, path.stat().st_mtime_ns)
        for name in names:
            if (out / "demo" / name).exists():
                assert (out / "demo" / name).read_bytes() == (first / name).read_bytes()
    code, output = project.make("report", *LEAST, f"OUT={out}")
    assert code == 0, output
    assert all((out / "demo" / name).read_bytes() == (first / name).read_bytes() for name in names)


def without_times(results):
    """The same, without what a second training or another clock changes."""
    if isinstance(results, dict):
        return {name: without_times(part) for name, part in results.items()
                if not re.search("second|time|memory|share|finished|started|cost", name)}  # fmt: skip
    return [without_times(part) for part in results] if isinstance(results, list) else results


@pytest.mark.long
def test_runs_are_jobs_of_their_own_after_which_all_numbers_are_there_and_the_same(project, tmp_path):
    """Of a finished study a run is lost, and a second seed is asked for: what the store lacks is trained through the
    launcher, and nothing else."""
    launcher, store = tmp_path / "launch", tmp_path / "a store"
    launcher.write_text(f"#!/bin/sh\necho launched >> '{tmp_path}/log'\nexec \"$@\"\n")
    launcher.chmod(0o755)
    first = json.loads((project.folder / "report" / "demo" / "results.json").read_text())
    kept = first["approaches"]["full_finetune"]["corrected"]["runs"][0]["run"]
    shutil.copytree(project.folder / ".runs" / kept, store / kept)
    study = (*LEAST, f"RUNS={store}", f"OUT={tmp_path}/out", f"LAUNCHER={launcher}")
    code, output = project.make("-j2", "runs", *study, "SEEDS=0,1")
    assert code == 0 and "all 4 runs are in" in output, output
    assert (tmp_path / "log").read_text().count("launched") == 3
    parameters = f"{tmp_path}/out/demo/parameters.yaml"
    code, output = project.make(parameters, *study)  # of the first seed alone, as the report is
    searches = [str(path) for path in sorted((project.folder / "report" / "tuning").glob("*.yaml"))]
    made = [parameters, "--published", str(project.folder / "report" / "published.yaml"), "--searches", *searches]
    assert main(["results", *made, "--output", str(tmp_path / "results.json")]) == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert "--index 0" in again["provenance"].pop("command") != first["provenance"].pop("command")  # a notebook's
    assert without_times(again) == without_times(first)
    code, output = project.make("verify", *study)
    assert code == 0 and "the same, bit for bit" in output


def test_make_that_is_killed_while_it_lists_the_jobs_lists_them_all_the_next_time(unmade, tmp_path):
    python = tmp_path / "python"  # a make that ends with the first line of them
    lists = "#!/bin/sh\ncase \"$*\" in *'study '*parameters.yaml) printf '0\\tmissing\\tx\\n'; {};; esac\n"
    python.write_text(lists.format("kill -9 0"))
    python.chmod(0o755)
    jobs, arguments = tmp_path / "demo" / ".work" / "runs.mk", (f"OUT={tmp_path}", f"{tmp_path}/demo/.work/runs.mk")
    code, _ = finish(unmade.start(*arguments, python=python))
    assert code == -signal.SIGKILL and not jobs.exists()
    python.write_text(lists.format("printf '1\\tfinished\\ty\\n2\\tmissing\\tz\\n'"))
    code, output = finish(unmade.start(*arguments, python=python))
    assert code == 0, output
    assert "--index 0" in jobs.read_text() and "--index 2" in jobs.read_text() and "--index 1" not in jobs.read_text()
    python.write_text(lists.format("exit 1"))
    left = set(jobs.parent.glob("runs.mk*"))  # the list, and what the kill has left half written
    assert finish(unmade.start(*arguments, python=python))[0] == 2
    assert set(jobs.parent.glob("runs.mk*")) == left and "--index 2" in jobs.read_text()


@pytest.mark.parametrize("letter", " :%'\";\\#(&")
def test_a_folder_that_make_would_misread_is_refused_in_one_sentence(unmade, letter):
    code, output = unmade.make("help", f"OUT=a{letter}b")
    assert code == 2 and output.count("\n") == 1 and f"'a{letter}b'" in output and "make cannot handle" in output


def test_packages_that_cannot_be_installed_are_not_called_installed(unmade):
    """As on a full disk: pip's reason, one sentence, and the next make tries again."""
    venv = unmade.folder / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(
        "#!/bin/sh\necho Collecting torch\necho 'ERROR: No space left on device' >&2\nexit 1\n"
    )
    (venv / "python").chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHON")}
    for _ in range(2):
        done = subprocess.run(["make", "setup"], cwd=unmade.folder, env=clean, capture_output=True, text=True)
        assert done.returncode == 2
        assert "No space left on device" in done.stderr and "error: not all packages could be" in done.stderr
        assert "installed" not in done.stdout and not (unmade.folder / ".venv" / ".ready").exists()


def jupyter(home):
    """Settings of nbconvert, as people have them: a preprocessor that is not installed, templates, a filter."""
    config = home / ".jupyter"
    write(config / "jupyter_nbconvert_config.json", """{"Exporter": {"preprocessors": ["not.installed.Module"],
          "template_name": "mine"}, "TemplateExporter": {"exclude_input": true}}""")  # fmt: skip
    write(config / "jupyter_config.py", "c.NbConvertApp.export_format = 'slides'\nraise SystemExit('configured')")
    write(config / "nbconfig" / "notebook.json", "{")
    for data in (home / ".local" / "share" / "jupyter", config):
        write(data / "nbconvert" / "templates" / "mine" / "conf.json", '{"base_template": "lab"}')
        for base in ("base", "lab"):
            write(data / "nbconvert" / "templates" / base / "index.html.j2", "nothing of yours")
    write(home / ".local" / "share" / "pandoc" / "defaults.yaml", "number-sections: true\nnonsense: 1")
    return {"JUPYTER_CONFIG_DIR": str(config), "JUPYTER_CONFIG_PATH": str(config)}


def ipython(home):
    """A profile of IPython and a script at its start, which print, and change what numbers look like and are drawn."""
    profile = home / ".ipython" / "profile_default"
    write(profile / "startup" / "00-mine.py", """print("welcome back")
import random, numpy, pandas, torch, warnings
pandas.set_option("display.precision", 1, "display.max_rows", 2)
numpy.set_printoptions(precision=1); torch.set_printoptions(precision=1); torch.set_num_threads(1)
random.seed(5); numpy.random.seed(5); torch.manual_seed(5); torch.set_default_dtype(torch.float64)
warnings.simplefilter("error")""")  # fmt: skip
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        write(profile / name, """c.InteractiveShell.ast_node_interactivity = "all"
c.InlineBackend.figure_formats = {"jpeg"}; c.InlineBackend.rc = {"figure.dpi": 20}
c.InteractiveShellApp.exec_lines = ["%precision 1", "%load_ext nothing", "print('hello')"]
c.InteractiveShellApp.extensions = ["autoreload", "not_installed"]""")  # fmt: skip
    write(home / "site" / "usercustomize.py", "print('customized')")
    return {"IPYTHONDIR": str(home / ".ipython"), "IPYTHONSTARTUP": str(profile / "startup" / "00-mine.py")}


def drawing(home):
    """matplotlib as for a dark theme, wherever it looks for that."""
    rc = """xtick.color: white\nytick.color: white\ntext.color: white\naxes.facecolor: black\nsavefig.dpi: 20
font.family: monospace\nfont.size: 30\nbackend: TkAgg\nsvg.fonttype: path\nsvg.hashsalt: mine\nlines.linewidth: 9
figure.figsize: 1, 1\naxes.grid: True\nimage.cmap: gray\nnonsense: 1"""
    for place in (home / "matplotlib", home / ".config" / "matplotlib", home / ".matplotlib"):
        write(place / "matplotlibrc", rc)
        write(place / "stylelib" / "classic.mplstyle", "lines.linewidth: 20")
    return {"MPLCONFIGDIR": str(home / "matplotlib"), "MATPLOTLIBRC": str(home / "matplotlib" / "matplotlibrc"),
            "MPLBACKEND": "TkAgg"}  # fmt: skip


def kernel(home):
    """Another kernel under the name python3, and an environment that says how Python and the terminal behave."""
    data = home / ".local" / "share" / "jupyter"
    write(data / "kernels" / "python3" / "kernel.json", """{"argv": ["false", "{connection_file}"],
          "display_name": "mine", "language": "python", "env": {"MINE": "1"}}""")  # fmt: skip
    write(home / "start.py", "raise SystemExit('started')")
    return {"JUPYTER_PATH": str(data), "JUPYTER_DATA_DIR": str(data), "JUPYTER_PREFER_ENV_PATH": "0",
            "JUPYTER_RUNTIME_DIR": str(home / "none"), "JUPYTER_PLATFORM_DIRS": "1", "XDG_DATA_HOME": str(data.parent),
            "PYTHONSTARTUP": str(home / "start.py"), "PYTHONHASHSEED": "77", "PYTHONWARNINGS": "error",
            "PYTHONOPTIMIZE": "2", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:replace",
            "PYTHONSAFEPATH": "1", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "LANGUAGE": "de", "TZ": "Asia/Kathmandu",
            "COLUMNS": "40", "TERM": "dumb", "NO_COLOR": "1", "SOURCE_DATE_EPOCH": "1", "GREP_OPTIONS": "-v",
            "CDPATH": str(home)}  # fmt: skip


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.long
def test_settings_of_ones_own_change_no_byte_of_a_report(project, tmp_path):
    """All at once: where they change nothing together, none is read."""
    home = tmp_path / "home"
    own = {"HOME": str(home)} | jupyter(home) | ipython(home) | drawing(home) | kernel(home)
    code, output = project.make("report", *LEAST, f"OUT={tmp_path}/out", **own)
    assert code == 0, output
    assert "epoch 1/1" not in output  # nothing was trained again
    first, again = project.folder / "report" / "demo", tmp_path / "out" / "demo"
    for name in ("report.html", "report.pdf", "report.png", "main_figure.png", "results.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


@pytest.fixture
def clone(tmp_path):
    """A clone in a folder whose name is hard on shells and make, with its own .venv/bin/python."""
    copy = Project(tmp_path / "it's a $HOME #1 (copy), é")
    write(copy.folder / ".venv" / "bin" / "python", f"#!/bin/sh\nexec '{sys.executable}' \"$@\"\n")
    (copy.folder / ".venv" / "bin" / "python").chmod(0o755)
    write(copy.folder / ".venv" / ".ready", "")
    return copy


def make(copy, *arguments, **settings):
    """(exit code, output) of make as typed, without an active environment."""
    active = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHON", "MAKEFLAGS", "MAKELEVEL", "REPORT_RUNS")
    clean = {name: value for name, value in os.environ.items() if name not in active} | settings
    done = subprocess.run(["make", *arguments], cwd=copy.folder, env=clean, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_help_in_a_folder_with_a_space_whatever_ones_own_python_does(clone):
    code, output = make(clone, "help", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error", PYTHONSTARTUP="none")
    assert code == 0 and "SEEDS" in output and "after make setup" not in output, output


@pytest.mark.long
def test_a_report_in_a_folder_with_a_space(project, clone):
    """From what the other copy has trained, where that lies beside it; the same report."""
    (clone.folder / ".runs").symlink_to(project.folder / ".runs")
    code, output = make(clone, "report", *LEAST)
    assert code == 0, output
    assert "epoch 1/1" not in output
    for name in ("report.html", "report.pdf", "results.json"):
        first, again = (copy.folder / "report" / "demo" / name for copy in (project, clone))
        assert first.read_bytes() == again.read_bytes(), name


@pytest.mark.long
def test_two_makes_at_once_and_a_clock_set_back_harm_nothing(project, tmp_path):
    """And another folder, and notebooks executed at once, change no byte."""
    children = [project.start("-j2", "report", *LEAST, f"OUT={tmp_path}") for _ in range(2)]
    assert [finish(child)[0] for child in children] == [0, 0]
    first, out = project.folder / "report" / "demo", tmp_path / "demo"
    for name in ("report.html", "report.pdf", "report.png", "results.json"):
        assert (out / name).read_bytes() == (first / name).read_bytes(), name
    late = project.folder / "notebooks" / "03_analysis.ipynb"
    os.utime(late, (time.time() + 86_400,) * 2)  # as if written tomorrow, before the clock was set back
    code, output = project.make("report", *LEAST, f"OUT={tmp_path}")
    os.utime(late, (1_700_000_000,) * 2)
    assert code == 0 and "executing notebooks/03" in output, output
    assert (out / "results.json").read_bytes() == (first / "results.json").read_bytes()
