"""What tests run in children that they kill: a run of a config, in a process that is quick to start.

Children are forks of a server that has imported torch and torchvision, but has run nothing and has no threads.
A fork of the tests' own process could inherit a lock that a thread holds, and wait for it for ever.
"""

import multiprocessing
import os
import signal
import sys
import time

import torch

from report_lib.runs import train as runner
from report_lib.training import checkpoints, loop

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["report_lib.runs", "torchvision"])


def start(job, *arguments, stderr=os.devnull):
    """A child that calls `job`, a function of this module, on one thread and without a progress bar."""
    child = SERVER.Process(target=_quietly, args=(str(stderr), job, *arguments))
    child.start()
    return child


def finish(child, seconds=300):
    """The exit code of a child, which has so long for what takes a few seconds."""
    child.join(seconds)
    late = child.exitcode is None
    if late:
        child.kill()
        child.join()
    assert not late, f"the child had not ended after {seconds} s"
    return child.exitcode


def run(config, store, cache):
    runner.run(config, str(store), str(cache), "cpu")


def run_until_checkpoint(epoch, config, store, cache):
    """Dies as soon as the checkpoint of that epoch has been written."""
    saved = checkpoints.save

    def save(path, module, optimizer, history):
        saved(path, module, optimizer, history)
        if len(history["epochs"]) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save = save
    run(config, store, cache)


def run_slowly(trained, config, store, cache):
    """Writes an x to the file `trained` whenever a run is made, and takes a second longer for it."""
    make = runner.make

    def slow(*arguments):
        with open(trained, "a") as file:
            file.write("x")
        time.sleep(1)
        return make(*arguments)

    runner.make = slow
    run(config, store, cache)


def _quietly(stderr, job, *arguments):
    os.environ["REPORT_PROGRESS"] = "none"
    loop.CHECKPOINT_SECONDS = 0
    torch.set_num_threads(1)
    with open(stderr, "a", buffering=1) as sys.stderr:
        job(*arguments)
