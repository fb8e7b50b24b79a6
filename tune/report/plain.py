"""Blocks of a report as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from tune.report.blocks import Block, Caution, Table, cell

GAP = 2  # characters between two columns
LEAST = 12  # characters of a column, before a table is continued below rather than narrowed


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
