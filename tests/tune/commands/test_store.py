"""`python -m tune store`: what is held, who uses it, and what may go."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.tune.commands.filled_storage import NOW, artifact, filled_storage, kept
from tune.commands.catalogue import store
from tune.commands.units import DAY
from tune.storage.care.usage import store_entries, usage_of
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.lock import ExperimentLock
from tune.storage.store import Store


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    """A storage with two experiments and what they and others built."""
    return filled_storage(tmp_path)


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
    assert (found["gg"].goes_by_age, found["gg"].size) == (True, 500)


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
    store(place.uri, prune=True, yes=True, older_than="5d")
    assert kept(place) == {*USED, *CC, "unet/ee"}
    assert place.child("store").child(".unfinished").folders() == ["gg"]
    store(place.uri, prune=True, yes=True, older_than="48h")
    assert place.child("store").child(".unfinished").folders() == []
    assert kept(place) == {*USED, *CC, "unet/ee"}  # one part of cc is young, so cc is


def test_pruning_to_a_size_takes_the_oldest(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    store(place.uri, prune=True, yes=True, max_size="9.6kB")  # of 10.5 kB; cc is as young as its youngest part
    assert kept(place) == {*USED, *CC, "unet/ee"} - {"gan/ff"}
    store(place.uri, prune=True, yes=True, max_size="5.7kB")
    assert kept(place) == USED
    assert "Stays above" not in capsys.readouterr().out
    store(place.uri, prune=True, yes=True, max_size="2kB")
    assert kept(place) == USED
    assert "Stays above 2.0 kB: 5.5 kB" in (printed := capsys.readouterr().out)
    assert "3.0 kB by one alone, and may go once that is deleted" in printed


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"older_than": "30d"}, "Nothing to remove: what no experiment uses is younger than 30 days: 3 results"),
        ({"max_size": "1MB"}, "Nothing to remove: the store takes 10.5 kB, no more than 1.0 MB"),
        ({"older_than": "8d"}, "Would be removed with --yes: 1 result in 1 folder, 1.0 kB, 1 min of building"),
    ],
)
def test_pruning_says_what_goes_or_why_nothing_does(
    place: Storage, flags: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(place.uri, prune=True, **flags)
    printed = capsys.readouterr().out
    assert said in printed
    assert ("stage" in printed) == ("Would" in said)
    assert ("go by --older-than alone: 1 result in 1 folder, 500 B" in printed) == ("max_size" in flags)


def test_pruning_what_is_all_in_use(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    store(place.uri, prune=True, yes=True)
    capsys.readouterr()
    store(place.uri, prune=True, yes=True)
    assert "Nothing to remove: every artifact is used by an experiment, or pinned" in capsys.readouterr().out


def test_a_pin_keeps_what_a_report_came_from(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    place.child("two").write("best/choice.json", b'{"trial": 0}')
    store(place.uri, pin="two")
    assert "Pinned 2 results that the report of two came from" in capsys.readouterr().out
    place.child("two").remove_tree()
    place.child("one").remove_tree()
    store(place.uri, prune=True, yes=True)
    assert kept(place) == {"gan/aa", "unet/dd"}
    store(place.uri)
    assert "pin of two" in capsys.readouterr().out
    store(place.uri, unpin="two")
    store(place.uri, prune=True, yes=True)
    assert kept(place) == set()
    with pytest.raises(ValueError, match=r"--unpin: expected a pinned experiment \(none at all\), found 'two'"):
        store(place.uri, unpin="two")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one", "expected an experiment that has chosen its best trial, found no"),
        ("tow", r"expected an experiment in .*\(one, two\), found 'tow'; did you mean two"),
        ("store", r"expected an experiment in .*\(one, two\), found 'store'"),
    ],
)
def test_what_has_no_report_is_not_pinned(place: Storage, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--pin: {message}"):
        store(place.uri, pin=name)
    assert not place.child("store").child(".pins").names()


def test_a_torn_pin_keeps_all(place: Storage) -> None:
    place.child("store").child(".pins").write("ab.json", b"{")
    with pytest.raises(ValueError, match=r"ab\.json: expected a pin, .*nothing is pruned"):
        store(place.uri, prune=True, yes=True)
    assert {"gan/ff"} < kept(place)


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
        ({"older_than": "3"}, "--older-than: expected together with --prune"),
        ({"max_size": "1GB"}, "--max-size: expected together with --prune, found alone"),
        ({"max_size": "1GB", "verify": True}, "--max-size: expected together with --prune, found --verify"),
        ({"used_by": "one", "verify": True}, "--used-by: expected together with --export, found --verify"),
        ({"prune": True, "verify": True}, "--verify: expected without --prune, found both"),
        ({"prune": True, "older_than": "-1"}, "--older-than: expected a duration above 0 in s, m"),
        ({"prune": True, "max_size": "10"}, "--max-size: expected a size above 0 with its unit, .*, found '10'"),
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


def moved(place: Storage, tmp_path: Path) -> Storage:
    """The storage at another place."""
    assert place.local is not None
    return Storage(place.local.rename(tmp_path / "elsewhere"))


def test_a_storage_that_was_moved_is_pruned(place: Storage, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Store(place.child("store")).note_user(place.child(name))
    there = moved(place, tmp_path)
    store(there.uri, prune=True, yes=True)
    assert kept(there) == USED
    there.child("two").remove_tree()
    store(there.uri, prune=True, yes=True)
    assert "unet/dd" not in kept(there)


def note_by_address(place: Storage, name: str) -> None:
    """A note as earlier versions wrote it."""
    note = json.dumps({"experiment": f"{place.uri}/{name}"}).encode()
    place.child("store").child(".users").write(f"{name}.json", note)


@pytest.mark.parametrize("resumed", [False, True])
def test_notes_by_address_do_not_keep_a_storage_that_was_moved(place: Storage, tmp_path: Path, resumed: bool) -> None:
    for name in ("one", "two"):
        note_by_address(place, name)
    there = moved(place, tmp_path)
    if resumed:
        Store(there.child("store")).note_user(there.child("one"), resumed=True)
    store(there.uri, prune=True, yes=True)
    assert kept(there) == USED


@pytest.mark.parametrize("earlier", [False, True])
def test_an_experiment_here_is_not_taken_for_another_of_its_name(place: Storage, tmp_path: Path, earlier: bool) -> None:
    note_by_address(Storage(tmp_path / "gone"), "two")
    assert (tmp_path / "gone/store/.users/two.json").is_file()
    users = place.child("store").child(".users")
    users.write("ab.json", (tmp_path / "gone/store/.users/two.json").read_bytes())
    if earlier:
        note_by_address(place, "two")
    else:
        Store(place.child("store")).note_user(place.child("two"))
    before = kept(place)
    with pytest.raises(ValueError, match=r"expected an experiment in .*/gone/two, found none"):
        store(place.uri, prune=True, yes=True)
    assert kept(place) == before


def test_what_is_beside_a_moved_store_is_kept_for_those_that_share_it(
    place: Storage, sharing: Storage, tmp_path: Path
) -> None:
    there = moved(place, tmp_path)
    link = tmp_path / "other results/store"
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere/store")
    store(sharing.uri, prune=True, yes=True)
    assert {"gan/aa", "gan/ff", "unet/dd", "unet/ee"} <= kept(there)
    assert "projection/cc-000" not in kept(there)


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
