"""Finalists of a real search: trained with further seeds, compared, shown; and found again when resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tune.tiny_search import choice, run, words, write_space


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_finalists_are_trained_before_the_choice_and_not_twice(tmp_path: Path) -> None:
    space = write_space(tmp_path, search__finalists=2, search__finalist_seeds=2)
    command = words(space, tmp_path / "results")
    status, output = run(command, tmp_path / "log", 300)
    assert status == 0, output
    home = tmp_path / "results" / "one"
    found = json.loads((home / "finalists.json").read_text())
    assert len(found["finalists"]) == 2
    assert all(set(row["scores"]) == {"0", "1"} for row in found["finalists"])
    assert all(row["scores"]["0"] == row["searched"] for row in found["finalists"])  # read, not trained again
    assert choice(home)["trial"] == found["chosen"]
    assert "points were luck" in (home / "report.md").read_text()
    nets = sorted((tmp_path / "results" / "store" / "unet").iterdir())
    assert run([*command, "--resume"], tmp_path / "log", 300)[0] == 0
    assert json.loads((home / "finalists.json").read_text()) == found
    assert sorted((tmp_path / "results" / "store" / "unet").iterdir()) == nets
