"""Tables on the screen, the same as JSON, and the machine that they were measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


class Paper:
    """Prints each table as soon as it is there, and keeps all of them for a file."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.sections: dict[str, Any] = {"machine": machine()}
        print("; ".join(f"{key} {value}" for key, value in self.sections["machine"].items()), flush=True)

    def table(self, name: str, title: str, rows: Sequence[Row]) -> None:
        """Adds a table; columns are the keys of its rows."""
        self.sections[name] = {"title": title, "rows": [dict(row) for row in rows]}
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(dict.fromkeys(key for row in rows for key in row)):
            table.add_column(column, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*(_text(row.get(str(column.header))) for column in table.columns))
        Console(soft_wrap=True, width=200).print(table)
        print(f"({time.perf_counter() - self.began:.0f} s so far)\n", flush=True)

    def note(self, name: str, text: str) -> None:
        """Adds a sentence."""
        self.sections[name] = text
        print(text + "\n", flush=True)

    def save(self, path: str | None) -> None:
        """Writes everything as JSON, where a file is given."""
        self.sections["seconds"] = round(time.perf_counter() - self.began, 1)
        if path:
            Path(path).write_text(json.dumps(self.sections, indent=2) + "\n")


def print_line(row: Row, *, head: bool) -> None:
    """Prints a row of a Markdown table as soon as it is measured; with `head`, its columns' names before it."""
    if head:
        print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
    cells = [value if isinstance(value, str) else f"{value:,.3g}" for value in row.values()]
    print(f"| {' | '.join(cells)} |", flush=True)


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {"processor": name, "cores": os.cpu_count(), "torch": torch.__version__, "python": platform.python_version()}


def side_by_side(work: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Seconds of each, run in turns so that a busy moment of the machine hits all alike: the median of the rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)
