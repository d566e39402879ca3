import hashlib
import pickle
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from report_lib import model
from report_lib.recipe import InputError


@pytest.fixture(scope="module")
def embedded():
    return model.load_weights("embedded")


def test_the_embedded_file_is_the_one_of_its_card(embedded):
    card = (model.EMBEDDED.parent / "CARD.md").read_text()
    found = hashlib.sha256(model.EMBEDDED.read_bytes()).hexdigest()
    assert found == embedded.sha256 and f"`{found}`" in card


def test_the_embedded_weights_give_their_cards_reference_outputs(embedded):
    net = model.build(embedded, 200, seed=0)
    net.classifier[6].load_state_dict({n: embedded.state[f"classifier.6.{n}"] for n in ("weight", "bias")})
    g = torch.linspace(-2, 2, 224)
    pattern = torch.stack([g[:, None].expand(224, 224), g[None].expand(224, 224), g[:, None] * g[None] / 2])
    with torch.inference_mode():
        logits = net.eval()(pattern[None])[0]
    top = logits.topk(5)
    assert top.indices.tolist() == [7, 168, 37, 15, 6]
    assert top.values.tolist() == pytest.approx([0.430, 0.333, 0.295, 0.264, 0.246], abs=0.01)
    assert logits.mean().item() == pytest.approx(-2.0337, abs=0.01)
    assert logits.std().item() == pytest.approx(1.0525, abs=0.01)


def test_trunk_then_head_is_the_network(embedded):
    net = model.build(embedded, 3, seed=0).eval()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = model.cut(net)[0](pictures)
        assert features.shape == (2, 4096)
        assert torch.allclose(net.classifier[6](features), net(pictures), atol=1e-6)


def test_both_approaches_start_from_the_same_head(embedded):
    first, again, other = (model.build(embedded, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(first.classifier[6].weight, again.classifier[6].weight)
    assert not torch.equal(first.classifier[6].weight, other.classifier[6].weight)
    assert torch.equal(first.features[0].weight, other.features[0].weight)


def test_building_leaves_the_global_random_state_alone(embedded):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.build(embedded, 5, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_only_the_head_is_left_to_train(embedded):
    net = model.build(embedded, 10, seed=0)
    model.freeze_trunk(net)
    free = [name for name, p in net.named_parameters() if p.requires_grad]
    assert free == ["classifier.6.weight", "classifier.6.bias"]


def test_weights_none_are_random_but_seeded():
    none = model.load_weights("none")
    one, two, three = (model.build(none, 4, seed).features[0].weight for seed in (0, 0, 1))
    assert none.sha256 is None and torch.equal(one, two) and not torch.equal(one, three)


def test_damaged_embedded_weights_are_noticed(tmp_path, monkeypatch):
    copy = tmp_path / "weights.safetensors"
    content = bytearray(model.EMBEDDED.read_bytes())
    content[-1000] ^= 1
    copy.write_bytes(content)
    monkeypatch.setattr(model, "EMBEDDED", copy)
    with pytest.raises(InputError, match="damaged"):
        model.load_weights("embedded")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_state_dict_from_disk_is_the_trunk(tmp_path, embedded, suffix):
    state = {name: value.half() for name, value in embedded.state.items() if not name.startswith("classifier.6")}
    path = tmp_path / f"mine.{suffix}"
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    loaded = model.load_weights(str(path))
    assert loaded.name == path.name and loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(model.build(loaded, 2, 0).features[0].weight, embedded.state["features.0.weight"])


def test_a_state_dict_that_does_not_fit_names_its_keys(tmp_path, embedded):
    state = {name: value for name, value in embedded.state.items() if name != "features.3.bias"}
    state |= {"features.0.scale": torch.ones(1), "features.6.bias": torch.ones(7)}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(InputError) as error:
        model.load_weights(str(tmp_path / "odd.pth"))
    message = str(error.value)
    assert "missing keys: features.3.bias" in message and "unexpected keys: features.0.scale" in message
    assert "features.6.bias is (7,), not (384,)" in message and "\n" not in message


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
        model.load_weights(str(path))
    assert "\n" not in str(error.value)


def test_a_safetensors_file_that_is_none_is_explained(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="no readable .safetensors"):
        model.load_weights(str(path))


def test_a_failed_download_names_the_ways_out(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match="no route to host.*connect once, or copy alexnet-owt.*WEIGHTS=embedded"):
        model.load_weights("imagenet")


def test_a_damaged_imagenet_file_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"half of it")
    with pytest.raises(InputError, match="damaged; remove it"):
        model.load_weights("imagenet")
