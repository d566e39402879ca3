"""Which runs a study is made of, by what each shows; read back from the store. Imports no torch."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from report_lib import records
from report_lib.recipe import (
    APPROACHES,
    DEFECTS,
    NAMED,
    RECIPES,
    InputError,
    Recipe,
    for_seeds,
    parse_seeds,
    shown,
    whole_number,
)

MAIN = "corrected"  # the recipe that the approach sections present
SMALLEST_BATCH = 8
MOST_LABELS = 1_000_000_000


def plan(
    approach: str,
    recipes: object = "corrected",
    seeds: object = "0",
    budgets: object = "",
    defects: object = "",
    mirror: object = True,
    extra_seeds: object = "",
    **fields: object,
) -> dict[str, tuple[Recipe, ...]]:
    """Recipes of an approach by what they show, one a seed each.

    "corrected", "published", "tuned": the named recipes of `recipes`, such as "published,corrected,tuned".
    "defect:frozen_dropout", ...: `corrected` with one defect of the published listing, if `defects`, a list of
    approaches, holds this one (with "full_finetune@0+1", for seeds 0 and 1). "budget:50", ...: the best named recipe
    with so many labels a class, for each number in `budgets`. Without `mirror`, tuned fine-tuning does not mirror its
    training pictures. Defects and budgets are run with `extra_seeds`, some of `seeds`; empty: with all of them.
    Raises InputError for what cannot be planned.
    """
    names = parse(recipes, "recipes", RECIPES)
    if MAIN not in names:
        raise InputError(
            f"recipes is {shown(recipes)}; {MAIN} must be among them, since the approach sections present it"
        )
    if not isinstance(mirror, bool):
        raise InputError(f"mirror is {shown(mirror)}; allowed are true and false")
    unmirrored = {"flip": False} if approach == "full_finetune" and not mirror else {}

    every = parse_seeds(seeds)
    extra = seeds if extra_seeds in ("", None) else extra_seeds
    if not set(parse_seeds(extra, "extra_seeds")) <= set(every):
        raise InputError(f"extra_seeds is {shown(extra_seeds)}; allowed are some of the seeds, {shown(seeds)}")

    def seeded(name: str, given: dict[str, object], seeds: object = extra) -> tuple[Recipe, ...]:
        return for_seeds(seeds, approach=approach, recipe=name, **given | (unmirrored if name == "tuned" else {}))

    planned = {name: seeded(name, fields, seeds) for name in names}
    chosen = parse_defects(defects, seeds)
    if approach in chosen:
        for name in DEFECTS:
            if name not in NAMED["published"][approach]:
                continue
            # Nothing can be selected on validation where nothing is held out, so this defect brings that one along.
            along = {"select_on_test": True} if name == "train_on_all" else {}
            given: dict[str, object] = {**fields, **along, name: NAMED["published"][approach][name]}
            planned[f"defect:{name}"] = seeded("corrected", given, chosen[approach] or extra)
    best = "tuned" if "tuned" in names else MAIN
    for budget in parse_budgets(budgets):
        fewer = dict(fields) | {"per_class": budget}
        batch = fewer.get("batch_size")
        if isinstance(batch, int):  # few images in large batches would be hardly a step an epoch
            fewer["batch_size"] = min(batch, max(SMALLEST_BATCH, budget))
        planned[f"budget:{budget}"] = seeded(best, fewer)
    return planned


def parse(value: object, name: str, allowed: Sequence[str]) -> list[str]:
    """Names from "one,two" or a list, in order, "none" for none; InputError if one is not allowed or stands twice."""
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else None
    if parts is None or not all(isinstance(part, str) for part in parts):
        raise InputError(
            f"{name} is {shown(value)}; allowed are names out of {', '.join(allowed)}, with commas between them"
        )
    found = [part.strip() for part in parts if part.strip() and part.strip() != "none"]
    if not set(found) <= set(allowed) or len(set(found)) < len(found):
        raise InputError(f"{name} is {shown(value)}; allowed are distinct names out of {', '.join(allowed)}")
    return found


def parse_defects(value: object, seeds: object) -> dict[str, list[str]]:
    """Approach -> the seeds that its defects are run with, from "linear_probe,full_finetune@0+1"; without "@", none."""
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts):
        named = {part.partition("@")[0].strip(): part.partition("@")[2] for part in parts}
        if len(named) == len(parts):
            found = {
                name: named[name].split("+") if named[name] else []
                for name in parse(",".join(named), "defects", APPROACHES)
            }
            for some in filter(None, found.values()):
                numbers = [whole_number(seed) for seed in some]
                if len(set(numbers)) < len(numbers) or not set(numbers) <= set(parse_seeds(seeds)):
                    raise InputError(f"defects is {shown(value)}; after @ stand some of the seeds, {shown(seeds)}")
            return found
    parse(value, "defects", APPROACHES)  # raises: these are no names
    return {}


def parse_budgets(value: object) -> list[int]:
    """Labels a class from "10,50", an integer or a list, ascending; empty or "none" for none."""
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    numbers = []
    for part in parts:
        if isinstance(part, str) and part.strip() in ("", "none"):
            continue
        number = whole_number(part)
        if number is None or not 5 <= number <= MOST_LABELS:
            raise InputError(
                f'budgets is {shown(value)}; allowed are whole numbers of images a class from 5, such as "10,50"'
            )
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise InputError(f"budgets is {shown(value)}; each number may stand there once")
    return sorted(numbers)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The finished runs of a study: approach -> what they show (see `plan`) -> one run a seed."""

    runs: Mapping[str, Mapping[str, Sequence[records.Run]]]

    @property
    def recipes(self) -> list[str]:
        return [key for key in self.runs[APPROACHES[0]] if key in RECIPES]

    @property
    def main(self) -> dict[str, Sequence[records.Run]]:
        """Approach -> the runs of the recipe that the approach sections present."""
        return self.of(MAIN)

    @property
    def best(self) -> dict[str, Sequence[records.Run]]:
        """Approach -> the runs of `tuned`, if there are any, or else of the main recipe."""
        return self.of("tuned") if "tuned" in self.recipes else self.main

    def of(self, key: str) -> dict[str, Sequence[records.Run]]:
        """Approach -> the runs that show `key`, such as a recipe's name."""
        return {approach: runs[key] for approach, runs in self.runs.items()}

    def keyed(self, approach: str, kind: str) -> dict[str, Sequence[records.Run]]:
        """The runs of a kind ("defect" or "budget") by what follows the colon."""
        return {key.split(":")[1]: runs for key, runs in self.runs[approach].items() if key.startswith(f"{kind}:")}


def read(store: Path, **parameters: object) -> Evidence:
    """The evidence of a planned study.

    Raises InputError if a run is missing, was made by other code, or with other data or weights than the rest.
    """
    runs = {}
    for approach in APPROACHES:
        planned = plan(approach, **parameters)  # type: ignore[arg-type]
        runs[approach] = {key: records.requested(store, some) for key, some in planned.items()}
    made = [run for kinds in runs.values() for some in kinds.values() for run in some]
    for what, key in (("data", "fingerprint"), ("weights", "sha256")):
        if len({run.info[what][key] for run in made}) > 1:
            raise InputError(f"{what} has changed between the runs of this study; run both approaches' notebooks again")
    return Evidence(runs)
