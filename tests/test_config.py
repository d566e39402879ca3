"""What a run and a study depend on: every wrong value is one sentence, and a parameter is declared once."""

import dataclasses
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report_lib.config import (
    APPROACHES,
    DEFECTS,
    FIELDS,
    NETWORKS,
    PARAMETERS,
    PRESETS,
    TUNED_FOR_FEW,
    Config,
    Planned,
    decides,
    derive_seed,
    parameters,
    plan,
    preset,
    probe_of,
    resolve,
)
from report_lib.config.plan import unplanned
from report_lib.config.registries import TRAINS
from report_lib.files import PROJECT, InputError, folder, shown

WRONG = {
    "approach": ["probe", "", None, 1],
    "preset": ["best", None],
    "network": ["alexnet2", "", None, 3],
    "data": ["cifar11", "no/such/tree.zip", "", None, 3, "x" * 5000, "~nobody-here/x", "a\0b"],
    "weights": ["imagenet22k", "no/such/file.pth", None],
    "image_size": [62, 1025, 0, -1, 224.0, "224", True, None],
    "epochs": [0, -1, 1.5, "10", True, None],
    "batch_size": [0, -128, "128", 12.8],
    "learning_rate": [0, 0.0, -1e-3, "1e-3", float("nan"), float("inf"), 11, True, None, 10**400, 10**5000],
    "val_fraction": [0, 1, 1.5, -0.2, "0.2", float("nan"), None],
    "weight_decay": [-0.1, float("nan")],
    "warmup": [1, -0.1],
    "seed": [-1, 2**31, 0.0, "0", True, 10**5000],
    "precision": ["fp8", None],
    "select_on_test": [1, "true", None],
}


def is_one_short_sentence(error):
    text = str(error)
    assert text and "\n" not in text and "Traceback" not in text and len(text) < 1000, text


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=shown
)
def test_a_wrong_value_is_named_in_one_sentence(name, value):
    with pytest.raises(InputError) as error:
        Config(**{name: value})
    is_one_short_sentence(error.value)
    assert str(error.value).startswith(f"{name} is {shown(value)}") and "allowed" in str(error.value)


def test_a_learning_rate_written_as_text_is_explained():
    with pytest.raises(InputError, match="in YAML write 0.001"):
        Config(learning_rate="1e-3")


@pytest.mark.parametrize(("name", "value"), [("approach", "probe"), ("approach", []), ("name", "best"), ("name", None),
                                             ("network", "alexnet2"), ("network", [])])  # fmt: skip
def test_an_unknown_approach_preset_or_network_is_one_sentence_and_never_a_silent_probe(name, value):
    with pytest.raises(InputError, match="is .*; allowed are ") as error:
        preset(**({"approach": "linear_probe"} | {name: value}))
    is_one_short_sentence(error.value)


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers()))


@given(st.sampled_from(list(FIELDS)), anything)
def test_any_value_makes_a_config_or_one_sentence(name, value):
    for make in (Config, functools.partial(preset, "linear_probe")):
        if make is Config or name not in ("approach", "preset"):
            try:
                config = make(**{name: value})
            except InputError as error:
                assert str(error).startswith(f"{name} is ") and "\n" not in str(error).replace(repr(value), "")
            else:
                assert getattr(config, name) == value or value is None


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(list(APPROACHES)),
    st.dictionaries(st.sampled_from(list(DEFECTS)), st.booleans()),
    st.sampled_from(list(PRESETS)),
    st.sampled_from(list(NETWORKS)),
)
def test_any_mixture_of_defects_makes_a_config_or_one_sentence(approach, defects, name, network):
    chosen = {field: value for field, value in defects.items() if field != "normalisation"}
    try:
        config = Config(approach, name, network=network, **chosen)
    except InputError as error:
        assert "\n" not in str(error) and any(field in str(error) for field in chosen)
    else:
        assert all(getattr(config, field) == value for field, value in chosen.items())


@pytest.mark.parametrize(
    ("approach", "fields", "says"),
    [
        ("linear_probe", {"dropout_ends": True}, "dropout_ends is True; only approaches that train last_block or all"),
        ("linear_probe", {"trunk_rate": 0.1}, "trunk_rate is 0.1; only .*, and linear_probe trains head"),
        ("full_finetune", {"views": 2}, "views is 2; only .*, and full_finetune trains all"),
        ("full_finetune", {"frozen_dropout": True}, "frozen_dropout is True; only approaches that train head have"),
        ("last_block", {"standardise": True}, "standardise is True; only .*, and last_block trains last_block"),
        ("full_finetune", {"train_on_all": True}, "select_on_test must be True too"),
        ("linear_probe", {"standardise": True, "frozen_dropout": True}, "frozen_dropout must be False"),
        ("linear_probe", {"network": "resnet18", "frozen_dropout": True}, "frozen_dropout is True; ResNet-18 has no"),
        ("full_finetune", {"network": "convnext_tiny", "dropout_ends": True}, "dropout_ends is True; ConvNeXt-T has"),
        ("linear_probe", {"network": "alexnet", "image_size": 32}, "image_size is 32; allowed .* from 63, the least"),
        ("linear_probe", {"momentum": 0.9}, "a config has no field 'momentum'; it has approach, preset"),
        ("last_block", {"name": "published"}, "preset is 'published', which last_block does not have"),
    ],
)
def test_configs_that_make_no_sense_are_refused(last_block, approach, fields, says):
    with pytest.raises(InputError, match=says):
        preset(approach, **fields)


# --- presets ---------------------------------------------------------------------------------------------------


def test_corrected_is_the_default_and_every_preset_makes_a_config_of_every_network():
    assert Config() == preset("linear_probe", "corrected") and Config().preset == "corrected"
    for name, network, approach in itertools.product(PRESETS, NETWORKS, APPROACHES):
        config = preset(approach, name, network=network)
        assert config.preset == name and config.network == network
        for field, value in PRESETS[name][APPROACHES[approach].trains].items():
            needs = field in ("frozen_dropout", "dropout_ends") and not NETWORKS[network].dropout
            assert getattr(config, field) == (FIELDS[field].default if needs else value)
    assert all(set(by_part) <= set(TRAINS) for by_part in PRESETS.values())
    assert all(approach.trains in TRAINS for approach in APPROACHES.values())


def test_what_is_given_overrides_a_preset_and_none_does_not():
    assert preset("linear_probe", "tuned", weight_decay=0.5).weight_decay == 0.5
    assert preset("linear_probe", "tuned", weight_decay=None) == preset("linear_probe", "tuned")


def test_every_published_defect_has_a_row_and_is_part_of_published():
    published = set().union(*PRESETS["published"].values()) - {"precision"}
    assert set(DEFECTS) == published and all(DEFECTS.values())


def test_the_probe_that_fine_tuning_starts_from_has_its_split():
    for fields in ({"unstratified": True}, {"train_on_all": True, "select_on_test": True}, {"per_class": 7}):
        config = preset("full_finetune", "tuned", seed=3, **fields)
        assert all(getattr(probe_of(config), name) == value for name, value in fields.items())
        assert (probe_of(config).approach, probe_of(config).seed) == ("linear_probe", 3)


def test_what_decides_a_config_holds_its_probe_what_is_trained_and_no_path(monkeypatch):
    config = preset("full_finetune", "tuned")
    before = decides(config)
    assert not {"data", "weights"} & (before.keys() | before["probe"].keys())
    with monkeypatch.context() as patch:
        tuned = PRESETS["tuned"]
        patch.setitem(PRESETS, "tuned", tuned | {"head": tuned["head"] | {"weight_decay": 0.07}})
        assert decides(config) != before
    with monkeypatch.context() as patch:
        patch.setitem(
            APPROACHES, "full_finetune", dataclasses.replace(APPROACHES["full_finetune"], trains="last_block")
        )
        assert decides(config) != before
    with monkeypatch.context() as patch:
        patch.setitem(NETWORKS, "alexnet", dataclasses.replace(NETWORKS["alexnet"], last_block="features.8"))
        assert decides(config) != before
    with monkeypatch.context() as patch:  # how it looks and is called decides nothing
        patch.setitem(APPROACHES, "full_finetune", dataclasses.replace(APPROACHES["full_finetune"], colour="#000000"))
        patch.setitem(NETWORKS, "alexnet", dataclasses.replace(NETWORKS["alexnet"], citation="other"))
        assert decides(config) == before


def test_derived_seeds_differ_by_seed_and_by_purpose():
    seeds = {derive_seed(seed, purpose) for seed in range(50) for purpose in ("split", "head", "order 1", "order 2")}
    assert len(seeds) == 200 and all(0 <= seed < 2**63 for seed in seeds)


# --- profiles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.stem for path in parameters.profiles().glob("*.yaml")))
def test_every_profile_makes_a_study(name):
    chosen = resolve(name)
    assert chosen["profile"] == name and set(chosen) == set(PARAMETERS)
    planned = plan(chosen)
    assert {part.approach for part in planned} == set(APPROACHES)
    assert {part.value for part in planned if part.kind == "preset"} == set(chosen["presets"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("epoch: 5", "mine.yaml has no parameter 'epoch'; did you mean epochs?"),
        ("5: 5", "has no parameter 5"),
        ("5" * 5000 + ": 5", "mine.yaml"),
        ("learning_rate: 1e-3", "learning_rate is '1e-3'"),
        ("- 1", "no list of"),
        ("a: [", "cannot be read as YAML"),
        ("device: tpu", "device is 'tpu'"),
        ("seeds: 1.5", r"seeds is \(1.5,\)"),
        ("seeds: [0, 0]", "each may stand there once"),
        ("seeds: [0]\nepochs: 2\nseeds: [1]", "seeds stands there twice"),
        ("weights: report_lib", "weights is 'report_lib'; allowed are .* existing .safetensors"),
        ("runs: 5", "runs is 5"),
        ("presets: [tuned]", "presets is .*; corrected must be among them"),
        ("presets: [published, corrected]\npresent: tuned", "tuned must be among them"),
        ("budgets: 3", "budgets is"),
        ("defects: [last_block]", "defects is .*; allowed are linear_probe, full_finetune"),
        ("keep_weights: some", "keep_weights is 'some'; allowed are first, all, none"),
        ("select_on_test: true", "has no parameter 'select_on_test'"),
    ],
)
def test_a_wrong_profile_ends_in_one_sentence(tmp_path, monkeypatch, content, says):
    monkeypatch.setattr(parameters, "profiles", lambda: tmp_path)
    (tmp_path / "mine.yaml").write_text(content)
    for name in ("mine", str(tmp_path / "mine.yaml")):
        with pytest.raises(InputError, match=says) as error:
            resolve(name)
        is_one_short_sentence(error.value)


@pytest.mark.parametrize("name", ["nope", "../../pyproject", "../x", "", 5, None.__class__, "x" * 5000])
def test_an_unknown_profile_names_the_known_ones(name):
    with pytest.raises(InputError, match="cifar10, demo, yours|the name of a profile") as error:
        resolve(name)
    is_one_short_sentence(error.value)


def test_a_file_of_parameters_may_lack_what_has_a_default(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("epochs: 3\n")
    assert resolve(str(path)) == resolve() | {"epochs": 3}
    path.write_text("")
    assert resolve(str(path)) == resolve()
    path.write_text("epochs: three\n")
    with pytest.raises(InputError, match="epochs is 'three'"):
        resolve(str(path))


def test_without_a_profile_the_configs_have_their_presets_own_values():
    (probe, finetuning) = plan(resolve(None, {"presets": "published", "present": "published"}))
    assert probe.configs == (preset("linear_probe", "published"),)
    assert finetuning.configs == (preset("full_finetune", "published"),)


def test_what_is_not_given_is_what_the_profile_says():
    assert resolve("demo", {"epochs": None, "seeds": None}) == resolve("demo")
    assert resolve("demo", {"seeds": "3,4"})["seeds"] == resolve("demo", {"seeds": [3, 4]})["seeds"] == (3, 4)


scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
value = st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(st.text(max_size=3), scalar, max_size=2))
likely = st.sampled_from(["0,1", "tuned,corrected", "10,50", "none", "linear_probe", "full_finetune,linear_probe",
                          "resnet18", "imagenet", 32, 64, 128, 0.5, True, False])  # fmt: skip
overrides = st.dictionaries(st.sampled_from(sorted(PARAMETERS)), st.one_of(value, likely), max_size=4)


@settings(max_examples=300, deadline=None)
@given(overrides, st.sampled_from([None, "demo", "cifar10", "yours"]))
def test_any_profile_makes_a_study_or_one_sentence(given, profile):
    try:
        planned = plan(resolve(profile, given))
    except InputError as error:
        text = str(error)
        for wrong in given.values():  # what was typed may hold line breaks; the sentence around it doesn't
            text = text.replace(repr(wrong), "").replace(str(wrong), "")
        assert text and "Traceback" not in text and "\n" not in text
        return
    assert all(isinstance(config, Config) for part in planned for config in part.configs)
    assert {part.approach for part in planned} == set(APPROACHES)


LAUGHS = ["&a [x]"] + [f"&{new} [{', '.join(9 * [f'*{old}'])}]" for old, new in itertools.pairwise("abcdefghijkl")]
NASTY = [
    "5" * 5000, "0." + "1" * 400, "1" * 400, "1" * 400 + ".0", "2001-01-99", "2001-01-01 25:61:61", '!!int "x"', "0x_",
    '!!float ""', '!!bool "x"', '!!timestamp "x"', '!!int ""', "[" * 400, "[" * 80 + "]" * 80, "{" * 400, "0b_",
    "!!binary x", "!!set x", "&a [*a]", '"\\ud800"', '"a\\0b"', "~nobody-here/x", "1:99:99", "!!null x", "? [a]",
    "!!python/object:os.system x", "-.inf", ".nan", "- 1", "{a: b}", "null", "x" * 5000,
]  # fmt: skip


def study_or_sentence(path):
    try:
        plan(resolve(str(path)))
    except InputError as error:
        is_one_short_sentence(error)


@pytest.mark.parametrize("text", NASTY, ids=[text[:20] for text in NASTY])
def test_nasty_yaml_is_a_study_or_one_sentence(tmp_path, text):
    for name in ("learning_rate", "seeds", "budgets", "runs", "network", "title"):
        (tmp_path / "mine.yaml").write_text(f"{name}: {text}\n")
        study_or_sentence(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_what_is_huge_when_written_out_is_shown_in_part(tmp_path, name):
    (tmp_path / "mine.yaml").write_text(f"{name}: [{', '.join(LAUGHS)}]\n")
    with pytest.raises(InputError) as error:
        resolve(str(tmp_path / "mine.yaml"))
    is_one_short_sentence(error.value)
    with pytest.raises(InputError, match=f"^{name} is ") as error:
        resolve(None, {name: eval("[" * 50 + "'x'" + "]" * 50)})
    is_one_short_sentence(error.value)


tags = st.sampled_from("!!int !!float !!bool !!timestamp !!binary !!set !!omap !!null !!seq &a !x".split() + [""])
yamlish = st.one_of(
    st.text("0123456789abxo_.:-+eE \"'[]{},&*!~", max_size=24), st.sampled_from(NASTY),
    st.tuples(st.text("0123456789", min_size=1, max_size=4), st.integers(1, 6000)).map(lambda pair: pair[0] * pair[1]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(PARAMETERS)), tags, yamlish)
def test_any_tagged_value_makes_a_study_or_one_sentence(tmp_path, name, tag, text):
    (tmp_path / "mine.yaml").write_text(f"{name}: {tag} {text}\n")
    study_or_sentence(tmp_path / "mine.yaml")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_any_file_is_a_profile_or_one_sentence(tmp_path, text):
    path = tmp_path / "profile.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert set(parameters.read(path)) <= set(PARAMETERS)
    except InputError as error:
        assert str(path) in str(error)


# --- what a study is made of -----------------------------------------------------------------------------------


def planned(**given):
    return {(part.approach, part.kind, part.value): part.configs for part in plan(resolve(None, given))}


def test_a_study_has_its_presets_defects_and_budgets_by_seed():
    parts = planned(presets="published,corrected,tuned", seeds="0,2", budgets="50,10", defects="linear_probe")
    assert all(isinstance(part, Planned) for part in plan(resolve(None)))
    assert {key for key in parts if key[1] == "preset"} == set(
        itertools.product(APPROACHES, ["preset"], ["published", "corrected", "tuned"])
    )
    assert all([config.seed for config in configs] == [0, 2] for configs in parts.values())
    assert [value for approach, kind, value in parts if (approach, kind) == ("full_finetune", "budget")] == [10, 50]
    defects = {value for approach, kind, value in parts if kind == "defect"}
    assert defects == set(DEFECTS) & PRESETS["published"]["head"].keys()
    for name in defects:
        (config, _) = parts["linear_probe", "defect", name]
        changed = {field for field in FIELDS if getattr(config, field) != getattr(Config(), field)}
        assert changed == {name} and config.preset == "corrected"


def test_a_budget_beyond_the_study_s_own_labels_is_run_with_one_seed():
    parts = planned(per_class=100, seeds="3,4", probe_seeds="3,4,5", budgets="10,500")
    for approach, few in (("linear_probe", [3, 4, 5]), ("full_finetune", [3, 4])):
        assert [config.seed for config in parts[approach, "budget", 10]] == few
        assert [config.seed for config in parts[approach, "budget", 500]] == [3]


def test_a_budget_is_of_the_best_preset_in_smaller_steps():
    parts = planned(presets="corrected,tuned", budgets="5,50,500", batch_size=128)
    sizes = [parts["linear_probe", "budget", labels][0].batch_size for labels in (5, 50, 500)]
    assert sizes == [8, 50, 128]
    assert parts["full_finetune", "budget", 50][0].preset == "tuned"
    assert planned(budgets="50")["full_finetune", "budget", 50][0].preset == "corrected"


def test_holding_nothing_out_brings_selection_on_the_test_images_along():
    parts = planned(defects="full_finetune")
    (config,) = parts["full_finetune", "defect", "train_on_all"]
    assert config.train_on_all and config.select_on_test
    assert ("full_finetune", "defect", "dropout_ends") in parts


def test_a_network_without_dropout_drops_the_defects_of_dropout():
    given = {"network": "resnet18", "weights": "none", "presets": "published,corrected"}
    parts = planned(defects="linear_probe,full_finetune", **given)
    assert not [key for key in parts if key[2] in ("frozen_dropout", "dropout_ends")]
    assert not parts["linear_probe", "preset", "published"][0].frozen_dropout
    assert parts["full_finetune", "preset", "published"][0].select_on_test


def test_what_is_compared_with_a_preset_is_planned_only_beside_it():
    given = {
        "presets": "tuned",
        "present": "tuned",
        "budgets": "5",
        "ladder": True,
        "controls": True,
        "defects": "linear_probe",
    }
    assert {kind for _, kind, _ in planned(**given)} == {"preset", "budget"}
    assert {kind for _, kind, _ in planned(**given | {"presets": "corrected", "present": "corrected"})} == {
        "preset", "defect", "control", "budget"
    }  # fmt: skip


def test_an_option_goes_to_the_approaches_that_can_have_it():
    parts = planned(presets="corrected,tuned", flip=True, standardise=True, trunk_rate=0.1)
    assert parts["full_finetune", "preset", "corrected"][0].flip and parts["linear_probe", "preset", "corrected"]
    assert parts["linear_probe", "preset", "corrected"][0].standardise
    assert parts["full_finetune", "preset", "corrected"][0].trunk_rate == 0.1


@pytest.mark.parametrize("approach", ["linear_probe", "full_finetune"])
def test_each_step_adds_to_the_one_before_and_the_last_would_be_tuned(approach):
    parts = planned(presets="corrected,tuned", ladder=True)
    names = ("corrected", *(value for a, kind, value in parts if (a, kind) == (approach, "step")), "tuned")
    rungs = [(parts.get((approach, "step", n)) or parts[approach, "preset", n])[0] for n in names]
    changed = [
        {name for name in FIELDS if name != "preset" and getattr(one, name) != getattr(other, name)}
        for one, other in itertools.pairwise(rungs)
    ]
    assert len(changed) > 2 and all(changed) and not any(a & b for a, b in itertools.combinations(changed, 2))
    assert set().union(*changed) == {n for n in FIELDS if getattr(rungs[0], n) != getattr(rungs[-1], n)} - {"preset"}


def test_controls_have_a_random_trunk_or_frozen_early_layers():
    parts = planned(controls=True)
    assert parts["linear_probe", "control", "random trunk"][0].weights == "none"
    assert parts["full_finetune", "control", "random trunk"][0].weights == "none"
    assert parts["full_finetune", "control", "last block"][0].trains == "last_block"
    assert ("linear_probe", "control", "last block") not in parts


def test_a_probe_may_have_seeds_of_its_own():
    parts = planned(seeds="0,1", probe_seeds="0,1,2,3", ladder=True, presets="corrected,tuned")
    steps = {approach: [c.seed for c in configs] for (approach, kind, _), configs in parts.items() if kind == "step"}
    assert steps == {"linear_probe": [0, 1, 2, 3], "full_finetune": [0, 1]}
    assert [c.seed for c in parts["linear_probe", "preset", "corrected"]] == [0, 1, 2, 3]
    assert [c.seed for c in parts["full_finetune", "preset", "corrected"]] == [0, 1]


def test_few_labels_have_settings_of_their_own_which_what_is_typed_overrides(monkeypatch):
    monkeypatch.setitem(TUNED_FOR_FEW, "head", {"learning_rate": 0.5})
    rates = [preset("linear_probe", "tuned", per_class=n).learning_rate for n in (1, 100, 101, 0)]
    assert rates[:2] == [0.5, 0.5] and rates[2] == rates[3] != 0.5
    assert preset("linear_probe", "corrected", per_class=50).learning_rate == Config.learning_rate
    assert preset("linear_probe", "tuned", per_class=50, learning_rate=0.1).learning_rate == 0.1


def test_what_is_presented_is_a_preset_that_every_approach_has(monkeypatch):
    monkeypatch.setitem(
        APPROACHES, "linear_probe", dataclasses.replace(APPROACHES["linear_probe"], trains="last_block")
    )
    with pytest.raises(InputError, match="present is 'published', a preset that linear_probe does not have"):
        planned(presets="published", present="published")


# --- files, text, make -----------------------------------------------------------------------------------------


def test_a_file_that_says_the_same_is_left_alone(tmp_path):
    path = tmp_path / "parameters.yaml"
    chosen = resolve("demo", {"title": "Ein Gerät: 猫"})
    parameters.write(chosen, path)
    before = path.stat().st_mtime_ns
    parameters.write(chosen, path)
    assert path.stat().st_mtime_ns == before and resolve(str(path)) == chosen
    parameters.write(chosen | {"epochs": 6}, path)
    assert path.stat().st_mtime_ns != before and parameters.read(path)["epochs"] == 6


def test_changed_weights_or_data_change_the_parameters_file(tmp_path, tree):
    weights, data = tmp_path / "mine.pth", tree()
    weights.write_bytes(b"1")
    chosen = resolve("demo", {"weights": str(weights), "data": str(data)})
    texts = []
    for change in (lambda: None, lambda: weights.write_bytes(b"22"), (data / "train" / "cat" / "000.png").unlink):
        change()
        parameters.write(chosen, tmp_path / "parameters.yaml")
        texts.append((tmp_path / "parameters.yaml").read_text())
    assert len(set(texts)) == 3


@pytest.mark.parametrize("path", ["~nobody-here/x", "a\0b", "\ud800"])
def test_what_can_be_no_path_is_one_sentence(path):
    with pytest.raises(InputError, match="can be no path") as error:
        folder(path, "REPORT_RUNS", ".runs")
    is_one_short_sentence(error.value)
    with pytest.raises(InputError, match="can be no path|allowed is text of whole characters"):
        resolve("demo", {"runs": path})


@pytest.mark.parametrize("text", ["a\0b", "half a \ud800"])
def test_a_title_is_of_whole_characters(text):
    with pytest.raises(InputError, match="title is .*; allowed is text of whole characters") as error:
        resolve("demo", {"title": text})
    is_one_short_sentence(error.value)


def test_what_has_no_preset_to_be_compared_with_is_named():
    given = {"presets": "tuned", "present": "tuned", "ladder": True, "controls": True, "defects": "linear_probe"}
    assert unplanned(resolve("demo", given)) == ["defects", "ladder", "controls"]
    assert unplanned(resolve("demo", given | {"presets": "corrected,tuned"})) == []


def test_a_short_value_is_shown_as_it_is():
    for short in ("a" * 200, [0, 1, 2], {"a": (1.5, None)}, True, -5):
        assert shown(short) == repr(short)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SEEDS": "0, 1,2", "EPOCHS": "3"}, {"seeds": (0, 1, 2), "epochs": 3}),
        ({"SIZE": "64", "BATCH": "16"}, {"image_size": 64, "batch_size": 16}),
        ({"LEARNING_RATE": "1e-2", "FLIP": "false"}, {"learning_rate": 0.01, "flip": False}),
        ({"BUDGETS": "none", "DEFECTS": ""}, {"budgets": (), "defects": ()}),
        ({"TITLE": "a, b", "PRESETS": "corrected"}, {"title": "a, b", "presets": ("corrected",)}),
        ({"PROFILE": "yours", "RUNS": ""}, {"profile": "yours", "runs": ""}),
    ],
)
def test_makes_variables_are_parameters(variables, expected):
    assert parameters.from_make(variables) == expected


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", (0,)), ("0,1, 2", (0, 1, 2)), (3, (3,)), ([4, 5], (4, 5)), ("07", (7,))]
)
def test_seeds_are_read(text, seeds):
    assert resolve(None, {"seeds": text})["seeds"] == seeds


@pytest.mark.parametrize(
    "text", ["0,0", "a", "-1", "1.5", "0,,1", "²", "9" * 5000, ""], ids=lambda text: text[:10] or "empty"
)
def test_wrong_seeds_are_refused(text):
    with pytest.raises(InputError, match="seeds is") as error:
        resolve(None, parameters.from_make({"SEEDS": text}))
    is_one_short_sentence(error.value)


@given(st.sampled_from(sorted(PARAMETERS)), st.one_of(st.text(max_size=20), st.from_regex(r"[0-9e.,+\-]{1,12}")))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_parameter_or_one_sentence(name, text):
    try:
        resolve(None, parameters.from_make({parameters.variable(name): text}))
    except InputError as error:
        assert name in str(error) or "can be no path" in str(error) or "must be among" in str(error)


def test_a_variable_that_does_not_exist_is_one_sentence():
    with pytest.raises(InputError, match="make has no variable EPOCH; did you mean EPOCHS?"):
        parameters.from_make({"EPOCH": "3"})


def test_no_two_parameters_have_one_variable_and_each_has_a_help():
    names = [parameters.variable(name) for name in PARAMETERS]
    assert len(set(names)) == len(names) and all(name == name.upper() for name in names)
    for name, _, default, text in parameters.table():
        assert text and "\n" not in text, name
        assert default == "" or resolve(None)[name] in (None, "", *[resolve(None)[name]])


def test_paths_typed_at_a_shell_start_at_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    typed = parameters.typed({"data": "images", "weights": "none", "runs": "store"}, at_shell=True)
    assert typed == {"data": os.path.relpath(tmp_path / "images", PROJECT), "weights": "none",
                     "runs": os.path.relpath(tmp_path / "store", PROJECT)}  # fmt: skip


def test_a_folder_that_is_called_like_a_data_set_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert parameters.typed({"data": "./digits"}, at_shell=True) == {"data": "./digits"}
    monkeypatch.setattr("report_lib.config.fields._exists", lambda path, file: path == "auto")
    assert planned(data="auto")["linear_probe", "preset", "corrected"][0].data == "auto"


def test_whole_numbers_make_the_same_config_as_others():
    whole, broken = (preset("full_finetune", "tuned", weight_decay=n, trunk_rate=n) for n in (1, 1.0))
    assert repr(whole) == repr(broken)


# --- one declaration per parameter -----------------------------------------------------------------------------

FIELD = '    label_smoothing: float = option(0.0, Number(0, 1, below=True), "share of a label given to all classes")\n'
FOUND = """
import dataclasses, json, sys
from report_lib import runs
from report_lib.__main__ import main
from report_lib.config import parameters
assert parameters.from_make({"LABEL_SMOOTHING": "0.1"}) == {"label_smoothing": 0.1}
study = runs.Study.load("mine")
config = study.config("linear_probe")
plain = dataclasses.replace(config, label_smoothing=0.0)
print(json.dumps([config.label_smoothing, study.config("linear_probe", label_smoothing=0.3).label_smoothing,
                  study.name(config), study.name(plain)]))
for smoothing in ("0.1", "0.2"):
    main(["run", "--approach", "linear_probe", "--profile", "mine", "--json", "--label-smoothing", smoothing])
"""


def test_a_new_parameter_is_one_declaration(tmp_path, tree):
    """A copy of the project with one more field: it is accepted and found wherever parameters are."""
    copy = tmp_path / "a copy"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(PROJECT / "report_lib", copy / "report_lib", ignore=ignored)
    shutil.copytree(parameters.profiles(), copy / parameters.profiles().relative_to(PROJECT))
    shutil.copy(PROJECT / "pyproject.toml", copy)
    source = copy / "report_lib" / "config" / "fields.py"
    lines = source.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("    precision: str"))
    source.write_text("".join([*lines[:at], FIELD, *lines[at:]]))
    profile = {"label_smoothing": 0.1, "data": str(tree()), "weights": "none", "network": "mobilenet_v3_small",
               "image_size": 32, "batch_size": 4, "epochs": 1, "runs": str(tmp_path / "runs")}  # fmt: skip
    (copy / "report" / "profiles" / "mine.yaml").write_text(yaml.safe_dump(profile))

    def python(*arguments):
        environment = os.environ | {"PYTHONPATH": str(copy)}
        done = subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "LABEL_SMOOTHING" in python("-m", "report_lib", "study", "--table")
    assert "--label-smoothing" in python("-m", "report_lib", "run", "--help")
    study, *records = map(json.loads, python("-c", FOUND).splitlines())
    in_profile, by_hand, name, plain = study
    assert (in_profile, by_hand) == (0.1, 0.3) and name != plain
    paths = [Path(record["record"]) for record in records]
    assert [json.loads((path / "run.json").read_text())["config"]["label_smoothing"] for path in paths] == [0.1, 0.2]
    assert paths[0].name == name != paths[1].name
