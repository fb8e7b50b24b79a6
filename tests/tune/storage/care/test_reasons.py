"""Why a trial built a stage: the facts in which it differs from the nearest artifact that was there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tune.storage.care.reasons import Difference, Reason, reasons
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome
from tune.storage.signature import signature_of
from tune.storage.store import Store

Facts = dict[str, Any]


def facts(stage: str, inputs: dict[str, str] | None = None, **changes: Any) -> Facts:
    base = {"stage": stage, "version": 1, "settings": {"epochs": 5}, "inputs": inputs or {}, "data": "d", "seed": 0}
    return {**base, **changes}


def artifact(store: Store, of: Facts | str, minute: int, part: str = "") -> str:
    """Puts an artifact of these facts into the store, and returns its signature."""
    signature = of if isinstance(of, str) else signature_of(of)
    stage = "gan" if isinstance(of, str) else of["stage"]
    with store.draft(stage, signature + part) as draft:
        if not isinstance(of, str):
            draft.description["follows_from"] = of
    home = store.storage.child(stage).child(signature + part)
    manifest = json.loads(home.read("manifest.json"))
    del manifest["sha256"]
    home.write("manifest.json", json.dumps({**manifest, "created": f"2026-01-01T00:{minute:02d}:00Z"}).encode())
    return signature


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(tmp_path / "store"))


def why(store: Store, stages: dict[str, str], **work: Any) -> dict[str, Reason]:
    done = {stage: {"built": 1, "reused": 0, "seconds": 2.0} for stage in stages} | work
    outcome = Outcome(trial=0, params={}, status="finished", stages=stages, work=done)
    return {reason.stage: reason for reason in reasons(store, outcome)}


def test_the_setting_that_differs_least_is_named(store: Store) -> None:
    artifact(store, facts("gan", settings={"epochs": 9, "width": 8}, seed=3), 0)
    near = artifact(store, facts("gan", settings={"epochs": 9}), 1)
    own = artifact(store, facts("gan", settings={"epochs": 5, "loss": "hinge"}), 2)
    artifact(store, facts("gan", settings={"epochs": 5}), 3)  # nearer, and younger: it was not there
    reason = why(store, {"gan": own})["gan"]
    assert reason.nearest == near
    assert reason.differences == [
        Difference("gan", "epochs", "9", "5"),
        Difference("gan", "loss", "default", "hinge"),
    ]
    assert (reason.built, reason.seconds) == (1, 2.0)


def test_a_difference_of_an_input_is_traced_to_where_it_began(store: Store) -> None:
    gans = [artifact(store, facts("gan", seed=seed), seed) for seed in (0, 1)]
    attack = artifact(store, facts("attack"), 0)
    projections = []
    for minute, gan in enumerate(gans):
        of = facts("projection", {"gan": gan, "attack": attack})
        artifact(store, of, minute, "-001")
        projections.append(artifact(store, of, minute, "-000"))
    unets = [
        artifact(store, facts("unet", {"gan": gan, "projection": projection}), minute + 2, "")
        for minute, (gan, projection) in enumerate(zip(gans, projections, strict=True))
    ]
    reason = why(store, {"projection": projections[1], "unet": unets[1]})
    for stage in ("projection", "unet"):
        assert reason[stage].differences == [Difference("gan", "seed", "0", "1")]  # once, by whichever way
    assert reason["projection"].nearest == projections[0]


def test_an_input_that_is_gone_is_named_by_its_signature(store: Store) -> None:
    one, other = (artifact(store, facts("unet", {"gan": gan}), minute) for minute, gan in enumerate("ab"))
    assert why(store, {"unet": other})["unet"].differences == [Difference("gan", "signature", "a", "b")]
    assert one != other


def test_an_input_more_is_named(store: Store) -> None:
    artifact(store, facts("unet"), 0)
    own = artifact(store, facts("unet", {"gan": "a"}, version=2), 1)
    assert why(store, {"unet": own})["unet"].differences == [
        Difference("unet", "input gan", "none", "a"),
        Difference("unet", "version", "1", "2"),
    ]


def test_what_was_found_has_no_reason(store: Store) -> None:
    own = artifact(store, facts("gan"), 0)
    reason = why(store, {"gan": own}, gan={"built": 0, "reused": 1, "seconds": 0.0})["gan"]
    assert (reason.built, reason.nearest, reason.note) == (0, None, "")


def test_what_cannot_be_told_is_said(store: Store) -> None:
    assert "in the store no more" in why(store, {"gan": "gone"})["gan"].note
    assert "before manifests kept" in why(store, {"gan": artifact(store, "old", 0)})["gan"].note
    assert "no other of its stage" in why(store, {"unet": artifact(store, facts("unet"), 0)})["unet"].note


def test_one_that_was_damaged_before_is_remembered(store: Store) -> None:
    own = artifact(store, facts("gan"), 0)
    store.storage.child(".quarantine").child(f"gan-{own}-20260101T000001Z").write("why.json", b"{}")
    assert "quarantine" not in why(store, {"gan": own})["gan"].note  # that came later
    store.storage.child(".quarantine").child(f"gan-{own}-000-20251231T235959Z").write("why.json", b"{}")
    assert why(store, {"gan": own})["gan"].note.endswith(f"quarantine: gan-{own}-000-20251231T235959Z")


def test_long_lists_are_short(store: Store) -> None:
    artifact(store, facts("map", settings={"steps": [1, 2, 3]}), 0)
    own = artifact(store, facts("map", settings={"steps": list(range(1, 61))}), 1)
    assert why(store, {"map": own})["map"].differences == [
        Difference("map", "steps", "1, 2, 3", "1, 2 … 60 (60 values)")
    ]
