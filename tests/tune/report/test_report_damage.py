"""A report of an experiment that lacks pieces, or holds damaged ones: it names them and goes on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tune.experiment_fixture import do_not_draw, edit, rebuilt, seed_file, write_experiment
from tune.commands.catalogue import report
from tune.report.writer import write_report
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

FIELDS = {"dataset", "attack", "best", "test", "search"}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_draw(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "damaged")


@pytest.mark.parametrize(
    "piece",
    [
        "record.json",
        "space.yaml",
        "validation_map.json",
        "best/choice.json",
        "best/seeds/0.npz",
        "best/seeds/0.json",
        "best/seeds",
        "best",
        "trials/013.json",
        "trials",
    ],
)
def test_a_missing_piece_is_left_out(folder: Path, piece: str) -> None:
    path = folder / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert set(rebuilt(folder)) >= FIELDS


PIECES = [
    "record.json",
    "space.yaml",
    "validation_map.json",
    "best/choice.json",
    "best/seeds/0.json",
    "best/seeds/0.npz",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("content", [b"{", b"[1]"], ids=repr)
def test_a_torn_piece_is_named_and_left_out(
    folder: Path, piece: str, content: bytes, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named in the report, and, once, where it is asked for."""
    (folder / piece).write_bytes(content)
    report(str(folder))
    assert any(piece in caution for caution in json.loads((folder / "report.json").read_text())["cautions"])
    assert sum(piece in line for line in capsys.readouterr().out.splitlines()) == 1
    assert piece not in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}"], ids=repr)
def test_a_report_survives_all_pieces_torn(folder: Path, content: bytes) -> None:
    for piece in PIECES:
        (folder / piece).write_bytes(content)
    assert set(rebuilt(folder)) >= FIELDS


@pytest.mark.parametrize(
    "wrong",
    [
        {"confusion": [[1, 2], [3]]},
        {"confusion": [1, 2]},
        {"epsilon": {"values": [0, 0.1], "psd": [0.5]}},
        {"epsilon": {}},
        {"epsilon": [1]},
        {"metrics": {}},
        {"metrics": {"psd": "high"}},
        {"metrics": None},
        {"seconds": None},
        {"n": 0},
        {"n": "many"},
    ],
    ids=str,
)
def test_a_seed_with_a_wrong_field_does_not_stop_the_report(folder: Path, wrong: dict[str, Any]) -> None:
    edit(seed_file(folder), lambda score: score.update(wrong))
    rebuilt(folder)


def test_a_metric_that_is_not_finite_is_left_out_and_named(folder: Path) -> None:
    path = seed_file(folder, 2)
    path.write_text(re.sub(r'"pco": [0-9.]+', '"pco": NaN', path.read_text(), count=1))
    changed = rebuilt(folder)
    assert "pco" not in changed["test"]
    assert any("pco" in caution and "2.json" in caution for caution in changed["cautions"])


def test_a_space_that_is_all_there_is_and_torn_is_named(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("projector.steps: {low: 1, hi")
    with pytest.raises(FileNotFoundError, match=r"found space\.yaml: not readable: not valid YAML"):
        write_report(tmp_path)


def test_a_search_of_which_nothing_finished(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "none", trials=0, seeds=0)
    Ledger(Storage(folder)).record(Ledger(Storage(write_experiment(tmp_path / "x", trials=6))).outcomes()[5])
    changed = rebuilt(folder)
    assert changed["search"]["failed"] == 1
    assert changed["best"] == {}
    assert "No trial has finished yet" in (folder / "report.md").read_text()


@pytest.mark.parametrize("seeds", [3, 0])
def test_a_choice_of_a_trial_that_failed_is_doubted(tmp_path: Path, seeds: int) -> None:
    folder = write_experiment(tmp_path / "chosen", seeds=3)
    edit(folder / "best/choice.json", lambda choice: choice.update(trial=5))
    if not seeds:
        shutil.rmtree(folder / "best/seeds")
    assert any("names trial 5; by its own rule" in caution for caution in rebuilt(folder)["cautions"])


def test_a_section_that_fails_is_named_and_the_rest_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def classes(facts: object) -> None:
        raise TypeError("Input z must be at least\na (2, 2) shaped array")

    monkeypatch.setattr("tune.report.detail.classes", classes)
    rebuilt(folder)
    said = (folder / "report.md").read_text()
    assert "Left out: could not be drawn: TypeError: Input z must be at least a (2, 2) shaped array" in said
    assert "## Worst cases" in said
    assert "Traceback" in caplog.text
