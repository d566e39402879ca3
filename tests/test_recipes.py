"""What the recipes do: `published` against an independent version of the listings, each defect, and `tuned`'s parts."""

import dataclasses
import os
import time

import numpy as np
import pytest
import torch
from bench import published
from torch import nn

from report_lib import data, features, model, runner, search, train
from report_lib.recipe import DEFECTS, NAMED, InputError, Recipe, derive_seed, named, probe_of, request_key

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def setting(few_digits, tmp_path_factory):
    return train.Setting(few_digits, model.load_weights("embedded"), CPU, "float32", tmp_path_factory.mktemp("cache"))


def small(approach, recipe, **fields):
    return named(approach, recipe, **({"image_size": 63, "epochs": 3, "batch_size": 16} | fields))


def orders(recipe, labels):
    """Rows to train on, epoch by epoch, as `fit` draws them; dropout's generator is seeded on the way."""
    training, _ = data.split(labels, recipe)
    for epoch in range(1, recipe.epochs + 1):
        torch.manual_seed(derive_seed(recipe.seed, f"dropout {epoch}"))
        shuffle = torch.Generator().manual_seed(derive_seed(recipe.seed, f"order {epoch}"))
        yield training[torch.randperm(len(training), generator=shuffle)].tolist()


@pytest.fixture(scope="module")
def full_size(setting):
    """The same digits, enlarged already: PIL rounds what it enlarges to 8 bits, which we don't."""
    images = setting.images
    large = {part: getattr(images, part).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :63, :63].contiguous()
             for part in ("train", "test")}  # fmt: skip
    return dataclasses.replace(setting, images=dataclasses.replace(images, **large, fingerprint="full size"))


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_published_does_what_the_listings_do(full_size, approach):
    setting = full_size
    recipe = small(approach, "published", epochs=2)  # with more, training amplifies what rounding began
    images = setting.images
    parts = [(images.train.numpy(), images.train_labels.numpy()), (images.test.numpy(), images.test_labels.numpy())]
    net = model.build(setting.weights, 10, recipe.seed)
    theirs = getattr(published, approach)(net, *parts, orders(recipe, images.train_labels), 63, CPU, batch_size=16)
    ours = train.adapt(recipe, setting)
    for column, name in (("train_loss", "train_loss"), ("validation_loss", "validation_loss"),
                         ("validation_accuracy", "accuracy")):  # fmt: skip
        curve = [epoch[column] for epoch in ours.history.epochs]
        np.testing.assert_allclose(curve[0], theirs[name][0], rtol=1e-4)
        np.testing.assert_allclose(curve, theirs[name], rtol=1e-2)
    assert max(theirs["accuracy"]) == pytest.approx(
        ours.history.epochs[ours.history.selected - 1]["validation_accuracy"]
    )
    assert np.array_equal(train.test(ours, recipe, setting), ours.history.validation_logits)
    assert len(ours.training.index) == (48 if approach == "linear_probe" else 60)


def test_each_defect_of_the_probe_is_in_the_listing(full_size):
    """Mending any one defect of the published probe moves its curve away from the listing's."""
    setting, recipe = full_size, small("linear_probe", "published", epochs=1)
    images = setting.images
    parts = [(images.train.numpy(), images.train_labels.numpy()), (images.test.numpy(), images.test_labels.numpy())]
    net = model.build(setting.weights, 10, 0)
    theirs = published.linear_probe(net, *parts, orders(recipe, images.train_labels), 63, CPU, batch_size=16)

    def distance(one):
        (epoch,) = train.adapt(one, setting).history.epochs
        return max(abs(epoch[name] - theirs[name][0]) for name in ("train_loss", "validation_loss"))

    assert distance(recipe) < 1e-5
    for mended in set(DEFECTS) & NAMED["published"]["linear_probe"].keys():
        assert distance(dataclasses.replace(recipe, **{mended: False})) > 1e-4, mended


def test_each_defect_of_fine_tuning_is_in_the_listing(full_size):
    """The same of the published fine-tuning; dropout that ends shows in its second epoch."""
    setting, recipe = full_size, small("full_finetune", "published", epochs=2)
    images = setting.images
    parts = [(images.train.numpy(), images.train_labels.numpy()), (images.test.numpy(), images.test_labels.numpy())]
    net = model.build(setting.weights, 10, 0)
    theirs = published.full_finetune(net, *parts, orders(recipe, images.train_labels), 63, CPU, batch_size=16)

    def distance(one):
        epochs = train.adapt(one, setting).history.epochs
        return max(
            abs(epoch[name] / theirs[name][at] - 1)
            for at, epoch in enumerate(epochs) for name in ("train_loss", "validation_loss")
        )  # fmt: skip

    assert distance(recipe) < 1e-2
    mendings = {"normalisation": {"normalisation": "imagenet"}, "dropout_ends": {"dropout_ends": False},
                "train_on_all": {"train_on_all": False},
                "select_on_test": {"train_on_all": False, "select_on_test": False}}  # fmt: skip
    assert set(mendings) == set(DEFECTS) & NAMED["published"]["full_finetune"].keys()
    for name, mended in mendings.items():
        assert distance(dataclasses.replace(recipe, **mended)) > 5e-2, name


def test_the_probe_that_fine_tuning_starts_from_has_its_split():
    for given in ({"unstratified": True}, {"train_on_all": True, "select_on_test": True}):
        recipe = named("full_finetune", "tuned", **given)
        assert all(getattr(probe_of(recipe), name) == value for name, value in given.items())


def test_convolutional_features_with_dropout_above_give_what_the_whole_network_gives(setting):
    """The published probe from cached features against the whole network run anew in every epoch, dropout on."""
    recipe = small("linear_probe", "published")
    cached = train.adapt(recipe, setting).history
    net = model.build(setting.weights, 10, 0)
    model.freeze_trunk(net)
    labels, test_labels = setting.images.train_labels, setting.images.test_labels
    training = train.Samples(
        train.pictures(setting.images.train, recipe, CPU), labels, data.split(labels, recipe)[0]
    )  # fmt: skip
    testing = train.whole(train.pictures(setting.images.test, recipe, CPU), test_labels, CPU)
    whole = train.fit(net, training, testing, recipe, None)
    for ours, theirs in zip(cached.epochs, whole.epochs, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-5)
    assert torch.equal(cached.validation_logits.argmax(1), whole.validation_logits.argmax(1))


def test_dropout_ends_after_the_first_epoch_only_where_it_is_published(setting, monkeypatch):
    modes = []
    train_epoch = train.train_epoch
    monkeypatch.setattr(
        train, "train_epoch", lambda module, *given: modes.append(module.training) or train_epoch(module, *given)
    )
    train.adapt(small("full_finetune", "published", epochs=2, batch_size=60), setting)
    train.adapt(small("full_finetune", "corrected", epochs=2, batch_size=24), setting)
    assert modes == [True, False, True, True]


def test_normalisations():
    batch = torch.randint(256, (4, 63, 63, 3), dtype=torch.uint8)
    ours = data.preprocess(batch, 63, "half")
    assert torch.allclose(ours, batch.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert not torch.allclose(ours, data.preprocess(batch, 63), atol=0.1)


def test_a_label_budget_is_nested_and_keeps_validation_apart():
    labels = torch.arange(200) % 4
    small_budget, large, everything = (
        [set(part.tolist()) for part in data.split(labels, Recipe("linear_probe", per_class=n))] for n in (10, 30, 0)
    )
    for train_part, validation in (small_budget, large, everything):
        assert not train_part & validation
    assert [len(part) for part in small_budget] == [32, 8]
    assert small_budget[0] | small_budget[1] < large[0] | large[1] < everything[0] | everything[1] == set(range(200))


def test_drawn_without_regard_to_class_and_nothing_held_out():
    labels = torch.arange(1000) % 10
    validation = data.split(labels, Recipe("linear_probe", unstratified=True))[1]
    assert len(validation) == 200 and len(set(np.bincount(labels[validation]))) > 1
    everything, none = data.split(labels, Recipe("full_finetune", train_on_all=True, select_on_test=True))
    assert everything.tolist() == list(range(1000)) and not len(none)


@pytest.mark.parametrize(
    ("approach", "fields", "says"),
    [
        ("linear_probe", {"dropout_ends": True}, "dropout_ends is True; only full_finetune has that"),
        ("linear_probe", {"flip": True}, "flip is True; only full_finetune"),
        ("full_finetune", {"frozen_dropout": True}, "frozen_dropout is True; only linear_probe"),
        ("full_finetune", {"train_on_all": True}, "select_on_test must be True too"),
        ("linear_probe", {"standardise": True, "frozen_dropout": True}, "frozen_dropout must be False"),
        ("linear_probe", {"select_on_test": 1}, "select_on_test is 1; allowed are true and false"),
        ("linear_probe", {"recipe": "best"}, "recipe is 'best'; allowed are published, corrected, tuned"),
        ("full_finetune", {"start": "warm"}, "start is 'warm'; allowed are random, probe"),
        ("full_finetune", {"weight_decay": -0.1}, "weight_decay is -0.1; allowed are numbers from 0"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(approach, fields, says):
    with pytest.raises(InputError, match=says):
        named(approach, **fields)


# --- the parts of `tuned` --------------------------------------------------------------------------------------


def test_the_rate_rises_then_falls_as_half_a_cosine():
    recipe = named("full_finetune", "tuned", warmup=0.1)
    factors = [train.rate_factor(step, 100, recipe) for step in range(100)]
    assert factors[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert factors[10:] == pytest.approx([0.5 * (1 + np.cos(np.pi * n / 90)) for n in range(90)])
    assert {train.rate_factor(step, 100, Recipe("linear_probe")) for step in range(100)} == {1.0}


def test_the_trunk_has_a_rate_of_its_own():
    net = model.build(model.Weights("none", None, None), 10, 0)
    recipe = named("full_finetune", "tuned", learning_rate=0.01, trunk_rate=0.3)
    trunk, head = model.optimized(net, recipe).param_groups
    assert head["initial_lr"] == 0.01 and trunk["initial_lr"] == pytest.approx(0.003)
    assert [p.shape for p in head["params"]] == [(10, 4096), (10,)]
    assert sum(p.numel() for p in trunk["params"]) + 40970 == sum(p.numel() for p in net.parameters())


def test_moved_and_mirrored_pictures_are_numpys():
    batch = torch.randint(256, (64, 9, 11, 3), dtype=torch.uint8)
    torch.manual_seed(5)
    ours = data.augment(batch, flip=True, shift=0.23).numpy()
    seen = set()
    for picture, made in zip(batch.numpy(), ours, strict=True):
        candidates = {}
        for mirrored in (False, True):
            padded = np.pad(picture[:, ::-1] if mirrored else picture, ((2, 2), (2, 2), (0, 0)), mode="reflect")
            candidates |= {(mirrored, y, x): padded[y : y + 9, x : x + 11] for y in range(5) for x in range(5)}
        (found,) = [key for key, one in candidates.items() if np.array_equal(one, made)]
        seen.add(found)
    assert {key[0] for key in seen} == {False, True} and len(seen) > 25
    assert torch.equal(data.augment(batch, flip=False, shift=0.09), batch)


def test_standardised_features_have_mean_0_and_deviation_1_and_fold_into_a_plain_head():
    values = torch.randn(5000, 7) * torch.tensor([1, 2, 3, 4, 5, 6, 0.0]) + 10
    part = train.Samples(values.__getitem__, torch.zeros(5000), torch.arange(5000))
    module = train.standardised(nn.Linear(7, 3), part)
    scaled = (values - module.mean) / module.std
    np.testing.assert_allclose(scaled.mean(0), np.zeros(7), atol=1e-4)
    np.testing.assert_allclose(scaled.std(0, correction=0), [1] * 6 + [0], atol=1e-4)
    torch.testing.assert_close(module.plain()(values), module(values), rtol=1e-4, atol=1e-4)


def test_fine_tuning_starts_from_the_tuned_probe(setting):
    recipe = small("full_finetune", "tuned")
    probe = train.adapt(small("linear_probe", "tuned"), setting)
    net = model.build(setting.weights, 10, 0)
    train.start_from_probe(net, recipe, setting)
    net.eval()
    with torch.no_grad():
        logits = net(data.preprocess(setting.images.train, 63))[probe.validation.index]
    torch.testing.assert_close(logits, probe.history.validation_logits, rtol=1e-3, atol=1e-3)
    assert all(p.requires_grad for p in net.parameters())


def test_augmentation_touches_training_pictures_only(setting, monkeypatch):
    augmented = []
    monkeypatch.setattr(data, "augment", lambda batch, flip, shift: augmented.append(len(batch)) or batch)
    train.adapt(small("full_finetune", "tuned", epochs=2, batch_size=24), setting)
    assert augmented == [24, 24, 2] * 2


def test_a_search_reads_no_test_image_and_goes_on_where_it_stopped(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "FOLDER", tmp_path)
    monkeypatch.setattr(search, "GRID", {"linear_probe": [{"learning_rate": [0.01, 0.001], "weight_decay": [0.1]}]})
    blind = dataclasses.replace(setting.images, test=torch.empty(0), test_labels=torch.empty(0))
    monkeypatch.setattr(data, "load", lambda *given: blind)
    shared = {"data": "digits", "weights": "embedded", "image_size": 63, "epochs": 2, "batch_size": 16, "seed": 0}
    path = search.search("linear_probe", shared)
    rows = search.read(path)
    assert [row["learning_rate"] for row in rows] == [0.01, 0.001]
    best = max(rows, key=lambda row: row["validation_accuracy"])
    assert search.winner("linear_probe") == {"learning_rate": best["learning_rate"], "weight_decay": 0.1}
    with monkeypatch.context() as patch:
        patch.setattr(train, "adapt", None)  # training a finished trial again would fail
        assert search.search("linear_probe", shared) == path
    with pytest.raises(InputError, match="holds a search under other conditions"):
        search.search("linear_probe", shared | {"epochs": 3})


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_tuned_is_the_winner_of_the_recorded_search(approach):
    won = search.winner(approach)
    recipe = named(approach, "tuned")
    assert {name: getattr(recipe, name) for name in won} == won


def test_the_probe_that_fine_tuning_starts_from_is_part_of_its_name(setting, monkeypatch):
    recipe = small("full_finetune", "tuned")
    before = runner.run_name(recipe, setting.images, setting.weights), request_key(recipe)
    monkeypatch.setitem(NAMED["tuned"], "linear_probe", NAMED["tuned"]["linear_probe"] | {"weight_decay": 0.07})
    after = runner.run_name(recipe, setting.images, setting.weights), request_key(recipe)
    assert before[0] != after[0] and before[1] != after[1]


# --- frozen features -------------------------------------------------------------------------------------------


class Counting(nn.Linear):
    """Linear(3, 4), counting the rows it was asked for."""

    def __init__(self):
        super().__init__(3, 4)
        self.rows = 0

    def forward(self, batch):
        self.rows += len(batch)
        return super().forward(batch)


def test_features_are_made_once_and_again_when_anything_else_is_asked_for_or_they_are_damaged(tmp_path):
    layers, inputs = Counting(), torch.randn(100, 3)

    def ask(**key):
        return features.frozen_features(layers, inputs.__getitem__, 100, 4, {"code": "a"} | key, tmp_path)[0]

    expected = layers(inputs).detach()
    torch.testing.assert_close(ask(), expected)
    made = layers.rows
    torch.testing.assert_close(ask(), expected)
    assert layers.rows == made
    ask(code="b")
    assert layers.rows == made + 100
    damages = [
        ("values.npy", lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:]),
        ("values.npy", lambda content: content[:-9]),
        ("meta.json", lambda content: content[:5]),
        ("meta.json", lambda content: b"[]"),
    ]
    for file, damage in damages:
        rows = layers.rows
        for path in tmp_path.glob(f"features-*/{file}"):
            path.write_bytes(damage(path.read_bytes()))
        torch.testing.assert_close(ask(), expected)
        assert layers.rows == rows + 100, (file, damage)
    assert not list(tmp_path.glob(".*"))


def test_a_stray_write_never_reaches_the_stored_features(tmp_path):
    layers, inputs = Counting(), torch.randn(100, 3)
    for _ in range(2):
        values = features.frozen_features(layers, inputs.__getitem__, 100, 4, {}, tmp_path)[0]
        assert not (values == 7).any()
        values.fill_(7)


def test_the_features_used_longest_ago_make_room(tmp_path, monkeypatch):
    layers, inputs = Counting(), torch.randn(1000, 3)
    size = 1000 * 4 * 4  # bytes, and a few hundred for the header and meta.json
    monkeypatch.setenv("REPORT_CACHE_GIB", str(2.5 * size / 2**30))

    def ask(name):
        before = layers.rows
        features.frozen_features(layers, inputs.__getitem__, 1000, 4, {"name": name}, tmp_path)
        return layers.rows > before

    assert [ask(name) for name in "abab"] == [True, True, False, False]
    time.sleep(0.02)
    ask("a")
    assert ask("c")  # b was used longest ago
    assert not ask("a") and not ask("c") and ask("b")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(InputError, match="has no room for .* GiB of frozen features"):
        ask("d")


def test_features_that_cannot_be_replaced_are_not_used(tmp_path, monkeypatch):
    layers, inputs = Counting(), torch.randn(100, 3)
    features.frozen_features(layers, inputs.__getitem__, 100, 4, {}, tmp_path)
    (path,) = tmp_path.glob("features-*/values.npy")
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    monkeypatch.setattr(features, "_put_away", lambda entry: None)  # as if another user owned it
    with pytest.raises(InputError, match="is damaged and cannot be replaced"):
        features.frozen_features(layers, inputs.__getitem__, 100, 4, {}, tmp_path)


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, age in ((".features-old-x", 90_000), (".features-young-x", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.npy").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    features.make_room(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == [".features-young-x"]


def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("REPORT_CACHE_GIB", "much")
    with pytest.raises(InputError, match="REPORT_CACHE_GIB is 'much'; allowed is a number of GiB"):
        features.make_room(tmp_path, 10)


def test_seeds_share_the_features(setting, monkeypatch):
    passes = []
    pictures = train.pictures
    monkeypatch.setattr(
        train, "pictures", lambda *given: (lambda read: lambda i: passes.append(len(i)) or read(i))(pictures(*given))
    )
    fresh = dataclasses.replace(setting, cache=setting.cache / "fresh")
    for seed in range(3):
        train.adapt(small("linear_probe", "corrected", seed=seed), fresh)
    assert sum(passes) == len(setting.images.train)


def test_nothing_within_an_epoch_waits_for_the_device(few_digits):
    """No value is read back to the host, and none is copied there: that would stall a GPU every step."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket._qualified_op_name
            seen.append(name.removeprefix("aten::"))
            return function(*args, **(kwargs or {}))

    seen: list[str] = []
    recipe = small("full_finetune", "tuned")
    net = model.build(model.load_weights("embedded"), 10, 0)
    training = train.Samples(train.pictures(few_digits.train, recipe, CPU, augmented=True), few_digits.train_labels,
                             torch.arange(48))  # fmt: skip
    optimizer = model.optimized(net, recipe)
    batches = training.index.split(24)
    train.train_epoch(net, training, batches[:1], optimizer, [1.0])
    with Watch():
        train.train_epoch(net, training, batches, optimizer, [1.0, 1.0])
    assert "convolution" in seen and "index" in seen
    assert not {"_local_scalar_dense", "item", "nonzero", "lift_fresh", "is_nonzero", "_to_cpu", "masked_select"} & set(
        seen
    )


def test_flops_are_alexnets():
    """Twice the multiply-adds of every layer, added up by hand; backward twice that, but for the pictures' gradient."""
    net = model.build(model.Weights("none", None, None), 10, 0)
    convolutions = [(55, 64, 3 * 121), (27, 192, 64 * 25), (13, 384, 192 * 9), (13, 256, 384 * 9), (13, 256, 256 * 9)]
    layers = [2 * side * side * out * taps for side, out, taps in convolutions]
    layers += [2 * 9216 * 4096, 2 * 4096 * 4096, 2 * 4096 * 10]
    assert model.flops(net, 224) == (sum(layers), 2 * sum(layers) - layers[0])
    model.freeze_trunk(net)
    assert model.flops(net, 224) == (sum(layers), 2 * 4096 * 10)
