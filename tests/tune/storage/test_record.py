"""The reproducibility record."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.datasets.dataset import Dataset
from tune.storage import record
from tune.storage.folder import Storage

ROOT = Path(__file__).parents[3]


def test_a_record_says_with_what_a_search_ran(tiny_dataset: Dataset) -> None:
    found = record.reproducibility("python -m tune.search --space mine", 7, tiny_dataset)
    assert found["command"] == "python -m tune.search --space mine"
    assert found["seed"] == 7
    assert found["data"]["fingerprint"] == tiny_dataset.fingerprint
    assert (found["data"]["train"], found["data"]["validation"], found["data"]["test"]) == (32, 8, 20)
    assert all(found["packages"].values())
    assert found["machine"]["system"]


def test_the_commit_is_the_checkouts() -> None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout")
    assert record._git()["commit"] == done.stdout.strip()
    assert isinstance(record._git()["dirty"], bool)


def test_without_git_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert record._git() == {"commit": None, "dirty": None}


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert record._version("no-such-package-anywhere") is None


def now(torch: str = "2.0", commit: str = "a" * 40) -> dict[str, Any]:
    """What a session runs with."""
    return {
        "command": "python -m tune.search",
        "seed": 0,
        "git": {"commit": commit, "dirty": False},
        "python": "3.11",
        "packages": {"torch": torch, "optuna": None},
    }


def test_each_trial_belongs_to_the_session_in_which_it_ended(tmp_path: Path) -> None:
    home = Storage(tmp_path)
    record.write_record(home, record.with_session({}, now("2.0"), []))
    record.add_time(home, 5.0, [0, 1])
    record.write_record(home, record.with_session(record.recorded(home), now("2.1"), [0, 1, 2]))  # 2: before a kill -9
    record.add_time(home, 2.5, [0, 2, 3])  # the record of trial 1 was damaged, and it has not run again
    found = record.recorded(home)
    assert found["wall_s"] == 7.5
    assert found["packages"]["torch"] == "2.0"  # with which it began
    assert [(session["packages"]["torch"], session["trials"]) for session in found["sessions"]] == [
        ("2.0", [0, 2]),
        ("2.1", [3]),
    ]


def test_the_trials_of_a_record_without_sessions_are_of_the_first(tmp_path: Path) -> None:
    old = {**now("1.13"), "wall_s": 3.0}
    found = record.with_session(old, now("2.0"), [0, 1])
    assert [(s["packages"]["torch"], s["trials"]) for s in found["sessions"]] == [("1.13", [0, 1]), ("2.0", [])]


def test_other_versions_are_named_once() -> None:
    before = record.with_session(record.with_session({}, now("1.13"), []), now("1.13", commit="b" * 40), [])
    assert record.differences(before, now("2.0")) == [
        "torch 1.13 before, 2.0 now",
        f"this code {'b' * 12} before, {'a' * 12} now",
    ]
    assert record.differences(now(), now()) == []
    assert record.differences({}, now()) == []
    assert record.differences({"git": None, "packages": None}, now()) == []


def test_a_torn_record_is_named_and_the_search_stays_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Storage(tmp_path / "one")
    first = record.identity_of(home)
    assert first != record.identity_of(home)  # nothing is kept yet
    record.write_record(home, {"identity": "of an earlier version"})
    assert record.identity_of(home) == "of an earlier version"
    record.keep_identity(home, first)
    home.write("record.json", b'{"identity": "of an ear')
    assert record.identity_of(home) == first
    assert record.recorded(home) == record.recorded(home) == {}
    assert [said.message for said in caplog.records] == [
        f"{home.uri}/record.json: not readable, damaged; what earlier sessions noted is lost"
    ]
