"""Which trials ran with which versions, in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tune.experiment_fixture import write_experiment
from tune.report.writer import write_report


def report_of(folder: Path, sessions: Any) -> str:
    path = write_experiment(folder, trials=8, seeds=1) / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sessions": sessions}))
    write_report(folder)
    return (folder / "report.md").read_text()


def session(torch: str, trials: list[int]) -> dict[str, Any]:
    packages = {"torch": torch, "ray": "2.60.0"}
    return {"began": "2026-11-26T10:00:00Z", "git": {"commit": "c" * 40}, "packages": packages, "trials": trials}


def test_trials_are_listed_by_version(tmp_path: Path) -> None:
    text = report_of(tmp_path, [session("1.13.0", [0, 1, 2, 5]), session("2.14.0", [3, 4, 6, 7]), session("2.15", [])])
    rows = [line for line in text.splitlines() if "torch 1.13.0" in line or "torch 2.14.0" in line]
    assert [row.split("|")[2].strip() for row in rows if "2026-11-26" in row] == ["0–2, 5", "3–4, 6–7"]
    assert "ray 2.60.0" not in " ".join(row for row in rows if "2026-11-26" in row)  # the same in both
    assert "2.15" not in text  # no trial ran with it


@pytest.mark.parametrize("sessions", [None, [], [1], "x", [{"trials": [0]}], [{"began": None, "trials": "x"}]])
def test_a_record_that_says_nothing_of_them_is_no_error(tmp_path: Path, sessions: Any) -> None:
    assert "resumed with other versions" not in report_of(tmp_path, sessions)


def test_sessions_of_the_same_versions_are_not_listed(tmp_path: Path) -> None:
    assert "resumed with other versions" not in report_of(tmp_path, [session("2.0", [0, 1]), session("2.0", [2, 3])])


@pytest.mark.parametrize(("walls", "least"), [((3.0, 4.0), False), ((None, 4.0), True), ((None, None), False)])
def test_a_session_without_its_time_makes_the_clock_a_least(
    tmp_path: Path, walls: tuple[float | None, ...], least: bool
) -> None:
    """Of records of before, in which no session has one, the sum alone is known."""
    sessions = [session("2.14.0", []) | ({"wall_s": wall} if wall else {}) for wall in walls]
    assert ("By the clock: at least" in report_of(tmp_path, sessions)) == least
