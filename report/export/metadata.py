"""The title page: report/metadata.yaml, every field checked. What is wrong is one sentence with the field's name."""

import contextlib
import dataclasses
import datetime
import difflib
import re
from pathlib import Path

import yaml

from .origin import ExportError

FILE = Path(__file__).resolve().parents[1] / "metadata.yaml"
MONTHS = ("January February March April May June July August September October November December").split()
# What a date may be written as, once the time of day and what only fills it are gone: th, of, stops, the t of Sept.
SPELLINGS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d %B %Y", "%d %b %Y", "%B %d %Y", "%b %d %Y")
CLOCK = re.compile(r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2})[T ].*")
FILLING = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b|\bof\b|(?<=\bsep)t\b|[.,]+(?= )", re.IGNORECASE)
EMAIL = re.compile(r"[^@\s<>\"]+@[^@\s<>\"]+\.[^@\s<>\"]+")
LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(?:-[a-zA-Z]{4})?(?:-(?:[a-zA-Z]{2}|\d{3}))?")


@dataclasses.dataclass(frozen=True)
class Author:
    name: str
    affiliation: str = ""
    email: str = ""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What stands on the title page and in the files' own metadata."""

    title: str
    authors: tuple[Author, ...]
    date: datetime.date
    subtitle: str = ""
    course: str = ""
    lang: str = "en"
    contribution: str = ""  # Markdown
    main_figure: str = ""  # the label of the picture for the README
    repository: str = ""

    @property
    def day(self) -> str:
        return f"{self.date.day} {MONTHS[self.date.month - 1]} {self.date.year}"


FIELDS = [field.name for field in dataclasses.fields(Metadata)]
PERSON = [field.name for field in dataclasses.fields(Author)]


def load(path: Path = FILE, changes: dict[str, str] | None = None) -> Metadata:
    """The metadata of a file with `changes` to single fields. Raises ExportError."""
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except FileNotFoundError:
        raise ExportError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"{path} cannot be read ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ExportError(
            f"{path}{line}: no YAML ({getattr(error, 'problem', error)}); put a text with a colon into quotes"
        ) from None
    if not isinstance(given, dict):
        raise ExportError(f"{path} holds no fields; it needs title, authors and date")
    changes = changes or {}
    if changes.keys() & {"author", "authors"}:
        given = {key: value for key, value in given.items() if key not in ("author", "authors")}
    return parse({**given, **changes}, path.name)


def parse(given: dict, source: str = "metadata.yaml") -> Metadata:
    """Raises ExportError for a field that is missing, unknown or not what it should be."""
    given = {str(key): value for key, value in given.items() if value not in (None, "", [], {})}
    if "author" in given and "authors" in given:
        raise ExportError(f"{source}: both 'author' and 'authors' are given; keep one of them")
    if "author" in given:
        given["authors"] = given.pop("author")
    for key in given:
        if key not in FIELDS:
            raise ExportError(f"{source}: the field {key!r} is not known{_close(key, [*FIELDS, 'author'])}")
    for key in ("title", "authors", "date"):
        if key not in given:
            raise ExportError(f"{source}: the field {key!r} is missing")
    texts = {key: _text(key, given[key], source) for key in given if key not in ("authors", "date")}
    if not LANGUAGE.fullmatch(texts.get("lang", "en")):
        raise ExportError(f"{source}: lang is {texts['lang']!r}; it is a code such as en, en-GB or de")
    if not re.fullmatch(r"(?:https?://\S+)?", texts.get("repository", "")):
        raise ExportError(
            f"{source}: repository is {texts['repository']!r}; it is an address that begins with https://"
        )
    return Metadata(**(texts | {"authors": _authors(given["authors"], source), "date": date(given["date"], source)}))  # type: ignore[arg-type]


def date(value: object, source: str = "metadata.yaml") -> datetime.date:
    """A date in the spellings that are not ambiguous. Raises ExportError for others, and for days that do not exist."""
    text = " ".join(str(value).split())
    if text.lower() in ("today", "now"):
        raise ExportError(
            f"{source}: date is {text!r}; a report built again must not change, so write the day, such as 2026-11-23"
        )
    plain = FILLING.sub("", CLOCK.sub(r"\1", text))
    for spelling in SPELLINGS:
        with contextlib.suppress(ValueError):
            return datetime.datetime.strptime(plain, spelling).date()
    raise ExportError(f"{source}: date is {text!r}; write it as 2026-11-23 or 23 November 2026")


def _authors(value: object, source: str) -> tuple[Author, ...]:
    people = value if isinstance(value, list) else [value]
    return tuple(_author(person, source) for person in people)


def _author(person: object, source: str) -> Author:
    if isinstance(person, dict):
        for key in person:
            if key not in PERSON:
                raise ExportError(
                    f"{source}: an author has the field {key!r}, which is not known{_close(str(key), PERSON)}"
                )
        if not person.get("name"):
            raise ExportError(f"{source}: an author has no 'name'")
        fields = {key: _text(f"authors: {key}", text, source) for key, text in person.items() if text not in (None, "")}
    elif isinstance(person, str) and person.strip():
        found = re.fullmatch(r"(.+?)\s*<([^<>]+)>", person.strip())
        fields = {"name": found[1], "email": found[2]} if found else {"name": " ".join(person.split())}
    else:
        raise ExportError(f"{source}: an author is {person!r}; it is a name, or the fields name, affiliation and email")
    if fields.get("email") and not EMAIL.fullmatch(fields["email"]):
        raise ExportError(f"{source}: the email of {fields['name']} is {fields['email']!r}, which is no address")
    return Author(**fields)


def _text(key: str, value: object, source: str) -> str:
    if isinstance(value, dict | list):
        raise ExportError(
            f"{source}: {key} is a {'list' if isinstance(value, list) else 'group of fields'}; it is a text"
        )
    text = str(value).strip()
    return text if key == "contribution" else " ".join(text.split())


def _close(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, 1, 0.5)
    return f"; is {close[0]!r} meant?" if close else f"; known are {', '.join(known)}"
