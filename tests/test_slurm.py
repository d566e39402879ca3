"""`make runs` on a real Slurm of two nodes, one of which is killed in the middle. Skips where none can be started."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from project import Project, finish

from report_lib.files import PROJECT
from report_lib.runs import store as records

if os.geteuid() or not all(map(shutil.which, ("slurmctld", "slurmd", "srun", "munged"))):
    pytest.skip("needs root, slurm-wlm and munge", allow_module_level=True)

pytestmark = pytest.mark.long


@pytest.fixture
def slurm(tmp_path):
    """The folder of a running Slurm, whose configuration the environment names."""
    folder = tmp_path / "slurm"
    scripts = PROJECT / "tests" / "slurm"
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        done = subprocess.run([scripts / "start.sh", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Slurm does not start here: {done.stderr.strip()[-300:]}")
        yield folder
    finally:
        subprocess.run([scripts / "stop.sh", folder], check=False)
        os.environ.pop("SLURM_CONF")
        if before:
            os.environ["SLURM_CONF"] = before


def said(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


def kill_node(folder, name):
    """Ends a node as a power cut does: its daemon, the daemon of each job step on it, and what these had started."""
    jobs = said("squeue", "-h", "-w", name, "-o", "%A")
    os.kill(int((folder / f"slurmd-{name}.pid").read_text()), signal.SIGKILL)
    for job in jobs:
        for step in said("pgrep", "-f", rf"slurmstepd: \[{job}\."):
            if str(folder).encode() in Path(f"/proc/{step}/environ").read_bytes():  # none of another Slurm's
                for process in [*said("pgrep", "-P", step), step]:
                    os.kill(int(process), signal.SIGKILL)
    return jobs


def test_a_study_survives_the_loss_of_a_node(slurm, tmp_path):
    project = Project(tmp_path / "shared")
    store = tmp_path / "runs"
    study = ("runs", "EPOCHS=1", "SIZE=63", "BUDGETS=none", "DEFECTS=none", "PRESETS=corrected", "SEEDS=0,1",
             f"RUNS={store}", "LAUNCHER=srun --gpus=1 --cpus-per-task=1 --quiet")  # fmt: skip
    child = project.start("-j4", "-k", *study)
    deadline = time.monotonic() + 120
    while not said("squeue", "-h", "-w", "n2", "-t", "running", "-o", "%A"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(2)
    assert kill_node(slurm, "n2")
    code, output = finish(child)
    assert code != 0 and "start make runs again" in output  # though srun may call it done
    code, output = project.make("-j4", *study)  # the node left does the rest
    assert code == 0 and "all 4 runs are in" in output, output
    made = [records.load(path) for path in store.glob("[!.]*-seed*")]
    assert sorted((run.approach, run.seed) for run in made) == [
        ("full_finetune", 0), ("full_finetune", 1), ("linear_probe", 0), ("linear_probe", 1)
    ]  # fmt: skip
    code, output = project.make("-j4", *study)
    assert code == 0 and "epoch 1/1" not in output  # nothing is left to train
