"""The words of a report for a terminal; importing this draws nothing."""

from __future__ import annotations

import json
from contextlib import suppress

from tune.storage.folder import Storage


def told(experiment: Storage) -> str:
    """The result in a sentence, every reason for doubt, and where report.html is: from the report that was written."""
    lines: list[str] = []
    with suppress(FileNotFoundError, ValueError, KeyError):  # one that was removed, damaged, or of an earlier version
        report = json.loads(experiment.read("report.json"))
        lines = [report["answer"], *(f"Caution: {caution}" for caution in report["cautions"])]
    return "\n".join([*lines, f"{experiment.uri.rstrip('/')}/report.html"])
