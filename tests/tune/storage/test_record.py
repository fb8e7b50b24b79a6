"""The reproducibility record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.datasets.dataset import Dataset
from tune.storage import record

ROOT = Path(__file__).parents[3]


def test_a_record_says_with_what_a_search_ran(tiny_dataset: Dataset) -> None:
    found = record.reproducibility(["--space", "my space.yaml"], 7, tiny_dataset)
    assert found["command"] == "python -m tune.search --space 'my space.yaml'"
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
