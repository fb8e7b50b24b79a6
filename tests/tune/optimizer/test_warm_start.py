"""A search that learns from an earlier experiment, through the command line too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tune.tiny_search import PATIENCE, outcomes, run, words, write_space
from tune.errors import Refused
from tune.optimizer.warm_start import earlier_ledgers
from tune.storage.folder import Storage


@pytest.fixture
def home(tmp_path: Path) -> Storage:
    """An experiment."""
    Storage(tmp_path).write("two/space.yaml", b"")
    return Storage(tmp_path / "two")


@pytest.fixture
def first(tmp_path: Path) -> str:
    """The folder of an earlier one."""
    Storage(tmp_path).write("first/space.yaml", b"")
    return str(tmp_path / "first")


def uris(folder: str | None, home: Storage, record: dict[str, Any]) -> list[str]:
    return [ledger.uri for ledger in earlier_ledgers(folder, home, record)]


def test_resuming_goes_by_what_the_search_was_begun_with(home: Storage, first: str, tmp_path: Path) -> None:
    assert uris(None, home, {}) == []
    assert uris(first, home, {}) == [first]
    record = {"warm_start": {first: {"used": 3, "left_out": 0}}}
    assert uris(None, home, record) == uris(first, home, record) == [first]
    Storage(tmp_path).write("other/space.yaml", b"")
    assert uris(str(tmp_path / "other"), home, record) == [first, str(tmp_path / "other")]


def test_one_that_is_gone_is_named(home: Storage, first: str, caplog: pytest.LogCaptureFixture) -> None:
    (Path(first) / "space.yaml").unlink()
    (ledger,) = earlier_ledgers(None, home, {"warm_start": {first: {}}})
    assert ledger.outcomes() == []
    assert first in caplog.text


@pytest.mark.parametrize("damaged", [None, [], "x", 3])
def test_a_damaged_note_is_none(home: Storage, damaged: Any) -> None:
    assert uris(None, home, {"warm_start": damaged}) == []


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("nowhere", "expected the folder of an experiment, found no space.yaml in"),
        ("two", "expected another experiment, found this search's own folder"),
        ("ftp://a/b", "expected a folder or an address like s3://bucket/folder"),
        ("s3://key:secret@bucket/one", "expected credentials in AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_is_no_other_experiment_is_refused(
    home: Storage, tmp_path: Path, folder: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match=r"^--warm-start: ") as caught:
        earlier_ledgers(folder, home, {})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(400 * PATIENCE)
def test_through_the_command_line(tmp_path: Path) -> None:
    space, storage, log = write_space(tmp_path), tmp_path / "results", tmp_path / "log"
    assert run(words(space, storage, name="first"), log)[0] == 0
    first = storage / "first"
    log.write_text("")
    status, output = run(words(space, storage, "--warm-start", str(first), name="two"), log)
    assert status == 0, output
    assert f"Warm start: 3 finished trials of {first}; 0 more do not fit this space" in output
    home = storage / "two"
    assert sorted(outcomes(home)) == [0, 1, 2]
    noted = json.loads((home / "record.json").read_text())["warm_start"]
    assert noted == {str(first): {"used": 3, "left_out": 0}}
    assert f"the search knew 3 finished trials of `{first}`" in (home / "report.md").read_text()
    log.write_text("")
    status, output = run(words(space, storage, "--trials", "4", "--resume", name="two"), log)
    assert status == 0, output
    assert f"Warm start: 3 finished trials of {first}" in output
    assert json.loads((home / "record.json").read_text())["warm_start"] == noted
    assert sorted(outcomes(home)) == [0, 1, 2, 3]
