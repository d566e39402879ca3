"""Killed runs, full disks, rotten files: nothing finished is lost, and nothing half-made is believed."""

import hashlib
import importlib.metadata
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import children
import pytest
import torch

from report_lib import data, models
from report_lib.__main__ import main
from report_lib.config import preset
from report_lib.files import PROJECT, InputError
from report_lib.page import tables
from report_lib.runs import provenance
from report_lib.runs import store as records
from report_lib.runs import train as trainer
from report_lib.training import checkpoints, features, loop, place


def probe(path, **more):
    return preset("linear_probe", data=str(path), image_size=63, batch_size=8, precision="float32", **more)


def outcome(run):
    """What a run came to, as bytes: its curves and its predictions."""
    arrays = run.predictions
    curves = run.epochs[["train_loss", "validation_loss", "validation_accuracy"]]
    return curves.to_csv().encode() + b"".join(arrays[name].tobytes() for name in sorted(arrays))


def killed(seconds, *job):
    """Does `job` in a child that is killed after so long; whether it had not finished by then."""
    child = children.start(children.run, *job)
    child.join(seconds)
    alive = child.is_alive()
    if alive:
        child.kill()
    child.join()
    assert alive or child.exitcode == 0
    return alive


@pytest.mark.long
def test_kills_at_random_instants_lose_and_change_nothing(tree, tmp_path, single_thread):
    """Decoding, features, training, checkpoints and records: at least 50 kills, spread over all of a run's time."""
    config = probe(tree(train=30, test=10), epochs=40, network="mobilenet_v3_small", weights="none")  # soon at work
    expected = outcome(trainer.run(config, str(tmp_path / "calm"), str(tmp_path / "calm-cache"), "cpu"))
    whole = 0.0
    for name in ("first", "second"):  # the first starts the server
        start = time.monotonic()
        assert children.finish(children.start(children.run, config, tmp_path / name, tmp_path / f"{name}-cache")) == 0
        whole = time.monotonic() - start
    assert outcome(records.load(next((tmp_path / "second").glob("*-seed*")))) == expected
    rng, kills, rounds = random.Random(0), 0, 0
    while kills < 50:
        rounds += 1
        store, cache = tmp_path / f"store{rounds}", tmp_path / f"cache{rounds}"
        before = kills
        while killed(rng.uniform(0, whole), config, store, cache):
            kills += 1
            if kills > before + 5:  # other work has slowed the machine down
                whole *= 1.2
            assert kills < before + 50, f"a run of {whole:.1f} s gets nowhere between kills"
            for path in store.glob("[!.]*-seed*"):  # whatever has a record's name is one
                assert outcome(records.load(path)) == expected
        assert children.finish(children.start(children.run, config, store, cache)) == 0
        assert outcome(records.load(next(store.glob("[!.]*-seed*")))) == expected
        assert not list(store.glob("*.checkpoint*")), "a finished run needs no checkpoint"
        if kills == before:  # the machine is faster than when it was measured
            whole *= 0.8
        assert rounds < 100, "kills come too late to meet anything"


@pytest.mark.parametrize("name", ["corrected", "tuned"])
def test_a_killed_fine_tuning_resumes_at_its_last_epoch_bit_for_bit(
    tree, small, tmp_path, monkeypatch, single_thread, name
):
    """Batch normalisation's running statistics, momenta and schedule included."""
    monkeypatch.setenv("REPORT_PROGRESS", "none")
    config = small("full_finetune", name, data=str(tree(train=15, test=2)), epochs=3, start="random")
    calm = outcome(trainer.run(config, str(tmp_path / "calm"), str(tmp_path / "cache"), "cpu"))
    dying = children.start(children.run_until_checkpoint, 2, config, tmp_path / "store", tmp_path / "cache")
    assert children.finish(dying) == -signal.SIGKILL
    epochs = []
    once = loop.train_epoch
    monkeypatch.setattr(loop, "train_epoch", lambda *a: epochs.append(1) or once(*a))
    assert outcome(trainer.run(config, str(tmp_path / "store"), str(tmp_path / "cache"), "cpu")) == calm
    assert len(epochs) == 1


def test_what_a_run_killed_at_its_very_end_left_behind_goes(tree, tmp_path):
    config, store = probe(tree(), epochs=1), tmp_path / "store"
    run = trainer.run(config, str(store), str(tmp_path / "cache"), "cpu")
    left = store / f".{run.path.name}-cpu1-float32.checkpoint"
    left.write_bytes(b"of the last epoch")
    trainer.run(config, str(store), str(tmp_path / "cache"), "cpu")
    assert not left.exists()


def test_the_same_run_is_never_trained_twice_at_once(tree, tmp_path):
    config, trained, text = probe(tree(), epochs=1), tmp_path / "trained", tmp_path / "text"
    arguments = (trained, config, tmp_path / "store", tmp_path / "cache")
    started = [children.start(children.run_slowly, *arguments, stderr=text) for _ in range(3)]
    assert [children.finish(child) for child in started] == [0, 0, 0]
    assert trained.read_text() == "x" and "waiting for it" in text.read_text()
    assert not list((tmp_path / "store").glob(".*.lock"))


# --- rot -------------------------------------------------------------------------------------------------------


def flip(path, where=0.5):
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_a_checkpoint_starts_the_run_anew(tmp_path, capsys):
    head = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(head.parameters())
    path = tmp_path / "run.checkpoint"
    checkpoints.save(path, head, optimizer, history(head))
    assert checkpoints.resume(path, head, optimizer)["epochs"] == history(head)["epochs"]
    before = head.weight.clone()
    flip(path, 0.4)
    assert checkpoints.resume(path, head, optimizer) == {} and not path.exists()
    assert torch.equal(head.weight, before) and "starts anew" in capsys.readouterr().err
    path.write_bytes(b"")
    assert checkpoints.resume(path, head, optimizer) == {}


def history(module):
    """Of one epoch, which is the selected one."""
    return {"epochs": [{"epoch": 1}], "selected": 1, "state": module.state_dict(), "validation_logits": torch.ones(1)}


def signed(content):
    file = io.BytesIO()
    torch.save(content, file)
    return hashlib.sha256(file.getvalue()).digest() + file.getvalue()


@pytest.mark.parametrize("wrong", ["a list", "another module", "a pickle", "a folder"])
def test_a_checkpoint_that_holds_anything_else_starts_the_run_anew(tmp_path, capsys, wrong):
    head = torch.nn.Linear(3, 2)
    optimizer, path, before = torch.optim.Adam(head.parameters()), tmp_path / ".run.checkpoint", head.weight.clone()
    other = {"module": torch.nn.Linear(4, 2).state_dict(), "optimizer": optimizer.state_dict(), "history": {}}
    if wrong == "a folder":
        path.mkdir()
    else:
        path.write_bytes(signed({"a list": [1, 2], "another module": other, "a pickle": Path("x")}[wrong]))
    assert checkpoints.resume(path, head, optimizer) == {} and torch.equal(head.weight, before)
    text = capsys.readouterr().err
    if wrong == "a folder":
        checkpoints.save(path, head, optimizer, history(head))
        assert "no checkpoint could be written" in capsys.readouterr().err and path.is_dir()
        return
    assert text.count("\n") == 1 and "starts anew" in text and len(text) < 400 and not path.exists()
    checkpoints.save(path, head, optimizer, history(head))
    assert checkpoints.resume(path, head, optimizer)["selected"] == 1


def test_a_checkpoint_writes_through_no_link_is_synced_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    head, victim, path = torch.nn.Linear(3, 2), tmp_path / "victim", tmp_path / ".run.checkpoint"
    optimizer = torch.optim.Adam(head.parameters())
    victim.write_text("precious")
    (tmp_path / ".run.checkpoint-unfinished").symlink_to(victim)
    (tmp_path / ".run.checkpoint-unfinished-of_one_killed").write_text("")
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(path.exists()) or sync(handle))
    checkpoints.save(path, head, optimizer, history(head))
    assert victim.read_text() == "precious" and synced == [False, True]  # its data before it is named, its folder after
    assert path.stat().st_mode & 0o777 == 0o644
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(path, head, optimizer, history(head))
    left = {entry.name for entry in tmp_path.iterdir()} - {".run.checkpoint-unfinished"}
    assert left == {"victim", path.name}


@pytest.mark.parametrize("remains", ["a folder", "a file", "a dangling link"])
def test_what_has_a_runs_name_but_is_none_is_moved_aside_before_training(tree, tmp_path, capsys, remains):
    config, store = probe(tree(), epochs=1), tmp_path / "store"
    run = trainer.run(config, str(store), str(tmp_path / "cache"), "cpu")
    calm, path = outcome(run), run.path
    if remains == "a folder":
        (path / "run.json").unlink()
    else:
        shutil.rmtree(path)
        path.write_text("") if remains == "a file" else path.symlink_to(tmp_path / "nowhere")
    seen = []
    watch = lambda *_: seen.append(os.path.lexists(path))  # noqa: E731
    assert outcome(trainer.run(config, str(store), str(tmp_path / "cache"), "cpu", watch)) == calm
    text = capsys.readouterr().err
    assert seen == [False] and text.count("is no finished run and is now") == 1
    (aside,) = store.glob("*.damaged-*")
    assert remains != "a folder" or (aside / "predictions.npz").exists()


# --- full disks and small memories -----------------------------------------------------------------------------


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_made(tree, tmp_path, small_disk):
    config = probe(tree(train=40, size=(60, 60)), epochs=1)
    disk = small_disk(2)  # room for the images, not for the frozen features
    with pytest.raises(InputError, match="whose disk (has no|lacks) room for"):
        trainer.run(config, str(tmp_path / "runs"), str(disk), "cpu")
    assert not list(disk.glob("*features*")) and not list((tmp_path / "runs").glob("[!.]*"))
    store = small_disk(3)
    (store / "ballast").write_bytes(bytes(3_140_000))
    with pytest.raises(InputError, match="the record of this run cannot be written.*make room"):
        trainer.run(config, str(store), str(tmp_path / "cache"), "cpu")
    assert [path.name for path in store.iterdir() if not path.name.startswith(".")] == ["ballast"]
    (store / "ballast").unlink()
    assert trainer.run(config, str(store), str(tmp_path / "cache"), "cpu").path.parent == store


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    ],
    ids=str,
)
def test_a_device_without_memory_names_a_smaller_batch(tree, tmp_path, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(loop, "begin", full)
    path, where = tree(), (str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
    says = "batch_size is 8, for which cpu lacks the memory; try BATCH=4, half of it, or a smaller SIZE"
    with pytest.raises(InputError, match=f"^{says}$"):
        trainer.run(probe(path, epochs=1), *where)
    single = preset("linear_probe", data=str(path), image_size=63, batch_size=1, epochs=1)
    with pytest.raises(InputError, match="no batch is smaller, so try a smaller SIZE$"):
        trainer.run(single, *where)


def test_a_fault_that_is_not_of_memory_stays_what_it_is(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "begin", lambda *_: (_ for _ in ()).throw(RuntimeError("mat1 and mat2")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trainer.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")


@pytest.mark.parametrize("given", ["nan", "-5", "1e400", "inf", "much"])
def test_a_cache_limit_that_is_no_size_is_refused_before_anything_is_made(tree, tmp_path, monkeypatch, given):
    monkeypatch.setenv("REPORT_CACHE_GIB", given)
    monkeypatch.setattr(trainer, "make", None)
    with pytest.raises(InputError, match=f"REPORT_CACHE_GIB is '{given}'; allowed is a number of GiB"):
        trainer.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")


# --- where a run was made --------------------------------------------------------------------------------------


def test_what_git_cannot_say_is_not_called_clean(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    info = provenance.provenance(place("cpu"))
    assert info["commit"] is None and info["dirty"] is None
    monkeypatch.setattr(provenance, "_git", lambda *asked: "a" * 40 if asked[0] == "rev-parse" else None)
    info = provenance.provenance(place("cpu"))
    assert tables._changes(info) == " (perhaps modified)"
    assert [tables._changes(info | {"dirty": dirty}) for dirty in (False, True)] == ["", " (modified)"]


def test_packages_that_say_no_version_lose_no_run(monkeypatch):
    assert {"torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "pandas"} == set(provenance.packages())

    def version(name):
        if name in ("pillow", "scipy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert set(provenance.packages()) == {"torch", "torchvision", "numpy", "scikit-learn", "pandas"}


def test_where_a_run_is_made_is_asked_before_it_is_trained(tree, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(trainer, "provenance", lambda *_: (_ for _ in ()).throw(OSError("no git, no disk, nothing")))
    monkeypatch.setattr(loop, "begin", lambda *_: trained.append(1))
    with pytest.raises(OSError, match="nothing"):
        trainer.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
    assert not trained


# --- the command line as a good citizen ------------------------------------------------------------------------


def test_a_log_gets_a_line_an_epoch_and_json_on_request(tree, tmp_path):
    arguments = ["--approach", "linear_probe", "--data", str(tree()), "--epochs", "3", "--image-size", "63",
                 "--batch-size", "4", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "report_lib", "run", *arguments, "--json"], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and all(f"epoch {n}/3, training loss" in line for n, line in enumerate(lines, 1))
    text = json.loads(done.stdout)
    assert records.load(Path(text["record"])).info["test_accuracy"] == text["test_accuracy"]


def test_a_run_that_is_terminated_says_so_in_one_sentence(tree, tmp_path):
    arguments = ["--approach", "linear_probe", "--data", str(tree()), "--epochs", "10000", "--image-size", "63",
                 "--batch-size", "4", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-m", "report_lib", "run", *arguments], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    )
    assert "epoch 1/10000" in child.stderr.readline()
    child.terminate()
    last = child.communicate(timeout=60)[1].splitlines()[-1]
    assert child.returncode == 143 and last.startswith("terminated; the last checkpoint of a long run is kept")
    assert not list((tmp_path / "runs").glob("[!.]*"))


def test_errors_are_json_too(capsys):
    assert main(["run", "--approach", "linear_probe", "--epochs", "-1", "--json"]) == 2
    assert capsys.readouterr().out.startswith('{"error": "epochs is -1')


def test_data_that_have_moved_are_the_same_data(tree, tmp_path, monkeypatch):
    """A store is shared by machines that mount the images elsewhere, and a path can be written in many ways."""
    path = tree(train=30, test=10)
    run = trainer.run(probe(path, epochs=1), str(tmp_path / "runs"), device="cpu")
    path.rename(tmp_path / "moved")
    monkeypatch.setattr(trainer, "make", lambda *_: pytest.fail("it is trained again"))
    moved = [str(tmp_path / "moved"), os.path.relpath(tmp_path / "moved", PROJECT)]
    for typed in moved:
        config = probe(typed, epochs=1)
        assert trainer.run(config, str(tmp_path / "runs"), device="cpu").path == run.path
    sha = data.fingerprint(probe(moved[0]))
    names = {trainer.run_name(preset("full_finetune", "tuned", data=typed), sha, None) for typed in moved}
    assert len(names) == 1, "the probe that it starts from is on the same images"


def test_a_record_under_the_name_of_other_data_is_not_believed(tree, tmp_path):
    store = tmp_path / "runs"
    one = trainer.run(probe(tree(train=30, test=10), epochs=1), str(store), device="cpu")
    config = probe(tree(train=20, test=10, name="other"), epochs=1)
    sha = data.fingerprint(config)
    one.path.rename(store / trainer.run_name(config, sha, models.weights_sha256(config.weights)))
    with pytest.raises(InputError, match="is that of another config"):
        trainer.run(config, str(store), device="cpu")


def test_verify_says_whether_a_run_comes_out_the_same(tree, tmp_path, capsys, monkeypatch):
    config = probe(tree(train=30, test=10), epochs=2)
    run = trainer.run(config, str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
    monkeypatch.chdir(run.path.parent)  # a path that is typed starts at the working folder
    arguments = ["verify", run.path.name, "--device", "cpu", "--cache", str(tmp_path / "cache")]
    entries, write = [], features._write
    monkeypatch.setattr(features, "_write", lambda entry, *rest: entries.append(entry) or write(entry, *rest))
    assert main(arguments) == 0 and "the same, bit for bit" in capsys.readouterr().out
    assert len(entries) == 2, "train and test: frozen features are verified, too"
    assert not list((tmp_path / "cache").glob(".features-*"))
    monkeypatch.setattr(loop, "derive_seed", lambda seed, purpose: 7)
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "different: losses by up to" in text and "the test accuracy was" in text
