"""The blocks of a page. Both templates render these, so the report is worded once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from markupsafe import Markup, escape

from tune.report.style import Chart

LEFT, RIGHT = "left", "right"


@dataclass(frozen=True)
class Text:
    text: str  # one paragraph; `code` between backticks
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Caution:
    text: str
    kind: ClassVar[str] = "caution"


@dataclass(frozen=True)
class Code:
    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Table:
    """`head` may be shorter words than the reader needs: `note` below the table explains."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 0  # how many of the last columns are numbers, set to the right
    marked: int | None = None  # the row to lift out
    note: str = ""
    kind: ClassVar[str] = "table"

    @property
    def wordy(self) -> bool:
        """True where the first column is of words that should not be broken into a narrow pile."""
        return len(self.head) > 4 and any(len(row[0]) > 14 for row in self.rows)

    def side(self, column: int) -> str:
        return RIGHT if column >= len(self.head) - self.numbers else LEFT


@dataclass(frozen=True)
class Drawing:
    chart: Chart
    caption: str
    alt: str  # what it shows, for those who cannot see it
    kind: ClassVar[str] = "drawing"


@dataclass(frozen=True)
class Tile:
    """One of the figures at the head of the page."""

    name: str
    value: str
    below: str


@dataclass(frozen=True)
class Tiles:
    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


Block = Text | Caution | Code | Table | Drawing | Tiles


@dataclass(frozen=True)
class Section:
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def html(text: Any) -> Markup:
    """Text as HTML: all escaped; between backticks code, which may break after a dot; numbers kept whole."""
    escaped = re.sub(r"(?<=\d) (?=%)|(?<=ε) (?==)|(?<==) (?=\d)", "\u00a0", str(escape(str(text))))
    return Markup(re.sub(r"`([^`]+)`", _code, escaped))  # noqa: S704  (escaped above)


def _code(match: re.Match[str]) -> str:
    return "<code>" + re.sub(r"(?<=[a-z])([._])(?=[a-z])", r"\1<wbr>", match[1]) + "</code>"


def cell(text: Any) -> str:
    """Text as one cell of a Markdown table: neither a bar nor a line break may end it."""
    return " ".join(str(text).split()).replace("|", "\\|")


def value(item: Any) -> str:
    """A configuration's value as a reader would write it."""
    if item is None:
        return "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, list | tuple):
        return ", ".join(map(value, item)) or "none"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{key}: {value(inner)}" for key, inner in item.items()) + "}"
    return f"{item:.4g}" if isinstance(item, float) else str(item)


def seconds(amount: float | None) -> str:
    """A duration with the unit that suits it."""
    if amount is None:
        return "–"
    if amount < 120:
        return f"{amount:.1f} s"
    return f"{amount / 60:.1f} min" if amount < 5400 else f"{amount / 3600:.1f} h"
