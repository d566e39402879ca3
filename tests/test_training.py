"""What a run does: `published` against an independent version of the listings, each defect, `tuned`, the loop."""

import copy
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from bench import published
from torch import nn
from tuning import search

from report_lib import data, models
from report_lib.config import APPROACHES, DEFECTS, FEW_LABELS, NETWORKS, PRESETS, Config, derive_seed, preset
from report_lib.data import decoded
from report_lib.files import InputError
from report_lib.training import checkpoints, device, features, loop, precision
from report_lib.training import task as tasks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Frozen features are kept for all tests of this module."""
    return device.Place(CPU, "float32", tmp_path_factory.mktemp("cache"))


@dataclasses.dataclass
class Fitted:
    net: nn.Module
    task: tasks.Task
    history: loop.History

    @property
    def losses(self):
        return [(epoch["train_loss"], epoch["validation_loss"]) for epoch in self.history.epochs]


def config_of(approach, name="corrected", **fields):
    return preset(approach, name, **({"image_size": 63, "epochs": 2, "batch_size": 16} | fields))


def fit(config, images, place, net=None, checkpoint=None):
    """The run of a config, up to the test: the network is in the state of its selected epoch."""
    if net is None:
        net = models.build(config, images.classes)
        models.train_only(net, config)
    task = loop.begin(net, images, config, place)
    *_, history = loop.train(task, config, place, checkpoint=checkpoint)
    loop.finish(net, task, history, config)
    return Fitted(net, task, history)


# --- what is trained -------------------------------------------------------------------------------------------


def test_a_linear_probe_leaves_every_bit_of_the_trunk(few_digits, place):
    config = config_of("linear_probe")
    fitted, start = fit(config, few_digits, place), models.build(config, 10).state_dict()
    for name, value in fitted.net.state_dict().items():
        assert torch.equal(value, start[name]) != name.startswith("classifier.6."), name


def test_fine_tuning_changes_every_layer(few_digits, place):
    config = config_of("full_finetune", epochs=1, batch_size=24)
    fitted, start = fit(config, few_digits, place), models.build(config, 10).state_dict()
    assert [name for name, value in fitted.net.state_dict().items() if torch.equal(value, start[name])] == []


@pytest.mark.parametrize("network", list(NETWORKS))
def test_every_network_trains_every_approach(last_block, few_digits, tmp_path, network):
    """One epoch at the smallest picture: what is trained moves, and nothing else does, running statistics included."""
    images = dataclasses.replace(few_digits, train=few_digits.train[:24], train_labels=few_digits.train_labels[:24],
                                 fingerprint="fewer digits")  # fmt: skip
    start = None
    for approach in APPROACHES:
        config = preset(approach, network=network, weights="none", image_size=NETWORKS[network].smallest, epochs=1,
                        batch_size=24, val_fraction=0.34, precision="float32")  # fmt: skip
        start = start or models.build(config, 10)
        models.train_only(start, config)
        fitted = fit(config, images, device.Place(CPU, "float32", tmp_path), copy.deepcopy(start))
        trained = models.trained_by(start, config)
        assert models.trained_names(fitted.net) == trained
        norms = [name for name, part in start.named_modules() if isinstance(part, nn.BatchNorm2d)]
        moving = [f"{name}.{kind}" for name in norms if f"{name}.weight" in trained
                  for kind in ("running_mean", "running_var", "num_batches_tracked")]  # fmt: skip
        before = start.state_dict()
        moved = {name for name, value in fitted.net.state_dict().items() if not torch.equal(value, before[name])}
        assert moved <= {*trained, *moving}, (network, approach)
        assert {name for name in moving if "num_batches" in name} <= moved
        assert len(moved & set(trained)) > 0.9 * len(trained), "a bias before a normalisation may stay"
        (epoch,) = fitted.history.epochs
        assert epoch["train_loss"] > 0 and 0 <= epoch["validation_accuracy"] <= 1
        assert loop.test(fitted.task, fitted.history, images, config, place_of(tmp_path)).shape == (20, 10)


def place_of(cache, kind="float32"):
    return device.Place(CPU, kind, cache)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small", "vgg11_bn"])
def test_an_image_left_over_is_no_fault_of_batch_normalisation(few_digits, small, tmp_path, monkeypatch, network):
    """It would be a step of its own, whose 1 x 1 pixels have no variance."""
    sizes, step = [], loop.step
    watched = lambda module, inputs, *given: sizes.append(len(inputs)) or step(module, inputs, *given)  # noqa: E731
    config = small("full_finetune", network=network, batch_size=49, flip=network == "vgg11_bn")
    net = models.build(config, 10)
    models.train_only(net, config)
    assert len(data.split(few_digits.train_labels, config)[0]) == 50
    list(loop.epochs(net, few_digits, config, watched, "cpu", str(tmp_path)))
    assert sizes == [50]
    probe = small("linear_probe", network=network, batch_size=49)
    models.train_only(net, probe)
    list(loop.epochs(net, few_digits, probe, watched, "cpu", str(tmp_path)))
    assert sizes[1:] == [49, 1], "frozen normalisation does not mind"
    models.train_only(net, config)
    with pytest.raises(InputError, match="batch_size is 1, which leaves steps of a single image"):
        list(loop.epochs(net, few_digits, dataclasses.replace(config, batch_size=1), device="cpu", cache=str(tmp_path)))


def test_a_network_with_nothing_to_train_is_one_sentence(few_digits, place):
    config = config_of("linear_probe", weights="none")
    net = models.build(config, 10).requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that needs gradients; models.train_only says"):
        loop.begin(net, few_digits, config, place)


def test_a_network_that_the_library_did_not_build_is_one_sentence(few_digits, place):
    with pytest.raises(InputError, match="none that models.build made"):
        loop.begin(models.weights.bare("alexnet"), few_digits, config_of("full_finetune"), place)


# --- the published listings ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_size(few_digits):
    """The same digits, enlarged already: PIL rounds what it enlarges to 8 bits, which we don't."""
    large = {part: getattr(few_digits, part).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :63, :63].contiguous()
             for part in ("train", "test")}  # fmt: skip
    return dataclasses.replace(few_digits, **large, fingerprint="full size")


def orders(config, labels):
    """Rows to train on, epoch by epoch, as the loop draws them; dropout's generator is seeded on the way."""
    training, _ = data.split(labels, config)
    for epoch in range(1, config.epochs + 1):
        torch.manual_seed(derive_seed(config.seed, f"dropout {epoch}"))
        shuffle = torch.Generator().manual_seed(derive_seed(config.seed, f"order {epoch}"))
        yield training[torch.randperm(len(training), generator=shuffle)].tolist()


def listing(config, images):
    """The curves of the published listing of the config's approach."""
    parts = [(images.train.numpy(), images.train_labels.numpy()), (images.test.numpy(), images.test_labels.numpy())]
    net, order = models.build(config, 10), orders(config, images.train_labels)
    return getattr(published, config.approach)(net, *parts, order, 63, CPU, batch_size=config.batch_size)


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_published_does_what_the_listings_do(full_size, place, approach):
    config = config_of(approach, "published")  # with more epochs, training amplifies what rounding began
    theirs, ours = listing(config, full_size), fit(config, full_size, place)
    for column, name in (("train_loss", "train_loss"), ("validation_loss", "validation_loss"),
                         ("validation_accuracy", "accuracy")):  # fmt: skip
        curve = [epoch[column] for epoch in ours.history.epochs]
        np.testing.assert_allclose(curve[0], theirs[name][0], rtol=1e-4)
        np.testing.assert_allclose(curve, theirs[name], rtol=1e-2)
    selected = ours.history.epochs[ours.history.selected - 1]
    assert max(theirs["accuracy"]) == pytest.approx(selected["validation_accuracy"])
    logits = loop.test(ours.task, ours.history, full_size, config, place)
    assert torch.equal(logits, ours.history.validation_logits)
    assert len(ours.task.training.index) == (48 if approach == "linear_probe" else 60)


def test_each_defect_of_the_probe_is_in_the_listing(full_size, place):
    """Mending any one defect of the published probe moves its curve away from the listing's."""
    config = config_of("linear_probe", "published", epochs=1)
    theirs = listing(config, full_size)

    def distance(other):
        (epoch,) = fit(other, full_size, place).history.epochs
        return max(abs(epoch[name] - theirs[name][0]) for name in ("train_loss", "validation_loss"))

    assert distance(config) < 1e-5
    for defect in set(DEFECTS) & PRESETS["published"]["head"].keys():
        assert distance(dataclasses.replace(config, **{defect: False})) > 1e-4, defect


def test_each_defect_of_fine_tuning_is_in_the_listing(full_size, place):
    """The same of the published fine-tuning; dropout that ends shows in its second epoch."""
    config = config_of("full_finetune", "published", seed=1)  # whose rounding no step amplifies
    theirs = listing(config, full_size)

    def distance(other):
        epochs = fit(other, full_size, place).history.epochs
        return max(
            abs(epoch[name] / theirs[name][at] - 1)
            for at, epoch in enumerate(epochs) for name in ("train_loss", "validation_loss")
        )  # fmt: skip

    assert distance(config) < 1e-3
    mendings = {"normalisation": {"normalisation": "imagenet"}, "dropout_ends": {"dropout_ends": False},
                "train_on_all": {"train_on_all": False},
                "select_on_test": {"train_on_all": False, "select_on_test": False}}  # fmt: skip
    assert set(mendings) == set(DEFECTS) & PRESETS["published"]["all"].keys()
    for name, mended in mendings.items():
        assert distance(dataclasses.replace(config, **mended)) > 1e-2, name


def test_dropout_ends_after_the_first_epoch_only_where_it_is_published(few_digits, small, tmp_path, monkeypatch):
    modes, train_epoch = [], loop.train_epoch
    monkeypatch.setattr(
        loop, "train_epoch", lambda module, *given: modes.append(module.training) or train_epoch(module, *given)
    )
    for name in ("published", "corrected"):
        fit(small("full_finetune", name, epochs=2, batch_size=24), few_digits, place_of(tmp_path))
    assert modes == [True, False, True, True]


# --- frozen features against the whole network -----------------------------------------------------------------


def whole_network(config, images, place):
    """A probe's run whose frozen trunk is computed anew in every epoch."""
    net = models.build(config, images.classes)
    models.train_only(net, config)
    labels, (index, held_out) = images.train_labels, data.split(images.train_labels, config)
    inputs = tasks.pictures(images.train, config, CPU)
    validation = tasks.Samples(inputs, labels, held_out)
    if config.select_on_test:
        validation = tasks.whole(tasks.pictures(images.test, config, CPU), images.test_labels, CPU)
    head = models.head_of(net, config)
    if not config.frozen_dropout:
        net.train = lambda mode=True: nn.Module.train(net, False)  # the trunk never leaves eval mode
    task = tasks.Task(net, head, tasks.Samples(inputs, labels, index), validation, lambda part: None, 0, 0)
    *_, history = loop.train(task, config, place)
    return history


@pytest.mark.parametrize("name", ["corrected", "published"])
def test_frozen_features_give_what_the_whole_network_gives(few_digits, place, name):
    """Features of the penultimate layer, or below the first dropout, where that is on in the frozen trunk."""
    config = config_of("linear_probe", name, epochs=3)
    cached, whole = fit(config, few_digits, place).history, whole_network(config, few_digits, place)
    for ours, theirs in zip(cached.epochs, whole.epochs, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-5)
    assert torch.equal(cached.validation_logits.argmax(1), whole.validation_logits.argmax(1))


def test_seeds_share_the_features(few_digits, small, tmp_path, monkeypatch):
    rows, pictures = [], tasks.pictures
    monkeypatch.setattr(
        tasks, "pictures", lambda *given: (lambda read: lambda i: rows.append(len(i)) or read(i))(pictures(*given))
    )
    weights = models.Weights("shared", "of all seeds", models.build(small(), 10).state_dict())
    monkeypatch.setattr(models.networks, "load_weights", lambda *_: weights)
    for seed in range(3):
        fit(small(seed=seed), few_digits, place_of(tmp_path))
    assert sum(count for count in rows if count > 1) == len(few_digits.train)
    assert rows.count(1) == 3, "one picture tells the features' shape"


def test_features_of_a_probe_are_what_lies_below_its_head(few_digits, small):
    config = small()
    values = tasks.features_of(config, few_digits, "test", "cpu")
    net = models.build(config, 10).eval()
    pictures = data.preprocess(few_digits.test, config.image_size)
    with torch.no_grad():
        torch.testing.assert_close(models.head_of(net, config)(values), net(pictures), rtol=1e-4, atol=1e-5)


# --- the loop against an independent one -----------------------------------------------------------------------


class Problem:
    """A tiny classification problem and a small network with dropout, made anew with the same weights each time."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        self.labels = torch.arange(60) % 3
        self.inputs = torch.randn(60, 8, generator=generator) + self.labels[:, None]

    def module(self):
        with torch.random.fork_rng():
            torch.manual_seed(4)
            return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def fit(self, config, checkpoint=None):
        module = self.module()
        parts = [tasks.Samples(self.inputs.__getitem__, self.labels, part) for part in data.split(self.labels, config)]
        task = tasks.Task(module, module[3], *parts, lambda part: None, 0, 0)
        *_, history = loop.train(task, config, place_of(Path()), checkpoint=checkpoint)
        return Fitted(module, task, history)

    def reference(self, config):
        """The training that a textbook would write: plain loop over slices, losses from log-probabilities."""
        net = self.module()
        optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate, foreach=False, fused=False)
        training, validation = data.split(self.labels, config)
        curve = []
        for epoch in range(1, config.epochs + 1):
            net.train()
            torch.manual_seed(derive_seed(config.seed, f"dropout {epoch}"))
            shuffle = torch.Generator().manual_seed(derive_seed(config.seed, f"order {epoch}"))
            order = training[torch.randperm(len(training), generator=shuffle)]
            losses = []
            for start in range(0, len(order), config.batch_size):
                index = order[start : start + config.batch_size]
                log_p = net(self.inputs[index]).log_softmax(1)
                sample_losses = -log_p[torch.arange(len(index)), self.labels[index]]
                net.zero_grad()
                sample_losses.mean().backward()
                optimizer.step()
                losses += sample_losses.tolist()
            net.eval()
            with torch.no_grad():
                log_p = net(self.inputs[validation]).log_softmax(1)
            right = (log_p.argmax(1) == self.labels[validation]).float().mean().item()
            loss = -log_p[range(len(validation)), self.labels[validation]].mean().item()
            curve.append((np.mean(losses), loss, right))
        return np.array(curve), net


def test_the_loop_is_the_textbooks():
    config = config_of("full_finetune", epochs=6, batch_size=7, learning_rate=0.01)
    ours = Problem().fit(config)
    curve, net = Problem().reference(config)
    figures = [[e["train_loss"], e["validation_loss"], e["validation_accuracy"]] for e in ours.history.epochs]
    np.testing.assert_allclose(figures, curve, rtol=1e-5, atol=1e-6)
    assert curve[-1, 0] < curve[0, 0] / 1.5  # the problem can be learned, so agreement means something
    for name, value in net.state_dict().items():
        torch.testing.assert_close(ours.net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_nesterovs_with_l2(decay):
    """Against the update rule written out; torch's own is checked only in so far as it is configured."""
    config = config_of("full_finetune", epochs=2, batch_size=60, optimizer="sgd", learning_rate=0.05, trunk_rate=0.5,
                       weight_decay=decay, train_on_all=True, select_on_test=True)  # fmt: skip
    problem = Problem()
    module = problem.module()
    part = tasks.Samples(problem.inputs.__getitem__, problem.labels, torch.arange(60))
    optimizer = loop.optimizer_of(tasks.Task(module, module[3], part, part, lambda part: None, 0, 0), config)
    module.eval()
    values = [parameter.detach().clone() for parameter in module.parameters()]
    speeds = [torch.zeros_like(value) for value in values]
    for _ in range(3):
        loop.step(module, problem.inputs, problem.labels, optimizer)
        for at, parameter in enumerate(module.parameters()):
            gradient = parameter.grad + decay * values[at]
            speeds[at] = 0.9 * speeds[at] + gradient
            values[at] = values[at] - (0.025 if at < 2 else 0.05) * (gradient + 0.9 * speeds[at])
            torch.testing.assert_close(parameter.detach(), values[at], rtol=1e-5, atol=1e-6)


def test_the_notebooks_loop_gives_every_epoch_and_leaves_the_selected_one(few_digits, small, tmp_path):
    config = small(epochs=3)
    net = models.build(config, few_digits.classes)
    models.train_only(net, config)
    seen = list(loop.epochs(net, few_digits, config, device="cpu", cache=str(tmp_path)))
    expected = fit(config, few_digits, place_of(tmp_path))
    timeless = [{k: v for k, v in epoch.items() if "seconds" not in k} for epoch in seen]
    assert timeless == [{k: v for k, v in e.items() if "seconds" not in k} for e in expected.history.epochs]
    assert all(torch.equal(value, expected.net.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_step_of_ones_own_is_taken(few_digits, small, tmp_path):
    calls = []

    def step(module, inputs, labels, optimizer):
        calls.append(len(labels))
        return loop.step(module, inputs, labels, optimizer)

    config = small()
    net = models.build(config, few_digits.classes)
    models.train_only(net, config)
    list(loop.epochs(net, few_digits, config, step, "cpu", str(tmp_path)))
    assert sum(calls) == len(data.split(few_digits.train_labels, config)[0])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(few_digits, small, tmp_path):
    first, again, other = (fit(small(seed=seed), few_digits, place_of(tmp_path)) for seed in (0, 0, 1))
    assert first.losses == again.losses != other.losses
    assert torch.equal(first.history.validation_logits, again.history.validation_logits)


def test_training_leaves_the_callers_random_state_alone(few_digits, small, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(small("full_finetune", "tuned"), few_digits, place_of(tmp_path))
    assert torch.equal(torch.rand(3), expected)


# --- the test set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_each_test_image_is_read_once_and_last(few_digits, small, tmp_path, monkeypatch, approach):
    reads, pictures = [], tasks.pictures

    def watched(images, *given, **more):
        part = "test" if images is few_digits.test else "train"
        read = pictures(images, *given, **more)
        return lambda index: reads.append((part, index.tolist())) or read(index)

    monkeypatch.setattr(tasks, "pictures", watched)
    config = small(approach)
    fitted = fit(config, few_digits, place_of(tmp_path))
    assert {part for part, _ in reads} == {"train"}
    del reads[:]
    loop.test(fitted.task, fitted.history, few_digits, config, place_of(tmp_path))
    assert {part for part, _ in reads} == {"test"}
    if approach == "linear_probe":
        assert reads.pop(0) == ("test", [0]), "whose features' shape is looked at"
    assert sum((index for _, index in reads), []) == list(range(20))


def test_nothing_before_the_test_depends_on_the_test_set(few_digits, small, tmp_path):
    other = dataclasses.replace(few_digits, test=255 - few_digits.test, test_labels=few_digits.test_labels * 0)
    first, second = (fit(small("full_finetune"), images, place_of(tmp_path)) for images in (few_digits, other))
    assert first.losses == second.losses and first.history.selected == second.history.selected
    blind = dataclasses.replace(few_digits, test=None, test_labels=None)
    assert fit(small("full_finetune"), blind, place_of(tmp_path)).losses == first.losses


def test_the_tested_weights_are_those_of_the_selected_epoch(few_digits, small, tmp_path, monkeypatch):
    place = place_of(tmp_path)
    config, longer = small("full_finetune", epochs=1), small("full_finetune", epochs=3)
    expected = fit(config, few_digits, place)
    claimed = iter([0.9, 0.9, 0.7])
    monkeypatch.setattr(loop, "score", lambda *given: (1.0, next(claimed)))
    fitted = fit(longer, few_digits, place)
    assert fitted.history.selected == 1 and fitted.history.epochs[0]["validation_accuracy"] == 0.9
    assert all(torch.equal(value, expected.net.state_dict()[n]) for n, value in fitted.net.state_dict().items())
    logits = [loop.test(f.task, f.history, few_digits, config, place) for f in (fitted, expected)]
    assert torch.equal(*logits)


def selected(*pairs):
    history = loop.History()
    for accuracy, loss in pairs:
        history.epochs.append({"validation_accuracy": accuracy, "validation_loss": loss})
        if loop.selects(history):
            history.selected = len(history.epochs)
    return history.selected


def test_selection_is_by_accuracy_then_loss_then_the_earlier():
    assert selected((0.5, 1.0), (0.7, 2.0), (0.6, 0.1)) == 2
    assert selected((0.5, 1.0), (0.5, 0.9), (0.5, 0.95)) == 2
    assert selected((0.5, 1.0), (0.5, 1.0)) == 1
    assert selected((0.0, 9.0)) == 1


class Constant:
    """A schedule that leaves the rate alone."""

    def step(self):
        pass


def test_losses_are_means_over_samples_not_over_batches():
    logits, labels = torch.randn(10, 3), torch.randint(3, (10,))
    inputs = logits.clone().requires_grad_()
    optimizer, batches = torch.optim.SGD([inputs], lr=0.0), torch.arange(10).split(7)  # 7 and 3
    part = tasks.Samples(inputs.__getitem__, labels, torch.arange(10))
    losses = loop.train_epoch(nn.Identity(), part, batches, optimizer, Constant())
    whole = F.cross_entropy(logits, labels).item()
    halves = [F.cross_entropy(logits[batch], labels[batch]).item() for batch in batches]
    assert loop.average(losses, batches, per_batch=False) == pytest.approx(whole, rel=1e-6)
    assert loop.average(losses, batches, per_batch=True) == pytest.approx(np.mean(halves), rel=1e-6)
    assert loop.score(logits, labels)[0] == pytest.approx(whole, rel=1e-6)
    assert loop.score(logits, labels, per_batch=7)[0] == pytest.approx(np.mean(halves), rel=1e-6)


# --- resuming, failing -----------------------------------------------------------------------------------------


def test_a_run_stopped_in_the_middle_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    config = config_of("full_finetune", epochs=5, batch_size=7, learning_rate=0.01, schedule="cosine", warmup=0.3)
    whole = Problem().fit(config, tmp_path / "whole")
    train_epoch, calls = loop.train_epoch, []

    def stops_in_the_third_epoch(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*given)

    monkeypatch.setattr(loop, "train_epoch", stops_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        Problem().fit(config, tmp_path / "stopped")
    resumed = Problem().fit(config, tmp_path / "stopped")
    assert len(calls) == 6  # two, the interrupted one, three more
    assert whole.losses == resumed.losses and whole.history.selected == resumed.history.selected
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name
        assert torch.equal(whole.history.state[name], resumed.history.state[name]), name
    again = Problem().fit(config, tmp_path / "stopped")  # killed after its last epoch: nothing is left to train
    assert len(calls) == 6 and again.losses == whole.losses


def test_divergence_ends_in_one_sentence():
    problem = Problem()
    problem.inputs = problem.inputs * float("inf")
    with pytest.raises(
        loop.Diverged, match=r"learning_rate is 0.001; full_finetune diverged in epoch 1 .*smaller"
    ) as error:
        problem.fit(config_of("full_finetune"))
    assert "\n" not in str(error.value)


# --- the parts of `tuned` --------------------------------------------------------------------------------------


def test_the_rate_rises_then_falls_as_half_a_cosine():
    config = preset("full_finetune", "tuned", warmup=0.1)
    factors = [loop.rate_factor(step, 100, config) for step in range(100)]
    assert factors[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert factors[10:] == pytest.approx([0.5 * (1 + np.cos(np.pi * n / 90)) for n in range(90)])
    assert {loop.rate_factor(step, 100, Config()) for step in range(100)} == {1.0}


def test_the_steps_of_a_run_have_the_rates_of_its_schedule(few_digits, small, tmp_path, monkeypatch):
    rates, step = [], loop.step

    def watched(module, inputs, labels, optimizer):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(module, inputs, labels, optimizer)

    config = small(
        "full_finetune", "tuned", epochs=2, batch_size=24, trunk_rate=0.3, learning_rate=0.01, start="random"
    )
    net = models.build(config, 10)
    models.train_only(net, config)
    task = loop.begin(net, few_digits, config, place_of(tmp_path))
    list(loop.train(task, config, place_of(tmp_path), watched))
    factors = [loop.rate_factor(at, 6, config) for at in range(6)]
    np.testing.assert_allclose(rates, [[0.003 * factor, 0.01 * factor] for factor in factors], rtol=1e-6)


def test_the_trunk_has_a_rate_of_its_own(few_digits, small, tmp_path):
    config = small("full_finetune", "tuned", learning_rate=0.01, trunk_rate=0.3, weight_decay=0.5, start="random")
    net = models.build(config, 10)
    models.train_only(net, config)
    optimizer = loop.optimizer_of(loop.begin(net, few_digits, config, place_of(tmp_path)), config)
    trunk, head = optimizer.param_groups
    assert (head["lr"], head["weight_decay"]) == (0.01, 0.5) and trunk["lr"] == pytest.approx(0.003)
    assert [parameter.shape for parameter in head["params"]] == [(10, 1024), (10,)]
    assert len(trunk["params"]) + 2 == len(list(net.parameters()))


def test_standardised_features_have_mean_0_and_deviation_1_and_fold_into_a_plain_head():
    values = torch.randn(5000, 7) * torch.tensor([1, 2, 3, 4, 5, 6, 0.0]) + 10
    part = tasks.Samples(values.__getitem__, torch.zeros(5000), torch.arange(5000))
    module = tasks.standardised(nn.Linear(7, 3), part)
    assert not module.head.weight.any() and not module.head.bias.any()
    nn.init.normal_(module.head.weight)
    scaled = (values - module.mean) / module.std
    np.testing.assert_allclose(scaled.mean(0), np.zeros(7), atol=1e-4)
    np.testing.assert_allclose(scaled.std(0, correction=0), [1] * 6 + [0], atol=1e-4)
    torch.testing.assert_close(module.plain()(values), module(values), rtol=1e-4, atol=1e-4)


def test_the_standardised_head_is_folded_into_the_network(few_digits, small, tmp_path):
    config = small("linear_probe", "tuned", epochs=2)
    fitted = fit(config, few_digits, place_of(tmp_path))
    assert isinstance(fitted.task.module, models.Standardised)
    validation = fitted.task.validation.index
    with torch.no_grad():
        logits = fitted.net.eval()(data.preprocess(few_digits.train[validation], config.image_size))
    torch.testing.assert_close(logits, fitted.history.validation_logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("approach", ["full_finetune", "last_block"])
def test_fine_tuning_starts_from_the_tuned_probe_on_plain_pictures(last_block, few_digits, small, tmp_path, approach):
    config = small(approach, "tuned")
    plain = small("linear_probe", "tuned", flip=False, shift=0.0, views=1)
    probe = fit(plain, few_digits, place_of(tmp_path))
    net = models.build(config, 10)
    models.train_only(net, config)
    trained = models.trained_names(net)
    task = loop.begin(net, few_digits, config, place_of(tmp_path))
    assert task.start_seconds > 0 and models.trained_names(net) == trained
    with torch.no_grad():
        logits = net.eval()(data.preprocess(few_digits.train, config.image_size))[probe.task.validation.index]
    torch.testing.assert_close(logits, probe.history.validation_logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("approach", ["full_finetune", "last_block"])
def test_augmentation_touches_training_pictures_only(last_block, few_digits, small, tmp_path, monkeypatch, approach):
    augmented = []
    monkeypatch.setattr(tasks, "augment", lambda batch, flip, shift: augmented.append(len(batch)) or batch)
    fit(small(approach, "tuned", epochs=2, batch_size=24, start="random"), few_digits, place_of(tmp_path))
    assert augmented == [24, 24, 2] * 2


def test_frozen_layers_below_augmented_pictures_stay_as_they_are(last_block, few_digits, small, tmp_path):
    config = small("last_block", flip=True)
    fitted, start = fit(config, few_digits, place_of(tmp_path)), models.build(config, 10).state_dict()
    trained = {name.rpartition(".")[0] for name in models.trained_names(fitted.net)}
    frozen = [name for name in start if name.rpartition(".")[0] not in trained]
    assert any(name.endswith("running_mean") for name in frozen)
    assert all(torch.equal(fitted.net.state_dict()[name], start[name]) for name in frozen)


def test_a_probe_sees_moved_pictures_of_which_the_features_are_kept(few_digits, small, tmp_path):
    """A view is drawn anew in each epoch; validation sees the pictures as they are."""
    config = preset("linear_probe", image_size=64, epochs=1, batch_size=8, flip=True, views=3)
    net = models.build(config, 10)
    models.train_only(net, config)
    task = loop.begin(net, few_digits, config, place_of(tmp_path))
    below, index = models.cut(net)[0], torch.arange(len(few_digits.train))
    with torch.no_grad():
        plain = below(data.preprocess(few_digits.train, config.image_size))
        mirrored = below(data.preprocess(few_digits.train.flip(2), config.image_size))
    seen = torch.stack([task.training.inputs(index) for _ in range(40)])
    near = [torch.isclose(seen, rows, rtol=1e-3, atol=1e-4).all(2) for rows in (plain, mirrored)]
    assert (near[0] | near[1]).all()
    share = near[1].float().mean(0)  # of a picture's views: none, one or both of two are mirrored
    assert all(((share - part).abs() < 0.3).any() for part in (0, 1 / 3, 2 / 3)) and 0.2 < share.mean() < 0.47
    torch.testing.assert_close(task.validation.inputs(index), plain, rtol=1e-3, atol=1e-4)
    entries = sorted(tmp_path.glob("features-*"))
    assert len(entries) == 3
    again = fit(dataclasses.replace(config, seed=1), few_digits, place_of(tmp_path))
    assert sorted(tmp_path.glob("features-*")) == entries and again.history.epochs


def test_where_nothing_moves_no_views_are_made(few_digits, small, tmp_path):
    fit(small("linear_probe", shift=0.1, views=3), few_digits, place_of(tmp_path))  # 8 x 8 pixels: less than one
    assert len(list(tmp_path.glob("features-*"))) == 1


def test_fine_tuning_with_frozen_early_layers_trains_the_last_block_alone(few_digits, small, tmp_path):
    config = small("full_finetune", freeze_early=True)
    fitted, start = fit(config, few_digits, place_of(tmp_path)), models.build(config, 10).state_dict()
    moved = {name for name, value in fitted.net.state_dict().items() if not torch.equal(value, start[name])}
    trained = set(models.trained_names(fitted.net))
    assert trained == set(models.trained_by(models.build(config, 10), config)) and trained <= moved
    assert not [name for name in moved if name.startswith("features.0.")]


def test_a_search_reads_no_test_image_and_goes_on_where_it_stopped(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "GRID", {"head": {"learning_rate": [0.01, 0.001], "weight_decay": [0.1]}})
    blind = dataclasses.replace(few_digits, test=torch.empty(0), test_labels=torch.empty(0))
    monkeypatch.setattr(data, "load", lambda *given, **more: blind)
    shared = {"network": "mobilenet_v3_small", "weights": "none", "image_size": 32, "epochs": 2, "batch_size": 16,
              "seed": 0}  # fmt: skip
    path = search.search("linear_probe", shared, "cpu", folder=tmp_path)
    rows = search.read(path)
    assert [row["learning_rate"] for row in rows] == [0.01, 0.001]
    assert search.winner(rows, "head", {"validation_images": 20})["weight_decay"] == 0.1
    with monkeypatch.context() as patch:
        patch.setattr(search, "judge", None)  # training a finished trial again would fail
        assert search.search("linear_probe", shared, "cpu", folder=tmp_path) == path
    with pytest.raises(InputError, match="holds a search under other conditions"):
        search.search("linear_probe", shared | {"epochs": 3}, "cpu", folder=tmp_path)


def test_the_winner_is_the_cheapest_trial_that_is_as_good():
    rows = [{"epochs": 10, "learning_rate": 1.0, "validation_accuracy": 0.70},
            {"epochs": 5, "learning_rate": 2.0, "validation_accuracy": 0.69},
            {"epochs": 5, "learning_rate": 3.0, "validation_accuracy": 0.65}]  # fmt: skip
    won = [search.winner(rows, "all", {"validation_images": images}) for images in (1_000, 10_000)]
    assert won == [{"epochs": 5, "learning_rate": 2.0}, {"epochs": 10, "learning_rate": 1.0}]


def test_every_approach_was_given_as_many_trials():
    counts = {path.stem: len(yaml.safe_load(path.read_text())["trials"]) for path in search.FOLDER.glob("*.yaml")}
    assert len(counts) == 4 and len(set(counts.values())) == 1


@pytest.mark.parametrize("labels", [0, 50])
@pytest.mark.parametrize("approach", list(APPROACHES))
def test_tuned_is_the_winner_of_the_recorded_search(approach, labels):
    path, trains = search.FOLDER / f"{approach}{'_few' if labels else ''}.yaml", APPROACHES[approach].trains
    content = yaml.safe_load(path.read_text())
    won = search.winner(content["trials"], trains, content["conditions"])
    config = preset(approach, "tuned", per_class=labels)
    assert 0 < content["conditions"]["per_class"] <= FEW_LABELS or not labels
    assert won == content["winner"] and len(content["trials"]) == len(list(search.trials(trains)))
    recorded = won | content["conditions"]["fixed"]
    assert {name: getattr(config, name) for name in recorded} == recorded
    assert recorded.keys() >= PRESETS["tuned"][trains].keys()


# --- the split, and pictures on their way into the network -----------------------------------------------------


def test_normalisations():
    batch = torch.randint(256, (4, 63, 63, 3), dtype=torch.uint8)
    half = data.preprocess(batch, 63, "half")
    assert torch.allclose(half, batch.permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)
    assert not torch.allclose(half, data.preprocess(batch, 63), atol=0.1)


def test_a_label_budget_is_nested_and_keeps_validation_apart():
    labels = torch.arange(200) % 4
    few, more, everything = (
        [set(part.tolist()) for part in data.split(labels, Config(per_class=count))] for count in (10, 30, 0)
    )
    for train_part, validation in (few, more, everything):
        assert not train_part & validation
    assert [len(part) for part in few] == [32, 8]
    assert few[0] | few[1] < more[0] | more[1] < everything[0] | everything[1] == set(range(200))


def test_drawn_without_regard_to_class_and_nothing_held_out():
    labels = torch.arange(1000) % 10
    validation = data.split(labels, Config(unstratified=True))[1]
    assert len(validation) == 200 and len(set(np.bincount(labels[validation]))) > 1
    everything, none = data.split(labels, Config("full_finetune", train_on_all=True, select_on_test=True))
    assert everything.tolist() == list(range(1000)) and not len(none)


def test_moved_and_mirrored_pictures_are_numpys():
    batch = torch.randint(256, (64, 9, 11, 3), dtype=torch.uint8)
    torch.manual_seed(5)
    moved = data.augment(batch, flip=True, shift=0.23).numpy()
    seen = set()
    for picture, ours in zip(batch.numpy(), moved, strict=True):
        candidates = {}
        for mirrored in (False, True):
            padded = np.pad(picture[:, ::-1] if mirrored else picture, ((2, 2), (2, 2), (0, 0)), mode="reflect")
            candidates |= {(mirrored, y, x): padded[y : y + 9, x : x + 11] for y in range(5) for x in range(5)}
        (match,) = [key for key, candidate in candidates.items() if np.array_equal(candidate, ours)]
        seen.add(match)
    assert {key[0] for key in seen} == {False, True} and len(seen) > 25
    assert torch.equal(data.augment(batch, flip=False, shift=0.09), batch)


# --- the cache of frozen features ------------------------------------------------------------------------------


class Counting(nn.Linear):
    """Linear(3, 4), counting the rows it was asked for, one picture that tells the shape aside."""

    def __init__(self):
        super().__init__(3, 4)
        self.rows = 0

    def forward(self, batch):
        self.rows += len(batch) if len(batch) > 1 else 0
        return super().forward(batch)


def ask(layers, inputs, cache, **key):
    """All rows of the frozen features."""
    read, _ = features.frozen_features(layers, inputs.__getitem__, len(inputs), key, place_of(cache))
    return read(torch.arange(len(inputs)))


def test_features_are_made_once_and_again_when_anything_else_is_asked_for_or_they_are_damaged(tmp_path):
    layers, inputs = Counting(), torch.randn(100, 3)
    expected = nn.Linear.forward(layers, inputs).detach()
    for _ in range(2):
        torch.testing.assert_close(ask(layers, inputs, tmp_path, code="a"), expected)
        assert layers.rows == 100
    ask(layers, inputs, tmp_path, code="b")
    assert layers.rows == 200
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
        torch.testing.assert_close(ask(layers, inputs, tmp_path, code="a"), expected)
        assert layers.rows == rows + 100, (file, damage)
    assert not list(tmp_path.glob(".*"))


def test_a_stray_write_never_reaches_the_stored_features(tmp_path, monkeypatch):
    layers, inputs, rows = Counting(), torch.randn(100, 3), features.rows
    stored = []
    monkeypatch.setattr(features, "rows", lambda values, device: stored.append(values) or rows(values, device))
    for _ in range(2):
        assert not (ask(layers, inputs, tmp_path) == 7).any()
        stored[-1].fill_(7)


def test_the_features_used_longest_ago_make_room(tmp_path, monkeypatch):
    layers, inputs = Counting(), torch.randn(1000, 3)
    size = 1000 * 4 * 4  # bytes, and a few hundred for the header and meta.json
    monkeypatch.setenv("REPORT_CACHE_GIB", str(2.5 * size / 2**30))

    def made(name):
        before = layers.rows
        ask(layers, inputs, tmp_path, name=name)
        return layers.rows > before

    assert [made(name) for name in "abab"] == [True, True, False, False]
    time.sleep(0.02)
    made("a")
    assert made("c")  # b was used longest ago
    assert not made("a") and not made("c") and made("b")


def test_features_larger_than_half_the_cache_are_computed_anew(tmp_path, monkeypatch, capsys):
    layers, inputs = Counting(), torch.randn(1000, 3)
    monkeypatch.setenv("REPORT_CACHE_GIB", str(1000 * 4 * 4 / 2**30))
    for rows in (1000, 2000):
        torch.testing.assert_close(ask(layers, inputs, tmp_path), nn.Linear.forward(layers, inputs).detach())
        assert layers.rows == rows and not list(tmp_path.iterdir())
    assert "are not kept, but computed anew in every epoch" in capsys.readouterr().err


def test_features_that_cannot_be_replaced_are_not_used(tmp_path, monkeypatch):
    layers, inputs = Counting(), torch.randn(100, 3)
    ask(layers, inputs, tmp_path)
    (path,) = tmp_path.glob("features-*/values.npy")
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    monkeypatch.setattr(features, "_put_away", lambda entry: None)  # as if another user owned it
    with pytest.raises(InputError, match="is damaged and cannot be replaced"):
        ask(layers, inputs, tmp_path)


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, age in ((".features-old-x", 90_000), (".features-young-x", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.npy").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    decoded.make_room(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == [".features-young-x"]


@pytest.mark.parametrize("given", ["much", "nan", "-5", "1e400", "inf"])
def test_a_limit_that_is_no_size_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.setenv("REPORT_CACHE_GIB", given)
    with pytest.raises(InputError, match=f"REPORT_CACHE_GIB is '{given}'; allowed is a number of GiB"):
        decoded.make_room(tmp_path, 10)


# --- device and precision --------------------------------------------------------------------------------------


def test_a_device_that_is_not_there_is_named():
    assert device.pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device is 'tpu'; this machine has auto"):
        device.pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is 'cuda'"):
            device.pick_device("cuda")


@pytest.mark.parametrize(
    ("abilities", "expected"),
    [({}, "float32"), ({"avx2": True, "avx512_f": True}, "float32"), ({"amx_bf16": True}, "bfloat16"),
     ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": False, "avx512_bf16": False}, "float32")],
)  # fmt: skip
def test_precision_follows_the_hardware_only_when_asked_to(monkeypatch, abilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert precision.pick_precision("auto", CPU) == expected
    assert precision.pick_precision("float32", CPU) == "float32"
    assert precision.pick_precision("bfloat16", CPU) == "bfloat16"
    assert precision.pick_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_a_gpu_multiplies_in_bfloat16_since_ampere(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.pick_precision("auto", torch.device("cuda")) == expected


def test_this_machine_says_what_it_can():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if not hasattr(torch.cpu, "get_capabilities") or not flags:
        pytest.skip("neither torch nor the system says what this CPU can")
    fast = "amx_bf16" in flags or "avx512_bf16" in flags
    assert precision.pick_precision("auto", CPU) == ("bfloat16" if fast else "float32")


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_bfloat16_trains_about_the_same(few_digits, small, tmp_path, approach):
    config = small(approach, batch_size=16, precision="auto")
    exact = fit(config, few_digits, place_of(tmp_path))
    mixed = fit(config, few_digits, place_of(tmp_path, "bfloat16"))
    losses = [fitted.history.epochs[0]["train_loss"] for fitted in (exact, mixed)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and mixed.losses != exact.losses
    assert all(value.dtype == torch.float32 for value in mixed.net.parameters())


def test_nothing_within_an_epoch_waits_for_the_device(few_digits):
    """No value is read back to the host, and none is copied there: that would stall a GPU every step."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.overloadpacket._qualified_op_name.removeprefix("aten::"))
            return function(*args, **(kwargs or {}))

    seen: list[str] = []
    config = config_of("full_finetune", "tuned", weights="none")
    net = models.build(config, 10)
    index = torch.arange(48)
    training = tasks.Samples(
        tasks.pictures(few_digits.train, config, CPU, augmented=True), few_digits.train_labels, index
    )
    task = tasks.Task(net, models.head_of(net, config), training, training, lambda part: None, 0, 0)
    optimizer = loop.optimizer_of(task, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    batches = index.split(24)
    loop.train_epoch(net, training, batches[:1], optimizer, schedule)
    with Watch():
        loop.train_epoch(net, training, batches, optimizer, schedule)
    assert "convolution" in seen and "index" in seen
    assert not {"_local_scalar_dense", "item", "nonzero", "lift_fresh", "is_nonzero", "_to_cpu", "masked_select"} & set(
        seen
    )


# --- checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_a_checkpoint_is_written_interrupts(tmp_path, monkeypatch, stop):
    """torch's writer, closed half-way, raises an error of its own in place of what interrupted it."""

    def interrupted(*_):
        try:
            raise stop
        finally:
            raise RuntimeError("unexpected pos")

    net = torch.nn.Linear(2, 2)
    checkpoints.save(tmp_path / "x", net, torch.optim.Adam(net.parameters()), {"epochs": 1})
    before = (tmp_path / "x").read_bytes()
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(stop):
        checkpoints.save(tmp_path / "x", net, torch.optim.Adam(net.parameters()), {"epochs": 2})
    assert (tmp_path / "x").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_that_cannot_be_written_loses_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    (tmp_path / "file").write_text("")
    config = config_of("full_finetune", epochs=2, batch_size=7)
    fitted = Problem().fit(config, tmp_path / "file" / "run.checkpoint")
    assert fitted.losses == Problem().fit(config).losses
    assert "no checkpoint could be written" in capsys.readouterr().err
    assert checkpoints.resume(None, fitted.net, loop.optimizer_of(fitted.task, config)) == {}
