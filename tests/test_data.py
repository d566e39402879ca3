import io
import itertools
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from report_lib import data
from report_lib.config import Config
from report_lib.data import pictures
from report_lib.files import InputError


def png(size=(8, 8), colour=(200, 30, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def members(root=""):
    return {f"{root}{part}/{cls}/{n}.png": png() for part in ("train", "test") for cls in "ab" for n in range(2)}


# --- pixels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("native", "wanted"), [((32, 32), 224), ((8, 8), 64), ((40, 30), 63), ((64, 64), 64)])
def test_device_side_preprocessing_is_torchvisions(native, wanted):
    pixels = np.random.default_rng(1).integers(0, 256, (native[1], native[0], 3), np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize((wanted, wanted)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )(Image.fromarray(pixels))
    ours = data.preprocess(torch.from_numpy(pixels)[None], wanted)[0]
    # PIL rounds the enlarged picture to whole grey levels, we do not: at most one level apart (of 255, over std).
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1.01 / 255 / 0.224


def test_large_images_are_shrunk_as_torchvision_does(tree):
    root = tree(size=(150, 90))
    ours = data.load(str(root), 64)
    theirs = ImageFolder(root / "train", transforms.Compose([transforms.Resize((64, 64)), transforms.PILToTensor()]))
    assert list(ours.classes) == theirs.classes and ours.train_labels.tolist() == theirs.targets
    for mine, (picture, _) in zip(ours.train, theirs, strict=True):
        assert torch.equal(mine.permute(2, 0, 1), picture)


def test_images_of_one_small_size_are_kept_as_they_are(tree):
    root = tree(size=(12, 10))
    images = data.load(str(root), 64)
    assert images.train.shape == (10, 10, 12, 3) and images.train.dtype == torch.uint8
    with Image.open(root / "train" / "cat" / "000.png") as first:
        assert np.array_equal(images.train[0].numpy(), np.asarray(first))


def encode(picture, suffix, **options):
    file = io.BytesIO()
    picture.save(file, suffix, **options)
    return file.getvalue()


def lying(suffix, **options):
    """A picture of 40 by 30 pixels that says to be turned upright, to 30 by 40."""
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    return encode(Image.fromarray(pixels), suffix, exif=turned, **options)


def strange_images():
    red = Image.new("RGB", (20, 14), (255, 0, 0))
    tall = Image.new("RGB", (14, 20), (0, 0, 255))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.full((9, 9), 40000, np.uint16))
    return {
        "rgb.png": encode(red, "PNG"),
        "grey.png": encode(red.convert("L"), "PNG"),
        "palette.gif.png": encode(red.convert("P"), "PNG"),
        "alpha.png": encode(red.convert("RGBA"), "PNG"),
        "cmyk.jpg": encode(red.convert("CMYK"), "JPEG"),
        "exif.JPG": encode(tall, "JPEG", exif=turned),
        "deep.png": encode(deep, "PNG"),
        "bit.png": encode(red.convert("1"), "PNG"),
        "large.webp": encode(red.resize((900, 30)), "WEBP"),
    }


def test_every_size_and_mode_loads(tar):
    pictures = {f"train/a/{name}": content for name, content in strange_images().items()}
    images = data.load(str(tar(members() | pictures)), 63)
    assert images.train.shape == (13, 63, 63, 3)
    order = sorted(["0.png", "1.png", *strange_images()])
    assert abs(int(images.train[order.index("deep.png")].float().mean()) - 40000 // 257) <= 1  # of 16 bits; not clipped
    assert images.train[order.index("cmyk.jpg")][30, 30, 0] > 200


def test_exif_rotation_is_applied(tar):
    left_red = Image.new("RGB", (40, 20), (0, 0, 255))
    left_red.paste((255, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to be upright: left becomes top
    images = data.load(str(tar(members() | {"train/a/turned.jpg": encode(left_red, "JPEG", exif=exif)})), 64)
    top, bottom = images.train[2][5, 32], images.train[2][58, 32]
    assert top[0] > 200 > bottom[0] and bottom[2] > 200


EVERY = [f"{part}/{cls}/{n}.x" for part, cls, n in itertools.product(("train", "test"), "ab", range(3))]


@pytest.mark.parametrize("format", ["TIFF", "PNG", "JPEG", "WEBP"])
def test_what_lies_on_its_side_is_stored_upright_and_not_squeezed(tar, format):
    images = data.load(str(tar(dict.fromkeys(EVERY, lying(format)))), 64)
    assert images.train.shape[1:] == (40, 30, 3)


def test_a_png_may_say_behind_its_pixels_how_it_lies(tar):
    early = lying("PNG")
    start = early.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(early[start : start + 4])
    late = early[:start] + early[end:-12] + early[start:end] + early[-12:]
    first, second = (data.load(str(tar(dict.fromkeys(EVERY, one), f"{len(name)}.tar")), 64).train
                     for name, one in (("early", early), ("behind", late)))  # fmt: skip
    assert second.shape[1:] == (40, 30, 3) and torch.equal(first, second)


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
def test_a_cache_can_be_read_by_others_whatever_the_umask(tree, tmp_path):
    before = os.umask(0o077)
    try:
        data.load(str(tree()), 64)
    finally:
        os.umask(before)
    (entry,) = (tmp_path / "cache").glob("decoded-*")
    assert {file.stat().st_mode & 0o777 for file in entry.iterdir()} == {0o644}


# --- sources ---------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    images = data.load("digits", 64)
    assert images.train.shape == (1442, 8, 8, 3) and images.test.shape == (355, 8, 8, 3)
    counts = images.test_labels.bincount()
    assert len(images.classes) == 10 and counts.min() >= 34 and counts.max() <= 37


@pytest.mark.parametrize("packed", ["t.tar", "t.tar.gz", "t.tar.xz", "t.tar.bz2", "t.zip"])
@pytest.mark.parametrize("lead", ["", "some/where/", "test/"])
def test_archives_hold_what_their_tree_holds(tree, tmp_path, packed, lead):
    root = tree(classes=("cat", "dog", "<script>", "猫 $%&#", "train"))
    path = tmp_path / packed
    files = sorted(root.rglob("*.png"), reverse=True)
    if packed.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, lead + str(file.relative_to(root)))
    else:
        with tarfile.open(path, f"w:{packed.split('.')[2] if packed.count('.') > 1 else ''}") as archive:
            for file in files:
                archive.add(file, lead + str(file.relative_to(root)))
    unpacked, archived = data.load(str(root), 64), data.load(str(path), 64)
    assert archived.fingerprint == unpacked.fingerprint and archived.classes == unpacked.classes
    assert torch.equal(archived.train, unpacked.train) and torch.equal(archived.test_labels, unpacked.test_labels)


def test_hidden_and_foreign_files_are_no_images(tar):
    extra = {
        "train/a/._0.png": b"x",
        "__MACOSX/train/a/0.png": b"x",
        "train/a/notes.txt": b"x",
        ".git/train/a/x.png": b"x",
    }
    assert len(data.load(str(tar(members("top/") | extra)), 64).train) == 4


def test_cifar10_comes_from_torchvision(monkeypatch, tmp_path):
    class Fake:
        classes = ["a", "b"]

        def __init__(self, root, train, download):
            assert download
            self.data = np.full((4 if train else 2, 32, 32, 3), 7, np.uint8)
            self.targets = [0, 1] * (2 if train else 1)

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    first = data.load("cifar10", 64)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", None)  # the second time nothing is asked of it
    assert data.load("cifar10", 64).fingerprint == first.fingerprint and first.name == "CIFAR-10"


def test_a_failed_download_names_the_ways_out(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", offline)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(InputError, match="no route to host.*connect once.*DATA=digits"):
        data.load("cifar10", 64)


@pytest.mark.long
def test_all_of_cifar10_as_jpeg(cifar10_archive):
    images = data.load(cifar10_archive, 64)
    assert images.train.shape == (50_000, 32, 32, 3) and images.test.shape == (10_000, 32, 32, 3)
    assert images.train_labels.bincount().tolist() == [5000] * 10
    assert images.classes[:3] == ("airplane", "automobile", "bird")


# --- what cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: {n: c for n, c in m.items() if n.startswith("train")}, "no test/ folder.*expected is train/<class>"),
        (lambda m: {n: c for n, c in m.items() if n.startswith("test")}, "no train/ folder.*expected is train/<class>"),
        (lambda m: {}, "no train/ folder"),
        (lambda m: {n: c for n, c in m.items() if not n.startswith("test/b")}, "class 'b' has no image under test/"),
        (lambda m: m | {"test/c/0.png": png()}, "class 'c' has no image under train/"),
        (lambda m: m | {"train/a/9.png": b"not a picture"}, "image 'train/a/9.png' cannot be decoded"),
        (lambda m: m | {"train/a/9.png": png((30, 30))[:-20]}, "image 'train/a/9.png' cannot be decoded"),
    ],
)
def test_a_tree_that_cannot_be_used_is_explained(tar, change, says):
    with pytest.raises(InputError, match=says) as error:
        data.load(str(tar(change(members()))), 64)
    assert "\n" not in str(error.value)


def test_a_failed_decoding_leaves_no_cache(tar, tmp_path):
    with pytest.raises(InputError):
        data.load(str(tar(members() | {"train/b/9.png": b"no"})), 64)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.tar"])
def test_a_truncated_archive_is_never_a_smaller_data_set(tar, name):
    path = tar(members(), name)
    whole = path.read_bytes()
    data.load(str(path), 64)
    end = len(whole.rstrip(b"\0")) if name == "x.tar" else len(whole) - 1  # an uncompressed one ends in padding
    for cut in range(0, end, max(1, len(whole) // 60)):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="is it complete|has no t|has no image"):
            data.load(str(path), 64)


def test_a_damaged_zip_is_explained(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members().items():
            archive.writestr(name, content)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="cannot be read as a tar or zip archive"):
        data.load(str(path), 64)


def test_what_cannot_be_read_in_a_tree_is_named(tree):
    root = tree()
    (root / "train" / "cat" / "dangling.png").symlink_to("nowhere")
    with pytest.raises(InputError, match="dangling.png' cannot be read"):
        data.load(str(root), 64)


def test_a_class_without_a_printable_name_is_refused(tar):
    extra = {"train/c\x07/0.png": png(), "test/c\x07/0.png": png()}
    with pytest.raises(InputError, match="no printable name"):
        data.load(str(tar(members() | extra)), 64)


def test_a_cache_that_cannot_be_written_is_named(tree, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cache is .*nothing can be written"):
        data.load(str(tree()), 64, cache=str(tmp_path / "file" / "cache"))


def test_a_link_in_an_archive_is_refused(tar):
    link = tarfile.TarInfo("train/a/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(InputError, match="'train/a/link.png' is a link"):
        data.load(str(tar(members() | {link.name: link})), 64)


def test_one_class_is_too_few(tree):
    images = data.load(str(tree(classes=("only",))), 64)
    with pytest.raises(InputError, match="1 class .*'only'.*at least 2"):
        data.check(images, Config("linear_probe"))


def test_a_batch_larger_than_the_data_is_refused(few_digits):
    with pytest.raises(InputError, match="batch_size is 128; allowed is at most the 50 training images"):
        data.check(few_digits, Config("linear_probe"))
    data.check(few_digits, Config("linear_probe", batch_size=50))


def test_a_split_without_validation_is_refused(tree):
    images = data.load(str(tree(train=2)), 64)
    with pytest.raises(InputError, match="val_fraction is 0.2.*none for validation"):
        data.check(images, Config("linear_probe", batch_size=1))


# --- cache -----------------------------------------------------------------------------------------------------


def test_the_cache_is_used_again_and_never_stale(tree, monkeypatch):
    root = tree()
    first = data.load(str(root), 64)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode", None)  # decoding again would fail
        assert data.load(str(root), 64).fingerprint == first.fingerprint
        assert data.load(str(root), 100).fingerprint == first.fingerprint
    Image.new("RGB", (12, 10)).save(root / "train" / "cat" / "000.png")
    assert data.load(str(root), 64).fingerprint != first.fingerprint


def test_a_cache_of_larger_pictures_is_not_mistaken_for_smaller_ones(tree):
    root = tree(size=(90, 90))
    assert data.load(str(root), 100).train.shape[1:3] == (90, 90)
    assert data.load(str(root), 64).train.shape[1:3] == (64, 64)


# --- split -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.floats(0.01, 0.99), st.integers(0, 2**31 - 1))
def test_split_is_disjoint_complete_stratified_and_blind_to_the_approach(labels, fraction, seed):
    labels = torch.tensor(labels)
    configs = [Config(a, val_fraction=fraction, seed=seed) for a in ("linear_probe", "full_finetune")]
    (train, validation), other = (data.split(labels, config) for config in configs)
    assert torch.equal(train, other[0]) and torch.equal(validation, other[1])
    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(labels)))
    for label in labels.unique():
        count = int((labels == label).sum())
        held_out = int((labels[validation] == label).sum())
        assert held_out <= count - 1 and abs(held_out - count * fraction) <= max(0.5, 1 - (1 - fraction) * count + 1e-9)


def test_split_depends_on_the_seed():
    labels = torch.zeros(100, dtype=torch.int64)
    splits = {tuple(data.split(labels, Config("linear_probe", seed=seed))[1].tolist()) for seed in range(5)}
    assert len(splits) == 5
