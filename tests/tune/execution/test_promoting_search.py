"""A whole search that promotes trials, undisturbed and killed while a promoted one runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.tune.tiny_search import PATIENCE, choice, outcomes, results, run, searching, words, write_space

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 * PATIENCE)]

# Good ones first, then ever worse ones: what is set aside in the beginning is among the better half in the end
POINTS = [f"{{unet.learning_rate: {rate}, projector.restarts: 2}}" for rate in (0.003, 0.001, 0.0001, 0.05, 0.02)]
LENGTHS = {"search__trials": 7, "search__early_stopping": True, "search__promotion": True, "search__warmup_epochs": 1,
           "search__points": f"[{', '.join(POINTS)}]", "unet__epochs": 8, "unet__width": 8, "unet__batch_size": 16,
           "projector__steps": 4, "unet__high_level_weight": 1.0,
           "unet__learning_rate": "{low: 0.0001, high: 0.05, log: true}"}  # fmt: skip


def test_a_search_that_promotes_survives_its_driver(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=400, **LENGTHS)
    quiet, killed = tmp_path / "quiet/one", tmp_path / "killed/one"
    status, output = run(words(space, quiet.parent), tmp_path / "quiet.log", 300)
    assert status == 0, output
    promotions = {number: outcome.promotions for number, outcome in outcomes(quiet).items()}
    assert sum(promotions.values()) == output.count("promoted, goes on") > 0
    assert not list((quiet.parent / "store/.unfinished").glob("*"))  # nobody goes on from them any more
    assert f"Promoted were {sum(number > 0 for number in promotions.values())} of " in (quiet / "report.md").read_text()

    with searching(words(space, killed.parent), tmp_path / "killed.log") as search:
        search.until(lambda: "promoted, goes on" in search.output, 300)
        time.sleep(0.5)
        search.kill()
    assert not (killed / "report.md").exists()
    status, output = run(words(space, killed.parent, "--resume"), tmp_path / "killed.log", 300)
    assert status == 0, output
    assert results(killed) == results(quiet)
    assert {number: outcome.promotions for number, outcome in outcomes(killed).items()} == promotions
    assert choice(killed) == choice(quiet)
