"""kill -9 of the driver at random moments, again and again: nothing is lost, nothing runs twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tune.tiny_search import (
    PATIENCE,
    Search,
    choice,
    outcomes,
    results,
    run,
    searching,
    snapshot,
    words,
    write_space,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400 * PATIENCE)]

KILLS = 20
LAST = 5  # of them wait for the retraining
TRIALS = 12
SEEDS = 3
LENGTHS = {"search__trials": TRIALS, "search__startup_trials": 4, "search__early_stopping": True,
           "search__warmup_epochs": 2, "search__retrain_seeds": SEEDS,
           "unet__epochs": 8, "unet__width": 8, "unet__batch_size": 16}  # fmt: skip


def test_a_search_survives_its_driver(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=400, **LENGTHS)
    quiet, home, log = tmp_path / "quiet/one", tmp_path / "killed/one", tmp_path / "killed.log"
    with searching(words(space, quiet.parent), tmp_path / "quiet.log") as search:
        search.until(lambda: "started" in search.output)
        began = time.monotonic()
        search.until(lambda: "· retraining trial" in search.output, 300)
        pace = (time.monotonic() - began) / TRIALS  # here and now, as all that follows
        began = time.monotonic()
        assert search.wait() == 0, search.output
        length = time.monotonic() - began  # of the retraining

    chance, landed = random.Random(7), Counter[str]()
    print("\nkill | s after the start | trials ended before → at the kill | seeds measured | in the midst of")
    for kill in range(1, KILLS + 1):
        log.write_bytes(b"")
        ended, measured = snapshot(home), seeds(home)
        trials = len(outcomes(home))
        with searching(words(space, home.parent, "--resume"), log) as search:
            if kill > KILLS - LAST or trials == TRIALS:
                search.until(lambda search=search: "· retraining trial" in search.output, 300)
                time.sleep(chance.uniform(0, length / 2))
            else:
                survive(search, home, trials, chance, pace)
            after = time.monotonic() - search.began
            search.kill()
        phase, last = midst(log.read_text())
        landed[phase] += 1
        counts = f"{trials:2} → {len(outcomes(home)):2} | {len(measured)} → {len(seeds(home))}"
        print(f"{kill:4} | {after:4.1f} | {counts} | {phase}: {last}", flush=True)
        assert snapshot(home).items() >= ended.items(), "a trial that had ended ran again"
        assert seeds(home).items() >= measured.items(), "a seed that was measured was measured again"
    assert landed["trials"] >= 5, landed
    assert landed["retraining"] >= 2, landed

    status, output = run(words(space, home.parent, "--resume"), log, 300)
    assert status == 0, output
    assert sorted(outcomes(home)) == list(range(TRIALS))
    assert results(home) == results(quiet)
    assert choice(home) == choice(quiet)
    assert scores(home) == scores(quiet)
    print(f"best of both: {choice(home)}")


def test_a_seed_that_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, search__trials=1, search__retrain_seeds=4)
    home, log = tmp_path / "results/one", tmp_path / "log"
    with searching(words(space, home.parent), log) as search:
        search.until(lambda: seeds(home), 150)
        search.kill()
    before = seeds(home)
    assert len(before) < 4, "it was to be killed half-way"
    assert not (home / "report.json").exists()
    status, output = run(words(space, home.parent, "--resume"), log)
    assert status == 0, output
    assert seeds(home).items() >= before.items()
    assert len(seeds(home)) == len(json.loads((home / "report.json").read_text())["test"]["psd"]["seeds"]) == 4


def survive(search: Search, home: Path, trials: int, chance: random.Random, pace: float) -> None:
    """Lets a search run until a random moment: of its start, of a first trial, or of what comes after that.

    `pace` is the time from one trial's end to the next one's: kills that came later would soon find no trial left.
    """
    kind = chance.choice(["start", "trial", "trial", "later"])
    if kind == "start":
        time.sleep(chance.uniform(1, 12))
        return
    search.until(lambda: "started" in search.output or len(outcomes(home)) > trials)
    if kind == "later":
        search.until(lambda: len(outcomes(home)) > trials)
        time.sleep(chance.uniform(0, pace))
    else:
        time.sleep(chance.uniform(0, 2 * pace))


def midst(output: str) -> tuple[str, str]:
    """What the killed driver was doing: the phase, and the last that it said."""
    phase = "retraining" if "· retraining trial" in output else "trials" if "started" in output else "its start"
    if "report.html" in output:
        phase = "the end"
    return phase, (output.strip().splitlines() or ["nothing said yet"])[-1]


def seeds(home: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of what was measured with each seed: a second measurement would show."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in home.glob("best/seeds/*.json")}


def scores(home: Path) -> dict[str, Any]:
    """What of the seeds' results must not depend on speed or interruptions."""
    files = {path.name: json.loads(path.read_text()) for path in home.glob("best/seeds/*.json")}
    return {name: (content["metrics"], content["stages"]) for name, content in sorted(files.items())}
