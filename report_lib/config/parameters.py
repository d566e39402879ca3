"""The parameters of a study: those of its runs, which Config declares, and those of the study, declared here.

Notebooks, make, the command line, profiles and the README's table all take them from PARAMETERS.
"""

import dataclasses
import difflib
import functools
import os
import sys
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path

import yaml

from report_lib.config.fields import DEFECTS, FIELDS, Number, as_list, check, from_text, option
from report_lib.config.registries import APPROACHES, PRESETS
from report_lib.files import PROJECT, InputError, check_writable, digest, locate, read_yaml, shown, walk, write_whole

DEVICES = ("auto", "cuda", "mps", "cpu")


@dataclasses.dataclass(frozen=True)
class StudyOptions:
    """What a study is made of, beside the fields of its configs."""

    profile: str = option("demo", help="a profile's name, or the path of a YAML file; every parameter may stand in it")
    data_name: str = option("", help="what the report calls the data; empty: the source's own name")
    title: str | None = option(None, help="the report's title; not given: that of its metadata")
    subtitle: str | None = option(None, help="its subtitle, likewise; empty: none")
    course: str | None = option(None, help="the line below the authors, likewise")
    presets: tuple[str, ...] = option(
        ("corrected",),
        each=tuple(PRESETS),
        help="which presets are run; defects, ladder and controls need corrected among them",
    )
    present: str = option("corrected", tuple(PRESETS), "the preset that the approach sections present")
    seeds: tuple[int, ...] = option((0,), each=Number(0, 2**31 - 1), help="one run of each preset per seed")
    probe_seeds: tuple[int, ...] = option(
        (), each=Number(0, 2**31 - 1), help="those of approaches that train the head alone, if they have others"
    )
    budgets: tuple[int, ...] = option(
        (),
        each=Number(5, 10**9),
        help="labelled images per class, for the curve of labels (above per_class: first seed); or none",
    )
    defects: tuple[str, ...] = option(
        (), each=tuple(APPROACHES), help="approaches whose published defects are switched on one at a time"
    )
    ladder: bool = option(False, help="the settings of tuned are added to those of corrected one after another")
    controls: bool = option(False, help="a random trunk is trained too, and fine-tuning with the early layers frozen")
    keep_weights: str = option(
        "first", ("first", "all", "none"),
        "trained networks that are kept: of the first seed of the presented and the tuned preset, all, or none",
    )  # fmt: skip
    device: str = option("auto", DEVICES, "auto takes CUDA, then Apple's MPS, then the CPU")
    runs: str = option("", help="the store of finished runs; empty: .runs in the project")


OWN = {field.name: field for field in dataclasses.fields(StudyOptions)}
# Approach, preset and seed vary within a study; defects are switched on by `published` and by `defects`.
OF_RUNS = {name: f for name, f in FIELDS.items() if name not in ("approach", "preset", "seed", *DEFECTS)}
PARAMETERS: dict[str, dataclasses.Field] = OWN | OF_RUNS


def variable(name: str) -> str:
    """The parameter's variable in make."""
    return PARAMETERS[name].metadata["make"] or name.upper()


@functools.cache
def profiles() -> Path:
    """The folder of profiles, as pyproject.toml names it."""
    table = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return PROJECT / table["tool"]["report_lib"]["profiles"]


def resolve(profile: str | None = None, overrides: Mapping[str, object] | None = None) -> dict:
    """Every parameter of a study: the defaults, then a profile, then `overrides`; validated.

    `profile` is the name of a profile, or the path of a YAML file of parameters. None stands for "not given": a field
    of Config that stays None has the value of each preset. Raises InputError for a wrong name or value.
    """
    chosen: dict = {name: field.default for name, field in OWN.items()} | dict.fromkeys(OF_RUNS)
    path = None if profile is None else _profile(profile)
    given = read(path) if path else {}
    if path and path.parent == profiles():
        given = {"profile": path.stem} | given
    for name, value in [*given.items(), *(overrides or {}).items()]:
        check_name(name, "the study")
        if value is not None:
            kind = PARAMETERS[name].type
            chosen[name] = as_list(value, kind) if typing.get_origin(kind) is tuple else value
    for name, value in chosen.items():
        if value is not None:
            check(name, value, PARAMETERS[name].type, PARAMETERS[name].metadata)
    locate(chosen["runs"])
    if not chosen["seeds"]:
        raise InputError("seeds is (); at least one is needed")
    if chosen["present"] not in chosen["presets"]:
        raise InputError(
            f"presets is {shown(chosen['presets'])}; {chosen['present']} must be among them, since the approach "
            "sections present it (parameter `present`)"
        )
    return chosen


def _profile(profile: object) -> Path:
    known = {file.stem: file for file in profiles().glob("*.yaml")}
    if isinstance(profile, str) and profile not in known and profile.endswith((".yaml", ".yml")):
        known[profile] = locate(profile)
    if not isinstance(profile, str) or not known.get(profile, Path()).is_file():
        names = ", ".join(file.stem for file in sorted(profiles().glob("*.yaml")))
        raise InputError(f"profile is {shown(profile)}; allowed are {names}, or the path of a YAML file of parameters")
    return known[profile]


def check_name(name: object, where: str) -> None:
    """Raises InputError unless `name` is that of a parameter."""
    if name not in PARAMETERS:
        near = difflib.get_close_matches(str(name)[:100], PARAMETERS, 1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(PARAMETERS)}"
        raise InputError(f"{where} has no parameter {shown(name)}; {meant}")


def read(path: Path) -> dict:
    """The parameters in a YAML file. Raises InputError if it is none, or names a parameter that does not exist."""
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise InputError(f"{path} is no list of 'name: value' lines")
    for name in content:
        check_name(name, str(path))
    return content


def write(settings: dict, path: Path) -> None:
    """Writes settings as YAML, leaving a file that says the same untouched, for make's sake.

    A comment in it changes with the files of data and weights, of which names, sizes and times are read.
    """
    seen = []
    for name in ("data", "weights"):
        source, allowed = str(settings[name] or FIELDS[name].default), FIELDS[name].metadata["allowed"]
        files = [] if source in allowed.names else walk(locate(source))
        states = [[str(file), state.st_size, state.st_mtime_ns] for file, state in files]
        seen.append(digest(states) if states else source)
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    text = f"# data and weights as last seen: {', '.join(seen)}\n"
    text += yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, default_flow_style=None)
    check_writable(path.parent, "OUT")
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)


def typed(given: Mapping[str, str], at_shell: bool = False) -> dict:
    """Parameters from text, as at a command line; `at_shell`, paths are relative to the working folder."""
    values: dict = {name: from_text(text, PARAMETERS[name].type) for name, text in given.items()}
    for name in ("data", "weights", "runs"):
        allowed, path = PARAMETERS[name].metadata["allowed"], values.get(name) or ""
        if (
            at_shell
            and path
            and not (allowed and path in allowed.names)
            and not os.path.isabs(os.path.expanduser(path))
        ):
            here = os.path.relpath(path, PROJECT)
            values[name] = f"./{here}" if allowed and here in allowed.names else here
    return values


def from_make(variables: Mapping[str, str]) -> dict:
    """Parameters from make's variables that were typed. Raises InputError for one that does not exist, and says which
    ones the environment happens to hold: these are not used."""
    names = {variable(name): name for name in PARAMETERS}
    for unknown in variables.keys() - names.keys():
        near = difflib.get_close_matches(unknown, names, 1)
        raise InputError(f"make has no variable {unknown}" + (f"; did you mean {near[0]}?" if near else ""))
    for ambient in sorted((names.keys() & os.environ.keys()) - variables.keys()):
        print(f"{ambient} is set in the environment and not used; write it after make", file=sys.stderr)
    return typed({names[each]: text for each, text in variables.items()})


def table() -> list[tuple[str, str, str, str]]:
    """(parameter, make's variable, default, help) of every parameter, for make's help and the guide."""
    rows = []
    for name, field in PARAMETERS.items():
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        text = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        rows.append((name, variable(name), text, field.metadata["help"]))
    return rows


def markdown() -> str:
    """The table of parameters, as the guide holds it."""
    rows = [f"| `{name}` | `{make}` | {f'`{default}`' if default else ''} | {text} |"
            for name, make, default, text in table()]  # fmt: skip
    return "\n".join(["| parameter | in make | default | what |", "|---|---|---|---|", *rows])
