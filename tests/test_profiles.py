"""Whatever stands in a profile, it either makes a study or ends in one sentence."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report_lib import plan, profiles
from report_lib.recipe import APPROACHES, DEFECTS, RECIPES, InputError, Recipe

scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
value = st.one_of(scalar, st.lists(scalar, max_size=3), st.dictionaries(st.text(max_size=3), scalar, max_size=2))
likely = st.sampled_from(
    ["0,1", "tuned,corrected", "10,50", "none", "linear_probe", "full_finetune,linear_probe", 64, 128, 0.5, True, False]
)
overrides = st.dictionaries(st.sampled_from(sorted(profiles.DEFAULTS)), st.one_of(value, likely), max_size=4)


@settings(max_examples=400, deadline=None)
@given(overrides, st.sampled_from([None, "demo", "cifar10", "yours"]))
def test_any_profile_makes_a_study_or_one_sentence(given, profile):
    try:
        chosen = profiles.resolve(profile, given)
    except InputError as error:
        said = str(error)
        for wrong in given.values():  # what was typed may hold line breaks; the sentence around it doesn't
            said = said.replace(repr(wrong), "").replace(str(wrong), "")
        assert said and "Traceback" not in said and "\n" not in said
        return
    for approach in APPROACHES:
        planned = plan.plan(approach, **profiles.study(chosen))
        assert plan.MAIN in planned and all(isinstance(one, Recipe) for some in planned.values() for one in some)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(APPROACHES),
    st.dictionaries(st.sampled_from(DEFECTS), st.booleans()),
    st.sampled_from(RECIPES),
    st.integers(0, 3),
)
def test_any_mixture_of_defects_makes_a_recipe_or_one_sentence(approach, defects, recipe, per_class):
    given = {name: value for name, value in defects.items() if name != "normalisation"}
    try:
        made = Recipe(approach, recipe, per_class=per_class, **given)
    except InputError as error:
        assert "\n" not in str(error) and any(name in str(error) for name in given)
    else:
        assert all(getattr(made, name) == value for name, value in given.items())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_any_file_is_a_profile_or_one_sentence(tmp_path, text):
    path = tmp_path / "profile.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert set(profiles.read(path)) <= set(profiles.DEFAULTS)
    except InputError as error:
        assert str(path) in str(error)


LAUGHS = ["&a [x]"] + [f"&{new} [{', '.join(9 * [f'*{old}'])}]" for old, new in itertools.pairwise("abcdefghijkl")]
NASTY = [
    "5" * 5000, "0." + "1" * 400, "1" * 400, "1" * 400 + ".0", "2001-01-99", "2001-01-01 25:61:61", '!!int "x"', "0x_",
    '!!float ""', '!!bool "x"', '!!timestamp "x"', '!!int ""', "[" * 400, "[" * 80 + "]" * 80, "{" * 400, "0b_",
    "!!binary x", "!!set x", "&a [*a]", '"\\ud800"', '"a\\0b"', "~nobody-here/x", "1:99:99", "!!null x", "? [a]",
    "!!python/object:os.system x", "-.inf", ".nan", "- 1", "{a: b}", "null", "x" * 5000,
]  # fmt: skip


def is_one_short_sentence(error):
    said = str(error)
    assert said and "\n" not in said and "Traceback" not in said and len(said) < 1000, said


@pytest.mark.parametrize("text", NASTY, ids=[text[:20] for text in NASTY])
def test_nasty_yaml_is_a_study_or_one_sentence(tmp_path, text):
    for name in ("learning_rate", "seeds", "budgets", "runs"):
        (tmp_path / "mine.yaml").write_text(f"{name}: {text}\n")
        try:
            profiles.study_of(tmp_path / "mine.yaml")
        except InputError as error:
            is_one_short_sentence(error)


@pytest.mark.parametrize("name", sorted(profiles.DEFAULTS))
def test_what_is_huge_when_written_out_is_shown_in_part(tmp_path, name):
    (tmp_path / "mine.yaml").write_text(f"{name}: [{', '.join(LAUGHS)}]\n")
    with pytest.raises(InputError) as error:
        profiles.study_of(tmp_path / "mine.yaml")
    is_one_short_sentence(error.value)
    given = profiles.DEFAULTS | {name: eval("[" * 50 + "'x'" + "]" * 50)}
    with pytest.raises(InputError, match=f"^{name} is ") as error:
        profiles.resolve(None, given)
    is_one_short_sentence(error.value)


tags = st.sampled_from("!!int !!float !!bool !!timestamp !!binary !!set !!omap !!null !!seq &a !x".split() + [""])
yamlish = st.one_of(
    st.text("0123456789abxo_.:-+eE \"'[]{},&*!~", max_size=24), st.sampled_from(NASTY),
    st.tuples(st.text("0123456789", min_size=1, max_size=4), st.integers(1, 6000)).map(lambda pair: pair[0] * pair[1]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(profiles.DEFAULTS)), tags, yamlish)
def test_any_tagged_value_makes_a_study_or_one_sentence(tmp_path, name, tag, text):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{name}: {tag} {text}\n")
    try:
        profiles.study_of(path)
    except InputError as error:
        is_one_short_sentence(error)


def test_a_file_of_parameters_may_lack_what_has_a_default(tmp_path):
    path = tmp_path / "parameters.yaml"
    path.write_text("epochs: 3\n")
    assert profiles.study_of(path) == profiles.DEFAULTS | {"epochs": 3}
    path.write_text("epochs: three\n")
    with pytest.raises(InputError, match="epochs is 'three'"):
        profiles.study_of(path)


def test_without_a_profile_there_are_the_recipes_own_values():
    chosen = profiles.resolve(None, {})
    assert chosen["image_size"] == Recipe("linear_probe").image_size and chosen["epochs"] == 10
    with pytest.raises(InputError, match="profile is '../x'"):
        profiles.resolve("../x", {})


def test_options_say_what_parameters_said(tmp_path):
    chosen = profiles.resolve("cifar10", {"data": str(tmp_path), "per_class": 5, "mirror": False, "seeds": "3"})
    said = profiles.options(chosen, "full_finetune", "budget:50", 3)
    assert said[:6] == ["--approach", "full_finetune", "--recipe", "budget:50", "--seed", "3"]
    assert "--no-mirror" in said and said[said.index("--data") + 1] == str(tmp_path)
    assert said[said.index("--per-class") + 1] == "5" and "--epochs" not in said  # the recipe's own
