"""Killed runs, full disks, rotten files: nothing finished is lost, and nothing half-made is believed."""

import bz2
import contextlib
import datetime
import hashlib
import importlib.metadata
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import children
import made_up
import pytest
import torch
from PIL import Image

from report_lib import (
    archives,
    checkpoints,
    data,
    features,
    machine,
    model,
    plan,
    profiles,
    records,
    runner,
    sources,
    tables,
    train,
)
from report_lib.__main__ import main
from report_lib.recipe import PROJECT, InputError, named, request_key


def probe(path, **more):
    return named("linear_probe", data=str(path), image_size=63, batch_size=8, precision="float32", **more)


def outcome(run):
    """What a run came to, as bytes: its curves and its predictions."""
    arrays = run.predictions()
    curves = run.epochs[["train_loss", "validation_loss", "validation_accuracy"]]
    return curves.to_csv().encode() + b"".join(arrays[name].tobytes() for name in sorted(arrays))


@pytest.fixture
def single_thread():
    """As in the children, whose bits are compared with those made here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_kills_at_random_instants_lose_and_change_nothing(tree, tmp_path, single_thread):
    """Decoding, features, training, checkpoints and records: at least 50 kills, spread over all of a run's time."""
    recipe = probe(tree(train=30, test=10), epochs=40)
    expected = outcome(runner.run(recipe, str(tmp_path / "calm"), str(tmp_path / "calm-cache"), "cpu"))
    whole = 0.0
    for name in ("first", "second"):  # the first starts the server
        start = time.monotonic()
        assert children.finish(children.start(children.run, recipe, tmp_path / name, tmp_path / f"{name}-cache")) == 0
        whole = time.monotonic() - start
    assert outcome(records.load(next((tmp_path / "second").glob("*-seed*")))) == expected
    rng, kills, rounds = random.Random(0), 0, 0
    while kills < 50:
        rounds += 1
        store, cache = tmp_path / f"store{rounds}", tmp_path / f"cache{rounds}"
        before = kills
        while killed(rng.uniform(0, whole), recipe, store, cache):
            kills += 1
            if kills > before + 5:  # other work has slowed the machine down
                whole *= 1.2
            assert kills < before + 50, f"a run of {whole:.1f} s gets nowhere between kills"
            for path in store.glob("[!.]*-seed*"):  # whatever has a record's name is one
                assert outcome(records.load(path)) == expected
        assert children.finish(children.start(children.run, recipe, store, cache)) == 0
        assert outcome(records.load(next(store.glob("[!.]*-seed*")))) == expected
        assert not list(store.glob("*.checkpoint*")), "a finished run needs no checkpoint"
        if kills == before:  # the machine is faster than when it was measured
            whole *= 0.8
        assert rounds < 100, "kills come too late to meet anything"


def test_a_killed_fine_tuning_resumes_at_its_last_epoch_bit_for_bit(tree, tmp_path, monkeypatch, single_thread):
    monkeypatch.setenv("REPORT_PROGRESS", "none")
    recipe = named("full_finetune", data=str(tree(train=5, test=2)), image_size=63, batch_size=8, epochs=3,
                   precision="float32")  # fmt: skip
    calm = outcome(runner.run(recipe, str(tmp_path / "calm"), str(tmp_path / "cache"), "cpu"))
    dying = children.start(children.run_until_checkpoint, 2, recipe, tmp_path / "store", tmp_path / "cache")
    assert children.finish(dying) == -signal.SIGKILL
    epochs = []
    once = train.train_epoch
    monkeypatch.setattr(train, "train_epoch", lambda *a: epochs.append(1) or once(*a))
    assert outcome(runner.run(recipe, str(tmp_path / "store"), str(tmp_path / "cache"), "cpu")) == calm
    assert len(epochs) == 1


def test_what_a_run_killed_at_its_very_end_left_behind_goes(tree, tmp_path):
    recipe, store = probe(tree(), epochs=1), tmp_path / "store"
    run = runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu")
    left = store / f".{run.path.name}-cpu1-float32.checkpoint"
    left.write_bytes(b"of the last epoch")
    runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu")
    assert not left.exists()


def test_the_same_run_is_never_trained_twice_at_once(tree, tmp_path):
    recipe, trained, said = probe(tree(), epochs=1), tmp_path / "trained", tmp_path / "said"
    arguments = (trained, recipe, tmp_path / "store", tmp_path / "cache")
    started = [children.start(children.run_slowly, *arguments, stderr=said) for _ in range(3)]
    assert [children.finish(child) for child in started] == [0, 0, 0]
    assert trained.read_text() == "x" and "waiting for it" in said.read_text()
    assert not list((tmp_path / "store").glob(".*.lock"))


# --- rot -------------------------------------------------------------------------------------------------------


def flip(path, where=0.5):
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["run.json", "epochs.csv", "predictions.npz"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.99])
def test_a_flipped_bit_in_a_record_is_noticed(tmp_path, name, where):
    path = made_up.record(tmp_path, named("linear_probe"), 0.5)
    records.load(path)
    flip(path / name, where)
    with pytest.raises(InputError, match="cannot be read.*remove that folder to train it again"):
        records.load(path)


def test_a_flipped_bit_in_cached_images_is_noticed_and_mended(tree, tmp_path, capsys):
    path = tree()
    calm = data.load(str(path), 63, str(tmp_path / "cache"))
    expected = calm.train.clone()
    for name in ("train.npy", "test.npy", "meta.json"):
        (entry,) = (tmp_path / "cache").glob("[!.]*")
        flip(entry / name, 0.9)
        again = data.load(str(path), 63, str(tmp_path / "cache"))
        assert torch.equal(again.train, expected) and again.fingerprint == calm.fingerprint
        assert "damaged and are decoded anew" in capsys.readouterr().err


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


class Code:
    """What only pickle could read."""


def signed(content):
    file = io.BytesIO()
    torch.save(content, file)
    return hashlib.sha256(file.getvalue()).digest() + file.getvalue()


@pytest.mark.parametrize("wrong", ["a list", "no history", "other names", "no epochs", "a pickle", "a folder",
                                   "a pipe", "a dangling link"])  # fmt: skip
def test_a_checkpoint_that_holds_anything_else_starts_the_run_anew(tmp_path, capsys, wrong):
    head = torch.nn.Linear(3, 2)
    optimizer, path, before = torch.optim.Adam(head.parameters()), tmp_path / ".run.checkpoint", head.weight.clone()
    good = {"module": {name: 0 * value for name, value in head.state_dict().items()},
            "optimizer": optimizer.state_dict(), "history": history(head)}  # fmt: skip
    contents = {
        "a list": [1, 2], "no history": good | {"history": None}, "other names": good | {"history": {"epoch": 1}},
        "no epochs": good | {"history": history(head) | {"epochs": [], "selected": 3}}, "a pickle": Code(),
    }  # fmt: skip
    if wrong == "a folder":
        path.mkdir()
        (path / "precious").write_text("")
    elif wrong == "a pipe":
        os.mkfifo(path)
    elif wrong == "a dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(signed(contents[wrong]))
    assert checkpoints.resume(path, head, optimizer) == {} and not os.path.lexists(path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "starts anew" in said and len(said) < 400
    assert torch.equal(head.weight, before)
    assert len(list(tmp_path.rglob("precious"))) == (wrong == "a folder")
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
    recipe, store = probe(tree(), epochs=1), tmp_path / "store"
    run = runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu")
    calm, path = outcome(run), run.path
    if remains == "a folder":
        (path / "run.json").unlink()
    else:
        shutil.rmtree(path)
        path.write_text("") if remains == "a file" else path.symlink_to(tmp_path / "nowhere")
    seen = []
    watch = lambda *_: seen.append(os.path.lexists(path))  # noqa: E731
    assert outcome(runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu", watch)) == calm
    said = capsys.readouterr().err
    assert seen == [False] and said.count("is no finished run and is now") == 1
    (aside,) = store.glob("*.damaged-*")
    assert remains != "a folder" or (aside / "predictions.npz").exists()


def test_a_record_under_the_name_of_another_is_not_believed(tree, tmp_path):
    path, store = tree(), tmp_path / "store"
    first, second = (runner.run(probe(path, epochs=1, seed=seed), str(store), "", "cpu").path for seed in (0, 1))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with pytest.raises(InputError, match="is that of another recipe; remove that folder"):
        runner.run(probe(path, epochs=1, seed=1), str(store), "", "cpu")


def test_a_flipped_bit_in_the_embedded_weights_is_noticed(tmp_path, monkeypatch):
    copy = tmp_path / model.EMBEDDED.name
    shutil.copy(model.EMBEDDED, copy)
    flip(copy)
    monkeypatch.setattr(model, "EMBEDDED", copy)
    with pytest.raises(InputError, match="is damaged; restore it"):
        model.load_weights("embedded")


# --- what people hand over -------------------------------------------------------------------------------------


def png(size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def bomb(side=60_000):
    """A PNG of a kilobyte that claims to be side x side pixels."""
    chunk = lambda kind, body: len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)  # noqa: E731
    header = side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@contextlib.contextmanager
def peak_below(mebibytes):
    """Fails if Python objects and arrays, those of PIL aside, ever take more than that."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < mebibytes << 20


GOOD = {f"{part}/{cls}/{n}.png": png() for part in ("train", "test") for cls in "ab" for n in range(4)}


@pytest.mark.parametrize("name", ["../train/a/x.png", "/train/a/x.png", "train/../../a/x.png"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(tar, tmp_path, name):
    with pytest.raises(InputError, match="leads out of the archive"):
        data.load(str(tar(GOOD | {name: png()})), 63, str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for member, content in (GOOD | {name: png()}).items():
            archive.writestr(member, content)
    with pytest.raises(InputError, match="leads out of the archive"):
        data.load(str(tmp_path / "made.zip"), 63, str(tmp_path / "cache"))
    assert not list(tmp_path.parent.glob("x.png")) and not list(tmp_path.rglob("x.png"))


def test_bombs_are_refused_before_they_go_off(tar, tmp_path):
    with pytest.raises(InputError, match="'train/a/x.png' cannot be decoded.*decompression bomb"):
        data.load(str(tar(GOOD | {"train/a/x.png": bomb()})), 63, str(tmp_path / "cache"))
    huge = tarfile.TarInfo("train/a/y.png")
    huge.size = 1 << 40
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        file.write(huge.tobuf())
    with pytest.raises(InputError, match="'train/a/y.png' holds 1,048,576 MiB; no image file is that large"):
        data.load(str(path), 63, str(tmp_path / "cache"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_flipped_bit_in_an_archives_headers_never_makes_a_smaller_data_set(tmp_path, format):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in GOOD.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    calm = dict(archives.members(path, lambda _: True))
    ends = range(len(whole.rstrip(b"\0")), len(whole), 997)
    for where in [header + rng.randrange(512) for header in headers for _ in range(20)] + list(ends):
        damaged = bytearray(whole)
        damaged[where] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert dict(archives.members(path, lambda _: True)) == calm
        except InputError as error:
            refused += "is it complete?" in str(error)
    assert refused > 300


def test_a_zip_may_hold_more_members_than_16_bits_can_count(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"of many"
        for name, content in GOOD.items():
            archive.writestr(name, content)
    packed = bytearray(path.read_bytes())
    end = packed.rindex(b"PK\5\6")
    packed[end + 8 : end + 12] = b"\xff" * 4  # as it is where the count does not fit
    path.write_bytes(packed)
    assert dict(archives.members(path, lambda _: True)) == GOOD


def test_a_flipped_bit_in_a_zips_directory_never_makes_a_smaller_data_set(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            archive.writestr(f"train/a/{number}.png", png())
    whole, refused = path.read_bytes(), 0
    calm = dict(archives.members(path, lambda _: False))
    for bit in range(8 * archive.start_dir, 8 * len(whole), 11):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert dict(archives.members(path, lambda _: False)) == calm
        except InputError:
            refused += 1
    assert refused > 60


def test_an_archive_cut_where_its_images_end_in_zeros_is_refused(tar):
    path = tar(GOOD | {"train/a/y.png": png() + bytes(2000), "train/a/z.png": png()}, "x.tar")
    with tarfile.open(path) as archive:
        end = archive.getmember("train/a/z.png").offset
    for cut in (end, end - 100):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(InputError, match="is it complete"):
            data.load(str(path), 63)


@pytest.mark.parametrize("twin", ["train/a/0.png", "./train/a/0.png", "train//a/./0.png"])
def test_an_archive_that_holds_an_image_twice_is_refused(tmp_path, twin):
    members = [*GOOD.items(), (twin, png((9, 9)))]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    for name in ("x.tar", "x.zip"):
        with pytest.raises(InputError, match="which holds 'train/a/0.png' twice; pack it anew"):
            data.load(str(tmp_path / name), 63)


def test_an_archive_may_start_at_a_dot(tar):
    plain, dotted = (data.load(str(tar({f"{d}{n}": c for n, c in GOOD.items()})), 63) for d in ("", "./"))
    assert plain.fingerprint == dotted.fingerprint


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
def test_a_tar_header_of_gibibytes_is_not_read(tmp_path, kind):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 8 << 30
    path = tmp_path / "x.tar.bz2"
    path.write_bytes(bz2.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20)))
    with pytest.raises(InputError, match="a header of 8,589,934,592 bytes|a sparse file"), peak_below(20):
        data.load(str(path), 63)


def test_an_archive_that_unpacks_to_far_more_than_images_would_is_refused(tar, tmp_path, monkeypatch):
    huge = tarfile.TarInfo("notes.txt")
    huge.size = 200 << 30
    path = tmp_path / "huge.tar.bz2"
    path.write_bytes(bz2.compress(huge.tobuf() + bytes(1 << 20)))
    with pytest.raises(InputError, match="unpacks to over 4 GiB and 100 times its size"):
        data.load(str(path), 63)
    monkeypatch.setattr(archives, "UNPACKED", 1 << 20)
    with pytest.raises(InputError, match="unpacks to over"):
        data.load(str(tar({f"{n}.txt": bytes(1 << 19) for n in range(8)} | GOOD, "many.tar.bz2")), 63)
    path.write_bytes(bz2.compress(tarfile.TarInfo("x").tobuf() + bytes(8 << 20)))
    with pytest.raises(InputError, match="unpacks to over"):  # nothing but its end
        data.load(str(path), 63)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("notes.txt", bytes(8 << 20))
    with pytest.raises(InputError, match="unpacks to over"):
        data.load(str(tmp_path / "x.zip"), 63)


@pytest.mark.parametrize(("packed", "says"), [(zipfile.ZIP_DEFLATED, "is it complete"), (zipfile.ZIP_BZIP2, "neither")])
def test_a_zip_member_that_understates_its_size_is_not_inflated(tmp_path, packed, says):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", packed) as archive:
        archive.writestr("train/a/0.png", bytes(100 << 20))
        archive.infolist()[0].file_size = 100  # in the central directory
    with pytest.raises(InputError, match=says), peak_below(20):
        data.load(str(tmp_path / "x.zip"), 63)


def test_an_undecodable_image_is_named_and_may_be_left_out(tar, tmp_path, monkeypatch, capsys):
    path = str(tar(GOOD | {"train/a/bad.png": b"no image", "test/b/worse.png": png()[:45]}))
    cache = str(tmp_path / "cache")
    with pytest.raises(InputError, match=r"bad.png' cannot be decoded .*REPORT_SKIP_UNDECODABLE=1"):
        data.load(path, 63, cache)
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "1")
    for _ in range(2):  # decoded, then from the cache
        images = data.load(path, 63, cache)
        assert len(images.train) == len(images.test) == 8
        assert images.name == "made (2 undecodable images left out)"  # which the report says, too
    assert "left out of made.tar.gz: 2 images" in capsys.readouterr().err
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "0")
    with pytest.raises(InputError, match="cannot be decoded"):
        data.load(path, 63, cache)
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "yes")
    with pytest.raises(InputError, match="allowed are 0 and 1"):
        data.load(path, 63, cache)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_wherever_a_file_should_be(tree, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    root = tree()
    arguments = ["run", "--approach", "linear_probe", "--epochs", "1", "--image-size", "63", "--batch-size", "4"]
    for name, given in (("data", str(tmp_path / "pipe")), ("weights", str(tmp_path / "pipe")), ("data", "/dev/zero")):
        assert main([*arguments, "--data", str(root), f"--{name}", given]) == 2
        assert f"{name} is '{given}', a pipe or a device; copy" in capsys.readouterr().err
    with pytest.raises(InputError, match="data is .*, a pipe or a device"):
        data.load(str(tmp_path / "pipe"), 63)
    os.mkfifo(root / "train" / "notes")  # which nobody reads
    os.mkfifo(root / "train" / "cat" / "x.png")
    with pytest.raises(InputError, match="x.png' is no plain file; remove it"):
        data.load(str(root), 63)


def test_a_file_in_a_tree_that_is_too_large_for_an_image_is_not_read(tree):
    root = tree()
    with (root / "train" / "cat" / "x.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="x.png' holds 1,048,576 MiB; no image file is that large"):
        data.load(str(root), 63)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""


def test_no_image_starts_a_program(tar, tmp_path):
    (tmp_path / "gs").write_text(f"#!/bin/sh\necho started >> {shlex.quote(str(tmp_path / 'started'))}\n")
    (tmp_path / "gs").chmod(0o755)
    path = tar(GOOD | {"train/a/e.png": EPS})
    code = f"from report_lib import data\ndata.load({str(path)!r}, 63)"
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}  # PIL looks for it but once
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, env=environment)
    assert "'train/a/e.png' cannot be decoded (it is none of PNG, JPEG, " in done.stderr, done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("ending", archives.IMAGE_ENDINGS)
def test_every_ending_that_counts_as_an_image_can_be_decoded(tar, ending):
    file = io.BytesIO()
    picture = Image.new("L" if ending == ".pgm" else "RGB", (8, 8), 7)
    picture.save(file, Image.registered_extensions()[ending])
    assert len(data.load(str(tar(GOOD | {f"train/a/x{ending}": file.getvalue()})), 63).train) == 9


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), NotImplementedError(), KeyError(7), OverflowError("x")])
def test_whatever_a_decoder_raises_names_its_image(tar, monkeypatch, error):
    def convert(picture, mode):
        if picture.size == (9, 9):
            raise error
        return original(picture, mode)

    original = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", convert)
    path = str(tar(GOOD | {"train/a/odd.png": png((9, 9))}))
    with pytest.raises(InputError, match=r"'train/a/odd.png' cannot be decoded \((two|NotImplementedError|7|x)\)"):
        data.load(path, 63)
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "1")
    assert len(data.load(path, 63).train) == 8


def test_a_lack_of_memory_is_no_fault_of_the_image(tar, monkeypatch):
    def convert(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", convert)
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "1")
    with pytest.raises(MemoryError):
        data.load(str(tar(GOOD)), 63)


@pytest.mark.parametrize("first", [(8, 8), (1500, 1500)])
def test_large_images_are_never_in_memory_together(tar, first):
    """20 of them are 129 MiB, decoded."""
    large = {f"train/b/{n}.png": png((1500, 1500)) for n in range(100, 120)}
    path = str(tar({"train/a/first.png": png(first)} | GOOD | large))
    with peak_below(40):
        images = data.load(path, 63)
    assert images.train.shape == (29, 63, 63, 3)


@pytest.mark.parametrize(("image_size", "count"), [(63, 1024), (224, 1024), (1024, 85)])
def test_a_chunk_of_images_takes_at_most_256_mebibytes(image_size, count):
    chunk = next(sources._chunks(((f"{n}.png", b"x") for n in range(2000)), image_size))
    assert len(chunk) == count and count * image_size**2 * 3 <= 256 << 20


# --- full disks and small memories -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """make(megabytes) -> a folder on a file system of that size; skips where none can be mounted."""
    mounted = []

    def make(megabytes):
        path = tmp_path / f"disk{megabytes}"
        path.mkdir()
        size = f"size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True)
        if done.returncode:
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(path)
        return path

    if not shutil.which("mount"):
        pytest.skip("no tmpfs can be mounted here")
    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=False)


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_made(tree, tmp_path, small_disk, monkeypatch):
    path, disk = tree(train=40, size=(60, 60)), small_disk(1)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    with pytest.raises(InputError, match="whose disk lacks room"):  # decoded images
        data.load(str(path), 63, str(disk))
    assert list(disk.iterdir()) == [ballast]
    recipe = probe(path, epochs=1)
    with pytest.raises(InputError, match="whose disk has no room"):  # frozen features
        runner.run(recipe, str(tmp_path / "runs"), str(small_disk(2)), "cpu")
    store = small_disk(3)
    (store / "ballast").write_bytes(bytes(3_140_000))
    with pytest.raises(InputError, match="the record of this run cannot be written.*make room"):
        runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu")
    assert [p.name for p in store.iterdir() if not p.name.startswith(".")] == ["ballast"]
    (store / "ballast").unlink()
    assert runner.run(recipe, str(store), str(tmp_path / "cache"), "cpu").path.parent == store


def test_a_read_only_disk_can_hold_the_images_but_not_the_cache(tree, tmp_path, small_disk):
    disk = small_disk(2)
    calm = data.load(str(shutil.copytree(tree(), disk / "tree")), 63, str(disk / "cache"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    images = data.load(str(disk / "tree"), 63, str(tmp_path / "cache"))
    assert images.fingerprint == calm.fingerprint
    for cache in ("cache", "another"):
        with pytest.raises(InputError, match=r"cache is .*where nothing can be written \(Read-only file system\)"):
            data.load(str(disk / "tree"), 63, str(disk / cache))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_closed_to_the_user_is_named(tree, tmp_path):
    root, cache = tree(), tmp_path / "closed"
    cache.mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"cache is .*where nothing can be written \(Permission denied\)"):
        data.load(str(root), 63, str(cache))
    (root / "train" / "cat").chmod(0)
    with pytest.raises(InputError, match=r"train/cat' cannot be read \(Permission denied\)"):
        data.load(str(root), 63)
    (root / "train" / "cat").chmod(0o700)


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

    monkeypatch.setattr(train, "adapt", full)
    path, where = tree(), (str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
    says = "batch_size is 8, for which cpu lacks the memory; try BATCH=4, half of it, or a smaller SIZE"
    with pytest.raises(InputError, match=f"^{says}$"):
        runner.run(probe(path, epochs=1), *where)
    single = named("linear_probe", data=str(path), image_size=63, batch_size=1, epochs=1)
    with pytest.raises(InputError, match="no batch is smaller, so try a smaller SIZE$"):
        runner.run(single, *where)


def test_a_fault_that_is_not_of_memory_stays_what_it_is(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "adapt", lambda *_: (_ for _ in ()).throw(RuntimeError("mat1 and mat2")))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        runner.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")


@pytest.mark.parametrize("given", ["nan", "-5", "1e400", "inf", "much"])
def test_a_cache_limit_that_is_no_size_is_refused_before_anything_is_made(tree, tmp_path, monkeypatch, given):
    monkeypatch.setenv("REPORT_CACHE_GIB", given)
    monkeypatch.setattr(runner, "make", None)
    with pytest.raises(InputError, match=f"REPORT_CACHE_GIB is '{given}'; allowed is a number of GiB"):
        runner.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")


# --- where a run was made --------------------------------------------------------------------------------------


def test_what_git_cannot_say_is_not_called_clean(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    made = machine.provenance(torch.device("cpu"), "float32", datetime.datetime.now(datetime.UTC))
    assert made["commit"] is None and made["dirty"] is None
    monkeypatch.setattr(machine, "_git", lambda *asked: "a" * 40 if asked[0] == "rev-parse" else None)
    made = machine.provenance(torch.device("cpu"), "float32", datetime.datetime.now(datetime.UTC))
    assert tables._changes(made) == " (perhaps modified)"
    assert [tables._changes(made | {"dirty": dirty}) for dirty in (False, True)] == ["", " (modified)"]


def test_packages_that_say_no_version_lose_no_run(monkeypatch):
    assert {"torch", "torchvision", "numpy", "pillow", "scipy", "scikit-learn", "pandas"} == set(machine.packages())

    def version(name):
        if name in ("pillow", "scipy"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert set(machine.packages()) == {"torch", "torchvision", "numpy", "scikit-learn", "pandas"}


def test_where_a_run_is_made_is_asked_before_it_is_trained(tree, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(machine, "provenance", lambda *_: (_ for _ in ()).throw(OSError("no git, no disk, nothing")))
    monkeypatch.setattr(train, "adapt", lambda *_: trained.append(1))
    with pytest.raises(OSError, match="nothing"):
        runner.run(probe(tree(), epochs=1), str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
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
    said = json.loads(done.stdout)
    assert records.load(Path(said["record"])).info["test_accuracy"] == said["test_accuracy"]


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


def test_a_node_with_torch_torchvision_and_numpy_alone_can_train(tree, tmp_path):
    """No notebook stack, no pandas, no yaml, no tqdm, scipy or safetensors."""
    blocked = ("IPython jupyter_client jupyterlab matplotlib nbconvert nbformat pandas papermill pypandoc safetensors "
               "scipy sklearn tqdm typst yaml").split()  # fmt: skip
    code = f"import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\n"  # to import None is an ImportError
    code += "from report_lib.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    arguments = ["run", "--approach", "linear_probe", "--weights", "none", "--data", str(tree()), "--epochs", "1",
                 "--image-size", "63", "--batch-size", "4", "--runs", str(tmp_path / "runs")]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").exists() and "linear_probe-corrected-seed0" in done.stdout


def test_data_that_have_moved_are_the_same_data(tree, tmp_path, monkeypatch):
    """A store is shared by machines that mount the images elsewhere, and a path can be written in many ways."""
    path = tree(train=30, test=10)
    run = runner.run(probe(path, epochs=1), str(tmp_path / "runs"), device="cpu")
    path.rename(tmp_path / "moved")
    monkeypatch.setattr(runner, "make", lambda *_: pytest.fail("it is trained again"))
    moved = [str(tmp_path / "moved"), os.path.relpath(tmp_path / "moved", PROJECT)]
    for typed in moved:
        recipe = probe(typed, epochs=1)
        assert runner.run(recipe, str(tmp_path / "runs"), device="cpu").path == run.path
        assert records.requested(tmp_path / "runs", [recipe])[0].path == run.path
    images = data.load(moved[0], 63)
    weights = model.load_weights("none")
    names = {runner.run_name(named("full_finetune", "tuned", data=typed), images, weights) for typed in moved}
    assert len(names) == 1, "the probe that it starts from is on the same images"


def test_a_record_under_the_name_of_other_data_is_not_believed(tree, tmp_path):
    store = tmp_path / "runs"
    one = runner.run(probe(tree(train=30, test=10), epochs=1), str(store), device="cpu")
    recipe = probe(tree(train=20, test=10, name="other"), epochs=1)
    images = data.load(recipe.data, 63)
    one.path.rename(store / runner.run_name(recipe, images, model.load_weights(recipe.weights)))
    with pytest.raises(InputError, match="is that of another recipe"):
        runner.run(recipe, str(store), device="cpu")


def test_an_image_that_goes_while_others_are_decoded_is_missed(tree, monkeypatch):
    root = tree(train=6, test=2)
    fill = sources._fill

    def meanwhile(path, files, *rest):
        (root / "train" / "dog" / "003.png").unlink(missing_ok=True)
        return fill(path, files, *rest)

    monkeypatch.setattr(sources, "_fill", meanwhile)
    with pytest.raises(InputError, match="whose image 'train/dog/003.png' has gone meanwhile; start again"):
        data.load(str(root), 63)


def test_verify_says_whether_a_run_comes_out_the_same(tree, tmp_path, capsys, monkeypatch):
    recipe = probe(tree(train=30, test=10), epochs=2)
    run = runner.run(recipe, str(tmp_path / "runs"), str(tmp_path / "cache"), "cpu")
    monkeypatch.chdir(run.path.parent)  # a path that is typed starts at the working folder
    arguments = ["verify", run.path.name, "--device", "cpu", "--cache", str(tmp_path / "cache")]
    made, write = [], features._write
    monkeypatch.setattr(features, "_write", lambda entry, *rest: made.append(entry) or write(entry, *rest))
    assert main(arguments) == 0 and "the same, bit for bit" in capsys.readouterr().out
    assert len(made) == 2, "train and test: frozen features are verified, too"
    assert not list((tmp_path / "cache").glob(".features-*"))
    monkeypatch.setattr(train, "derive_seed", lambda seed, purpose: 7)
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "different: losses by up to" in said and "the test accuracy was" in said


@pytest.mark.parametrize("typed", ["digits", "relative", "absolute"])
def test_jobs_are_the_whole_study_and_name_the_same_runs(tree, tmp_path, capsys, typed):
    path = str(tree()) if typed == "absolute" else os.path.relpath(tree(), PROJECT)
    given = profiles.resolve("demo", {"seeds": "0,1", "epochs": 1, "image_size": 63, "runs": str(tmp_path / "a b $c"),
                                      "data": typed if typed == "digits" else path})  # fmt: skip
    profiles.write(given, tmp_path / "parameters.yaml")
    assert main(["jobs", str(tmp_path / "parameters.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = {
        request_key(recipe)
        for approach in ("linear_probe", "full_finetune")
        for recipes in plan.plan(approach, **profiles.study(given)).values()
        for recipe in recipes
    }
    asked = set()

    def note(recipe, runs, cache, device):
        assert runs == str(tmp_path / "a b $c")
        asked.add(request_key(recipe))
        raise InputError("noted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run", note)
        for line in lines:
            assert main(["run", *shlex.split(line)]) == 2
    assert asked == wanted and len(lines) == len(wanted)


def test_features_in_the_making_do_not_pass_for_made_ones(tmp_path):
    (tmp_path / ".features-x").mkdir()
    features.make_room(tmp_path, 1)
    assert (tmp_path / ".features-x").exists()
    with contextlib.suppress(FileNotFoundError):
        os.utime(tmp_path / ".features-x", (1, 1))
    features.make_room(tmp_path, 1)
    assert not (tmp_path / ".features-x").exists()
