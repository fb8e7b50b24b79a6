"""Every file against its manifest; what is wrong is set aside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tune.storage.care.verification import Checked, check, quarantined, read_manifest, verified
from tune.storage.folder import Storage
from tune.storage.signature import signature_of
from tune.storage.store import Store

FACTS = {"stage": "gan", "version": 1, "settings": {"epochs": 5}, "inputs": {}, "data": "d", "seed": 0}
SIGNATURE = signature_of(FACTS)


def filled(place: Storage) -> Storage:
    """A store of three artifacts, one of them in two parts."""
    for folder in (f"{SIGNATURE}-000", f"{SIGNATURE}-001", "other"):
        with Store(place).draft("gan", folder) as draft:
            (draft.folder / "a").write_bytes(b"a" * 100)
            (draft.folder / "b").write_bytes(b"b" * 10)
            if folder != "other":
                draft.description["follows_from"] = FACTS
    return place


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return filled(Storage(tmp_path / "store"))


def damages(store: Storage) -> dict[str, str]:
    return {one.folder: one.damage for one in verified(store, lambda *_: None) if one.damage is not None}


def test_a_whole_store_is_whole(store: Storage) -> None:
    told: list[tuple[int, int, int]] = []
    found = list(verified(store, lambda *numbers: told.append(numbers)))
    assert [(one.stage, one.size, one.damage) for one in found] == [("gan", 110, None)] * 3
    assert told == [(0, 3, 0), (1, 3, 110), (2, 3, 220), (3, 3, 330)]


def in_place_of(home: Storage, name: str) -> None:
    """Puts a folder with a file where an artifact has a file."""
    home.delete(name)
    home.child(name).write("x", b"")


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        (lambda home: home.write("a", b"a" * 99), "a: expected sha256 28165978"),
        (lambda home: home.write("a", b"b" + b"a" * 99), "a: expected sha256 28165978"),
        (lambda home: home.delete("b"), "b: expected a file, found none"),
        (lambda home: home.delete("manifest.json"), "manifest.json: expected a file, found none"),
        (lambda home: in_place_of(home, "manifest.json"), "manifest.json: expected a file, found a folder"),
        (lambda home: in_place_of(home, "a"), "a: expected a file, found a folder"),
        (lambda home: home.write("manifest.json", b'{"torn'), "manifest.json: expected the manifest of gan/other"),
        (lambda home: home.write("manifest.json", b"[" * 100_000), "manifest.json: expected the manifest of gan/other"),
        (lambda home: home.write("manifest.json", b"\x80"), "manifest.json: expected the manifest of gan/other"),
    ],
)
def test_damage_is_named_and_set_aside(store: Storage, change: Callable[[Storage], None], damage: str) -> None:
    change(store.child("gan").child("other"))
    check_set_aside(store, damage)


@pytest.mark.slow
def test_damage_is_set_aside_in_an_object_store(bucket: str) -> None:
    store = filled(Storage(bucket).child("verification").child("store"))
    assert not damages(store)
    store.child("gan").child("other").write("a", b"torn")
    check_set_aside(store, "a: expected sha256 28165978")


def check_set_aside(store: Storage, damage: str) -> None:
    assert damages(store).keys() == {"other"}
    assert damages(store)["other"].startswith(damage)
    assert quarantined(store, [check(store, "gan", "other")], {"other": ["one"]})[0].folder == "other"
    assert not damages(store)
    assert store.child("gan").folders() == [f"{SIGNATURE}-000", f"{SIGNATURE}-001"]
    assert Store(store).find("gan", "other") is None
    (kept,) = store.child(".quarantine").folders()
    assert kept.startswith("gan-other-")
    place = store.child(".quarantine").child(kept)
    note = json.loads(place.read("why.json"))
    assert (note["stage"], note["signature"], note["users"]) == ("gan", "other", ["one"])
    assert note["damage"].startswith(damage)


def test_what_was_mended_meanwhile_stays(store: Storage) -> None:
    assert not quarantined(store, [Checked("gan", "other", 0, "a: torn")], {})
    assert not damages(store)


def test_what_lies_behind_a_link_is_not_the_stores_to_move(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "else" / "mine").mkdir(parents=True)
    (tmp_path / "store" / "link").symlink_to(tmp_path / "else")
    (tmp_path / "store" / "gan" / "a\nb").mkdir()
    (tmp_path / "store" / "gan" / "loop").symlink_to(".")
    found = [one for one in verified(store, lambda *_: None) if one.damage is not None]
    assert [(one.stage, one.folder) for one in found] == [("gan", "loop"), ("link", "mine")]
    assert [one.folder for one in quarantined(store, found, {})] == ["loop"]
    assert (tmp_path / "else" / "mine").is_dir()
    assert store.child("gan").child("other").exists("manifest.json")


def changed(**facts: object) -> bytes:
    whole = {"stage": "gan", "signature": SIGNATURE, "files": {}, "metrics": {}, "bytes": 0, "seconds": 1.0}
    return json.dumps({**whole, "created": "2026-01-01T00:00:00Z", "follows_from": FACTS, **facts}).encode()


def test_a_manifest_is_read() -> None:
    assert read_manifest(changed(), "gan", SIGNATURE)["follows_from"] == FACTS


@pytest.mark.parametrize(
    "facts",
    [
        {"stage": "unet"},
        {"signature": "x"},
        {"files": []},
        {"files": {"../a": "0"}},
        {"files": {"manifest.json": "0"}},
        {"files": {"a": 7}},
        {"metrics": None},
        {"bytes": "7"},
        {"bytes": -1},
        {"bytes": True},
        {"seconds": None},
        {"seconds": float("nan")},
        {"created": 7},
        {"follows_from": {**FACTS, "seed": 1}},
        {"follows_from": []},
        {"sha256": "0"},
    ],
)
def test_what_is_no_manifest_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"manifest\.json: expected the manifest of gan/{SIGNATURE}, "):
        read_manifest(changed(**facts), "gan", SIGNATURE)
