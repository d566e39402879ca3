"""Where something stands, as its author counts: every error and warning of the export begins with a Place."""

import dataclasses


class ExportError(Exception):
    """The notebooks cannot become a document; one sentence says where and why."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A cell of a notebook as it was written; counted from 1 among all of its cells."""

    notebook: str = ""
    cell: int = 0
    heading: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.notebook:
            return "the text"
        words = f"{self.notebook}, cell {self.cell}"
        if self.heading:
            words += f" (under \N{LEFT DOUBLE QUOTATION MARK}{self.heading}\N{RIGHT DOUBLE QUOTATION MARK})"
        return words + (f", line {self.line}" if self.line else "")

    def at(self, line: int, heading: str | None = None) -> "Place":
        return dataclasses.replace(self, line=line, heading=self.heading if heading is None else heading)


@dataclasses.dataclass(frozen=True)
class Journal:
    """The warnings of one export, each once, in the order of the text."""

    found: list[tuple[Place, str]] = dataclasses.field(default_factory=list)

    def warn(self, place: Place, says: str) -> None:
        if (place, says) not in self.found:
            self.found.append((place, says))

    @property
    def warnings(self) -> list[str]:
        notebooks = list(dict.fromkeys(place.notebook for place, _ in self.found))
        ordered = sorted(self.found, key=lambda warning: (notebooks.index(warning[0].notebook), warning[0].cell))
        return list(dict.fromkeys(f"{place}: {says}" for place, says in ordered))
