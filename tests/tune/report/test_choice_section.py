"""The report's section on the choice: the Pareto front, the finalists and the rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tune.report.blocks import Drawing, Table, Text
from tune.report.facts import Facts
from tune.report.reading import Finalist, Finalists
from tune.report.search import _pareto, choice
from tune.storage.ledger import Outcome

FRONT = "The Pareto front, {} first: no trial beats one of it in {}."


def with_robust(folder: Path, target: str) -> Facts:
    """A finished search for both objectives in which the third trial has the best robust score and the worst PSD."""
    space = {"search.target": target, "search.objective": "both"}
    rows = [(0.5, 0.80, 10), (0.6, 0.90, 20), (0.7, 0.70, 30), (0.6, 0.95, 40)]
    outcomes = [
        Outcome(trial=n, status="finished", params={}, metrics={"robust": robust, "psd": psd, "cost": cost})
        for n, (robust, psd, cost) in enumerate(rows)
    ]
    return Facts("one", str(folder), space, {}, tuple(outcomes))


def test_of_three_objectives_the_front_that_is_drawn_is_that_of_the_two_axes(tmp_path: Path) -> None:
    known = with_robust(tmp_path, "defense")
    assert [o.trial for o in known.front] == [0, 1, 2, 3]
    figure = _pareto(known)
    assert figure is not None
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "Pareto front"]
    assert line.get_xydata().tolist() == [[10, 0.5], [20, 0.6], [30, 0.7]]
    (table,) = (block for block in choice(known).blocks if isinstance(block, Table))
    assert table.note == FRONT.format("cheapest", "all of robust accuracy, PSD and cost")
    assert len(table.rows) == 4


def test_without_cost_among_the_objectives_there_is_no_chart_of_it(tmp_path: Path) -> None:
    blocks = choice(with_robust(tmp_path, "unet")).blocks
    assert not [block for block in blocks if isinstance(block, Drawing)]
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert table.note == FRONT.format("best in PSD", "both robust accuracy and PSD")
    assert [row[0] for row in table.rows] == ["003", "002"]


@pytest.mark.parametrize(("scores", "fresh", "said"), [
    ({"0": 0.6, "1": 0.61}, 0.61, "the seed that it was not ranked by, it has 61.00 %. They differ by 1.00 points."),
    ({"0": 0.6, "1": 0.57, "2": 0.59}, 0.58, "the 2 seeds that it was not ranked by, it has 58.00 %. They differ"),
])  # fmt: skip
def test_fresh_seeds_may_be_better_or_worse(tmp_path: Path, scores: dict[str, float], fresh: float, said: str) -> None:
    row = Finalist(trial=1, searched=0.6, scores=scores, mean=0.59, fresh=fresh, behind=0.0, error=0.0, equal=True)
    finalists = Finalists(chosen=1, best=1, finalists=[row])
    blocks = choice(replace(with_robust(tmp_path, "defense"), finalists=finalists)).blocks
    text = " ".join(block.text for block in blocks if isinstance(block, Text))
    assert said in text
    assert "-1.00" not in text
    rule = "Rule: finalists by the highest validation robust accuracy; of those that cannot be told from the one"
    assert rule in text
