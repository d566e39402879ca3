"""What determines one run, validated in one place. Imports no torch: notebooks, CLI and analysis share it."""

import ast
import dataclasses
import hashlib
import json
import os
import reprlib
import tempfile
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]

APPROACHES = ("linear_probe", "full_finetune")
RECIPES = ("published", "corrected", "tuned")
NORMALISATIONS = ("imagenet", "half")
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine")
STARTS = ("random", "probe")
PRECISIONS = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cuda", "mps", "cpu")
DATA_SOURCES = ("digits", "cifar10")
WEIGHT_SOURCES = ("imagenet", "embedded", "none")

# AlexNet's three poolings leave nothing of a smaller picture; a larger one than this is a slip, not a plan.
SMALLEST_IMAGE, LARGEST_IMAGE = 63, 1024


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do, in one sentence."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: in a notebook, too, the sentence is all there is to say."""
        return [f"InputError: {self}"]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 300
_SHORT.maxlevel = 3


def shown(value: object) -> str:
    """`value` as a message shows it: a short one whole, of a long or deeply nested one a part."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 320 else f"{text[:320]}..."


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything the outcome of one run depends on, but for the bytes behind `data` and `weights`.

    The defaults are those of the recipe `corrected`; `named` makes the other two. Raises InputError, naming the
    parameter, its value and what is allowed, if any value cannot be used.
    """

    approach: str
    recipe: str = "corrected"
    data: str = "digits"
    weights: str = "embedded"
    image_size: int = 224  # pixels a side; what AlexNet was designed for
    epochs: int = 10  # as published
    batch_size: int = 128  # as published
    val_fraction: float = 0.2  # of the training images, as published
    per_class: int = 0  # labelled training images of each class that may be used, validation included; 0: all
    seed: int = 0
    precision: str = "auto"  # bfloat16 where the hardware multiplies in it, float32 elsewhere

    # How a step is taken.
    optimizer: str = "adam"  # as published; sgd has Nesterov's momentum of 0.9
    learning_rate: float = 1e-3  # Adam's default, as published
    trunk_rate: float = 1.0  # learning rate of the pretrained layers, as a multiple of the head's
    weight_decay: float = 0.0  # decoupled for adam (Loshchilov and Hutter 2019), L2 for sgd
    schedule: str = "constant"  # cosine: down to zero at the end, after a rise over the first `warmup` of all steps
    warmup: float = 0.0
    start: str = "random"  # of the head; probe: that of a tuned linear probe (Kumar et al. 2022)
    standardise: bool = False  # each frozen feature to mean 0 and deviation 1 over the training images
    flip: bool = False  # mirror training pictures at random
    shift: float = 0.0  # move training pictures at random by up to this part of their side, reflecting at the border

    # What the published listings do, each a defect that can be switched on alone.
    select_on_test: bool = False  # the test images take the place of the validation images
    train_on_all: bool = False  # nothing is held out
    normalisation: str = "imagenet"  # half: mean and deviation 0.5, which is not what the weights were trained with
    unstratified: bool = False  # validation images are drawn without regard to class
    frozen_dropout: bool = False  # linear probe: dropout stays on in the frozen trunk while the head trains
    dropout_ends: bool = False  # full fine-tuning: dropout is off after the first epoch
    batch_averages: bool = False  # losses are means over batches, the last and smaller one counting as much

    def __post_init__(self) -> None:
        _one_of("approach", self.approach, APPROACHES)
        _one_of("recipe", self.recipe, RECIPES)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("start", self.start, STARTS)
        _one_of("normalisation", self.normalisation, NORMALISATIONS)
        _source("data", self.data, DATA_SOURCES, "an existing folder or archive")
        _source("weights", self.weights, WEIGHT_SOURCES, "an existing .safetensors or .pth file")
        _integer("image_size", self.image_size, SMALLEST_IMAGE, LARGEST_IMAGE)
        _integer("epochs", self.epochs, 1, 10_000)
        _integer("batch_size", self.batch_size, 1, 1_000_000)
        _integer("per_class", self.per_class, 0, 1_000_000_000)
        _integer("seed", self.seed, 0, 2**31 - 1)
        _number("shift", self.shift, 0.0, 0.5, zero=True)
        _number("learning_rate", self.learning_rate, 0.0, 10.0)
        _number("val_fraction", self.val_fraction, 0.0, 1.0, below=True)
        _number("trunk_rate", self.trunk_rate, 0.0, 10.0)
        _number("weight_decay", self.weight_decay, 0.0, 10.0, zero=True)
        _number("warmup", self.warmup, 0.0, 1.0, below=True, zero=True)
        for name, value in vars(self).items():
            if isinstance(getattr(Recipe, name, None), bool):
                _boolean(name, value)
        for approach, names in ONLY.items():
            for name in names:
                if self.approach != approach and getattr(self, name) != getattr(Recipe, name):
                    raise InputError(
                        f"{name} is {shown(getattr(self, name))}; only {approach} has that, not {self.approach}"
                    )
        if self.train_on_all and not self.select_on_test:
            raise InputError("train_on_all is True, which leaves no validation image; select_on_test must be True too")
        if self.standardise and self.frozen_dropout:
            raise InputError(
                "standardise is True, which needs features that never change; frozen_dropout must be False"
            )


DEFECTS = ("select_on_test", "train_on_all", "normalisation", "unstratified", "frozen_dropout", "dropout_ends",
           "batch_averages")  # fmt: skip

ONLY = {
    "linear_probe": ("standardise", "frozen_dropout"),
    "full_finetune": ("trunk_rate", "start", "flip", "shift", "dropout_ends"),
}

# What each recipe sets; where it is silent, the defaults above hold. Where report/tuning/ records a search,
# `tuned` holds its winner.
NAMED: dict[str, dict[str, dict]] = {
    "published": {
        "linear_probe": dict(
            select_on_test=True, unstratified=True, frozen_dropout=True, batch_averages=True, precision="float32",
        ),
        "full_finetune": dict(
            select_on_test=True, train_on_all=True, normalisation="half", dropout_ends=True, precision="float32",
        ),
    },
    "corrected": {"linear_probe": {}, "full_finetune": {}},
    "tuned": {
        "linear_probe": dict(standardise=True, schedule="cosine", learning_rate=3e-4, weight_decay=1.0),
        "full_finetune": dict(
            learning_rate=1e-3, weight_decay=0.05, schedule="cosine", warmup=0.1, start="probe", flip=True, shift=0.1,
        ),
    },
}  # fmt: skip


def named(approach: str, recipe: str = "corrected", **given: object) -> Recipe:
    """The recipe `published`, `corrected` or `tuned` of an approach; what is `given`, and neither None nor
    auto, overrides it."""
    _one_of("approach", approach, APPROACHES)
    _one_of("recipe", recipe, RECIPES)
    fields = NAMED[recipe][approach] | {name: value for name, value in given.items() if value not in (None, "auto")}
    return Recipe(approach, recipe, **fields)


def probe_of(recipe: Recipe) -> Recipe:
    """The tuned linear probe from whose head `recipe` starts: on the same data, split and seed."""
    shared = ("data", "weights", "image_size", "epochs", "batch_size", "val_fraction", "per_class", "seed", "precision",
              "normalisation", "unstratified", "train_on_all", "select_on_test")  # fmt: skip
    return named("linear_probe", "tuned", **{name: getattr(recipe, name) for name in shared})


def settings(recipe: Recipe) -> dict:
    """Every value that decides the outcome of `recipe`; the probe's too, where it starts from one, on the same data and
    weights."""
    fields = dataclasses.asdict(recipe)
    if recipe.start == "probe":
        probe = dataclasses.asdict(probe_of(recipe))
        fields["probe"] = {name: value for name, value in probe.items() if name not in ("data", "weights")}
    return fields


def for_seeds(seeds: object, **fields: object) -> tuple[Recipe, ...]:
    """The recipe `named` by `fields` for each seed of `seeds` ("0,1,2", a list or a single integer)."""
    return tuple(named(seed=seed, **fields) for seed in parse_seeds(seeds))  # type: ignore[arg-type]


def parse_seeds(value: object, name: str = "seeds") -> tuple[int, ...]:
    """Seeds from "0,1,2", an integer or a list of integers; InputError if there is none, or one twice, which names the
    parameter."""
    problem = f'{name} is {shown(value)}; allowed are distinct whole numbers from 0, such as "0,1,2"'
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    seeds = []
    for part in parts:
        seed = whole_number(part)
        if seed is None or not 0 <= seed < 2**31:
            raise InputError(problem)
        seeds.append(seed)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(problem)
    return tuple(seeds)


def whole_number(value: object) -> int | None:
    """`value`, if it is an integer, or the one that it spells in at most 18 digits; otherwise None."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def derive_seed(seed: int, purpose: str) -> int:
    """An independent 63-bit seed for each purpose ("split", "head", ...) of one run's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1


def request_key(recipe: Recipe) -> str:
    """Names what was asked for, before any data is read: recipe fields with `data` and `weights` as typed."""
    return digest(located(settings(recipe)))


def located(fields: dict) -> dict:
    """Fields of a recipe, with absolute paths."""
    sources = (("data", DATA_SOURCES), ("weights", WEIGHT_SOURCES))
    return fields | {name: str(locate(fields[name])) for name, known in sources if fields[name] not in known}


def digest(value: object) -> str:
    """sha256 of a JSON-serialisable value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_hash() -> str:
    """sha256 of the code that determines a run, so that no record outlives it; comments and docstrings don't count.

    What recipes and sources contain is not in it: each run's name holds its recipe's values and its data's fingerprint.
    """
    here = Path(__file__)
    seeds = next(n for n in ast.parse(here.read_text("utf-8")).body if getattr(n, "name", "") == derive_seed.__name__)
    trees = [
        ast.parse(here.with_name(f"{name}.py").read_text("utf-8")) for name in ("data", "model", "features", "train")
    ]
    sha = hashlib.sha256()
    for tree in (ast.Module([seeds], []), *trees):
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        sha.update(ast.unparse(tree).encode())
    return sha.hexdigest()


def locate(path: str) -> Path:
    """Absolute path; a relative one starts at the project, so that it means the same in every notebook and command.

    Raises InputError for what can be no path.
    """
    try:
        located = os.path.abspath(PROJECT / Path(path).expanduser())
        os.fsencode(located)
    except (RuntimeError, ValueError) as error:  # of an unknown ~user; with half a character
        raise InputError(f"{shown(path)} can be no path ({error}); name another") from error
    if "\0" in located:
        raise InputError(f"{shown(path)} can be no path (it holds a null character); name another")
    return Path(located)


def folder(given: str, variable: str, default: str) -> Path:
    """The folder the user named, or that the environment variable names, or `default` inside the project.

    Raises InputError for what can be no path.
    """
    return locate(given or os.environ.get(variable) or default)


def check_writable(folder: Path, name: str) -> None:
    """Raises InputError if nothing can be written into `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{name} is {str(folder)!r}, where nothing can be written ({error.strerror})") from error


def check_plain(name: str, path: str) -> None:
    """Raises InputError for what is there but neither a file nor a folder: to read a pipe or a device may never end."""
    found = locate(path)
    if found.exists() and not (found.is_file() or found.is_dir()):
        raise InputError(f"{name} is {path!r}, a pipe or a device; copy what it gives into a file and name that")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {shown(value)}; allowed are {', '.join(allowed)}")


def _boolean(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {shown(value)}; allowed are true and false")


def _source(name: str, value: object, known: tuple[str, ...], path: str) -> None:
    if not isinstance(value, str) or not value or (value not in known and not _exists(value)):
        raise InputError(f"{name} is {shown(value)}; allowed are {', '.join(known)} or the path of {path}")
    if value not in known:
        check_plain(name, value)


def _exists(path: str) -> bool:
    try:
        return locate(path).exists()
    except (OSError, InputError):  # too long; none
        return False


def _integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} is {shown(value)}; allowed are whole numbers from {low} to {high}")


def _number(name: str, value: object, low: float, high: float, below: bool = False, zero: bool = False) -> None:
    inside = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not inside or (below and value == high) or (not zero and value == low):
        bound = "below" if below else "up to"
        hint = "; in YAML write 0.001, since 1e-3 is read as text" if isinstance(value, str) else ""
        start = "from" if zero else "above"
        raise InputError(f"{name} is {shown(value)}; allowed are numbers {start} {low:g} and {bound} {high:g}{hint}")
