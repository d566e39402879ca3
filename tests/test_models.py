"""The registered networks, their weights, what of them is trained, and where their frozen part ends."""

import dataclasses
import hashlib
import pickle
import shutil
import types
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from report_lib import models
from report_lib.config import APPROACHES, NETWORKS, Config
from report_lib.config.registries import TRAINS
from report_lib.data import preprocess
from report_lib.files import InputError
from report_lib.models import weights

HEADS = {"alexnet": 4096, "vgg11_bn": 4096, "resnet18": 512, "mobilenet_v3_small": 1024, "convnext_tiny": 768}


@pytest.fixture(scope="module")
def embedded():
    return models.load_weights("embedded")


def config_of(network, trains="head", **fields):
    """A config of a network with random weights at its smallest picture; what it trains need not be an approach's."""
    config = Config(network=network, weights="none", image_size=NETWORKS[network].smallest, **fields)
    return types.SimpleNamespace(**dataclasses.asdict(config) | {"trains": trains})


@pytest.fixture(scope="module", params=list(NETWORKS))
def built(request):
    """(a registered network with random weights and five classes, two pictures of the smallest size)."""
    config = config_of(request.param)
    net = models.build(config, 5).eval()
    return request.param, net, torch.randn(2, 3, config.image_size, config.image_size)


# --- every registered network ----------------------------------------------------------------------------------


def test_stages_one_after_the_other_are_the_network(built):
    network, net, pictures = built
    with torch.inference_mode():
        outputs = pictures
        for _, part in models.stages(net):
            outputs = part(outputs)
        assert torch.equal(outputs, net(pictures)) and outputs.shape == (2, 5)
    names = [name for name, _ in models.stages(net)]
    assert names[-1] == NETWORKS[network].head and NETWORKS[network].last_block in names
    assert len(set(names)) == len(names)
    inside = {id(parameter) for _, part in models.stages(net) for parameter in part.parameters()}
    assert inside == {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize("trains", TRAINS)
def test_below_and_above_the_cut_are_the_network(built, trains):
    network, net, pictures = built
    config = config_of(network, trains)
    models.train_only(net, config)
    below, above = models.cut(net)
    assert not any(parameter.requires_grad for parameter in below.parameters())
    first = next(above.parameters())
    assert first.requires_grad and {"head": len(list(above.parameters())) == 2, "all": above is net}.get(trains, True)
    with torch.inference_mode():
        assert torch.equal(above(below(pictures)), net(pictures))
    trained = models.trained_names(net)
    assert trained == models.trained_by(net, config)
    names = [name for name, _ in net.named_parameters()]
    assert trained == {"head": names[-2:], "all": names}.get(trains, names[-len(trained) :])
    if trains == "last_block":
        assert trained[0].startswith(f"{NETWORKS[network].last_block}.") and 2 < len(trained) < len(names)


def test_the_head_is_new_and_of_the_networks_width(built):
    network, net, _ = built
    head = models.head_of(net, config_of(network))
    assert (head.in_features, head.out_features) == (HEADS[network], 5)
    assert network in torchvision.models.list_models()
    dropout = any(isinstance(module, nn.Dropout) for module in net.modules())
    assert dropout == NETWORKS[network].dropout


def test_one_pixel_less_is_too_small_for_the_network_or_for_its_declaration(built):
    network, net, _ = built
    size = NETWORKS[network].smallest
    with pytest.raises(InputError, match=f"image_size is {size - 1}; allowed are whole numbers from {size}"):
        Config(network=network, weights="none", image_size=size - 1)
    rows, stages = models.summary(net, size), models.stages(net)
    assert sum(len(kinds.split(", ")) for kinds in rows["kind"]) == len(stages)  # each layer leaves something
    assert {name for name, part in stages if list(part.parameters())} <= set(rows.index) <= dict(stages).keys()
    assert max(map(len, rows["kind"])) <= 50  # which pandas shows whole


def test_the_summary_adds_up(built):
    network, net, _ = built
    models.train_only(net, config_of(network))
    table = models.summary(net, NETWORKS[network].smallest)
    counts = {column: [int(cell.replace(",", "")) for cell in table[column]] for column in ("parameters", "trained")}
    assert sum(counts["parameters"]) == sum(parameter.numel() for parameter in net.parameters())
    assert sum(counts["trained"]) == counts["trained"][-1] == 5 * HEADS[network] + 5
    assert table["output"].iloc[-1] == "5" and table.index[-1] == NETWORKS[network].head
    assert all(value.device.type == "cpu" for value in net.parameters()) and not net.training


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small"])
@pytest.mark.parametrize("trains", TRAINS)
def test_frozen_batch_normalisation_stays_as_it_is_and_trained_one_moves(network, trains):
    config = config_of(network, trains)
    net = models.build(config, 5)
    models.train_only(net, config)
    norms = {name: part for name, part in net.named_modules() if isinstance(part, nn.BatchNorm2d)}
    before = {name: part.running_mean.clone() for name, part in norms.items()}
    for _ in range(2):
        models.set_mode(net, True)
        net(torch.randn(4, 3, 32, 32))
    for name, part in norms.items():
        trained = any(parameter.requires_grad for parameter in part.parameters())
        assert part.training == trained != torch.equal(part.running_mean, before[name]), name
        assert int(part.num_batches_tracked) == (2 if trained else 0)
    assert {part.training for part in norms.values()} == {"head": {False}, "all": {True}}.get(trains, {True, False})
    models.set_mode(net, False)
    assert not any(part.training for part in net.modules())


def test_flops_are_alexnets():
    """Twice the multiply-adds of every layer, added up by hand; backward twice that, but for the pictures' gradient."""
    config = Config(weights="none")
    net = models.build(config, 10)
    convolutions = [(55, 64, 3 * 121), (27, 192, 64 * 25), (13, 384, 192 * 9), (13, 256, 384 * 9), (13, 256, 256 * 9)]
    layers = [2 * side * side * out * taps for side, out, taps in convolutions]
    layers += [2 * 9216 * 4096, 2 * 4096 * 4096, 2 * 4096 * 10]
    assert models.flops(net, 224) == (sum(layers), 2 * sum(layers) - layers[0])
    models.train_only(net, config)
    assert models.flops(net, 224) == (sum(layers), 2 * 4096 * 10)


# --- what a seed and a notebook make of a network --------------------------------------------------------------


def test_all_approaches_start_from_the_same_head(embedded):
    first, again, other = (
        models.build(Config(approach, seed=seed), 5, embedded)
        for approach, seed in (("linear_probe", 1), ("full_finetune", 1), ("linear_probe", 2))
    )
    assert torch.equal(first.classifier[6].weight, again.classifier[6].weight)
    assert not torch.equal(first.classifier[6].weight, other.classifier[6].weight)
    assert torch.equal(first.features[0].weight, other.features[0].weight)
    assert models.origin_of(first).weights == models.Weights(embedded.name, embedded.sha256, None)


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models.build(config_of("mobilenet_v3_small"), ["a", "b"])
    assert torch.equal(torch.rand(3), expected)


def test_weights_none_are_random_but_seeded():
    nets = [models.build(config_of("mobilenet_v3_small", seed=seed), 4) for seed in (0, 0, 1)]
    one, two, three = (next(net.parameters()) for net in nets)
    assert models.load_weights("none").sha256 is None and torch.equal(one, two) and not torch.equal(one, three)


def test_the_weights_that_were_loaded_stay_as_they_are(embedded):
    before = embedded.state["features.0.weight"].clone()
    net = models.build(Config(), 5, embedded)
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert torch.equal(embedded.state["features.0.weight"], before)


@pytest.mark.parametrize("change", ["a filter", "a bias", "a running mean", "a layer", "the head"])
def test_any_change_shows_in_the_outline(change):
    """Two seeds of one network differ by its sum of bits, too, but one filter alone must be enough."""
    net = models.build(config_of("resnet18"), 5)
    before = models.outline(net)
    assert before == models.origin_of(net).outline == models.outline(net.to(memory_format=torch.channels_last))
    with torch.no_grad():
        if change == "a filter":
            net.layer3[0].conv1.weight[101, 7] = 0
        elif change == "a bias":
            net.layer2[1].bn2.bias[3] += 1e-3
        elif change == "a running mean":
            net.layer2[1].bn2.running_mean[5] = 2
        elif change == "a layer":
            net.relu = nn.GELU()
        else:
            net.fc.weight[4, 511] *= 2
    assert models.outline(net) != before


def test_a_copy_has_the_head_of_its_seed_unless_the_notebook_made_one():
    first, second = (config_of("resnet18", seed=seed) for seed in (0, 1))
    net = models.build(first, 5)
    net.layer4.requires_grad_(False)
    expected = models.build(second, 5).fc
    copied = models.like(net, second)
    assert torch.equal(copied.fc.weight, expected.weight) and torch.equal(copied.conv1.weight, net.conv1.weight)
    assert models.trained_names(copied) == models.trained_names(net)
    nn.init.zeros_(net.fc.weight)
    assert not models.like(net, second).fc.weight.any() and models.like(net, first).fc is not net.fc
    net.fc = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 5))
    assert len(models.like(net, second).fc) == 3


def test_a_network_without_its_head_is_one_sentence():
    net = models.build(Config(weights="none"), 5)
    net.classifier = nn.Linear(9216, 5)
    for ask in (models.head_of, models.trained_by, models.train_only):
        with pytest.raises(InputError, match="has no layer classifier.6, .*AlexNet"):
            ask(net, Config())


def test_a_standardised_head_folds_into_a_plain_one():
    values = torch.randn(100, 7) * torch.arange(1, 8) + 10
    module = models.Standardised(nn.Linear(7, 3), values.mean(0), values.std(0))
    torch.testing.assert_close(module.plain()(values), module(values), rtol=1e-4, atol=1e-4)


def test_no_approach_shares_its_colour_or_marker():
    for field in ("name", "colour", "marker"):
        assert len({getattr(approach, field) for approach in APPROACHES.values()}) == len(APPROACHES)


# --- weights ---------------------------------------------------------------------------------------------------


def test_the_embedded_file_is_the_one_of_its_card(embedded):
    card = (weights.EMBEDDED.parent / "CARD.md").read_text()
    sha256 = hashlib.sha256(weights.EMBEDDED.read_bytes()).hexdigest()
    assert sha256 == embedded.sha256 == models.weights_sha256("embedded") and f"`{sha256}`" in card
    assert f"{weights.EMBEDDED.stat().st_size:,} bytes" in card


def test_the_embedded_weights_give_their_cards_reference_outputs(embedded):
    net = models.build(Config(), 200, embedded)
    net.classifier[6].load_state_dict({n: embedded.state[f"classifier.6.{n}"] for n in ("weight", "bias")})
    g = torch.linspace(-2, 2, 224)
    pattern = torch.stack([g[:, None].expand(224, 224), g[None].expand(224, 224), g[:, None] * g[None] / 2])
    with torch.inference_mode():
        logits = net.eval()(pattern[None])[0]
    top = logits.topk(5)
    assert top.indices.tolist() == [13, 23, 14, 196, 7]
    assert top.values.tolist() == pytest.approx([4.261, 1.453, 1.325, 0.750, 0.602], abs=0.01)
    assert logits.mean().item() == pytest.approx(-2.9972, abs=0.01)
    assert logits.std().item() == pytest.approx(1.6644, abs=0.01)
    card = (weights.EMBEDDED.parent / "CARD.md").read_text()
    assert all(f"{at} ({value})" in card for at, value in ((13, "4.261"), (23, "1.453"), (7, "0.602")))


def test_the_head_on_the_trunks_features_is_the_network(embedded):
    net = models.build(Config(), 3, embedded).eval()
    models.train_only(net, Config())
    pictures = preprocess(torch.randint(256, (2, 8, 8, 3), dtype=torch.uint8), 64)
    with torch.inference_mode():
        features = models.cut(net)[0](pictures)
        assert features.shape == (2, 4096)
        assert torch.allclose(net.classifier[6](features), net(pictures), atol=1e-6)


def test_below_the_first_dropout_there_are_convolutional_features(embedded):
    net = models.build(Config(), 3, embedded)
    models.train_only(net, Config())
    below, above = models.cut(net, dropout_on=True)
    assert below.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 9216)
    assert isinstance(above[0], nn.Dropout) and above[-1] is net.classifier[6]


@pytest.mark.parametrize("network", [name for name in NETWORKS if name != "alexnet"])
def test_the_embedded_weights_are_an_alexnets_alone(network):
    for ask in (models.load_weights, models.weights_sha256):
        with pytest.raises(InputError, match=f"'embedded', which is an AlexNet; for {network} allowed are imagenet"):
            ask("embedded", network)


def test_a_flipped_bit_in_the_embedded_weights_is_noticed(tmp_path, monkeypatch):
    copy = tmp_path / weights.EMBEDDED.name
    shutil.copy(weights.EMBEDDED, copy)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    monkeypatch.setattr(weights, "EMBEDDED", copy)
    with pytest.raises(InputError, match="is damaged; restore it"):
        models.load_weights("embedded")


@pytest.fixture(scope="module")
def plain():
    """The state dict of a small network of 1,000 classes, as torchvision's is."""
    torch.manual_seed(0)
    return torchvision.models.get_model("mobilenet_v3_small").state_dict()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_state_dict_from_disk_is_the_trunk(tmp_path, plain, suffix):
    state = {name: value.half() if value.is_floating_point() else value for name, value in plain.items()
             if not name.startswith("classifier.3") and not name.endswith("num_batches_tracked")}  # fmt: skip
    path = tmp_path / f"mine.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    loaded = models.load_weights(str(path), "mobilenet_v3_small")
    assert loaded.name == path.name and loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    net = models.build(config_of("mobilenet_v3_small"), 2, loaded)
    assert torch.equal(net.features[0][0].weight, state["features.0.0.weight"].float())
    assert all(value.dtype in (torch.float32, torch.int64) and not value.is_meta for value in net.state_dict().values())


def test_a_state_dict_that_does_not_fit_names_its_keys(tmp_path):
    state = {name: torch.zeros(value.shape) for name, value in torchvision.models.alexnet().state_dict().items()
             if name != "features.3.bias"}  # fmt: skip
    state |= {"features.0.scale": torch.ones(1), "features.6.bias": torch.ones(7)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError) as error:
        models.load_weights(str(tmp_path / "odd.pth"))
    message = str(error.value)
    assert "missing keys: features.3.bias" in message and "unexpected keys: features.0.scale" in message
    assert "features.6.bias is (7,), not (384,)" in message and "\n" not in message
    with pytest.raises(InputError, match="does not fit ResNet-18 .missing keys: bn1.bias") as error:
        models.load_weights(str(tmp_path / "odd.pth"), "resnet18")
    assert len(str(error.value)) < 1000


class Malicious:
    def __reduce__(self):
        return (pytest.fail, ("code from a weights file has run",))


@pytest.mark.parametrize("content", ["pickle", "torch", "text", "module", "empty", "dot", "numbers", "half"])
def test_no_weights_file_runs_code(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "pickle":
        path.write_bytes(pickle.dumps(Malicious()))
    elif content == "torch":
        torch.save({"features.0.weight": Malicious()}, path)
    elif content in ("numbers", "half"):
        torch.save({0: torch.ones(1)} if content == "numbers" else {"a.weight_up": torch.ones(1, 1)}, path)
    elif content == "module":
        torch.save(nn.Linear(2, 2), path)
    else:
        path.write_text({"text": "hello", "dot": "."}.get(content, ""))
    with pytest.raises(InputError, match="weights is") as error:
        models.load_weights(str(path))
    assert "\n" not in str(error.value)


def test_a_safetensors_file_that_is_none_is_explained(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="no readable .safetensors"):
        models.load_weights(str(path))


# --- torchvision's weights -------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """torch's hub folder, empty and without a network."""

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("network", ["mobilenet_v3_small", "resnet18"])
def test_imagenet_means_that_networks_weights(hub, monkeypatch, network):
    """Downloaded once; the file's name holds the start of its sha256, as torchvision's do."""
    torch.manual_seed(1)
    net = torchvision.models.get_model(network)
    torch.save(net.state_dict(), hub / "unnamed")
    sha256 = hashlib.sha256((hub / "unnamed").read_bytes()).hexdigest()
    downloads = []

    def download(self, progress, check_hash):
        downloads.append(check_hash)
        shutil.copy(hub / "unnamed", hub / f"{network}-{sha256[:8]}.pth")

    first = next(iter(torchvision.models.get_model_weights(network)))
    monkeypatch.setattr(type(first), "get_state_dict", download)
    monkeypatch.setattr(type(first), "url", f"https://elsewhere.org/models/{network}-{sha256[:8]}.pth")
    for _ in range(2):
        loaded = models.load_weights("imagenet", network)
    assert downloads == [True] and loaded.sha256 == sha256 == models.weights_sha256("imagenet", network)
    assert loaded.name == f"{NETWORKS[network].name}, ImageNet-1k V1 (torchvision)"
    built = models.build(config_of(network), 3, loaded)
    assert torch.equal(next(built.parameters()), next(net.parameters()))


@pytest.mark.parametrize(
    ("network", "file"),
    [
        ("alexnet", "alexnet-owt-7be5be79.pth"),
        ("resnet18", "resnet18-f37072fd.pth"),
        ("vgg11_bn", "vgg11_bn-6002323d.pth"),
    ],
)
def test_a_failed_download_names_the_ways_out_and_a_damaged_file_itself(hub, network, file):
    ways = "WEIGHTS=embedded or " if network == "alexnet" else "WEIGHTS=none or "
    with pytest.raises(InputError, match=f"no route to host.*connect once, or copy {file} to .*{ways}WEIGHTS=<file>"):
        models.load_weights("imagenet", network)
    (hub / file).write_bytes(b"half of it")
    for ask in (models.load_weights, models.weights_sha256):
        with pytest.raises(InputError, match=f"{file} is damaged; remove it"):
            ask("imagenet", network)
