"""Archives and image files as people hand them over, damaged or hostile ones too: never a smaller data set."""

import bz2
import contextlib
import io
import os
import random
import shlex
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from report_lib import data
from report_lib.config import Config
from report_lib.data import archives, folders, pictures, trees
from report_lib.files import PROJECT, InputError


def png(size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def contents(path):
    """What a tree or archive holds, by name."""
    return {member.name: content for member, content in archives.members(path, lambda _: True)}


def names(path):
    return {member.name for member, _ in archives.members(path, lambda _: False)}


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
    calm = contents(path)
    ends = range(len(whole.rstrip(b"\0")), len(whole), 997)
    for where in [header + rng.randrange(512) for header in headers for _ in range(20)] + list(ends):
        damaged = bytearray(whole)
        damaged[where] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert contents(path) == calm
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
    assert contents(path) == GOOD


def test_a_flipped_bit_in_a_zips_directory_never_makes_a_smaller_data_set(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            archive.writestr(f"train/a/{number}.png", png())
    whole, refused = path.read_bytes(), 0
    calm = names(path)
    for bit in range(8 * archive.start_dir, 8 * len(whole), 11):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert names(path) == calm
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
    with pytest.raises(InputError, match="a header of 8,589,934,592 bytes|unpacks to over"), peak_below(20):
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
        assert images.name == "made" and images.facts["left_out"] == {"undecodable images": 2}
    said = capsys.readouterr().err
    assert "made.tar.gz: Not used: 2 undecodable images." in said
    assert "Not decodable: 'test/b/worse.png', 'train/a/bad.png'." in said and "worse.png" in images.facts["notes"][-1]
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "0")
    with pytest.raises(InputError, match="cannot be decoded"):
        data.load(path, 63, cache)
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "yes")
    with pytest.raises(InputError, match="allowed are 0 and 1"):
        data.load(path, 63, cache)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_wherever_a_file_should_be(tree, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    root = tree()
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(InputError, match="data is .*, a pipe or a device"):
            data.load(path, 63)
        for field in ("data", "weights"):
            with pytest.raises(InputError, match=f"{field} is .*, a pipe or a device"):
                Config(**{field: path})
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
    assert "'train/a/e.png' cannot be decoded (it is none of JPEG, PNG, " in done.stderr, done.stderr
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("ending", sorted(e for e in pictures.ENDINGS if Image.EXTENSION.get(e) in Image.SAVE))
def test_every_ending_that_counts_as_an_image_can_be_decoded(tar, ending):
    file = io.BytesIO()
    picture = Image.new({".pgm": "L", ".pbm": "1", ".pfm": "F"}.get(ending, "RGB"), (8, 8), 7)
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


@pytest.mark.parametrize(("image_size", "count"), [(63, 256), (224, 256), (1024, 85)])
def test_a_chunk_of_images_takes_at_most_256_mebibytes(tmp_path, monkeypatch, image_size, count):
    asked = []
    monkeypatch.setattr(trees, "_each", lambda *given: asked.append(given[3]) or ())
    trees._fill(tmp_path, {}, {"train": np.empty((1, image_size, image_size, 3), np.uint8)}, None, {})
    assert asked == [count] and count * image_size**2 * 3 <= 256 << 20


# --- full disks and small memories -----------------------------------------------------------------------------


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_made(tree, small_disk):
    path, disk = tree(train=40, size=(60, 60)), small_disk(1)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    with pytest.raises(InputError, match="whose disk has no room for"):
        data.load(str(path), 63, str(disk))
    assert list(disk.iterdir()) == [ballast]


def test_a_read_only_disk_can_hold_the_images_and_a_cache_that_has_them_but_no_new_one(tree, tmp_path, small_disk):
    disk = small_disk(2)
    calm = data.load(str(shutil.copytree(tree(), disk / "tree")), 63, str(disk / "cache"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    images = data.load(str(disk / "tree"), 63, str(tmp_path / "cache"))
    assert images.fingerprint == calm.fingerprint
    assert data.load(str(disk / "tree"), 63, str(disk / "cache")).fingerprint == calm.fingerprint
    with pytest.raises(InputError, match=r"cache is .*where nothing can be written \(Read-only file system\)"):
        data.load(str(disk / "tree"), 63, str(disk / "another"))


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


# --- the cache -------------------------------------------------------------------------------------------------


def flip(path, where=0.5):
    """Turns one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_cached_images_is_noticed_and_mended(tree, tmp_path, capsys):
    path = tree()
    calm = data.load(str(path), 63, str(tmp_path / "cache"))
    expected = calm.train.clone()
    for name in ("train.npy", "test.npy", "meta.json"):
        (entry,) = (tmp_path / "cache").glob("decoded-*")
        flip(entry / name, 0.9)
        again = data.load(str(path), 63, str(tmp_path / "cache"))
        assert torch.equal(again.train, expected) and again.fingerprint == calm.fingerprint
        assert "damaged and are decoded anew" in capsys.readouterr().err


def test_an_image_that_goes_while_others_are_decoded_is_missed(tree, monkeypatch):
    root = tree(train=6, test=2)
    arrange = folders.arrange

    def meanwhile(*arguments):
        (root / "train" / "dog" / "003.png").unlink(missing_ok=True)
        return arrange(*arguments)

    monkeypatch.setattr(folders, "arrange", meanwhile)
    with pytest.raises(InputError, match="whose image 'train/dog/003.png' has gone meanwhile; start again"):
        data.load(str(root), 63)


def test_a_zip_in_a_tar_is_a_file_of_it(tmp_path, tar):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        for name, content in GOOD.items():
            packed.writestr(name.replace("/a/", "/old/"), content)
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "outer.tar", "w", format=format) as outer:
            for name, content in (GOOD | {"old.zip": inner.getvalue()}).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                outer.addfile(info, io.BytesIO(content))
        assert zipfile.is_zipfile(tmp_path / "outer.tar") and names(tmp_path / "outer.tar") == {*GOOD, "old.zip"}


def test_archives_that_were_joined_are_refused_and_not_read_in_part(tar, tmp_path):
    first, second = tar(GOOD, "first.tar"), tar({"train/a/more.png": png()}, "second.tar")
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(InputError, match="something follows its end"):
        data.load(str(tmp_path / "both.tar"), 63)


def test_features_in_the_making_do_not_pass_for_made_ones(tmp_path):
    (tmp_path / ".features-x").mkdir()
    data.make_room(tmp_path, 1)
    assert (tmp_path / ".features-x").exists()
    with contextlib.suppress(FileNotFoundError):
        os.utime(tmp_path / ".features-x", (1, 1))
    data.make_room(tmp_path, 1)
    assert not (tmp_path / ".features-x").exists()
