"""Profiles (report/profiles/*.yaml) -> the validated parameters of a study. Imports no torch."""

import os
from pathlib import Path

from report_lib.disk import write_whole
from report_lib.plan import plan
from report_lib.recipe import (
    APPROACHES,
    DATA_SOURCES,
    DEVICES,
    PROJECT,
    WEIGHT_SOURCES,
    InputError,
    check_writable,
    digest,
    locate,
    shown,
)

FOLDER = PROJECT / "report" / "profiles"

# Every parameter that the notebooks take, with the value it has where a profile does not say.
DEFAULTS = {
    "profile": "demo",
    "data": "digits",
    "data_name": "",  # what the report calls the data; empty: the source's own name
    "weights": "embedded",
    "recipes": "corrected",  # of published, corrected, tuned; the approach sections present corrected
    "image_size": 224,
    "epochs": 10,
    "batch_size": 128,
    "learning_rate": None,  # what the recipe says
    "val_fraction": 0.2,
    "per_class": 0,  # labelled training images of each class that are used; 0: all
    "seeds": "0",
    "extra_seeds": "",  # those of the runs for budgets and defects, some of seeds; empty: all
    "budgets": "",  # labelled images of each class for the curve of few labels, such as "10,50,250"
    "defects": "",  # approaches whose published defects are switched on one at a time
    "mirror": True,  # tuned fine-tuning mirrors training pictures; false where left and right matter
    "precision": "auto",
    "device": "auto",
    "runs": "",
}
PLANNED = ("recipes", "seeds", "extra_seeds", "budgets", "defects", "mirror")  # what `plan` makes runs of
OF_THE_STUDY = ("profile", "data_name", "device", "runs", *PLANNED)  # the others are fields of a Recipe


def resolve(profile: str | None, overrides: dict) -> dict:
    """Defaults, then the profile's file if there is one, then `overrides`; validated.

    Raises InputError for a wrong name or value.
    """
    chosen = DEFAULTS | overrides
    if profile is not None:
        known = {file.stem: file for file in FOLDER.glob("*.yaml")}
        if profile not in known:
            raise InputError(
                f"profile is {shown(profile)}; allowed are the files of report/profiles: {', '.join(sorted(known))}"
            )
        chosen = DEFAULTS | {"profile": profile} | read(known[profile]) | overrides
    if chosen["device"] not in DEVICES:
        raise InputError(f"device is {shown(chosen['device'])}; allowed are {', '.join(DEVICES)}")
    for name in ("profile", "runs", "data_name"):
        if not isinstance(chosen[name], str):
            raise InputError(f"{name} is {shown(chosen[name])}; allowed is text")
    if chosen["runs"]:
        locate(chosen["runs"])
    for approach in APPROACHES:
        plan(approach, **study(chosen))
    return chosen


def study_of(path: Path) -> dict:
    """All parameters of the study that a file of parameters describes, validated; DEFAULTS where it is silent.

    Raises InputError for a file, name or value that cannot be used.
    """
    return resolve(None, read(path))


def read(path: Path) -> dict:
    """The parameters in a YAML file. Raises InputError if it is none, or names a parameter that does not exist."""
    try:
        import yaml  # late: a node that trains by options alone does without
    except ImportError as error:
        raise InputError(f"{path.name} is YAML, which the package pyyaml reads; install it, or give options") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except RecursionError:
        raise InputError(f"{path} cannot be read as YAML (it is nested too deep)") from None
    # Of a value that is not what its form or tag promises, such as 2001-01-99, the parser raises whatever comes to it.
    except (OSError, yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError,
            MemoryError) as error:  # fmt: skip
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{path} cannot be read as YAML ({said})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no list of 'name: value' lines")
    if unknown := sorted(shown(name) for name in content.keys() - DEFAULTS.keys()):
        raise InputError(f"{path} has an unknown parameter {unknown[0]}; allowed are {', '.join(DEFAULTS)}")
    return content


def write(parameters: dict, path: Path) -> None:
    """Writes `parameters` as YAML, leaving a file that says the same untouched, for make's sake."""
    text = f"# data and weights as last seen: {_seen(parameters['data'])}, {_seen(parameters['weights'])}\n"
    import yaml

    text += yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True)
    check_writable(path.parent, "OUT")
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def _seen(source: str) -> str:
    """Changes when a file of `source` does, so that make notices; reads names, sizes and times only."""
    if source in DATA_SOURCES + WEIGHT_SOURCES:
        return source
    path = locate(source)
    files = [path] if path.is_file() else sorted(Path(p, f) for p, _, fs in os.walk(path, followlinks=True) for f in fs)
    states = ((file, file.stat()) for file in files if file.exists())
    return digest([[str(file), state.st_size, state.st_mtime_ns] for file, state in states])


def overrides(options: dict) -> dict:
    """The options that were given; paths typed relative to the working folder become relative to the project."""
    given = {name: value for name, value in options.items() if name in DEFAULTS and value is not None}
    for name, known in (("data", DATA_SOURCES), ("weights", WEIGHT_SOURCES), ("runs", ())):
        if given.get(name) and given[name] not in known and not os.path.isabs(os.path.expanduser(given[name])):
            given[name] = os.path.relpath(given[name], PROJECT)
    return given


def options(parameters: dict, approach: str, what: str, seed: int) -> list[str]:
    """The options of `python -m report_lib run` for one run of a study: nothing of a profile is left to look up."""
    said = ["--approach", approach, "--recipe", what, "--seed", str(seed)]
    recipes = parameters["recipes"]
    said += ["--recipes", recipes if isinstance(recipes, str) else ",".join(recipes)]
    if not parameters["mirror"]:
        said.append("--no-mirror")
    for name in ("device", "runs", *recipe_fields(parameters)):
        value = parameters[name]
        if value not in (None, "") and value != DEFAULTS[name]:
            # Relative paths start at the project; those typed at a command line, at the working folder.
            path = (name in ("data", "weights") and value not in DATA_SOURCES + WEIGHT_SOURCES) or name == "runs"
            said += [f"--{name.replace('_', '-')}", str(locate(value)) if path else str(value)]
    return said


def study(parameters: dict) -> dict:
    """The part of `parameters` that `plan.plan` takes."""
    return {name: parameters[name] for name in PLANNED} | recipe_fields(parameters)


def recipe_fields(parameters: dict) -> dict:
    """The part of `parameters` that a Recipe takes, beside its approach, name and seed."""
    return {name: value for name, value in parameters.items() if name not in OF_THE_STUDY}
