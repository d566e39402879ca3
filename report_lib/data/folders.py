"""Which file is of which part and class, by the names of its folders; and what is not used, counted by kind."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from report_lib.files import InputError

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # in capitals, too
EXPECTED = "train/<class>/* and test/<class>/* with the same classes in both"
# What systems put beside people's files, not worth a word.
SYSTEM = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini", "@eadir")
JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and some emoji are written

# Letters of other alphabets that look like Latin ones.
ALIKE = str.maketrans(
    "АВЕКМНОРСТУХІЈЅаеорсухіјѕһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧορν", "ABEKMHOPCTYXIJSaeopcyxijshdqwABEZHIKMNOPTYXopv"
)


def is_system(name: str) -> bool:
    return any(part.lower() in SYSTEM or part.startswith("._") for part in name.split("/"))


def is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def may_be_used(name: str) -> bool:
    """Whether a file may belong to a class, as far as its own name says."""
    return any(part.lower() in PARTS for part in name.split("/")[:-2]) and not is_system(name) and not is_hidden(name)


def by_ending(name: str) -> str:
    """The kind of a file that is no image, in the plural."""
    ending = PurePosixPath(name).suffix.lower()
    plain = ending.isprintable() and len(ending) < 12
    return "other files" if not plain else f"files ending in {ending}" if ending else "files without an ending"


def counted(count: int, kind: str) -> str:
    """Such as "1 file ending in .txt"."""
    return f"{count:,} {kind.replace('files', 'file', 1).replace('images', 'image', 1) if count == 1 else kind}"


def sentences(facts: dict, test: int) -> list[str]:
    """Says what `facts` count, of so many test images."""
    kinds = ", ".join(counted(count, kind) for kind, count in sorted(facts["left_out"].items()))
    copies = f"{facts['copies']:,} of the {test:,} test images are exact copies of training images."
    return [f"Not used: {kinds}."] * bool(kinds) + [copies] * bool(facts["copies"])


def place(path: Path, names: Iterable[str]) -> tuple[dict[str, tuple[str, str]], Counter, list[str]]:
    """(name -> ("train" or "test", class) of the files, and folders, within class folders; how many other files there
    are of each kind; sentences on class folders that are one). Names of folders end in a slash.

    The folders that lead to train/ and test/ are taken off. Raises InputError if there are none.
    """
    unused: Counter = Counter()
    within = {}  # the folders that each is in
    for name in names:
        if is_hidden(name) and not is_system(name):
            unused["hidden files"] += not name.endswith("/")
        elif not is_system(name):
            within[name] = tuple(name.split("/")[:-1])
    lead = _lead(path, within)
    placed, folders = {}, {}
    for name, parts in within.items():
        rest = parts[len(lead) :] if parts[: len(lead)] == lead else ()
        part = PARTS.get(rest[0].lower(), "") if rest else ""
        if part and len(rest) > 1:
            placed[name] = part, unicodedata.normalize("NFC", rest[1])
            folders[rest[:2]] = placed[name]
        elif not name.endswith("/"):
            where = "in no class folder" if part else f"in {rest[0]}/" if rest else "beside train/ and test/"
            unused[f"files {where}"] += 1
    for part in ("train", "test"):
        if len(given := {folder for (folder, _), (kind, _) in folders.items() if kind == part}) > 1:
            raise InputError(f"data is {str(path)!r}, which has both {' and '.join(sorted(given))}; keep one of them")
    notes = [
        f"Folders of {part}/ whose names differ only in their Unicode form are one class, {cls!r}."
        for (part, cls), count in Counter(folders.values()).items()
        if count > 1
    ]
    deeper = sorted({"/".join(parts[: len(lead) + 3]) for name, parts in within.items()
                     if name in placed and not name.endswith("/") and len(parts) > len(lead) + 2})  # fmt: skip
    if deeper:
        notes.append(f"Folders in class folders count as their class: {len(deeper):,}, such as {deeper[0]!r}.")
    return placed, unused, notes


def _lead(path: Path, within: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The folders above train/ and test/: the shortest that has both, with class folders in them."""
    kinds: dict[tuple[str, ...], set[str]] = {}
    for parts in set(within.values()):
        for depth, part in enumerate(parts[:-1]):
            if part.lower() in PARTS:
                kinds.setdefault(parts[:depth], set()).add(PARTS[part.lower()])
    leads = sorted(kinds, key=lambda lead: (len(kinds[lead]) < 2, len(lead), lead))
    if leads and len(kinds[leads[0]]) == 2:
        return leads[0]
    top = leads[0] if leads else ()
    beside = sorted({parts[len(top)] for parts in within.values() if parts[:-1][: len(top)] == top and parts != top})
    lacks = "test" if any("train" in kinds[lead] for lead in leads) else "train"
    for name in beside:
        if PARTS.get(name.lower()) == lacks:
            raise InputError(f"data is {str(path)!r}, whose {name}/ holds no class folders; expected is {EXPECTED}")
    names = [f"{name}/" for name in beside] or sorted(
        name.split("/")[-1] for name, parts in within.items() if parts == top and not name.endswith("/")
    )
    there = f"there are {', '.join(names[:6])}{', ...' * (len(names) > 6)}; " if names else ""
    raise InputError(
        f"data is {str(path)!r}, which has no {lacks}/ folder with images; {there}expected is {EXPECTED} "
        "(images for validation are drawn from train/)"
    )


def arrange(
    path: Path, placed: dict[str, tuple[str, str]], useless: dict[str, str]
) -> tuple[list[str], dict[str, tuple[str, int]], dict[str, np.ndarray], list[str]]:
    """(classes, file name -> (part, row), labels of each part, sentences on classes that look alike), rows in
    torchvision ImageFolder's sorted order. `useless` are the files that are no images, each with its kind.

    Raises InputError for a class that lacks images, or has no name that can be printed.
    """
    images = {name: where for name, where in placed.items() if name not in useless and not name.endswith("/")}
    classes = sorted({cls for _, cls in placed.values()})
    present = {part: {cls for kind, cls in images.values() if kind == part} for part in ("train", "test")}
    for cls in classes:
        joined = JOINERS if not cls.strip(JOINERS).isascii() else ""
        if not all(c.isprintable() or c in joined for c in cls):
            raise InputError(f"data is {str(path)!r}, whose class {cls!r} has no printable name; rename that folder")
    for part, other in (("train", "test"), ("test", "train")):
        if not present[part]:
            raise InputError(f"data is {str(path)!r}, which has no image under {part}/; expected is {EXPECTED}")
        for cls in classes:
            if cls not in present[part]:
                kinds = Counter(useless[name] for name in useless if placed[name] == (part, cls))
                held = ", ".join(counted(count, kind) for kind, count in kinds.items())
                near = difflib.get_close_matches(cls, present[part] - present[other], 1, 0.5)
                spelt = f" ({near[0]!a}, and not {cls!a})" if near and not (near[0] + cls).isascii() else ""
                raise InputError(
                    f"data is {str(path)!r}, whose class {cls!r} has no image under {part}/"
                    + (f", only {held}" if held else f", where there is {near[0]!r}{spelt}" if near else "")
                    + f"; expected is {EXPECTED}"
                )
    alike: dict[str, list[str]] = {}
    for cls in classes:
        looks = unicodedata.normalize("NFKC", cls.translate(ALIKE)).casefold()
        alike.setdefault(" ".join(looks.split()), []).append(cls)
    notes = [
        f"The classes {' and '.join(map(repr, names))} look alike"
        + (f" ({' and '.join(map(ascii, names))})." if not all(map(str.isascii, names)) else ".")
        for names in alike.values()
        if len(names) > 1
    ]
    rows, labels = {}, {}
    order = {cls: number for number, cls in enumerate(classes)}
    for part in ("train", "test"):
        ordered = sorted((order[cls], name) for name, (kind, cls) in images.items() if kind == part)
        rows.update({name: (part, row) for row, (_, name) in enumerate(ordered)})
        labels[part] = np.array([label for label, _ in ordered], np.int64)
    return classes, rows, labels, notes
