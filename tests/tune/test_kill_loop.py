"""kill -9 of the driver at random moments, again and again: nothing is lost, nothing runs twice."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.tune.tiny_search import Search, choice, outcomes, results, run, searching, snapshot, words, write_space

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

KILLS = 20
TRIALS = 12
LENGTHS = {"search__trials": TRIALS, "search__startup_trials": 4, "search__early_stopping": True,
           "search__warmup_epochs": 2, "unet__epochs": 8, "unet__width": 8, "unet__batch_size": 16}  # fmt: skip


def test_a_search_survives_its_driver(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=400, **LENGTHS)
    status, output = run(words(space, tmp_path / "quiet"), tmp_path / "quiet.log", 300)
    assert status == 0, output

    chance = random.Random(7)
    home, log = tmp_path / "killed" / "one", tmp_path / "killed.log"
    print("\nkill | s after the start | trials ended at the start → at the kill | in the midst of")
    for kill in range(1, KILLS + 1):
        log.write_bytes(b"")
        before, known = snapshot(home), len(outcomes(home))
        with searching(words(space, home.parent, "--resume"), log) as search:
            survive(search, home, known, chance)
            after = time.monotonic() - search.began
            search.kill()
        row = f"{kill:4} | {after:4.1f} | {known:2} → {len(outcomes(home)):2} | {midst(log.read_text(), home)}"
        print(row, flush=True)
        now = snapshot(home)
        assert {path: now[path] for path in before} == before, "a trial that had ended ran again"

    status, output = run(words(space, home.parent, "--resume"), log, 300)
    assert status == 0, output
    assert sorted(outcomes(home)) == list(range(TRIALS))
    assert results(home) == results(tmp_path / "quiet" / "one")
    assert choice(home) == choice(tmp_path / "quiet" / "one")


def survive(search: Search, home: Path, known: int, chance: random.Random) -> None:
    """Lets a search run until a random moment: of its start, of a first trial, or of what comes after that."""
    kind = chance.choice(["start", "trial", "later", "later"])
    if kind == "start" or known == TRIALS:
        time.sleep(chance.uniform(1, 12))
        return
    search.until(lambda: "started" in search.output or len(outcomes(home)) > known)
    if kind == "later":
        search.until(lambda: len(outcomes(home)) > known)
        time.sleep(chance.uniform(0, 1.5))
    else:
        time.sleep(chance.uniform(0, 6))


def midst(output: str, home: Path) -> str:
    """What the killed driver was doing."""
    if (home / "report.json").exists():
        return "the end"
    if "retraining" in output:
        return "retraining"
    return "trials" if "started" in output else "its start"
