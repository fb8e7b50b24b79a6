"""A finished search is known as such without torch or Ray, until anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tune.test_first_word import HEAVY, SEARCH, imported
from tune.planning.experiment import Experiment, find_experiment
from tune.planning.finished import FILE, is_finished, note_finished


def found(storage: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    return find_experiment("quickstart", overrides or {}, str(storage), None, resume=True)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A storage whose experiment was noted as finished; as far as that goes it has one trial."""
    new = found(tmp_path)
    new.home.write("space.yaml", new.space.to_yaml().encode())
    new.home.child("trials").write("000.json", b"{}")
    new.home.write("report.html", b"report")
    note_finished(new, None, None, True)
    return tmp_path


def test_nothing_is_left_to_do_and_nothing_heavy_is_imported(finished: Path) -> None:
    packages, said = imported(SEARCH, ["--space", "quickstart", "--storage", str(finished), "--resume"])
    assert "STATUS 0" in said
    assert "Nothing is left to do" in said
    assert f"{finished}/quickstart/report.html" in said
    assert not packages & (HEAVY - {"pyarrow", "numpy"})  # which the storage needs


def test_a_dry_run_of_it_promises_no_work(finished: Path) -> None:
    _, said = imported(SEARCH, ["--space", "quickstart", "--storage", str(finished), "--resume", "--dry-run"])
    assert "STATUS 0" in said
    assert "Nothing is left to do" in said


@pytest.mark.parametrize("name", ["trials/000.json", "report.html", "best/choice.json"])
def test_a_file_that_is_another_one_is_noticed(finished: Path, name: str) -> None:
    assert is_finished(found(finished), None, None, True)
    file = finished / "quickstart" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("other")
    assert not is_finished(found(finished), None, None, True)


def test_a_file_that_is_gone_is_noticed(finished: Path) -> None:
    (finished / "quickstart" / "trials" / "000.json").unlink()
    assert not is_finished(found(finished), None, None, True)


def test_more_trials_or_other_options_are_noticed(finished: Path) -> None:
    assert not is_finished(found(finished, {"search.trials": 9}), None, None, True)
    assert not is_finished(found(finished), None, "earlier", True)


def test_a_damaged_note_is_none(finished: Path) -> None:
    (finished / "quickstart" / FILE).write_text("{")
    assert not is_finished(found(finished), None, None, True)


def test_data_that_do_not_come_with_the_code_are_looked_at_again(tmp_path: Path) -> None:
    new = found(tmp_path, {"data.name": "mnist"})
    new.home.write("space.yaml", new.space.to_yaml().encode())
    note_finished(new, None, None, True)
    assert not is_finished(found(tmp_path, {"data.name": "mnist"}), None, None, True)
