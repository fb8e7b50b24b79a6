"""`python -m tune store`: what is held, who uses it, and what may go."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tune.commands.store import bytes_text, duration, store
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.lock import ExperimentLock
from tune.storage.store import Store
from tune.storage.usage import DAY, store_entries, usage_of

NOW = time.time()


def artifact(place: Storage, stage: str, signature: str, days: float = 0, content: bytes = b"x" * 1000) -> None:
    artifacts = Store(place.child("store"))
    with artifacts.draft(stage, signature) as draft:
        (draft.folder / "weights").write_bytes(content)
        draft.seconds_before = 60.0
    home = place.child("store").child(stage).child(signature)
    manifest = json.loads(home.read("manifest.json"))
    del manifest["sha256"]  # of the manifest with its true date
    manifest["created"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - days * DAY))
    home.write("manifest.json", json.dumps(manifest).encode())


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    """A storage with two experiments and what they and others built."""
    place = Storage(tmp_path / "results")
    for name in ("one", "two"):
        place.child(name).write("space.yaml", b"search.trials: 1\n")
    outcome: dict[str, Any] = {"trial": 0, "params": {}, "status": "finished"}
    Ledger(place.child("one")).record(Outcome(**outcome, stages={"gan": "aa", "projection": "bb"}))
    Ledger(place.child("two")).record(Outcome(**outcome, stages={"gan": "aa"}))
    place.child("two").child("best").child("seeds").write("0.json", b'{"stages": {"unet": "dd"}}')
    artifact(place, "gan", "aa", days=9)
    artifact(place, "gan", "ff", days=9)
    for part in range(3):
        artifact(place, "projection", f"bb-{part:03d}")
        artifact(place, "projection", f"cc-{part:03d}", days=part)
    artifact(place, "unet", "dd")
    artifact(place, "unet", "ee")
    place.child("store").child(".unfinished").child("gg").write("training.pt", b"y" * 500)
    place.child("other").write("notes.txt", b"no experiment")
    return place


def kept(place: Storage) -> set[str]:
    artifacts = place.child("store")
    stages = [name for name in artifacts.folders() if not name.startswith(".")]
    return {f"{stage}/{folder}" for stage in stages for folder in artifacts.child(stage).folders()}


def age(place: Storage, days: float) -> None:
    folder = place.child("store").child(".unfinished").child("gg").local
    assert folder is not None
    os.utime(folder / "training.pt", (NOW - days * DAY, NOW - days * DAY))


USED = {"gan/aa", "unet/dd", *(f"projection/bb-{part:03d}" for part in range(3))}
CC = {f"projection/cc-{part:03d}" for part in range(3)}


def test_everything_is_listed_with_its_users(place: Storage) -> None:
    uses = usage_of(place)
    assert [Path(experiment.uri).name for experiment in uses.experiments] == ["one", "two"]
    assert not uses.problems
    found = {holding.signature: holding for holding in store_entries(place, uses)}
    assert list(found) == ["aa", "ff", "bb", "cc", "dd", "ee", "gg"]
    assert {signature: list(holding.users) for signature, holding in found.items() if holding.users} == {
        "aa": ["one", "two"],
        "bb": ["one"],
        "dd": ["two"],
    }
    assert (len(found["bb"].folders), found["bb"].size) == (3, 3000)
    assert found["bb"].seconds == pytest.approx(180, abs=5)
    assert NOW - (found["cc"].created or 0) == pytest.approx(0, abs=2)  # of the youngest part
    assert NOW - (found["aa"].created or 0) == pytest.approx(9 * DAY, abs=2)
    assert (found["gg"].is_save, found["gg"].size) == (True, 500)


def test_the_list_is_printed(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert store(place.uri) == 0
    printed = capsys.readouterr().out
    lines = [re.split(r" {2,}", line.strip()) for line in printed.splitlines() if "  " in line]
    rows = {cells[1]: cells for cells in lines}
    assert rows["bb"] == ["projection", "bb", "3", "3.0 kB", rows["bb"][4], "3 min", "one"]
    assert rows["aa"] == ["gan", "aa", "1", "1.0 kB", "9 days", "1 min", "one, two"]
    assert rows["ee"][6] == "–"
    assert rows["gg"][0] == "unfinished"
    assert "In all 7 results in 11 folders, 10.5 kB" in printed
    assert "No experiment uses 3 results in 5 folders, 5.0 kB" in printed
    assert f"python -m tune store {place.uri} --prune" in printed
    assert kept(place) == {*USED, *CC, "gan/ff", "unet/ee"}


def test_pruning_shows_first(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    store(place.uri, prune=True)
    printed = capsys.readouterr().out
    assert "Would be removed with --yes: 3 results in 5 folders" in printed
    assert kept(place) == {*USED, *CC, "gan/ff", "unet/ee"}
    assert not place.child("one").exists("driver.lock")


def test_pruning_keeps_what_is_used(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    age(place, 100)
    store(place.uri, prune=True, yes=True)
    assert "Removed: 3 results in 5 folders" in capsys.readouterr().out
    assert kept(place) == USED
    assert place.child("store").child(".unfinished").folders() == ["gg"]
    store(place.uri, prune=True, yes=True)
    assert kept(place) == USED


def test_pruning_by_age(place: Storage) -> None:
    age(place, 3)
    store(place.uri, prune=True, yes=True, older_than=5)
    assert kept(place) == {*USED, *CC, "unet/ee"}
    assert place.child("store").child(".unfinished").folders() == ["gg"]
    store(place.uri, prune=True, yes=True, older_than=2)
    assert place.child("store").child(".unfinished").folders() == []
    assert kept(place) == {*USED, *CC, "unet/ee"}  # one part of cc is young, so cc is


def test_a_running_search_stops_pruning(place: Storage) -> None:
    with ExperimentLock(place.child("two")), pytest.raises(ValueError, match="expected no other driver, found one"):
        store(place.uri, prune=True, yes=True)
    assert kept(place) == {*USED, *CC, "gan/ff", "unet/ee"}
    store(place.uri, prune=True, yes=True)
    assert kept(place) == USED


@pytest.mark.parametrize("name", ["one/trials/000.json", "two/best/seeds/0.json"])
def test_unknown_uses_stop_pruning(place: Storage, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    place.write(name, b'{"torn')
    store(place.uri)
    assert f"Caution: {place.uri}/{name}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=f"{name}: .*nothing is pruned"):
        store(place.uri, prune=True, yes=True)
    assert kept(place) == {*USED, *CC, "gan/ff", "unet/ee"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"yes": True}, "--yes: expected together with --prune"),
        ({"older_than": 3.0}, "--older-than: expected together with --prune"),
        ({"prune": True, "older_than": -1.0}, "--older-than: expected a number of days ≥ 0, found -1"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(place: Storage, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store(place.uri, **flags)


def test_a_storage_without_a_store_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="expected a storage with a folder store/, found none"):
            store(str(folder))


def test_a_signature_that_ends_like_a_part_is_found(place: Storage) -> None:
    """A signature that itself ends like a part's is found under its own name."""
    artifact(place, "unet", "hh-001")
    Ledger(place.child("two")).record(Outcome(trial=1, params={}, status="finished", stages={"unet": "hh-001"}))
    store(place.uri, prune=True, yes=True)
    assert kept(place) == {*USED, "unet/hh-001"}


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5 * 10**15, "5000.0 TB")],
)
def test_sizes(size: int | None, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (3600, "1.0 h"), (46.5 * 3600, "46.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def sharing(place: Storage, tmp_path: Path) -> Storage:
    """Another storage, whose store is that of `place`; its experiment uses what no one of `place` does."""
    other = Storage(tmp_path / "other results")
    other.child("three").write("space.yaml", b"search.trials: 1\n")
    Ledger(other.child("three")).record(
        Outcome(trial=0, params={}, status="finished", stages={"gan": "ff", "unet": "ee"})
    )
    (tmp_path / "other results/store").symlink_to(tmp_path / "results/store")
    for experiment in (other.child("three"), place.child("one"), place.child("two")):
        Store(other.child("store")).note_user(experiment)
    return other


def test_what_an_experiment_of_another_storage_uses_is_kept(place: Storage, sharing: Storage) -> None:
    for storage in (place, sharing):
        store(storage.uri, prune=True, yes=True)
        assert {"gan/aa", "gan/ff", "unet/dd", "unet/ee"} <= kept(place)
    assert "projection/cc-000" not in kept(place)
    assert usage_of(place).users["ff"] == [f"{sharing.uri}/three"]


def test_an_experiment_of_another_storage_that_is_gone_keeps_all(place: Storage, sharing: Storage) -> None:
    sharing.child("three").remove_tree()
    before = kept(place)
    with pytest.raises(ValueError, match=rf"expected an experiment in {sharing.uri}/three, found none"):
        store(place.uri, prune=True, yes=True)
    assert kept(place) == before


def test_a_torn_note_of_a_user_keeps_all(place: Storage) -> None:
    place.child("store").child(".users").write("ab.json", b"{")
    with pytest.raises(ValueError, match="expected the address of an experiment"):
        store(place.uri, prune=True, yes=True)


def test_an_experiment_of_this_storage_that_was_deleted_uses_nothing(place: Storage) -> None:
    Store(place.child("store")).note_user(place.child("two"))
    place.child("two").remove_tree()
    store(place.uri, prune=True, yes=True)
    assert "unet/dd" not in kept(place)
    assert "gan/aa" in kept(place)


def test_a_search_that_runs_in_another_storage_keeps_all(place: Storage, sharing: Storage) -> None:
    with ExperimentLock(sharing.child("three")), pytest.raises(ValueError, match="expected no other driver"):
        store(place.uri, prune=True, yes=True)


def test_the_command_survives_a_folder_with_a_space(sharing: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    store(sharing.uri)
    assert f"python -m tune store '{sharing.uri}' --prune" in " ".join(capsys.readouterr().out.split())
