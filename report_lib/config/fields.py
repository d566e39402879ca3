"""Config: everything one run depends on. Each field is declared once, with its type, allowed values and help."""

import dataclasses
import types
import typing

from report_lib.config.registries import APPROACHES, NETWORKS, PRESETS
from report_lib.files import InputError, check_plain, locate, shown

LARGEST_IMAGE = 1024  # pixels a side; a larger one is a slip, not a plan


@dataclasses.dataclass(frozen=True)
class Number:
    """Allowed are numbers from `low` to `high`; the bounds themselves unless `above` or `below` them."""

    low: float
    high: float
    above: bool = False
    below: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """Allowed are some names, or the path of something that exists."""

    names: tuple[str, ...]
    path: str  # what the path leads to
    file: bool = False  # a folder is none


def option(
    default: object,
    allowed: object = None,
    help: str = "",
    make: str = "",
    only: tuple[str, ...] = (),
    defect: str = "",
    each: object = None,
) -> typing.Any:
    """A dataclass field that declares a parameter.

    `allowed` is a registry or a tuple of names, a Number or a Source; `make` its variable, if that is not the name in
    capitals; `only` the values of Approach.trains that have it (empty: all); `defect` its row in the table of published
    defects, if it is one; `each` what is allowed of each part of a list.
    """
    metadata = {"allowed": allowed, "help": help, "make": make, "only": only, "defect": defect, "each": each}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything the outcome of one run depends on, but for the bytes behind `data` and `weights`.

    The defaults are those of the preset `corrected`; `preset` makes the others. Raises InputError, naming the
    parameter, its value and what is allowed, if any value cannot be used.
    """

    approach: str = option("linear_probe", APPROACHES, "what is trained")
    preset: str = option("corrected", PRESETS, "how it is trained")
    seed: int = option(0, Number(0, 2**31 - 1), "draws split, head, order and dropout")
    network: str = option("alexnet", NETWORKS, "the pretrained network")
    data: str = option(
        "digits", Source(("digits", "cifar10"), "an existing folder or archive"),
        "digits, cifar10, or the path of a class-folder tree or an archive of one",
    )  # fmt: skip
    weights: str = option(
        "embedded", Source(("imagenet", "embedded", "none"), "an existing .safetensors or .pth file", file=True),
        "imagenet, embedded, none, or the path of a .safetensors or .pth state dict of the network",
    )  # fmt: skip
    image_size: int = option(224, Number(1, LARGEST_IMAGE), "pixels a side that images are brought to", make="SIZE")
    epochs: int = option(10, Number(1, 10_000), "passes over the training images")
    batch_size: int = option(128, Number(1, 1_000_000), "images per step", make="BATCH")
    val_fraction: float = option(
        0.2, Number(0, 1, above=True, below=True), "share of the training images held out to select an epoch"
    )
    per_class: int = option(0, Number(0, 10**9), "labelled images per class that are used, validation included; 0: all")
    precision: str = option(
        "auto", ("auto", "float32", "bfloat16"), "bfloat16 where the hardware multiplies in it, float32 elsewhere"
    )

    # How a step is taken.
    optimizer: str = option("adam", ("adam", "sgd"), "Adam, or SGD with Nesterov's momentum of 0.9")
    learning_rate: float = option(1e-3, Number(0, 10, above=True), "learning rate of the head")
    trunk_rate: float = option(
        1.0, Number(0, 10, above=True), "learning rate of the pretrained layers, as a multiple of the head's",
        only=("last_block", "all"),
    )  # fmt: skip
    weight_decay: float = option(0.0, Number(0, 10), "decoupled for Adam, L2 for SGD")
    schedule: str = option("constant", ("constant", "cosine"), "constant, or falling to zero along a cosine")
    warmup: float = option(0.0, Number(0, 1, below=True), "share of all steps over which the learning rate rises")
    start: str = option(
        "random", ("random", "probe"), "the head that training starts from: random, or that of a tuned linear probe",
        only=("last_block", "all"),
    )  # fmt: skip
    standardise: bool = option(
        False, help="scale each frozen feature to mean 0 and deviation 1 over the training images", only=("head",)
    )
    flip: bool = option(False, help="mirror training pictures at random")
    shift: float = option(0.0, Number(0, 0.5), "move training pictures at random by up to this share of their side")
    views: int = option(
        1, Number(1, 100), "variants of each mirrored or moved picture whose frozen features are kept; 1: none is",
        only=("head", "last_block"),
    )  # fmt: skip
    freeze_early: bool = option(False, help="what lies below the last block stays frozen", only=("all",))

    # What the published listings do, each a defect that can be switched on alone.
    select_on_test: bool = option(
        False, help="the test images take the place of the validation images", defect="the test images select the epoch"
    )
    train_on_all: bool = option(
        False, help="nothing is held out",
        defect="nothing is held out, so the test images select too (two defects; effect of the first)",
    )  # fmt: skip
    normalisation: str = option(
        "imagenet", ("imagenet", "half"), "of the inputs: by ImageNet's channel means and deviations, or by 0.5",
        defect="inputs normalised by 0.5 and 0.5",
    )  # fmt: skip
    unstratified: bool = option(
        False, help="validation images are drawn without regard to class", defect="validation drawn regardless of class"
    )
    frozen_dropout: bool = option(
        False, help="dropout stays on in the frozen trunk", only=("head",), defect="dropout on in the frozen trunk"
    )
    dropout_ends: bool = option(
        False, help="dropout is off after the first epoch", only=("last_block", "all"),
        defect="dropout off after the first epoch",
    )  # fmt: skip
    batch_averages: bool = option(
        False, help="losses are means over batches, the last and smaller one counting as much",
        defect="losses averaged over batches",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check(field.name, getattr(self, field.name), field.type, field.metadata)
            if field.type is float:  # 0 and 0.0 are one config, with one name
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        network, trains = NETWORKS[self.network], APPROACHES[self.approach].trains
        if self.image_size < network.smallest:
            raise InputError(
                f"image_size is {self.image_size}; allowed are whole numbers from {network.smallest}, the least that "
                f"{network.name} can see, to {LARGEST_IMAGE}"
            )
        for field in dataclasses.fields(self):
            value, only = getattr(self, field.name), field.metadata["only"]
            if only and trains not in only and value != field.default:
                raise InputError(
                    f"{field.name} is {shown(value)}; only approaches that train {' or '.join(only)} have that, and "
                    f"{self.approach} trains {trains}"
                )
        if self.train_on_all and not self.select_on_test:
            raise InputError("train_on_all is True, which leaves no validation image; select_on_test must be True too")
        if self.standardise and self.frozen_dropout:
            raise InputError(
                "standardise is True, which needs features that never change; frozen_dropout must be False"
            )
        for name in NEED_DROPOUT:
            if getattr(self, name) and not network.dropout:
                raise InputError(f"{name} is True; {network.name} has no dropout")

    @property
    def trains(self) -> str:
        """The part of the network that is trained, one of registries.TRAINS."""
        return "last_block" if self.freeze_early else APPROACHES[self.approach].trains


NEED_DROPOUT = ("frozen_dropout", "dropout_ends")
FIELDS = {field.name: field for field in dataclasses.fields(Config)}
DEFECTS = {name: field.metadata["defect"] for name, field in FIELDS.items() if field.metadata["defect"]}


# --- what is allowed -------------------------------------------------------------------------------------------


def check(name: str, value: object, kind: object, metadata: typing.Mapping) -> None:
    """Raises InputError, naming parameter, value and what is allowed, unless `value` is one that was declared."""
    allowed = metadata["each"] or metadata["allowed"]
    parts = value if typing.get_origin(kind) is tuple else (value,)
    if not isinstance(parts, tuple) or not all(_fits(part, _kind(kind), allowed) for part in parts):
        hint = "; in YAML write 0.001, since 1e-3 is read as text" if kind is float and isinstance(value, str) else ""
        raise InputError(f"{name} is {shown(value)}; allowed {_words(_kind(kind), allowed)}{hint}")
    if len(set(parts)) < len(parts):
        raise InputError(f"{name} is {shown(value)}; each may stand there once")
    if isinstance(allowed, Source) and value not in allowed.names:
        check_plain(name, str(value))


def _kind(kind: object) -> object:
    """The type of a parameter's value, or of each part of a list; without None, which stands for "not given"."""
    return next((part for part in typing.get_args(kind) if part not in (types.NoneType, ...)), kind)


def _fits(value: object, kind: object, allowed: object) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if isinstance(allowed, Number):
        if not isinstance(value, int if kind is int else int | float):
            return False
        above = value > allowed.low if allowed.above else value >= allowed.low
        return above and (value < allowed.high if allowed.below else value <= allowed.high)
    if isinstance(allowed, Source):
        return isinstance(value, str) and (value in allowed.names or _exists(value, allowed.file))
    if not isinstance(value, str):
        return False
    # Half a character, or a null character, can be in no title and no name of a file.
    return value in allowed if allowed else "\0" not in value and value == value.encode(errors="replace").decode()  # type: ignore[operator]


def _words(kind: object, allowed: object) -> str:
    if kind is bool:
        return "are true and false"
    if isinstance(allowed, Number):
        if kind is int:
            return f"are whole numbers from {allowed.low:.0f} to {allowed.high:.0f}"
        start, bound = "above" if allowed.above else "from", "below" if allowed.below else "up to"
        return f"are numbers {start} {allowed.low:g} and {bound} {allowed.high:g}"
    if isinstance(allowed, Source):
        return f"are {', '.join(allowed.names)} or the path of {allowed.path}"
    return f"are {', '.join(allowed)}" if allowed else "is text of whole characters"  # type: ignore


def _exists(path: str, file: bool) -> bool:
    try:
        return bool(path) and locate(path).exists() and not (file and locate(path).is_dir())
    except (OSError, InputError):  # too long; none
        return False


def from_text(text: str, kind: object) -> object:
    """What is typed at a command line, as the parameter's type; what cannot be converted stays text, for `check`."""
    if typing.get_origin(kind) is tuple:
        return as_list(text, kind)
    kind = _kind(kind)
    if kind is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), text)
    try:
        return kind(text) if kind in (int, float) and len(text) < 400 else text  # type: ignore[operator]
    except ValueError:
        return text


def as_list(value: object, kind: object) -> tuple:
    """ "a,b" as ("a", "b"), a list as a tuple, a single value as a tuple of it; "none" and "" as none at all."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() not in ("", "none") else []
    parts = value if isinstance(value, list | tuple) else [value]
    return tuple(from_text(part, _kind(kind)) if isinstance(part, str) else part for part in parts)
