import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report_lib import profiles
from report_lib.recipe import InputError, Recipe, derive_seed, folder, parse_seeds, request_key, shown

GOOD = dict(approach="linear_probe")

WRONG = {
    "approach": ["probe", "", None, 1],
    "recipe": ["best", None],
    "data": ["cifar11", "no/such/tree.zip", "", None, 3, "x" * 5000, "~nobody-here/x", "a\0b"],
    "weights": ["imagenet22k", "no/such/file.pth", None],
    "image_size": [62, 1025, 0, -1, 224.0, "224", True, None],
    "epochs": [0, -1, 1.5, "10", True, None],
    "batch_size": [0, -128, "128", 12.8],
    "learning_rate": [0, 0.0, -1e-3, "1e-3", float("nan"), float("inf"), 11, True, None, 10**400, 10**5000],
    "val_fraction": [0, 1, 1.5, -0.2, "0.2", float("nan"), None],
    "seed": [-1, 2**31, 0.0, "0", True, 10**5000],
    "precision": ["fp8", None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=shown
)
def test_a_wrong_value_is_named_in_one_sentence(name, value):
    with pytest.raises(InputError) as error:
        Recipe(**(GOOD | {name: value}))
    message = str(error.value)
    assert (
        message.startswith(f"{name} is {shown(value)}")
        and len(message) < 600
        and "allowed" in message
        and "\n" not in message
    )


def test_a_learning_rate_written_as_text_is_explained():
    with pytest.raises(InputError, match="in YAML write 0.001"):
        Recipe(**GOOD, learning_rate="1e-3")


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers()))


@given(st.sampled_from([f.name for f in dataclasses.fields(Recipe)]), anything)
def test_any_value_makes_a_recipe_or_one_sentence(name, value):
    try:
        made = Recipe(**(GOOD | {name: value}))
    except InputError as error:
        assert str(error).startswith(f"{name} is ") and "\n" not in str(error).replace(repr(value), "")
    else:
        assert getattr(made, name) == value


@pytest.mark.parametrize(
    ("value", "seeds"), [("0", (0,)), ("0,1, 2", (0, 1, 2)), (3, (3,)), ([4, 5], (4, 5)), ("07", (7,))]
)
def test_seeds_are_read(value, seeds):
    assert parse_seeds(value) == seeds


@pytest.mark.parametrize(
    "value", ["", "0,0", "a", "-1", "1.5", [], [0.5], None, True, "0,,1", "²", "9" * 5000, 10**5000], ids=shown
)
def test_wrong_seeds_are_refused(value):
    with pytest.raises(InputError, match="seeds is"):
        parse_seeds(value)


@pytest.mark.parametrize("path", ["~nobody-here/x", "a\0b", "\ud800"])
def test_what_can_be_no_path_is_one_sentence(path, monkeypatch):
    with pytest.raises(InputError, match="can be no path") as error:
        folder(path, "REPORT_RUNS", ".runs")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="can be no path"):
        profiles.resolve("demo", {"runs": path})


def test_a_short_value_is_shown_as_it_is():
    for value in ("a" * 200, [0, 1, 2], {"a": (1.5, None)}, True, -5):
        assert shown(value) == repr(value)


def test_derived_seeds_differ_by_seed_and_by_purpose():
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("split", "head", "order 1", "order 2")}
    assert len(seeds) == 200 and all(0 <= seed < 2**63 for seed in seeds)


def test_a_request_is_the_same_from_every_folder(tmp_path, monkeypatch):
    here = request_key(Recipe("linear_probe", data="tests"))
    monkeypatch.chdir(tmp_path)
    assert request_key(Recipe("linear_probe", data="tests")) == here
    assert request_key(Recipe("linear_probe", data="tests", seed=1)) != here


@pytest.mark.parametrize("name", sorted(path.stem for path in profiles.FOLDER.glob("*.yaml")))
def test_every_profile_is_valid(name):
    chosen = profiles.resolve(name, {})
    assert chosen["profile"] == name and set(chosen) == set(profiles.DEFAULTS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("epoch: 5", "unknown parameter 'epoch'"),
        ("5: 5", "unknown parameter 5"),
        ("5" * 5000 + ": 5", "mine.yaml"),
        ("learning_rate: 1e-3", "learning_rate is '1e-3'"),
        ("- 1", "no list of"),
        ("a: [", "cannot be read as YAML"),
        ("device: tpu", "device is 'tpu'"),
        ("seeds: 1.5", "seeds is 1.5"),
        ("runs: 5", "runs is 5"),
    ],
)
def test_a_wrong_profile_ends_in_one_sentence(tmp_path, monkeypatch, content, says):
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(InputError, match=says) as error:
        profiles.resolve("mine", {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nope", "../../pyproject", ""])
def test_an_unknown_profile_names_the_known_ones(name):
    with pytest.raises(InputError, match="cifar10, demo, yours"):
        profiles.resolve(name, {})


def test_changed_weights_change_the_parameters(tmp_path):
    weights = tmp_path / "mine.pth"
    weights.write_bytes(b"1")
    chosen = profiles.resolve("demo", {"weights": str(weights)})
    profiles.write(chosen, tmp_path / "parameters.yaml")
    before = (tmp_path / "parameters.yaml").read_text()
    weights.write_bytes(b"22")
    profiles.write(chosen, tmp_path / "parameters.yaml")
    assert (tmp_path / "parameters.yaml").read_text() != before


def test_a_file_that_says_the_same_is_left_alone(tmp_path):
    path = tmp_path / "parameters.yaml"
    chosen = profiles.resolve("demo", {})
    profiles.write(chosen, path)
    before = path.stat().st_mtime_ns
    profiles.write(chosen, path)
    assert path.stat().st_mtime_ns == before
    profiles.write(chosen | {"epochs": 6}, path)
    assert path.stat().st_mtime_ns != before and profiles.read(path)["epochs"] == 6
