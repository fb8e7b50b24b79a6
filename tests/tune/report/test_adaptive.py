"""The report's section on an attacker who knows the defense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.attacks.presets import PRESETS
from components.intervals import wilson
from tests.tune.experiment_fixture import do_not_draw, edit, rebuilt, seed_file, write_experiment

ROW = {"knows": "everything", "surrogate": "straight_through, encoder", "steps": 4, "restarts": 1, "eot": 1}
KNOWN: dict[str, Any] = {
    "images": 200,
    "epsilon": 0.3,
    "clean": 0.985,
    "worst": 0.865,
    "attacks": [
        {**ROW, "name": "APGD cross-entropy", "images": 197, "right": 0.914, "worst_so_far": 0.9},
        {**ROW, "name": "greedy levels from image", "images": 180, "right": 0.961, "worst_so_far": 0.865},
    ],
    "flags": ["30% stay right at ε 0.5, where no classifier can: the attack is too weak"],
    "over_epsilon": [[0.1, 0.95], [0.3, 0.87], [0.5, 0.3]],
    "over_steps": [[1, 0.95], [2, 0.9]],
    "beside": {
        "threshold": {"clean": 0.97, "worst": 0.765},
        "gan": {"clean": 0.98, "worst": 0.855},
        "static": {"clean": 0.975, "worst": 0.835},
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment whose seeds were attacked by one who knows the defense."""
    do_not_draw(monkeypatch)
    folder = write_experiment(tmp_path / "known")
    for number, path in enumerate(sorted((folder / "best/seeds").glob("*.json"))):
        worst = KNOWN["worst"] + number / 100
        edit(path, lambda score, worst=worst: score.update(adaptive={**KNOWN, "worst": worst}))
        edit(path, lambda score, worst=worst: score["metrics"].update(robust=worst))
    return folder


def test_the_numbers_are_in_the_file_in_both_places(folder: Path) -> None:
    report = rebuilt(folder)
    known, robust = report["test"]["adaptive"], report["test"]["robust"]
    assert known == report["adaptive"]
    assert known["worst"] in robust["seeds"]
    assert known["worst"] == robust["seeds"][report["seeds"].index(report["saved_seed"])]
    assert [row["name"] for row in known["attacks"]] == [row["name"] for row in KNOWN["attacks"]]
    assert known["flags"] == KNOWN["flags"]
    left = f"{100 * known['worst']:.2f} % of 200 of them right"
    assert f"One who knows the defense, too, leaves {left}" in report["answer"]
    assert robust["wilson95"] == known["wilson95"] == list(wilson(round(200 * known["worst"]), 200))
    assert {"mean", "std", "ci95", "seeds"} <= robust.keys()


@pytest.mark.parametrize("page", ["report.md", "report.html"])
def test_the_page_answers_and_doubts(folder: Path, page: str) -> None:
    rebuilt(folder)
    text = (folder / page).read_text().replace("\u00a0", " ")
    for words in (
        "An attacker who knows the defense",
        "of 200 test images",
        "greedy levels from image",
        "2 grey levels alone",
        "76.50",
        "85.50",
        "the classifier itself trained against it",
        "83.50",
        "96.34",
        "A reason not to believe this figure: 30% stay right at ε 0.5",
        "Not covered: other norms than L∞",
        f"{PRESETS['quick'].curve_steps} steps of APGD for each ε, then as many rounds of a greedy search",
        "APGD alone, without such a search, hence more stay right than above at the same ε (0.3)",
    ):
        assert words in text, words
    assert "What this does not show: an adaptive (white-box) attacker" not in text
    assert {"adaptive_epsilon.png", "adaptive_steps.png"} <= {path.name for path in (folder / "figures").iterdir()}


@pytest.mark.parametrize("grey", [[3, 18], None])
def test_where_nothing_is_flagged_the_page_says_what_was_seen(folder: Path, grey: list[int] | None) -> None:
    edit(seed_file(folder), lambda score: score["adaptive"].update(flags=[], grey=grey))
    rebuilt(folder)
    text = (folder / "report.md").read_text().replace("\u00a0", " ")
    assert "With 200 images, 20 for the courses below, that is a first look" in text
    assert "of which one is 5.00 points" in text
    assert ("left 3 of the 18 images that plain grey, within reach there, breaks" in text) == (grey is not None)
    assert "ε 0.5 breaks it" not in text


@pytest.mark.parametrize("sought", [True, False])
def test_who_sought_robustness_reads_of_it_first(folder: Path, sought: bool) -> None:
    objectives = {"robust": "max", "psd": "max"} if sought else {"psd": "max"}
    edit(folder / "best/choice.json", lambda choice: choice.update(objectives=objectives))
    mean = rebuilt(folder)["test"]["robust"]["mean"]
    first = (folder / "report.md").read_text().replace("\u00a0", " ").split("\n* ")[1]
    assert first.startswith(f"attacked through the defense: **{100 * mean:.2f} %**") == sought


def test_a_search_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_draw(monkeypatch)
    folder = write_experiment(tmp_path / "unknown")
    report = rebuilt(folder)
    assert report["adaptive"] is None
    assert "who knows the defense" not in report["answer"]
    assert "adaptive" not in report["test"]
    assert "Left out: the saved seed holds no adaptive attacks" in (folder / "report.md").read_text()


def test_a_seed_without_it_is_named_where_the_others_have_it(folder: Path) -> None:
    assert not [caution for caution in rebuilt(folder)["cautions"] if "Not attacked" in caution]
    edit(seed_file(folder, 1), lambda score: score.update(adaptive=None, adaptive_left_out="mine: no gradient"))
    edit(seed_file(folder, 1), lambda score: score["metrics"].pop("robust"))
    report = rebuilt(folder)
    assert "robust" not in report["test"]
    (caution,) = (caution for caution in report["cautions"] if "Not attacked" in caution)
    assert caution.endswith("so that the result has no such row: seed 1 (mine: no gradient).")


def test_a_damaged_row_is_named(folder: Path) -> None:
    edit(seed_file(folder), lambda score: score["adaptive"].update(attacks=[{"name": "PGD"}]))
    assert "best/seeds/0.json" in " ".join(rebuilt(folder)["cautions"])
