"""Finished runs: records whole or not at all, names made of everything that decides, weights that can be used again."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import made_up
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from report_lib import config as configs
from report_lib import data, files, models, runs, training
from report_lib.config import APPROACHES, NETWORKS, preset
from report_lib.files import PROJECT, InputError
from report_lib.runs import provenance, store
from report_lib.runs import train as runner
from report_lib.training import code, loop

CONFIG = preset("linear_probe", seed=4)
INFO, EPOCHS, ARRAYS = made_up.content(CONFIG, 0.5)


# --- records ---------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(tmp_path):
    tensors = {"head.weight": torch.randn(3, 2), "head.bias": torch.randn(3)}
    path = store.save(tmp_path / "store", "run", INFO, EPOCHS, ARRAYS, tensors)
    run = store.load(path)
    assert (run.approach, run.preset, run.seed, run.config) == ("linear_probe", "corrected", 4, CONFIG)
    assert run.epochs.to_dict("records") == EPOCHS and run.classes == made_up.CLASSES
    assert all(np.array_equal(run.predictions[name], value) for name, value in ARRAYS.items())
    assert all(torch.equal(run.tensors()[name], value) for name, value in tensors.items())
    assert sorted(os.listdir(tmp_path / "store")) == ["run"] and path.stat().st_mode & 0o777 == 0o755
    assert {file.name for file in path.iterdir()} == {
        "run.json",
        "epochs.csv",
        "predictions.npz",
        "weights.safetensors",
    }
    assert store.load(path) == run and {run, store.load(path)} == {run}


def test_a_record_without_weights_has_none(tmp_path):
    run = store.load(store.save(tmp_path, "run", INFO, EPOCHS, ARRAYS))
    assert run.tensors() is None
    for known_as in (run, run.path, str(run.path)):
        with pytest.raises(InputError, match="keeps no weights .*KEEP_WEIGHTS=all"):
            runs.load_model(known_as)


def test_a_record_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        store.save(tmp_path, "run", {}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == [] and not store.exists(tmp_path, "run")


def test_no_number_that_json_lacks_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        store.save(tmp_path, "run", {"test_loss": float("nan")}, EPOCHS, ARRAYS)
    assert os.listdir(tmp_path) == []


def test_the_second_of_two_equal_runs_changes_nothing(tmp_path):
    first = store.save(tmp_path, "run", INFO, EPOCHS, ARRAYS)
    assert store.save(tmp_path, "run", INFO | {"by": 2}, EPOCHS, ARRAYS) == first
    info = store.load(first).info
    assert {name: info[name] for name in INFO} == INFO and "by" not in info and os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("name", ["run.json", "epochs.csv", "predictions.npz", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "gone", 0.1, 0.5, 0.99])
def test_a_damaged_record_says_so(tmp_path, name, damage):
    path = store.save(tmp_path, "run", INFO, EPOCHS, ARRAYS, {"weight": torch.ones(3)})
    if damage == "empty":
        (path / name).write_bytes(b"")
    elif damage == "gone":
        (path / name).unlink()
    else:  # one bit
        content = bytearray((path / name).read_bytes())
        content[int(damage * (len(content) - 1))] ^= 1
        (path / name).write_bytes(content)
    # Without run.json it may be any folder; weights may be too large to be handed on. Nothing says to remove that.
    gone = {"run.json": "is no record of a run, for it", "weights.safetensors": "lies here without its weights"}
    kept = damage == "gone" and name in gone
    says = gone[name] if kept else "cannot be read.*remove that folder to train it again"
    with pytest.raises(InputError, match=says) as error:
        store.load(path).tensors()
    assert "\n" not in str(error.value) and kept != ("remove" in str(error.value))


def test_a_store_is_no_record_and_none_is_to_be_removed_that_is_only_closed(tmp_path, monkeypatch):
    path = store.save(tmp_path, "run", INFO, EPOCHS, ARRAYS)
    with pytest.raises(InputError, match=f"no record of a run.*name the folder of one, such as {path}$"):
        store.load(tmp_path)
    monkeypatch.setattr(type(path), "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "closed")))
    with pytest.raises(InputError, match="cannot be read.*closed") as error:
        store.load(path)
    assert "remove" not in str(error.value)


def test_predictions_are_never_unpickled(tmp_path):
    path = store.save(tmp_path, "run", INFO, EPOCHS, {"test_logits": np.array([{}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        store.load(path).predictions  # noqa: B018


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
        (without("config"), "run.json lacks config"),
        (without("config", "seed"), "config in run.json lacks seed"),
        (without("test_accuracy"), "run.json lacks test_accuracy"),
        (without("modified"), "run.json lacks modified"),
        (without("provenance", "code"), "provenance in run.json lacks code"),
        (without("data", "classes"), "data in run.json lacks classes"),
        (without("network", "features"), "network in run.json lacks features"),
        (lambda info: info.update(files={}), "'epochs.csv'"),
        (lambda info: info.pop("files"), "'files'"),
    ],
)
def test_a_record_that_says_too_little_is_named_in_one_sentence(tmp_path, change, says):
    path = made_up.record(tmp_path, CONFIG, 0.5)
    info = json.loads((path / "run.json").read_text())
    change(info)
    made_up.sign(path, info)
    with pytest.raises(InputError, match=f"the record .*{path.name} cannot be read.*remove that folder") as error:
        store.load(path)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "5", '{"sha256": 1}', "\ud800"])
def test_a_record_that_is_other_json_is_named_in_one_sentence(tmp_path, text):
    path = made_up.record(tmp_path, CONFIG, 0.5)
    (path / "run.json").write_text(text, errors="surrogatepass")
    with pytest.raises(InputError, match="cannot be read.*remove that folder") as error:
        store.load(path)
    assert len(str(error.value)) < 500


def test_a_record_with_a_field_that_configs_lack_can_be_read_but_not_made_again(tmp_path):
    path = made_up.record(tmp_path, CONFIG, 0.5)
    info = json.loads((path / "run.json").read_text())
    info["config"]["momentum"] = 0.9
    made_up.sign(path, info)
    run = store.load(path)
    assert run.seed == 4
    with pytest.raises(InputError, match="has a config that cannot be used here"):
        run.config  # noqa: B018


# --- locks, and what is on disk when the power goes ------------------------------------------------------------


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "note.json"
    files.write_whole(path, "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        files.write_whole(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["note.json"]


def test_what_is_no_room_for_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full.*note.json"):
        files.write_whole(tmp_path / "note.json", "new")


def test_a_lock_that_is_left_behind_stops_no_other_user(tmp_path, monkeypatch):
    lock, mask = tmp_path / ".run.lock", os.umask(0o077)
    try:
        with files.alone(lock, "run"):
            pass
    finally:
        os.umask(mask)
    assert lock.stat().st_mode & 0o777 == 0o666
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(InputError, match="the lock .*run.lock is another user's"), files.alone(lock, "run"):
        pass


def test_a_lock_is_free_again_afterwards_even_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), files.alone(tmp_path / "new" / ".run.lock", "run"):
            raise RuntimeError


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_nothing_is_held_and_nothing_left(tmp_path, monkeypatch, number):
    def lacking(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", lacking)
    lock = tmp_path / ".run.lock"
    with files.alone(lock, "run"), files.alone(lock, "run"):
        pass
    assert not [path for path in tmp_path.iterdir() if path != lock], "no marker that outlives its process"


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
    path = store.save(tmp_path / "store", "run", INFO, EPOCHS, ARRAYS, {"weight": torch.ones(3)})
    (at,) = (at for at, step in enumerate(steps) if step[0] == "rename" and step[2] == str(path))
    working = steps[at][1]
    names = {"", "/run.json", "/epochs.csv", "/predictions.npz", "/weights.safetensors"}
    assert {step[1] for step in steps[:at] if step[0] == "sync"} >= {working + name for name in names}
    assert steps[at + 1 :] == [("sync", str(tmp_path / "store"))]
    del steps[:]
    files.write_whole(tmp_path / "note.json", "new")
    (before, rename, after) = steps
    assert before == ("sync", rename[1]) and rename[2] == str(tmp_path / "note.json")
    assert after == ("sync", str(tmp_path))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_syncs_no_folders_is_no_fault_but_a_broken_disk_is(tmp_path, monkeypatch, number):
    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EINVAL:
        files.sync(tmp_path)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            files.sync(tmp_path)


# --- the code that decides -------------------------------------------------------------------------------------

EXTRACT = """
import ast, functools, hashlib, sys
from collections.abc import Iterator
source = open(sys.argv[1], encoding="utf-8").read()
parts = [node for node in ast.parse(source).body
         if getattr(node, "name", "") in ("meaning", "_words", "_tells")
         or isinstance(node, ast.Assign) and node.targets[0].id in ("SAYS", "DOCUMENTED")]
exec(compile(ast.Module(parts, []), "code.py", "exec"))
texts = [meaning(open(path, encoding="utf-8").read()) for path in sys.argv[2:]]
print(hashlib.sha256("\\n".join(texts).encode()).hexdigest())
"""
VERSIONS = ("3.11.7", "3.12.1", "3.13.0")
ODD = """
f"a{x=}b" f"c" "d" f"{x!r:>{w}.2f}{y=:3}" f"{x:{y}}{f'{z}a'}" f"{{a}}{x:%Y {z} %m}"
x: int = 3
class A(B, metaclass=C):
    \"\"\"doc\"\"\"
    async def f(self, *a, b: int = 2, **c) -> None:
        match a:
            case {"a": 1, **r} | A(b=1): pass
            case [1, *_]: return lambda: (yield)
        try: pass
        except* E as e: raise
g(u"x", -1j, x[1:2, ...], [*y for y in z if y] if w else {**q})
""".replace("[*y for y in z if y]", "[y for y in z if y]")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_hash_of_the_code_is_the_same_on_every_python(tmp_path, version):
    python = Path.home() / ".pyenv" / "versions" / version / "bin" / "python"
    if not python.exists():
        pytest.skip(f"there is no Python {version}")
    (tmp_path / "odd.py").write_text(ODD)
    paths = [code.LIBRARY / name for name in code.DECIDES]

    def answer(interpreter, *sources):
        asked = [str(interpreter), "-c", EXTRACT, str(code.__file__), *map(str, sources)]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    assert answer(python, *paths) == code.code_hash()
    assert answer(python, tmp_path / "odd.py") == answer(sys.executable, tmp_path / "odd.py")


def changed(name, old, new):
    text = code.IMPORTED[name]
    assert text.count(old) >= 1, old
    return code.meaning(text.replace(old, new)) != code.meaning(text)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("training/precision.py", "torch.bfloat16, cache_enabled", "torch.float16, cache_enabled"),
        ("training/precision.py", "(8, 0)", "(7, 0)"),
        ("training/loop.py", "momentum=0.9", "momentum=0.8"),
        ("training/loop.py", "optimizer.zero_grad()\n", "\n"),
        ("training/loop.py", 'f"order {epoch}"', 'f"order  {epoch}"'),
        ("training/loop.py", "return loss.detach()", "return loss"),
        ("training/task.py", "min=0.1 * std.mean()", "min=0.2 * std.mean()"),
        ("models/networks.py", "if place == 0 else", "if place == 1 else"),
        ("data/tensors.py", "0.485", "0.486"),
        ("data/tensors.py", "if not len(validation) and", "if len(validation) and"),
        ("config/seeds.py", '"{seed}:{purpose}"', '"{purpose}:{seed}"'),
        ("models/weights.py", "value.float() if", "value.half() if"),
    ],
)
def test_whatever_decides_an_outcome_changes_the_hash(name, old, new):
    assert changed(name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("training/loop.py", '"""The one training loop', '"""Our one training loop'),
        ("models/networks.py", "parts: list[tuple[str, nn.Module]] = []", "parts: list = []  # of the network"),
        ("training/loop.py", "diverged in epoch", "has diverged in epoch"),
        ("training/loop.py", "training loss {train_loss:.3f}", "loss of training {train_loss:.2f}"),
        ("training/loop.py", "-> Tensor:", "-> object:"),
        ("training/features.py", "are not kept, but computed", "are computed, not kept,"),
        ("training/loop.py", "import copy\n", "import copy\nimport os\n"),
        ("data/tensors.py", "a classifier needs at least 2", "that is too few"),
        ("config/seeds.py", '"""One seed per purpose."""', ""),
        ("models/weights.py", "\n\n\n", "\n\n\n# a comment\n"),
    ],
)
def test_what_only_says_something_does_not(name, old, new):
    text = code.IMPORTED[name]
    assert old in text and not changed(name, old, new)


def test_everything_that_is_hashed_is_in_the_library_and_in_every_runs_name(monkeypatch):
    name = runner.run_name(CONFIG, "data", "weights")
    code.code_hash.cache_clear()
    monkeypatch.setitem(code.IMPORTED, "training/loop.py", "another = loop")
    other = runner.run_name(CONFIG, "data", "weights")
    code.code_hash.cache_clear()
    monkeypatch.undo()
    assert runner.run_name(CONFIG, "data", "weights") == name != other
    assert all((code.LIBRARY / path).is_file() for path in code.DECIDES)


def test_code_that_changed_since_it_was_imported_is_refused_in_one_sentence(tmp_path, small, tree, monkeypatch):
    library = tmp_path / "report_lib"
    for name in code.DECIDES:
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(code.IMPORTED[name])
    monkeypatch.setattr(code, "LIBRARY", library)
    path, text = library / "training" / "loop.py", code.IMPORTED["training/loop.py"]
    path.write_text(text + "\n# a comment\n")
    code.check_unchanged()
    path.write_text(text.replace("momentum=0.9", "momentum=0.8"))
    with pytest.raises(InputError) as error:
        runs.run(small(data=str(tree())), str(tmp_path / "runs"))
    assert str(error.value) == "report_lib/training/loop.py has changed since it was imported; restart the kernel"
    assert not list((tmp_path / "runs").glob("*"))


# --- names -----------------------------------------------------------------------------------------------------


def test_what_determines_a_run_names_it(small, tree):
    def name(config=None, data_sha="data", weights_sha="weights", change=runner.Change()):  # noqa: B008
        return runner.run_name(config or small(), data_sha, weights_sha, change)

    names = [
        name(), name(small(epochs=3)), name(small("full_finetune")), name(small(seed=1)), name(small(precision="auto")),
        name(small(network="resnet18")), name(small("linear_probe", "tuned")), name(data_sha="others"),
        name(weights_sha=None), name(change=runner.Change(step="another")),
        name(change=runner.Change(network="another")), name(change=runner.Change(trained=("fc.weight",))),
    ]  # fmt: skip
    assert len(set(names)) == len(names)
    assert name().startswith("linear_probe-corrected-seed0-") and names[-1].startswith(
        "linear_probe-corrected-modified-"
    )
    assert name(small(data=str(tree()))) == name(), "what counts is what the path leads to"


def test_the_probe_that_fine_tuning_starts_from_is_part_of_its_name(small, monkeypatch):
    config = small("full_finetune", "tuned")
    before = runner.run_name(config, "data", None)
    tuned = configs.PRESETS["tuned"]
    monkeypatch.setitem(configs.PRESETS, "tuned", tuned | {"head": tuned["head"] | {"weight_decay": 0.07}})
    assert runner.run_name(config, "data", None) != before


# --- trained once, read for ever -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_digits):
    """trained(**parameters) -> (study, its network's images), whose runs are trained once for all tests here."""
    folder = tmp_path_factory.mktemp("trained")

    class Loaded:
        def __init__(self):
            self.settings = configs.resolve(None, {
                "network": "mobilenet_v3_small", "weights": "none", "image_size": 32, "batch_size": 8, "epochs": 2,
                "precision": "float32", "presets": "corrected,tuned", "seeds": "0,1", "runs": str(folder / "store"),
                "device": "cpu",
            })  # fmt: skip

        def study(self, **parameters):
            return runs.Study(self.settings | parameters, few_digits.fingerprint, None)

    return Loaded()


@pytest.fixture
def digits(few_digits, monkeypatch):
    """Whatever is loaded is a few digits."""
    monkeypatch.setattr(data, "load", lambda *given, **more: few_digits)
    monkeypatch.setattr(data, "fingerprint", lambda *given, **more: few_digits.fingerprint)


@pytest.fixture
def study(trained, digits):
    """A study whose runs are all finished."""
    made = trained.study()
    for approach in APPROACHES:
        made.train_all(approach)
    return trained.study()


def refuse(*_, **__):
    pytest.fail("a finished run is read, not trained")


def test_a_run_is_trained_once_and_remembered(study, monkeypatch):
    assert study.missing() == [] and len(study.all_runs) == 8
    monkeypatch.setattr(runner, "make", refuse)
    for run in study.all_runs:
        assert study.run(run.config) == run
        assert run.path.name.startswith(f"{run.approach}-{run.preset}-seed{run.seed}-") and run.info["modified"] is None
    assert [path.name for path in study.store.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_layers_that_are_converted_once_give_the_same_bits(digits, small, tmp_path, monkeypatch, precision):
    """Those of a probe with dropout in its frozen part, which are computed in every step."""
    config = small("linear_probe", network="alexnet", image_size=63, precision=precision, frozen_dropout=True)
    convert, held = runner.frozen_converted, []

    @contextlib.contextmanager
    def each_time(module, precision):
        yield held.append({value.dtype for value in module.parameters()})

    @contextlib.contextmanager
    def once(module, precision):
        frozen = {name: value.clone() for name, value in module.named_parameters() if not value.requires_grad}
        with convert(module, precision), each_time(module, precision):
            yield
        assert frozen and all(torch.equal(module.get_parameter(name), value) for name, value in frozen.items())

    made = []
    for name, way in (("each", each_time), ("once", once)):
        monkeypatch.setattr(runner, "frozen_converted", way)
        made.append(runner.run(config, str(tmp_path / name), str(tmp_path), shas=("few digits", None)))
    assert held == [{torch.float32}, {torch.float32, getattr(torch, precision)}]
    assert made[0].epochs["train_loss"].tolist() == made[1].epochs["train_loss"].tolist()
    theirs, ours = (run.predictions | run.tensors() for run in made)
    assert theirs.keys() == ours.keys() and all(np.array_equal(theirs[name], ours[name]) for name in theirs)


def test_a_step_of_ones_own_finds_frozen_weights_as_they_are(digits, small, tmp_path):
    seen = set()

    def step(module, inputs, labels, optimizer):
        seen.update(value.dtype for value in module.parameters())
        return training.step(module, inputs, labels, optimizer)

    config = small("linear_probe", network="alexnet", image_size=63, precision="bfloat16", frozen_dropout=True)
    runner.run(config, str(tmp_path), str(tmp_path), step=step, shas=("few digits", None))
    assert seen == {torch.float32}


def test_a_study_reads_its_runs_back_by_approach_preset_and_seed(study):
    assert [run.seed for run in study.runs("linear_probe")] == [0, 1]
    assert {run.preset for run in study.runs("full_finetune", "tuned")} == {"tuned"}
    assert study.runs("linear_probe", "published") == () and not study.is_homework
    assert list(study.of()) == list(APPROACHES) == list(study.best) == list(study.approaches)
    assert {run.preset for group in study.best.values() for run in group} == {"tuned"}
    assert study.first == study.runs("linear_probe", "corrected")[0] and study.side("linear_probe", "defect") == {}
    assert study.network is NETWORKS["mobilenet_v3_small"]
    assert [run.seed for run in study.train(study.config("linear_probe"))] == [0, 1]


def test_finished_runs_are_read_without_data_or_weights(study, trained, monkeypatch):
    for module, name in ((data, "load"), (data, "fingerprint"), (models, "load_weights"), (models, "build"),
                         (models, "weights_sha256")):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)
    again = trained.study()
    assert again.all_runs == study.all_runs
    assert again.run(again.config("full_finetune")) == again.runs("full_finetune")[0]
    assert all(run.predictions["test_logits"].shape == (20, 10) and len(run.epochs) == 2 for run in again.all_runs)


def test_a_run_that_is_not_there_is_named(trained, digits, tmp_path):
    study = trained.study(runs=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="has no finished run of linear_probe, preset corrected, seed 0"):
        study.all_runs  # noqa: B018
    assert len(study.missing()) == 8


def test_a_record_under_the_name_of_another_is_not_believed(study, trained, tmp_path):
    first, second = study.runs("linear_probe")
    moved = shutil.copytree(study.store, tmp_path / "store")
    shutil.rmtree(moved / second.path.name)
    shutil.copytree(first.path, moved / second.path.name)
    other = trained.study(runs=str(moved))
    for read in (lambda: other.run(second.config), lambda: other.all_runs):
        with pytest.raises(InputError, match="is that of another config, .*; remove that folder"):
            read()


def test_a_record_of_other_data_is_not_believed(study, trained, tmp_path):
    run = study.first
    moved = shutil.copytree(study.store, tmp_path / "store")
    made_up.rewrite(store.load(moved / run.path.name), run.info["data"]["fingerprint"], "others")
    other = trained.study(runs=str(moved))
    for read in (lambda: other.run(run.config), lambda: other.all_runs):
        with pytest.raises(InputError, match="is that of another config, other data or weights"):
            read()


def test_a_record_says_all_that_a_report_needs(study, few_digits):
    for run in study.all_runs:
        info = run.info
        counts = [len(part) for part in data.split(few_digits.train_labels, run.config)]
        assert [info["data"][part] for part in ("train", "validation", "test")] == [*counts, 20]
        network = {"name": "MobileNetV3-Small", "key": "mobilenet_v3_small", "features": 1024}
        assert info["network"] == network | {"layers": info["network"]["layers"]}
        accuracy = (run.predictions["test_logits"].argmax(1) == run.predictions["test_labels"]).mean()
        assert info["test_accuracy"] == pytest.approx(accuracy)
        loss = F.cross_entropy(*(torch.from_numpy(run.predictions[f"test_{part}"]) for part in ("logits", "labels")))
        assert info["test_loss"] == pytest.approx(loss.item(), rel=1e-5)
        epoch = run.epochs[run.epochs["epoch"] == info["selected_epoch"]].iloc[0]
        assert epoch["validation_accuracy"] == info["validation_accuracy"]
        labels = few_digits.train_labels[run.predictions["validation_index"]]
        assert np.array_equal(labels, run.predictions["validation_labels"])


# --- the trained network ---------------------------------------------------------------------------------------


def test_weights_of_the_first_seed_and_of_every_probe_are_kept(study):
    for run in study.all_runs:
        kept = run.tensors() or {}
        assert bool(kept) == (run.seed == 0 or run.approach == "linear_probe")
        if run.approach == "linear_probe":
            assert {name for name in kept if not name.split(".")[-1].startswith(("running_", "num_"))} == {
                "classifier.3.weight", "classifier.3.bias"}  # fmt: skip
        assert not any(value.dtype == torch.float64 for value in kept.values())


def test_what_is_kept_is_a_parameter_of_the_study(trained):
    for kept, expected in (("all", [True] * 8), ("none", [False] * 8), ("first", [True, False] * 4)):
        study = trained.study(keep_weights=kept)
        assert [study.keeps(config) for _, config in study.configs()] == expected
    assert trained.study().keeps(trained.study().config("linear_probe", "corrected", 0))
    assert not trained.study().keeps(trained.study().config("linear_probe", "corrected", 0, epochs=9))


@pytest.mark.parametrize(
    ("network", "parts"),
    [("resnet18", ["bn1", "conv1", *(f"layer{at}.{block}" for at in (1, 2, 3, 4) for block in (0, 1))]),
     ("mobilenet_v3_small", ["features.0.0", "features.0.1", *(f"features.{at}.block" for at in range(1, 12)),
                             "features.12.0", "features.12.1", "classifier.0"])],
)  # fmt: skip
def test_how_far_each_layer_moved_is_told_by_the_parts_of_the_network(network, parts):
    pretrained, grown = models.bare(network).state_dict(), {}
    for at, part in enumerate(parts):
        grown |= {name: value * (1 + at / 10) for name, value in pretrained.items() if name.startswith(f"{part}.")}
    moved = models.layer_changes(models.of_trunk(network, pretrained), {**pretrained, **grown})
    assert moved == pytest.approx({part: at / 10 for at, part in enumerate(parts)}) and list(moved) == parts


def test_a_record_says_how_far_training_moved_each_layer(tmp_path, few_digits):
    pretrained = models.bare("alexnet").state_dict()
    save_file(pretrained, tmp_path / "weights.safetensors")
    config = preset("full_finetune", weights=str(tmp_path / "weights.safetensors"))
    given = models.Weights("file", models.weights_sha256(config.weights), None)
    net = models.build(config, few_digits.classes)
    assert set(runner.layer_changes(net, given, config).values()) == {0.0}
    with torch.no_grad():
        net.features[3].weight *= 1.5
        net.features[3].bias *= 1.5
    moved = runner.layer_changes(net, given, config)
    assert [name for name, share in moved.items() if share] == ["features.3"]
    assert moved["features.3"] == pytest.approx(0.5) and "classifier.6" not in moved
    assert runner.layer_changes(net, given, preset("linear_probe", weights=config.weights)) == {}
    assert runner.layer_changes(net, models.Weights("none", None, None), config) == {}


def test_a_loaded_model_gives_the_recorded_test_logits(study, few_digits):
    for run in study.all_runs:
        if run.tensors() is None:
            continue
        net = runs.load_model(run)
        assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
        with torch.inference_mode():
            logits = net(data.preprocess(few_digits.test, run.config.image_size, run.config.normalisation))
        np.testing.assert_allclose(logits, run.predictions["test_logits"], rtol=1e-4, atol=1e-5)


def test_a_picture_is_classified_as_the_test_image_was(study, few_digits, tmp_path):
    run = study.runs("full_finetune")[0]
    paths = [tmp_path / f"{at}.png" for at in range(3)]
    for at, path in enumerate(paths):
        Image.fromarray(few_digits.test[at].numpy()).save(path)
    logits = torch.from_numpy(run.predictions["test_logits"][:3]).double()
    for path, expected, answer in zip(paths, logits.softmax(1), runs.predict(run, paths), strict=True):
        assert answer["image"] == str(path)
        shares = {each["class"]: each["probability"] for each in answer["classes"]}
        assert sum(shares.values()) == pytest.approx(1) and list(shares.values()) == sorted(
            shares.values(), reverse=True
        )
        np.testing.assert_allclose([shares[name] for name in run.classes], expected, rtol=1e-3)
    Image.new("L", (300, 200), 7).save(tmp_path / "large.jpg")
    (answer,) = runs.predict(run, [tmp_path / "large.jpg"])
    assert len(answer["classes"]) == 10
    (tmp_path / "none.png").write_text("no picture")
    with pytest.raises(InputError, match="none.png"):
        runs.predict(run, [tmp_path / "none.png"])


def test_a_model_whose_pretrained_weights_have_changed_is_not_loaded(study, monkeypatch):
    monkeypatch.setattr(models, "weights_sha256", lambda *_: "f" * 64)
    with pytest.raises(InputError, match="no longer what .* was trained from"):
        runs.load_model(study.first)
    (finetuned, _) = study.runs("full_finetune")
    pictures = torch.randn(2, 3, 32, 32)
    monkeypatch.setattr(models, "weights_sha256", refuse)
    assert runs.load_model(finetuned)(pictures).shape == (2, 10), "all of it was trained: nothing else is needed"


def test_pretrained_weights_that_are_gone_are_named(study):
    moved = study.first.info | {"config": study.first.info["config"] | {"weights": "/gone/weights.pth"}}
    with pytest.raises(InputError, match="weights is '/gone/weights.pth', which cannot be read .No such file") as error:
        runs.load_model(dataclasses.replace(study.first, info=moved))
    assert "\n" not in str(error.value)


# --- what a notebook changes -----------------------------------------------------------------------------------


def built(study, approach="linear_probe"):
    config = study.config(approach)
    net = models.build(config, 10)
    models.train_only(net, config)
    return config, net


def own_step():
    """A copy of the library's, as a notebook shows it."""

    def step(module, inputs, labels, optimizer):
        loss = F.cross_entropy(module(inputs), labels)  # with a comment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def smoothed(outputs, labels):
    return F.cross_entropy(outputs, labels, label_smoothing=SMOOTHING)


SMOOTHING = 0.1


def smoothed_step(module, inputs, labels, optimizer):
    loss = smoothed(module(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_what_a_notebook_shows_unchanged_is_the_run_itself(study, monkeypatch):
    monkeypatch.setattr(runner, "make", refuse)
    config, net = built(study)
    assert study.train(config, net, own_step()) == list(study.runs("linear_probe"))
    assert training.differs(own_step(), training.step) == ""
    assert not runner.change_of(config, net.to(memory_format=torch.channels_last), training.step)


def unfreeze(net):
    net.features[12].requires_grad_(True)


def widen(net):
    net.classifier[3] = nn.Sequential(nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 10))


def soften(net):
    net.classifier[1] = nn.Softsign()


def prune(net):
    with torch.no_grad():
        net.features[0][0].weight[3] = 0


@pytest.mark.parametrize(
    ("change", "says", "reloads"),
    [
        (unfreeze, "trained are features.12.0.weight, ", True),
        (widen, "layers or weights of the network were changed", False),
        (soften, "layers or weights of the network were changed", False),
        (prune, "layers or weights of the network were changed", True),
    ],
)
def test_a_changed_network_is_trained_under_another_name(study, few_digits, change, says, reloads):
    config, net = built(study)
    change(net)
    before = models.outline(net)
    own = study.train(config, net)
    assert [run.seed for run in own] == [0, 1] and models.outline(net) == before, "the notebook's stays as it is"
    for run, plain in zip(own, study.runs("linear_probe"), strict=True):
        assert run.path.name.startswith(f"linear_probe-corrected-modified-seed{run.seed}-")
        assert says in run.info["modified"] and run.config == plain.config
        assert not np.array_equal(run.predictions["test_logits"], plain.predictions["test_logits"])
        with pytest.raises(InputError, match="was changed in a notebook .*that alone can repeat it"):
            runs.verify(run.path)
    assert study.train(config, net) == own
    if not reloads:
        with pytest.raises(InputError, match="were changed in a notebook; only its code can build them again"):
            runs.load_model(own[0])
    else:
        pictures = data.preprocess(few_digits.test, 32)
        with torch.inference_mode():
            logits = runs.load_model(own[0])(pictures)
        np.testing.assert_allclose(logits, own[0].predictions["test_logits"], rtol=1e-4, atol=1e-5)


def test_a_changed_step_is_trained_under_another_name(study):
    config, _ = built(study)
    own = study.run(config, step=smoothed_step)
    assert "-modified-" in own.path.name and own.info["modified"] == "the step was changed"
    assert own.epochs["train_loss"].tolist() != study.first.epochs["train_loss"].tolist()
    assert study.run(config, step=smoothed_step) == own
    text = training.differs(smoothed_step, training.step)
    assert "label_smoothing" in text, "the notebook's own functions that it calls count, too"


def weighted_by(weights, noted):
    def step(module, inputs, labels, optimizer):
        loss = F.cross_entropy(module(inputs), labels, weight=weights)
        noted.append(loss.item())
        return loss.detach()

    return step


def calls_back(module, inputs, labels, optimizer):
    return called_back(module, inputs, labels, optimizer)


def called_back(*given):
    return smoothed_step(*given) if given else calls_back(*given)


def test_the_values_that_a_step_uses_are_part_of_its_runs_name(monkeypatch):
    """A variable of the notebook, in a function that the step calls; a tensor around it; but not what it notes."""
    texts = [training.differs(smoothed_step, training.step), training.differs(calls_back, training.step)]
    monkeypatch.setitem(smoothed.__globals__, "SMOOTHING", 0.2)
    texts += [training.differs(smoothed_step, training.step), training.differs(calls_back, training.step)]
    assert len(set(texts)) == 4 and "SMOOTHING is 0.1" in texts[0] and "SMOOTHING is 0.2" in texts[2]
    ones, noted = torch.ones(3), []
    one, two, same = (
        training.differs(weighted_by(weights, noted), training.step) for weights in (ones, 2 * ones, torch.ones(3))
    )
    assert one == same != two
    noted.append(0.5)
    assert training.differs(weighted_by(ones, noted), training.step) == one


def test_what_a_step_uses_reads_the_same_in_another_process(tmp_path):
    (tmp_path / "steps.py").write_text(
        "import torch\nfrom torch import nn\nRATES = {'b': (1, 2.5), 'a': None}\nKINDS = {'x', 'y', 'z'}\n"
        "loss_of = nn.CrossEntropyLoss(weight=torch.arange(3.0), label_smoothing=0.1)\n"
        "def step(module, inputs, labels, optimizer):\n"
        "    return [loss_of(module(inputs), labels) for _ in (RATES, KINDS, torch.float32)][0]\n"
    )
    code = "import steps\nfrom report_lib import training\nprint(training.differs(steps.step, training.step))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}", "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    (text,) = texts
    assert "label_smoothing: 0.1" in text and "2.5" in text and " at 0x" not in text


def test_a_network_that_was_built_from_another_config_is_refused(study, tmp_path):
    """To train the config's own instead would be to report what the notebook does not show."""
    config, net = built(study)
    torch.save(net.state_dict(), tmp_path / "other.pth")
    other = models.build(dataclasses.replace(config, weights=str(tmp_path / "other.pth")), 10)
    with pytest.raises(InputError, match=r"weights is 'none', but the network was built from others \(other.pth\)"):
        study.run(config, other)
    other = models.build(dataclasses.replace(config, network="alexnet", image_size=63), 10)
    with pytest.raises(InputError, match="network is 'vgg11_bn', but that which was built is another"):
        runner.check_origin(dataclasses.replace(config, network="vgg11_bn"), other, None)


def test_a_head_of_ones_own_cannot_be_standardised(study):
    for approach in APPROACHES:
        config, net = study.config(approach, "tuned"), built(study, approach)[1]
        widen(net)
        with pytest.raises(InputError, match="which need a head that is linear alone"):
            study.run(config, net)


class Called:
    def __call__(self, module, inputs, labels, optimizer):
        return smoothed_step(module, inputs, labels, optimizer)


def test_a_step_without_source_is_one_sentence(study):
    config, _ = built(study)
    space = {}
    exec("def step(module, inputs, labels, optimizer): return None", space)
    for step in (space["step"], functools.partial(smoothed_step), Called()):
        with pytest.raises(InputError, match="has no source that could name its runs"):
            study.run(config, step=step)


def test_a_network_of_another_seed_is_what_the_seed_would_have_built(study, trained, monkeypatch):
    """Without weights, the trunk is the first seed's: only the head is drawn anew for each seed."""
    config, net = built(study, "full_finetune")
    monkeypatch.setattr(runner, "make", refuse)
    assert study.run(config, net) == study.runs("full_finetune")[0]


def test_a_config_of_ones_own_is_an_ordinary_run(study):
    config = study.config("linear_probe", learning_rate=0.05)
    (first, second) = study.train(config)
    assert first.info["modified"] is None and first.config.learning_rate == 0.05 and second.seed == 1
    assert study.train(dataclasses.replace(config, seed=7))[0].seed == 7


def test_divergence_leaves_no_record(trained, digits, tmp_path, monkeypatch):
    study = trained.study(runs=str(tmp_path / "store"))
    monkeypatch.setattr(loop, "score", functools.partial(lambda *given: (float("nan"), 0.0)))
    with pytest.raises(loop.Diverged, match="diverged in epoch 1"):
        study.run(study.config("linear_probe"))
    assert not list((tmp_path / "store").glob("[!.]*"))
    assert PROJECT not in study.store.parents


@pytest.mark.parametrize(
    ("busy", "own", "share"), [(4.0, 4.0, 0.0), (8.0, 4.0, 0.5), (3.9, 4.0, 0.0)], ids=["alone", "half", "ticks"]
)
def test_a_record_says_how_much_of_the_machine_others_took(monkeypatch, busy, own, share):
    """Times that were measured beside other work are not those of a machine that does nothing else."""
    monkeypatch.setattr(provenance.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(provenance, "cpu_seconds", lambda: (104.0, 50.0 + busy, 10.0 + own))
    assert provenance.others_share((100.0, 50.0, 10.0)) == share
    assert provenance.others_share(None) is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="only Linux says how busy a machine is")
def test_what_this_process_took_is_among_what_all_took():
    before = provenance.cpu_seconds()
    sum(range(3_000_000))
    _, busy, own = (later - earlier for later, earlier in zip(provenance.cpu_seconds(), before, strict=True))
    assert own > 0 and busy >= own - 0.05


def test_a_study_with_controls_trains_them_from_other_weights_and_reads_them_back(tmp_path):
    few = dict(image_size=32, epochs=1, per_class=5, batch_size=40, seeds="0", presets="corrected", budgets="none")
    save_file(models.bare("mobilenet_v3_small").state_dict(), tmp_path / "other.safetensors")
    few |= dict(network="mobilenet_v3_small", weights=str(tmp_path / "other.safetensors"))
    study = runs.Study.load("demo", **few, defects="none", controls=True, keep_weights="none", runs=str(tmp_path))
    assert sum(map(study.train_all, study.approaches)) == len(study.all_runs) == 5 and not study.missing()
    assert list(study.side("linear_probe", "control")) == ["random trunk"]
    controls = study.side("full_finetune", "control")
    assert list(controls) == ["random trunk", "last block"]
    whole, random, last = study.runs("full_finetune")[0], controls["random trunk"][0], controls["last block"][0]
    assert random.info["weights"]["sha256"] is None and last.info["weights"] == whole.info["weights"]
    assert last.info["trained_parameters"] < whole.info["trained_parameters"] == random.info["trained_parameters"]
