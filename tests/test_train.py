import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from report_lib import data, machine, model, records, runner, train
from report_lib.recipe import InputError, derive_seed, named

CPU = torch.device("cpu")


def small(approach, **fields):
    return named(approach, **({"image_size": 63, "epochs": 2, "batch_size": 16, "precision": "float32"} | fields))


@pytest.fixture(scope="module")
def embedded():
    return model.load_weights("embedded")


@pytest.fixture
def trained(tmp_path, few_digits, embedded, monkeypatch):
    """go(recipe) trains it on a few digits; returns (record, the network as it was tested)."""

    def go(recipe, images=few_digits, name="run", cache="cache"):
        nets = []
        build = model.build
        monkeypatch.setattr(model, "build", lambda *given: nets.append(build(*given)) or nets[-1])
        setting = train.Setting(images, embedded, CPU, recipe.precision, tmp_path / cache)
        path = runner.make(recipe, setting, tmp_path / "runs", name)
        monkeypatch.setattr(model, "build", build)
        return records.load(path), nets[0]

    return go


def samples(inputs, labels, recipe):
    """(training, validation) as the recipe splits them."""
    return [train.Samples(inputs, labels, index) for index in data.split(labels, recipe)]


# --- what is trained -------------------------------------------------------------------------------------------


def test_a_linear_probe_leaves_every_bit_of_the_trunk(trained, embedded):
    run, net = trained(small("linear_probe"))
    start = model.build(embedded, 10, seed=0)
    for name, value in net.state_dict().items():
        same = torch.equal(value, start.state_dict()[name])
        assert same != name.startswith("classifier.6."), name
    assert run.info["trained_parameters"] == 4096 * 10 + 10


def test_fine_tuning_changes_every_layer(trained, embedded):
    run, net = trained(small("full_finetune", epochs=1, batch_size=24))
    start = model.build(embedded, 10, seed=0).state_dict()
    unchanged = [name for name, value in net.state_dict().items() if torch.equal(value, start[name])]
    assert unchanged == [] and run.info["trained_parameters"] == run.info["parameters"]


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

    def fit(self, recipe, checkpoint, module=None):
        module = module or self.module()
        parts = samples(self.inputs.__getitem__, self.labels, recipe)
        made = train.fit(module, *parts, recipe, checkpoint)
        return made, module

    def reference(self, recipe):
        """The training that a textbook would write: plain SGD loop over slices, losses from log-probabilities."""
        net = self.module()
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, foreach=False, fused=False)
        training, validation = data.split(self.labels, recipe)
        curve = []
        for epoch in range(1, recipe.epochs + 1):
            net.train()
            torch.manual_seed(derive_seed(recipe.seed, f"dropout {epoch}"))
            shuffle = torch.Generator().manual_seed(derive_seed(recipe.seed, f"order {epoch}"))
            order = training[torch.randperm(len(training), generator=shuffle)]
            losses = []
            for start in range(0, len(order), recipe.batch_size):
                index = order[start : start + recipe.batch_size]
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
            curve.append(
                (np.mean(losses), -log_p[range(len(validation)), self.labels[validation]].mean().item(), right)
            )
        return np.array(curve), net


def test_the_loop_is_the_textbooks(tmp_path):
    recipe = small("full_finetune", epochs=6, batch_size=7, learning_rate=0.01)
    made, module = Problem().fit(recipe, tmp_path / "none")
    curve, net = Problem().reference(recipe)
    ours = [[e["train_loss"], e["validation_loss"], e["validation_accuracy"]] for e in made.epochs]
    np.testing.assert_allclose(ours, curve, rtol=1e-5, atol=1e-6)
    assert curve[-1, 0] < curve[0, 0] / 1.5  # the problem can be learned, so agreement means something
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_frozen_features_give_what_the_whole_network_gives(trained, few_digits, embedded):
    """A linear probe that runs the frozen trunk again in every epoch, dropout off, is the same to rounding."""
    recipe = small("linear_probe")
    run, _ = trained(recipe)
    net = model.build(embedded, 10, seed=0)
    model.freeze_trunk(net)
    net.train = lambda mode=True: nn.Module.train(net, False)  # the trunk never leaves eval mode
    pictures = data.preprocess(few_digits.train, recipe.image_size)
    whole = train.fit(net, *samples(pictures.__getitem__, few_digits.train_labels, recipe), recipe, None)
    for ours, theirs in zip(run.epochs.to_dict("records"), whole.epochs, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)
        assert ours["validation_loss"] == pytest.approx(theirs["validation_loss"], abs=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(trained):
    one, two, three = (trained(small("linear_probe", seed=seed), name=str(n))[0] for n, seed in enumerate((0, 0, 1)))
    assert np.array_equal(one.predictions()["test_logits"], two.predictions()["test_logits"])
    assert not np.array_equal(one.predictions()["test_logits"], three.predictions()["test_logits"])


# --- the test set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_each_test_image_is_read_once_and_last(trained, few_digits, monkeypatch, approach):
    reads = []
    pictures = train.pictures

    def watched(images, *given):
        part = "test" if images is few_digits.test else "train"
        read = pictures(images, *given)
        return lambda index: reads.append((part, index.tolist())) or read(index)

    monkeypatch.setattr(train, "pictures", watched)
    trained(small(approach, epochs=1, batch_size=24))
    parts = [part for part, _ in reads]
    assert parts == sorted(parts, reverse=True)  # all "train" before all "test"
    assert sorted(sum((index for part, index in reads if part == "test"), [])) == list(range(20))


def test_nothing_before_the_test_depends_on_the_test_set(trained, few_digits):
    other = data.Images(
        **(vars(few_digits) | {"test": 255 - few_digits.test, "test_labels": few_digits.test_labels * 0})
    )
    one, two = trained(small("linear_probe"), name="one")[0], trained(small("linear_probe"), other, name="two")[0]
    columns = ["train_loss", "validation_loss", "validation_accuracy"]
    assert one.epochs[columns].equals(two.epochs[columns])
    assert one.info["selected_epoch"] == two.info["selected_epoch"]
    assert one.info["test_accuracy"] != two.info["test_accuracy"]


def test_the_tested_weights_are_those_of_the_selected_epoch(trained, monkeypatch):
    short, expected = trained(small("linear_probe", epochs=2), name="two")
    assert short.info["selected_epoch"] == 2
    claimed = iter([0.5, 0.9, 0.9, 0.7])
    score = train.score
    with monkeypatch.context() as patch:
        patch.setattr(train, "score", lambda *given: (1.0, next(claimed, score(*given)[1])))
        run, tested = trained(small("linear_probe", epochs=4), name="four")
    assert run.info["selected_epoch"] == 2 and run.info["validation_accuracy"] == 0.9
    assert torch.equal(tested.classifier[6].weight, expected.classifier[6].weight)
    assert np.array_equal(run.predictions()["test_logits"], short.predictions()["test_logits"])


def history(*pairs):
    made = train.History()
    for accuracy, loss in pairs:
        made.epochs.append({"validation_accuracy": accuracy, "validation_loss": loss})
        if train.selects(made):
            made.selected = len(made.epochs)
    return made.selected


def test_selection_is_by_accuracy_then_loss_then_the_earlier():
    assert history((0.5, 1.0), (0.7, 2.0), (0.6, 0.1)) == 2
    assert history((0.5, 1.0), (0.5, 0.9), (0.5, 0.95)) == 2
    assert history((0.5, 1.0), (0.5, 1.0)) == 1
    assert history((0.0, 9.0)) == 1


def test_losses_are_means_over_samples_not_over_batches():
    logits, labels = torch.randn(10, 3), torch.randint(3, (10,))
    module, inputs = nn.Identity(), logits.clone().requires_grad_()
    optimizer = torch.optim.SGD([inputs], lr=0.0)
    batches = torch.arange(10).split(7)  # 7 and 3
    optimizer.param_groups[0]["initial_lr"] = 0.0
    part = train.Samples(inputs.__getitem__, labels, torch.arange(10))
    losses = train.train_epoch(module, part, batches, optimizer, [1.0, 1.0])
    whole = F.cross_entropy(logits, labels).item()
    halves = [F.cross_entropy(logits[some], labels[some]).item() for some in batches]
    assert train.average(losses, batches, per_batch=False) == pytest.approx(whole, rel=1e-6)
    assert train.average(losses, batches, per_batch=True) == pytest.approx(np.mean(halves), rel=1e-6)
    assert train.score(logits, labels)[0] == pytest.approx(whole, rel=1e-6)
    assert train.score(logits, labels, per_batch=7)[0] == pytest.approx(np.mean(halves), rel=1e-6)


# --- records, resuming, failing --------------------------------------------------------------------------------


def test_a_run_is_trained_once_and_remembered(tmp_path, monkeypatch):
    recipe = small("linear_probe", batch_size=128, epochs=1)
    first = runner.run(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "make", None)  # training again would fail
        assert runner.run(recipe).path == first.path
    assert records.requested(tmp_path / "runs", [recipe])[0].path == first.path
    with monkeypatch.context() as patch:
        patch.setattr(records, "source_hash", lambda: "that of changed code")
        with pytest.raises(InputError, match="made before the code of report_lib changed"):
            records.requested(tmp_path / "runs", [recipe])
    with pytest.raises(InputError, match="no finished run of linear_probe, recipe corrected, seed 3"):
        records.requested(tmp_path / "runs", [small("linear_probe", seed=3)])
    assert json.loads((first.path / "run.json").read_text())["recipe"]["approach"] == "linear_probe"
    assert first.path.name.startswith("linear_probe-corrected-seed0-")
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.name.startswith(".")] == []


def test_what_determines_a_run_names_it(few_digits, embedded, monkeypatch):
    def name(recipe=None, images=few_digits, weights=embedded):
        return runner.run_name(recipe or small("linear_probe"), images, weights)

    names = [
        name(),
        name(small("linear_probe", epochs=3)),
        name(small("full_finetune")),
        name(images=data.Images(**(vars(few_digits) | {"fingerprint": "another"}))),
        name(weights=model.Weights("w", "another", None)),
    ]
    monkeypatch.setattr(runner, "source_hash", lambda: "another")
    assert len({*names, name()}) == 6


def test_a_run_stopped_in_the_middle_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    recipe = small("full_finetune", epochs=5, batch_size=7, learning_rate=0.01)
    whole, net = Problem().fit(recipe, tmp_path / "whole")
    train_epoch, calls = train.train_epoch, []

    def stops_in_the_third_epoch(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train_epoch(*given)

    monkeypatch.setattr(train, "train_epoch", stops_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        Problem().fit(recipe, tmp_path / "stopped")
    resumed, again = Problem().fit(recipe, tmp_path / "stopped")
    assert len(calls) == 6  # two, the interrupted one, three more
    losses = [[(e["train_loss"], e["validation_loss"]) for e in made.epochs] for made in (whole, resumed)]
    assert losses[0] == losses[1] and whole.selected == resumed.selected
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(whole.state[name], resumed.state[name]), name


def test_divergence_ends_in_one_sentence(tmp_path):
    problem = Problem()
    problem.inputs = problem.inputs * float("inf")
    with pytest.raises(
        InputError, match=r"learning_rate is 0.001; full_finetune diverged in epoch 1 .*smaller"
    ) as error:
        problem.fit(small("full_finetune"), tmp_path / "none")
    assert "\n" not in str(error.value)


def test_a_device_that_is_not_there_is_named():
    assert machine.pick_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="device is 'tpu'; this machine has auto"):
        machine.pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is 'cuda'"):
            machine.pick_device("cuda")


def test_precision_follows_the_hardware_only_when_asked_to():
    assert machine.pick_precision("float32", CPU) == "float32"
    assert machine.pick_precision("bfloat16", CPU) == "bfloat16"
    amx = "amx_bf16" in Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else False
    assert machine.pick_precision("auto", CPU) == ("bfloat16" if amx else "float32")


def test_bfloat16_trains_about_the_same(trained):
    exact = trained(small("linear_probe"), name="32")[0]
    mixed = trained(small("linear_probe", precision="bfloat16"), name="16")[0]
    assert mixed.info["provenance"]["precision"] == "bfloat16"
    np.testing.assert_allclose(mixed.epochs["train_loss"], exact.epochs["train_loss"], rtol=0.05)
    assert not mixed.epochs["train_loss"].equals(exact.epochs["train_loss"])
