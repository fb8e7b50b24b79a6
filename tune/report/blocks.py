"""The blocks of a page, which both templates render, so the report is worded once; and how values are written."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, ClassVar

from markupsafe import Markup, escape

from components.intervals import Interval
from tune.report.scores import Score
from tune.report.style import Chart

LEFT, RIGHT = "left", "right"
GAP = 2  # characters between two columns in a terminal
LEAST = 12  # characters of a column there, before a table is continued below rather than narrowed


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


def percent(share: float | None) -> str:
    """A fraction as percent without the sign, for tables whose head has it; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f}"


def interval(ends: Interval | None) -> str:
    return "–" if ends is None else f"{percent(ends[0])}–{percent(ends[1])}"


def seeds_interval(score: Score) -> str:
    """The interval across seeds; none is claimed where all agree, as on images that no training touches."""
    agree = len(score.values) > 1 and score.std == 0
    return "same" if agree else interval(score.ci95)


def points(more: Score) -> str:
    """A gain in percentage points with its interval: `+1.27 (+0.20 to +2.33)`."""
    mean, *ends = (f"{100 * value:+.2f}".replace("-", "−") for value in (more.mean, *(more.ci95 or ())))
    return f"{mean} ({' to '.join(ends)})" if ends else mean


def plain(block: Block, width: int | None) -> str:
    """A block as text with aligned columns; no line is longer than `width`, where that is given."""
    if isinstance(block, Table):
        rows = [[cell(text).replace("`", "").replace("\\|", "|") for text in row] for row in (block.head, *block.rows)]
        lines = "\n\n".join(_table(part, width) for part in _parts(rows, width))
        return f"{lines}\n{_filled(block.note, width)}" if block.note else lines
    text = str(getattr(block, "text", ""))
    return _filled(f"Caution: {text}" if isinstance(block, Caution) else text, width)


def _filled(text: str, width: int | None) -> str:
    return text if width is None else textwrap.fill(text, width, break_on_hyphens=False)


def _parts(rows: Sequence[Sequence[str]], width: int | None) -> list[list[list[str]]]:
    """The table cut by columns where it is too wide for each to be legible, the first column in front of each part."""
    others = len(rows[0]) - 1
    first = max(len(row[0]) for row in rows)
    room = others if width is None else max(1, (width - min(first, width // 2)) // (LEAST + GAP))
    starts = range(1, others + 1, room) if others else [1]
    return [[[row[0], *row[start : start + room]] for row in rows] for start in starts]


def _table(rows: Sequence[Sequence[str]], width: int | None) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        widths = _narrowed(widths, width)
    lines = [line for row in rows for line in _lines(row, widths)]
    head = len(_lines(rows[0], widths))
    lines.insert(head, (" " * GAP).join("─" * column for column in widths))
    return "\n".join(lines)


def _narrowed(widths: Sequence[int], width: int) -> list[int]:
    """Takes from the widest column until all fit."""
    narrowed = list(widths)
    while sum(narrowed) + GAP * (len(narrowed) - 1) > width and max(narrowed) > 1:
        narrowed[narrowed.index(max(narrowed))] -= 1
    return narrowed


def _lines(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """A row as lines; what is too long for its column goes on in the next one."""
    wrapped = [textwrap.wrap(text, width) or [""] for text, width in zip(row, widths, strict=True)]
    return [_line(cells, widths) for cells in zip_longest(*wrapped, fillvalue="")]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return (" " * GAP).join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)])
