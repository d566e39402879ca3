"""A copy of the project, for tests that run make as a user does."""

import os
import re
import shutil
import signal
import subprocess
import sys

from report_lib.files import PROJECT

PARTS = ("notebooks", "report_lib", "report", "Makefile", "pyproject.toml", "requirements.lock")
OURS = ("linear_probe", "full_finetune")  # the approaches that come with the project
QUICK = ("EPOCHS=1", "SIZE=63", "PER_CLASS=20", "BATCH=32", "BUDGETS=5")
LEAST = (*QUICK, "BUDGETS=none", "DEFECTS=none", "PRESETS=corrected")  # one run of each approach


def finish(child):
    """(exit code, output) of a make that was started; a test that is given up takes it along."""
    try:
        output = child.communicate()[0]
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    return child.returncode, output


class Project:
    def __init__(self, folder, *more, trained=None):
        """`trained`: where runs and caches lie that copies share, if not in each."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for name in (".runs", ".cache") if trained else ():
            (trained / name).mkdir(exist_ok=True)
            (folder / name).symlink_to(trained / name)
        for part in (*PARTS, *more):
            source = PROJECT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("demo", "cifar10", "yours", "__pycache__", ".work")
                shutil.copytree(source, folder / part, ignore=ignored)
            else:
                shutil.copy(source, folder / part)
        self.change("Makefile", r"(?m)^NOTEBOOKS := .*$", "NOTEBOOKS := 01_linear_probe 02_full_finetune 03_analysis")
        registry = "report_lib/config/registries.py"  # without the approaches that somebody has added
        self.change(
            registry,
            r"(?s)(?<=\nAPPROACHES = \{\n).*?(?=\n\}\n)",
            lambda found: "".join(
                entry for entry in re.split(r'(?m)^(?=    ")', found[0]) if entry.strip(' "').startswith(OURS)
            ).rstrip("\n"),
        )

    def change(self, file, old, new):
        path = self.folder / file
        text, count = re.subn(old, new, path.read_text())
        assert count == 1, file
        path.write_text(text)

    def make(self, *arguments, **settings):
        """(exit code, output) of make in this copy, with this interpreter and none of the caller's variables."""
        return finish(self.start(*arguments, settings=settings))

    def start(self, *arguments, python=sys.executable, settings=None):
        """make, in a process group of its own; `settings` are variables of its environment."""
        clean = {
            n: v for n, v in os.environ.items() if n not in ("MAKEFLAGS", "MAKELEVEL") and not n.startswith("REPORT_")
        }
        return subprocess.Popen(
            ["make", *arguments, f"PYTHON={python}", "READY="],
            cwd=self.folder, env=clean | (settings or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def reported(self, study):
        """This copy, after a report of `study` has been made."""
        code, output = self.make("report", *study)
        assert code == 0, output
        return self

    def built(self):
        return {p.name: p.stat().st_mtime_ns for p in (self.folder / "report" / "demo").iterdir() if p.is_file()}
