import dataclasses
import errno
import json
import os
import signal
from pathlib import Path

import made_up
import numpy as np
import pytest

from report_lib import disk, records
from report_lib.recipe import InputError, named, request_key

RECIPE = named("linear_probe", seed=4)
INFO, EPOCHS, ARRAYS = made_up.content(RECIPE, 0.5)


def test_a_record_comes_back_as_it_was(tmp_path):
    path = records.save(tmp_path / "store", "run", INFO, EPOCHS, ARRAYS)
    run = records.load(path)
    assert run.approach == "linear_probe" and run.seed == 4 and run.epochs.to_dict("records") == EPOCHS
    assert all(np.array_equal(run.predictions()[name], value) for name, value in ARRAYS.items())
    assert sorted(os.listdir(tmp_path / "store")) == ["run"] and path.stat().st_mode & 0o777 == 0o755


def test_a_record_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        records.save(tmp_path, "run", {}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == [] and not records.exists(tmp_path, "run")


def test_no_number_that_json_lacks_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        records.save(tmp_path, "run", {"test_loss": float("nan")}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == []


def test_the_second_of_two_equal_runs_changes_nothing(tmp_path):
    first = records.save(tmp_path, "run", INFO, EPOCHS, ARRAYS)
    assert records.save(tmp_path, "run", INFO | {"by": 2}, EPOCHS, ARRAYS) == first
    assert records.load(first).info == INFO and os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("name", ["run.json", "epochs.csv", "predictions.npz"])
def test_a_damaged_record_says_so(tmp_path, name):
    path = records.save(tmp_path, "run", INFO, EPOCHS, ARRAYS)
    (path / name).write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read.*remove that folder"):
        records.load(path).predictions()


def test_predictions_are_never_unpickled(tmp_path):
    path = records.save(tmp_path, "run", INFO, EPOCHS, {"test_logits": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match="allow_pickle"):
        records.load(path).predictions()


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "note.json"
    disk.write_whole(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        disk.write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["note.json"]


# --- what others have put into the store -----------------------------------------------------------------------


def without(*names):
    def change(info):
        inner = info
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("provenance"), "run.json lacks provenance"),
        (without("recipe"), "run.json lacks recipe"),
        (without("test_accuracy"), "run.json lacks test_accuracy"),
        (without("provenance", "code"), "provenance in run.json lacks code"),
        (without("data", "classes"), "data in run.json lacks classes"),
        (lambda info: info.update(test_accuracy="high"), "test_accuracy in run.json is of another type"),
        (lambda info: info.update(weights=[]), "weights in run.json is of another type"),
        (lambda info: info.update(files={}), "'epochs.csv'"),
        (lambda info: info.pop("files"), "'files'"),
    ],
)
def test_a_record_that_says_too_little_is_named_in_one_sentence(tmp_path, change, says):
    path = made_up.record(tmp_path, RECIPE, 0.5)
    info = json.loads((path / "run.json").read_text())
    change(info)
    made_up.sign(path, info)
    for read in (lambda: records.load(path), lambda: records.requested(tmp_path, [RECIPE])):
        with pytest.raises(InputError, match=f"the record .*{path.name} cannot be read.*remove that folder") as error:
            read()
        assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", '{"sha256": 1}'])
def test_a_record_that_is_other_json_is_named_in_one_sentence(tmp_path, text):
    path = made_up.record(tmp_path, RECIPE, 0.5)
    (path / "run.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read.*remove that folder") as error:
        records.load(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["epochs.csv", "predictions.npz"])
@pytest.mark.parametrize("wrong", ["array", "less", "nothing"])
def test_predictions_and_epochs_of_another_kind_are_named_in_one_sentence(tmp_path, name, wrong):
    path = made_up.record(tmp_path, RECIPE, 0.5)
    with (path / name).open("wb") as file:
        if wrong == "array":
            np.save(file, np.eye(3))
        elif wrong == "less":
            np.savez(file, test_logits=np.eye(3)) if name == "predictions.npz" else file.write(b"epoch\n1\n")
    info = json.loads((path / "run.json").read_text())
    info["files"][name] = records.file_sha256(path / name)
    made_up.sign(path, info)
    run = records.load(path)
    with pytest.raises(InputError, match="cannot be read.*remove that folder") as error:
        run.predictions() if name == "predictions.npz" else run.epochs
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("answer", ["another seed", "..", "../base", "/etc", ".hidden", 5, None, "", "."])
def test_a_note_that_names_another_run_or_leads_out_of_the_store_is_not_believed(tmp_path, answer):
    store, other = tmp_path / "store", dataclasses.replace(RECIPE, seed=5)
    made_up.record(store, RECIPE, 0.5)
    outside = made_up.record(tmp_path, RECIPE, 0.5)
    outside.rename(tmp_path / "base")
    if answer == "another seed":
        answer = made_up.record(store, other, 0.5).name
    (store / "requests" / f"{request_key(RECIPE)}.json").write_text(json.dumps({"run": answer}))
    with pytest.raises(InputError, match="has no finished run of linear_probe, recipe corrected, seed 4"):
        records.requested(store, [RECIPE])


def test_a_record_with_a_field_that_recipes_lack_answers_nothing(tmp_path):
    path = made_up.record(tmp_path, RECIPE, 0.5)
    info = json.loads((path / "run.json").read_text())
    info["recipe"]["momentum"] = 0.9
    made_up.sign(path, info)
    with pytest.raises(InputError, match="has no finished run"):
        records.requested(tmp_path, [RECIPE])


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_lock_that_is_no_plain_file_is_refused_and_harms_no_other_file(tmp_path, kind):
    victim, lock = tmp_path / "victim", tmp_path / ".run.lock"
    victim.write_text("precious")
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(victim if kind == "link" else tmp_path / "nowhere")
    signal.alarm(20)  # ends the tests where this hangs
    with pytest.raises(InputError, match="the lock .* is no plain file; remove it"), records.alone(tmp_path, "run"):
        pass
    signal.alarm(0)
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()


def test_a_lock_keeps_what_its_file_holds(tmp_path):
    (tmp_path / ".run.lock").write_text("precious")
    with records.alone(tmp_path, "run"):
        assert (tmp_path / ".run.lock").read_text() == "precious"


# --- power cuts ------------------------------------------------------------------------------------------------


@pytest.fixture
def steps(monkeypatch):
    """What was synced and renamed, in order: ("sync", path) and ("rename", old path, new path)."""
    done, sync = [], os.fsync

    def synced(handle):
        done.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    def renamed(rename):
        return lambda old, new, **more: (done.append(("rename", str(old), str(new))), rename(old, new, **more))[1]

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed(os.rename))
    monkeypatch.setattr(os, "replace", renamed(os.replace))
    return done


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc names the files of handles")
def test_a_record_and_a_text_are_on_disk_before_they_have_their_names(tmp_path, steps):
    path = records.save(tmp_path / "store", "run", INFO, EPOCHS, ARRAYS)
    (at,) = (at for at, step in enumerate(steps) if step[0] == "rename")
    _, working, final = steps[at]
    names = {"", "/run.json", "/epochs.csv", "/predictions.npz"}
    assert {step[1] for step in steps[:at]} == {working + name for name in names} and final == str(path)
    assert steps[at + 1 :] == [("sync", str(tmp_path / "store"))]
    del steps[:]
    disk.write_whole(tmp_path / "note.json", "new")
    (before, rename, after) = steps
    assert (
        before == ("sync", rename[1]) and rename[2] == str(tmp_path / "note.json") and after == ("sync", str(tmp_path))
    )


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_syncs_no_folders_is_no_fault_but_a_broken_disk_is(tmp_path, monkeypatch, number):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EINVAL:
        disk.sync(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            disk.sync(tmp_path)
