"""The whole command line, once, on a search that takes seconds; and what a search must not follow from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data import Dataset
from tests.tune.tiny_search import choice, outcomes, results, run, words, write_space
from tests.tune.workbench_fixture import search_here, with_test_labels
from tune import search
from tune.choice import choose
from tune.storage import Storage


def test_a_search_from_space_to_report(tmp_path: Path) -> None:
    space = write_space(tmp_path, search__trials=2)
    home = tmp_path / "results/one"
    status, output = run(words(space, home.parent), tmp_path / "log", 110)
    assert status == 0, output
    assert "Traceback" not in output
    assert {outcome.status for outcome in outcomes(home).values()} == {"finished"}
    report = json.loads((home / "report.json").read_text())
    assert report["search"]["finished"] == 2
    assert report["best"] == choice(home)["params"]
    assert {"pso", "psd", "pco", "noisy", "threshold", "psd_gan", "psd_unet"} <= report["test"].keys()
    record = json.loads((home / "record.json").read_text())
    assert record["seed"] == 0
    assert record["packages"]["ray"]
    for name in ("space.yaml", "trials.csv", "study.db", "report.md", "report.html", "validation_map.json"):
        assert (home / name).stat().st_size > 0
    assert (home / "best/manifest.json").exists()
    assert not list((home.parent / "store/.unfinished").glob("*/*"))


def test_two_runs_of_one_seed_are_the_same(tmp_path: Path, tiny_dataset: Dataset) -> None:
    for name in ("first", "second"):
        search_here(tmp_path / name, tiny_dataset)
    assert results(tmp_path / "first/one") == results(tmp_path / "second/one")


def test_the_test_labels_change_no_choice(tmp_path: Path, tiny_dataset: Dataset) -> None:
    permuted = with_test_labels(tiny_dataset, lambda labels: labels[::-1].copy())
    assert permuted.test.labels.tolist() != tiny_dataset.test.labels.tolist()
    one, other = (
        search_here(tmp_path / name, dataset) for name, dataset in (("one", tiny_dataset), ("other", permuted))
    )
    assert results(tmp_path / "one/one") == results(tmp_path / "other/one")
    assert choose(one.outcomes()).params == choose(other.outcomes()).params


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
def test_a_damaged_record_is_written_again(tmp_path: Path, content: bytes) -> None:
    home = Storage(tmp_path)
    home.write("record.json", content)
    assert search._recorded(home) == {}
    search._add_time(home, 2.0)
    search._add_time(home, 3.5)
    assert json.loads(home.read("record.json")) == {"wall_s": 5.5}


def test_the_resume_command_repeats_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--space", "my space.yaml", "--resume", "--trials", "3"])
    assert search._resume_command() == "python -m tune.search --space 'my space.yaml' --trials 3 --resume"
