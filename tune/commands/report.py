"""`python -m tune report` and `compare`: pages made from experiments' files alone."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

from tune.report import comparison
from tune.report.writer import write_report


def report(folder: Annotated[str, "FOLDER"]) -> int:
    """Writes an experiment's report again, from its files alone.

    A file that is missing or damaged is left out; a damaged one is named, in the report and here. The status is 0 all
    the same, as a report was written.

    Args:
        folder: the experiment, STORAGE/NAME; a path or an s3:// address.

    Examples:
        python -m tune report results/quickstart
    """
    print(write_report(folder))
    return 0


def compare(*folders: Annotated[str, "FOLDER"], out: Annotated[str | None, "DIR"] = None) -> int:
    """Sets several searches side by side, from their files alone.

    Args:
        folders: the experiments, two or more.
        out: where to write compare.html and compare.md too.

    Examples:
        python -m tune compare results/quickstart results/mnist --out comparison
    """
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
    print(comparison.compare(folders, out, width))
    return 0
