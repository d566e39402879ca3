"""Image files, folders and names as people really have them: nothing is dropped or altered without a word and a count."""

import importlib.util
import io
import os
import shutil
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from report_lib import data
from report_lib.config import Config
from report_lib.data import folders, pictures, sources
from report_lib.files import InputError


def encode(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def noise(seed=0, size=(8, 8), mode="RGB"):
    """A picture on which there is something to see, another for each seed."""
    rng = np.random.default_rng(list(str(seed).encode()))
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)


def png(seed=0, size=(8, 8), **options):
    return encode(noise(seed, size), "PNG", **options)


GOOD = {f"{part}/{cls}/{n}.png": png(f"{part}{cls}{n}") for part in ("train", "test") for cls in "ab"
        for n in range(3)}  # fmt: skip


def tree(root, files):
    """Writes {name: bytes} as files below `root`; a name that ends in a slash is an empty folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(content)
    return str(root)


@pytest.fixture
def load(tmp_path):
    """load(files) -> Images of the tree of these files and those of GOOD."""
    return lambda files, good=GOOD: data.load(tree(tmp_path / "pictures", good | files), 63)


# --- what is not used ------------------------------------------------------------------------------------------


def test_every_file_that_is_not_used_is_counted_by_kind(load, capsys):
    images = load({
        "README.txt": b"x", "val/a/0.png": png(), "val/a/1.png": png(), "train/list.csv": b"x", "train/a/notes.txt": b"x",
        "train/b/movie.mp4": b"x" * 99, "test/b/Makefile": b"x", "test/b/odd.\u200b": b"x", ".git/config": b"x",
        "train/a/.ipynb_checkpoints/0.png": png(), ".DS_Store": b"x", "train/a/._0.png": b"x", "train/a/Thumbs.db": b"x",
        "train/desktop.ini": b"x", "__MACOSX/train/a/0.png": b"x", "train/a/@eaDir/0.png": png(),
    })  # fmt: skip
    assert len(images.train) == len(images.test) == 6
    assert images.facts["left_out"] == {
        "files beside train/ and test/": 1, "files in val/": 2, "files in no class folder": 1, "files ending in .txt": 1,
        "files ending in .mp4": 1, "files without an ending": 1, "other files": 1, "hidden files": 2,
    }  # fmt: skip
    line = (
        "pictures: Not used: 1 file beside train/ and test/, 1 file ending in .mp4, 1 file ending in .txt, 1 file in no "
        "class folder, 2 files in val/, 1 file without an ending, 2 hidden files, 1 other file."
    )
    assert line in capsys.readouterr().err.splitlines()


def test_what_was_said_when_decoding_is_known_from_the_cache(load, tmp_path, capsys):
    first = load({"train/a/notes.txt": b"x", "train/b/9.png": GOOD["train/b/0.png"]})
    assert capsys.readouterr().err.count("Not used") == 1
    again = data.load(str(tmp_path / "pictures"), 63)
    assert again.facts == first.facts != {} and "Not used" not in capsys.readouterr().err
    assert load({"train/a/more.txt": b"x"}).facts["left_out"] == {"files ending in .txt": 2}


@pytest.mark.parametrize("files", [
    {"train/c/0.nef": b"raw", "train/c/1.nef": b"raw", "test/c/0.png": png()},
    {"train/c/0.nef": b"raw", "train/c/1.nef": b"raw", "test/c/0.nef": b"raw"},
])  # fmt: skip
def test_a_class_without_a_usable_image_is_refused_by_name(load, files):
    with pytest.raises(InputError, match="class 'c' has no image under train/, only 2 files ending in .nef; expected"):
        load(files)


@pytest.mark.parametrize("lead", ["", "deep/down/"])
def test_an_empty_class_folder_is_refused(tmp_path, tar, lead):
    files = {lead + name: content for name, content in (GOOD | {"train/c/": b"", "test/c/": b""}).items()}
    info = {name: _folder(name) if name.endswith("/") else content for name, content in files.items()}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    for source in (tree(tmp_path / "tree", files), tar(info), tmp_path / "x.zip"):
        with pytest.raises(InputError, match="class 'c' has no image under train/"):
            data.load(str(source), 63)


def _folder(name):
    import tarfile

    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.parametrize("name", ["0.heic", "0.HEIC", "0.jpg", "0.dat"])
def test_a_class_of_photographs_from_a_phone_is_never_lost(load, name, monkeypatch):
    monkeypatch.setattr(pictures, "FORMATS", tuple(f for f in pictures.FORMATS if f != "HEIF"))
    with pytest.raises(
        InputError, match=rf"test/phone/{name}' cannot be decoded \(it is HEIC; .*pip install pillow-heif"
    ):
        load({f"train/phone/{name}": HEIC, f"test/phone/{name}": HEIC})
    monkeypatch.setenv("REPORT_SKIP_UNDECODABLE", "1")
    with pytest.raises(InputError, match="class 'phone' has no image under train/, only 1 undecodable image"):
        load({})


@pytest.mark.skipif(not importlib.util.find_spec("pillow_heif"), reason="pillow-heif is not installed")
def test_heic_is_read_where_its_package_is_installed(load):
    assert len(load({"train/a/x.heic": encode(noise(), "HEIF")}).train) == 7


# --- formats ---------------------------------------------------------------------------------------------------

SAVED = {
    "GIF": {}, "PNG": {}, "JPEG": {}, "BMP": {}, "TIFF": {}, "WEBP": {}, "PPM": {}, "JPEG2000": {}, "ICO": {}, "PCX": {},
    "DIB": {}, "SGI": {}, "QOI": {}, "AVIF": {},
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.dat", "x", "x.jpg", "x.txt", "x.1"])
def test_the_content_decides_and_not_the_ending(load, name):
    kinds = [k for k in SAVED if k != "AVIF" or features.check("avif")]
    files = {f"train/a/{kind}/{name}": encode(noise(1), kind) for kind in kinds}
    images = load(files)
    assert len(images.train) == 6 + len(kinds) and images.facts["left_out"] == {}


@pytest.mark.parametrize("name", ["x.tga", "x.TGA"])
def test_a_format_that_does_not_say_what_it_is_is_known_by_its_ending(load, name):
    assert len(load({f"train/a/{name}": encode(noise(1), "TGA")}).train) == 7


def test_text_that_is_called_an_image_cannot_be_decoded(load):
    with pytest.raises(InputError, match="train/a/x.jpg' cannot be decoded .it is none of JPEG, PNG"):
        load({"train/a/x.jpg": b"once upon a time"})


def test_of_several_frames_the_first_is_used_and_counted(load):
    more = dict(save_all=True, append_images=[noise(2), noise(3)])
    images = load({
        "train/a/x.gif": encode(noise(1, mode="P"), "GIF", **more), "train/a/x.tif": encode(noise(1), "TIFF", **more),
        "train/a/x.webp": encode(noise(1), "WEBP", lossless=True, **more), "train/a/x.png": encode(noise(1), "PNG", **more),
        "train/a/still.gif": encode(noise(1), "GIF"), "train/a/two.mpo": encode(noise(1), "MPO", **more),
    })  # fmt: skip
    assert len(images.train) == 12
    (note,) = images.facts["notes"]
    assert note.startswith(
        "Pictures of several frames or pages, of which the first is used: 4 of 18, such as 'train/a/x."
    )
    for row in range(5, 9):  # x.gif, x.png, x.tif, x.webp, of which GIF has but 256 colours
        assert (images.train[row].float() - images.train[7].float()).abs().mean() < 30


# --- pictures of science ---------------------------------------------------------------------------------------


def grey(dtype, low, high, seed=0, size=(8, 8)):
    values = np.random.default_rng(seed).random(size) * (high - low) + low
    values.flat[:2] = low, high
    return encode(Image.fromarray(values.astype(dtype)), "TIFF")


@pytest.mark.parametrize(("dtype", "low", "high"), [
    (np.float32, 0, 1), (np.float32, -3e4, 2e5), (np.float32, 1e-7, 3e-7), (np.uint16, 100, 4095), (np.int32, -5, 100_000),
    (np.uint16, 0, 65535), (np.int32, 2_000_000_000, 2_000_000_100),
])  # fmt: skip
def test_deep_pictures_are_scaled_by_their_real_range_the_same_for_all(load, dtype, low, high):
    files = {
        f"{part}/{cls}/{n}.tif": grey(dtype, low, (low + high) / 2 if part == "test" else high, n)
        for part in ("train", "test") for cls in "ab" for n in range(3)
    }  # fmt: skip
    images = load(files, {})
    assert images.train.amin() == 0 and images.train.amax() == 255
    assert images.test.amin() == 0 and images.test.amax() in (127, 128)  # by the range of all, not by their own
    assert np.allclose(images.facts["range"], [low, high], rtol=1e-6)
    assert "became 0 to 255 in pictures of more than 8 bits, 12 of 12." in images.facts["notes"][0]


def test_pictures_of_8_bits_among_deep_ones_stay_as_they_are(load):
    images = load({"train/a/x.tif": grey(np.uint16, 0, 4095)})
    assert images.facts["notes"] == [
        "Values from 0 to 4095 became 0 to 255 in pictures of more than 8 bits, 1 of 13; the other 12 stay as they are."
    ]
    assert (images.train[0].numpy() == np.asarray(Image.open(io.BytesIO(GOOD["train/a/0.png"])))).all()
    with pytest.raises(InputError, match="mixes pictures of whole numbers with pictures of fractions"):
        load({"train/b/x.tif": grey(np.float32, 0, 1)})


def test_values_that_are_no_numbers_are_counted(load):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, :3] = np.nan, np.inf, -np.inf
    nothing = Image.fromarray(np.full((8, 8), np.nan, np.float32))
    images = load({"train/a/x.tif": encode(Image.fromarray(values), "TIFF"), "train/a/y.tif": encode(nothing, "TIFF")})
    assert images.train[3, 0, :3, 0].tolist() == [0, 255, 0]
    assert any("values that are no numbers, which become the lowest value: 2 of 14" in n for n in images.facts["notes"])


def test_a_picture_that_shows_nothing_never_passes_silently(load, capsys):
    black, red = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (200, 0, 0))
    dark = Image.fromarray(np.random.default_rng(0).integers(0, 16, (8, 8, 3), np.uint8))
    images = load({name: encode(p, "PNG") for name, p in (("train/a/x.png", black), ("train/b/x.png", dark),
                                                          ("test/a/y.png", red))})  # fmt: skip
    dark_note = "Pictures that are black or nearly so (no value is above 16 of 255): 2 of 15, such as 'train/a/x.png'."
    single = "Pictures of a single colour: 1 of 15, such as 'test/a/y.png'."
    assert set(images.facts["notes"]) == {dark_note, single}
    assert f"pictures: {dark_note}" in capsys.readouterr().err


def png_of_16_bits(high):
    """An RGB PNG of 16 bits for each channel, which PIL cannot write."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    rows = b"".join(b"\0" + np.random.default_rng(n).integers(0, high, 24).astype(">u2").tobytes() for n in range(8))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip


def test_colours_of_16_bits_are_read_by_their_upper_8_with_a_word(load):
    images = load({"train/a/x.png": png_of_16_bits(65536), "train/a/y.png": png_of_16_bits(4096)})
    notes = "\n".join(images.facts["notes"])
    assert "several channels with more than 8 bits each, of which the upper 8 are used: 2 of 14" in notes
    assert "black or nearly so (no value is above 16 of 255): 1 of 14, such as 'train/a/y.png'" in notes


def broken_metadata():
    big = PngImagePlugin.PngInfo()
    big.add_text("notes", "x" * (2 << 20), zip=True)
    wrong = Image.Exif()
    wrong[0x0112], wrong[0x011A] = "upside down", (0, 0)
    turned = Image.Exif()
    turned[0x0112] = 99
    picture = noise(1, (20, 12))
    whole = encode(picture, "PNG", icc_profile=b"none")
    damaged = bytearray(encode(picture, "PNG", dpi=(72, 72)))
    damaged[damaged.index(b"pHYs") + 5] ^= 1  # its checksum is wrong
    return {
        "text.png": encode(picture, "PNG", pnginfo=big),
        "icc.png": whole.replace(b"none", b"nono"),
        "phys.png": bytes(damaged),
        "exif.png": encode(picture, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "exif.jpg": encode(picture, "JPEG", exif=b"Exif\0\0MM\0*garbage garbage"),
        "empty.jpg": encode(picture, "JPEG", exif=b"Exif\0\0"),
        "icc.jpg": encode(picture, "JPEG", icc_profile=b"no profile at all"),
        "mpf.jpg": _with_segment(encode(picture, "JPEG"), 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + bytes(9)),
        "adobe.jpg": _with_segment(encode(picture, "JPEG"), 0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\xff\xff\xff\xff"),
        "short.jpg": _with_segment(encode(picture, "JPEG"), 0xEE, b"Adobe"),
        "exif.webp": encode(picture, "WEBP", exif=b"Exif\0\0nothing"),
        "wrong.tif": encode(picture, "TIFF", dpi=(0, 0)),
        "wrong.png": encode(picture, "PNG", exif=turned),
    }


def _with_segment(jpeg, marker, body):
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("name", broken_metadata())
def test_metadata_never_decide_whether_pixels_can_be_used(tmp_path, name, recwarn):
    (tmp_path / name).write_bytes(broken_metadata()[name])
    pixels = data.read_picture(tmp_path / name)
    assert pixels.shape == (12, 20, 3) and pixels.std() > 20 and not recwarn.list


@pytest.mark.parametrize("ending", ["PNG", "JPEG"])
def test_half_an_image_is_an_error_even_without_its_metadata(tmp_path, ending):
    whole = encode(noise(1, (40, 40)), ending, exif=b"Exif\0\0garbage")
    for cut in range(0, len(whole) - 12, 53):
        (tmp_path / "x").write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cannot be decoded"):
            data.read_picture(tmp_path / "x")


def test_transparency_is_dropped_as_torchvision_does(load):
    clear = noise(1, mode="RGBA")
    clear.putalpha(0)
    palette = noise(1, mode="P")
    images = load({"train/a/x.png": encode(clear, "PNG"), "train/a/y.png": encode(palette, "PNG", transparency=bytes(200)),
                   "train/a/z.png": encode(noise(1, mode="LA"), "PNG"), "train/a/w.gif": encode(palette, "GIF")})  # fmt: skip
    assert (images.train[3:].amax(dim=(1, 2, 3)) > 100).all() and not images.facts["notes"]


# --- names -----------------------------------------------------------------------------------------------------

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def with_classes(train, test):
    named = (("train", train), ("test", test))
    return {f"{part}/{cls}/{n}.png": png(f"{part}{k}{n}") for part, classes in named
            for k, cls in enumerate(classes) for n in range(2)}  # fmt: skip


@pytest.mark.parametrize(("train", "test"), [([NFC], [NFD]), ([NFD], [NFC]), ([NFC, NFD], [NFC])])
def test_an_accented_class_in_two_unicode_forms_is_one_class(load, train, test):
    images = load(with_classes(train, test))
    assert images.classes == ("a", "b", NFC) and len(images.train) == 6 + 2 * len(train)
    note = "Folders of train/ whose names differ only in their Unicode form are one class, 'café'."
    assert images.facts["notes"] == [note] * (len(train) == 2)


@pytest.mark.parametrize(("train", "test", "says"), [
    ("cat", "c\u0430t", r"'c.t' has no image under train/, where there is 'cat' \('cat', and not 'c\\u0430t'\)"),
    ("Cat", "cat", "'cat' has no image under train/, where there is 'Cat'; expected"),
    ("cat ", "cat", "'cat' has no image under train/, where there is 'cat '"),
    ("\ufb01sh", "fish", r"where there is '.sh' \('\\ufb01sh', and not 'fish'\)"),
    ("cats", "cat", "'cat' has no image under train/, where there is 'cats'"),
    ("cat", "zebra", "'zebra' has no image under train/; expected"),
    ("cat\u200b", "cat\u200b", r"'cat\\u200b' has no printable name; rename"),
    ("\u202ecat", "\u202ecat", r"'\\u202ecat' has no printable name"),
    ("cat\u200d", "cat", r"'cat\\u200d' has no printable name"),
    ("a\u00a0b", "a\u00a0b", r"'a\\xa0b' has no printable name"),
])  # fmt: skip
def test_a_class_that_is_in_one_part_only_names_the_likely_cause(load, train, test, says):
    with pytest.raises(InputError, match=says):
        load(with_classes([train], [test]))


@pytest.mark.parametrize(("pair", "says"), [
    (["Cat", "cat"], "."), (["cat", "cat "], "."), (["\ufb01sh", "fish"], " ('fish' and '\\ufb01sh')."),
    (["cat", "c\u0430t"], " ('cat' and 'c\\u0430t')."), (["ΑΒΕ", "ABE"], " ('ABE' and '\\u0391\\u0392\\u0395')."),
])  # fmt: skip
def test_classes_that_look_alike_are_pointed_at(load, pair, says):
    images = load(with_classes(pair, pair))
    assert images.facts["notes"] == [f"The classes {' and '.join(map(repr, sorted(pair)))} look alike{says}"]
    assert len(images.classes) == 4


@pytest.mark.parametrize(
    "cls", ["קטן", "قط", "می\u200cخواهم", "猫", "👩\u200d🔬", "क्\u200dष", "a b", "$x_{1}^2 & co #1 %"]
)
def test_names_of_any_alphabet_are_right(load, cls):
    assert cls in load(with_classes([cls], [cls])).classes


NAMES = st.text(st.characters(exclude_characters="/\0\\", exclude_categories=("Cs",)), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_whatever_folders_are_called_each_file_is_used_or_counted(train, test):
    names = [
        f"{part}/{cls}/{n}.png" for part, classes in (("train", train), ("test", test)) for cls in classes for n in "01"
    ]
    try:
        placed, unused, _ = folders.place(PurePosixPath("x"), names)
        classes, rows, labels, _ = folders.arrange(PurePosixPath("x"), placed, {})
    except InputError as error:
        assert "\n" not in str(error)
        return
    system = [name for name in names if folders.is_system(name)]
    assert len(rows) + sum(unused.values()) + len(system) == len(names)
    assert len(labels["train"]) + len(labels["test"]) == len(rows)
    assert all(c.isprintable() or c in folders.JOINERS for cls in classes for c in cls)
    for name, (part, row) in rows.items():
        assert unicodedata.normalize("NFC", name.split("/")[1]) == classes[labels[part][row]]


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "TEST"), ("training", "testing")])
def test_parts_may_be_written_otherwise(tmp_path, train, test):
    files = {name.replace("train", train).replace("test", test): content for name, content in GOOD.items()}
    assert len(data.load(tree(tmp_path / "x", files), 63).train) == 6


@pytest.mark.parametrize(("change", "says"), [
    ({"test": "val"}, r"no test/ folder with images; there are train/, val/; expected .*validation are drawn from train/"),
    ({"train": "cats", "test": "dogs"}, "no train/ folder with images; there are cats/, dogs/; expected"),
    ({"train/": "", "test/": ""}, "no train/ folder with images; there are a/, b/; expected"),
])  # fmt: skip
def test_folders_that_are_no_parts_are_named(tmp_path, change, says):
    files = {}
    for name, content in GOOD.items():
        for old, new in change.items():
            name = name.replace(old, new)
        files[name] = content
    with pytest.raises(InputError, match=says):
        data.load(tree(tmp_path / "x", files), 63)


def test_images_that_lie_straight_in_train_are_said_to_be_in_no_class(tmp_path):
    files = {name.replace("/a/", "/").replace("/b/", "/"): content for name, content in GOOD.items()}
    with pytest.raises(InputError, match="whose train/ holds no class folders; expected is train/<class>"):
        data.load(tree(tmp_path / "x", files), 63)


def test_two_folders_for_one_part_are_refused(load):
    with pytest.raises(InputError, match="has both Train and train; keep one of them"):
        load({"Train/a/9.png": png()})


# --- zip archives of other systems -----------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["pictures\\train\\a\\", "pictures/"])
def test_a_zip_from_windows_with_backslashes(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(folder, b"")
        for name, content in GOOD.items():
            archive.writestr(("pictures/" + name).replace("/", "\\"), content)
    images = data.load(str(tmp_path / "x.zip"), 63)
    assert len(images.train) == 6 and images.facts["left_out"] == {}


def old_zip(path, encoding):
    """A zip whose names are in an encoding that it does not declare, as old Windows and macOS write them."""

    class Info(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return self.filename.encode(encoding), self.flag_bits

    with zipfile.ZipFile(path, "w") as archive:
        for name, content in with_classes(["café", "b"], ["café", "b"]).items():
            archive.writestr(Info(name), content)
    with path.open("rb") as file:
        assert "café".encode(encoding) in file.read()
    return str(path)


@pytest.mark.parametrize(("encoding", "classes", "notes"), [
    ("utf-8", ("b", "café"), 0), ("cp437", ("b", "café"), 1), ("cp850", ("b", "café"), 1), ("latin-1", ("b", "cafΘ"), 1),
])  # fmt: skip
def test_names_of_an_undeclared_encoding_are_right_or_spoken_of(tmp_path, encoding, classes, notes):
    images = data.load(old_zip(tmp_path / "x.zip", encoding), 63)
    assert images.classes == classes
    assert images.facts["notes"] == ["Some names are in an encoding that the archive does not declare, so their letters "
                                     "may be wrong."] * notes  # fmt: skip


@pytest.mark.skipif(not shutil.which("zip"), reason="zip is not installed")
@pytest.mark.parametrize("options", [[], ["-fz"], ["-fd"], ["-0"]])
def test_a_zip_of_the_zip_program(tmp_path, options):
    expected = data.load(tree(tmp_path / "tree", with_classes(["café", "猫"], ["café", "猫"])), 63)
    subprocess.run(["zip", "-qr", *options, "../x.zip", "."], cwd=tmp_path / "tree", check=True)
    assert data.load(str(tmp_path / "x.zip"), 63).fingerprint == expected.fingerprint


@pytest.mark.skipif(not shutil.which("zip"), reason="zip is not installed")
def test_an_encrypted_zip_is_one_sentence(tmp_path):
    tree(tmp_path / "tree", GOOD)
    subprocess.run(["zip", "-qr", "-P", "x", "../x.zip", "."], cwd=tmp_path / "tree", check=True)
    with pytest.raises(InputError, match="x.zip', which is encrypted; pack it without a password"):
        data.load(str(tmp_path / "x.zip"), 63)


def test_a_streamed_zip(tmp_path):
    """Sizes follow the contents, as when a zip is written to a pipe."""
    with (tmp_path / "x.zip").open("wb") as file:
        file.seekable = lambda: False
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in GOOD.items():
                with archive.open(name, "w", force_zip64=True) as member:
                    member.write(content)
    assert len(data.load(str(tmp_path / "x.zip"), 63).train) == 6


def macos_zip(path, files, hole=0):
    """As macOS makes large ones: no zip64, counts modulo 2**16, places modulo 2**32. Before each file is a hole of so
    many bytes, which takes no room on the disk."""
    directory = b""
    with path.open("wb") as file:
        for number, (name, content) in enumerate(files.items()):
            if hole and number:
                file.seek(hole, io.SEEK_CUR)
            size = len(content)
            fields = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, zlib.crc32(content), size, size, len(name), 0)
            place = struct.pack("<HHHII", 0, 0, 0, 0, file.tell() % 2**32)
            directory += b"PK\1\2\x14\3" + fields + place + name.encode()
            file.write(b"PK\3\4" + fields + name.encode() + content)
        start, count = file.tell() % 2**32, len(files) % 2**16
        file.write(directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, 0))
    return str(path)


def test_a_zip_of_more_than_65535_files_from_macos(tmp_path):
    files = GOOD | {f"{n}": b"" for n in range(65_536)}
    images = data.load(macos_zip(tmp_path / "x.zip", files), 63)
    assert len(images.train) == 6 and images.facts["left_out"] == {"files beside train/ and test/": 65_536}


def test_a_zip_of_more_than_4_gibibytes_from_macos_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a tar or zip archive .*unpack it and name the folder"):
        data.load(macos_zip(tmp_path / "x.zip", GOOD, 1 << 29), 63)


@pytest.mark.parametrize("start", [b"Rar!\x1a\x07\x01\0", b"7z\xbc\xaf\x27\x1c", b"(\xb5/\xfd", b"]\0\0\x80\0"])
def test_an_archive_of_another_kind_is_named(tmp_path, start):
    (tmp_path / "x.zip").write_bytes(start + bytes(99))
    with pytest.raises(InputError, match="it is (rar|7z|zstd|lzma), so unpack it or pack it anew as zip or tar$"):
        data.load(str(tmp_path / "x.zip"), 63)


@pytest.mark.parametrize("start", [b"\x93NUMPY", b"\x89HDF\r\n", b"PAR1"])
def test_arrays_are_no_image_files(tmp_path, start):
    (tmp_path / "x.h5").write_bytes(start + bytes(99))
    with pytest.raises(InputError, match="it is .*, so write its pictures as image files$"):
        data.load(str(tmp_path / "x.h5"), 63)


def test_what_lies_in_an_archive_instead_of_folders_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("images.npy", b"")
        archive.writestr("flowers.zip", b"")
    with pytest.raises(InputError, match="has no train/ folder with images; there are flowers.zip, images.npy; "):
        data.load(str(tmp_path / "x.zip"), 63)


def test_folders_in_class_folders_are_counted_and_named(tmp_path, capsys):
    given = {f"{part}/{cls}/{kind}/{n}.png": png(n + len(kind) + 9 * len(part))
             for part in ("train", "test") for cls in "ab" for kind in ("cat", "horse") for n in range(3)}  # fmt: skip
    assert data.load(tree(tmp_path / "x", given), 63).classes == ("a", "b")
    assert "Folders in class folders count as their class: 8, such as 'test/a/cat'." in capsys.readouterr().err


@pytest.mark.parametrize(("link", "target"), [("loop", "."), ("train/a/loop", "train"), ("train/a/loop", "train/a")])
def test_a_link_to_a_folder_that_it_lies_in_is_named(tmp_path, link, target):
    path = tree(tmp_path / "x", GOOD)
    (tmp_path / "x" / link).symlink_to(tmp_path / "x" / target)
    with pytest.raises(InputError, match=f"whose '{link}' is a link to a folder that it lies in; remove it$"):
        data.load(path, 63)


def test_a_linked_folder_of_a_class_is_used(tmp_path):
    path = tree(tmp_path / "x", GOOD | {"../more/0.png": png(77)})
    (tmp_path / "x" / "train" / "a" / "more").symlink_to(tmp_path / "more")
    assert len(data.load(path, 63).train) == 7


# --- copies, memory, fingerprints, the cache -------------------------------------------------------------------


def test_exact_copies_of_training_images_among_the_test_images_are_counted(load, capsys):
    same = Image.open(io.BytesIO(GOOD["train/a/0.png"]))
    images = load({"test/a/x.png": GOOD["train/a/0.png"], "test/b/y.bmp": encode(same, "BMP"), "test/b/z.png": png(99)})
    assert images.facts["copies"] == 2
    assert "pictures: 2 of the 9 test images are exact copies of training images." in capsys.readouterr().err


def test_several_threads_decode_the_same(tmp_path, monkeypatch):
    path = tree(tmp_path / "x", GOOD | {"train/a/x.tif": grey(np.uint16, 0, 4095, size=(30, 30))})
    calm = data.load(path, 63)
    for cores in (1, 7):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores), raising=False)
        assert data.load(path, 63, str(tmp_path / f"cache{cores}")).fingerprint == calm.fingerprint


@pytest.mark.parametrize("kind", ["tree", "archive", "digits"])
def test_a_fingerprint_is_known_without_the_pictures(tmp_path, tar, monkeypatch, kind):
    source = {"tree": tree(tmp_path / "x", GOOD), "archive": str(tar(GOOD)), "digits": "digits"}[kind]
    images = data.load(Config(data=source, image_size=63))
    monkeypatch.setattr(sources, "_stored", lambda *_: pytest.fail("the pictures are touched"))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert data.fingerprint(Config(data=source, image_size=63)) == data.fingerprint(source, 63) == images.fingerprint


def test_a_fingerprint_is_that_of_other_files_as_soon_as_there_are_others(tmp_path):
    path = tree(tmp_path / "x", GOOD)
    first = data.fingerprint(path, 63)
    (tmp_path / "x/train/a/0.png").write_bytes(png(99))
    assert data.fingerprint(path, 63) == data.load(path, 63).fingerprint != first
    for memo in (tmp_path / "cache").glob("seen-*"):
        memo.write_bytes(memo.read_bytes().replace(b"a", b"b"))
    assert data.fingerprint(path, 63) == data.load(path, 63).fingerprint


def test_decoded_images_and_features_share_one_bound(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    paths = [tree(tmp_path / name, {k: png(name + k, (60, 60)) for k in GOOD}) for name in "xyz"]
    size = 12 * 60 * 60 * 3
    monkeypatch.setenv("REPORT_CACHE_GIB", str(3.2 * size / 2**30))
    (cache / "features-old").mkdir(parents=True)
    (cache / "features-old" / "values.npy").write_bytes(bytes(size // 2))
    os.utime(cache / "features-old", (1, 1))
    held = lambda: {entry.name for entry in cache.iterdir() if entry.is_dir()}  # noqa: E731
    entries = []
    for path in paths[:2]:
        data.load(path, 63)
        entries += sorted(held() - {"features-old", *entries})
        os.utime(cache / entries[-1], (1000 + len(entries),) * 2)
    assert held() == {"features-old", *entries}
    data.load(paths[0], 63)  # which makes the other the oldest
    data.load(paths[2], 63)
    assert "features-old" not in held() and entries[0] in held()
    data.make_room(cache, 2 * size)
    assert entries[1] not in held() and entries[0] not in held() and len(held()) == 1


def test_a_picture_of_ones_own_is_decoded_as_those_of_a_data_set(tmp_path):
    path = tree(tmp_path / "x", {k: png(k, (90, 70)) for k in GOOD})
    images = data.load(path, 63)
    assert (data.read_picture(f"{path}/train/a/0.png", (63, 63)) == images.train[0].numpy()).all()
    assert data.read_picture(f"{path}/train/a/0.png").shape == (70, 90, 3)
    deep = tree(tmp_path / "y", {"x.tif": grey(np.uint16, 0, 2000)})
    assert data.read_picture(f"{deep}/x.tif").max() == 255
    assert data.read_picture(f"{deep}/x.tif", values=(0, 4000)).max() in (127, 128)
    for wrong in ("none.png", "x.txt"):
        (tmp_path / "x.txt").write_text("once upon a time")
        with pytest.raises(InputError, match="cannot be"):
            data.read_picture(tmp_path / wrong)
