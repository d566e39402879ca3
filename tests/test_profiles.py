"""Whatever stands in a profile, it either makes a study or ends in one sentence."""

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
