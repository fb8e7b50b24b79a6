"""Reasons why a trial built a stage: what it follows from, beside the nearest artifact that was there before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tune.storage.ledger import Outcome
from tune.storage.signature import whole_signature
from tune.storage.store import QUARANTINE, Store

ABSENT = "default"  # a setting at its default is no part of a signature, so that a new one invalidates nothing


@dataclass(frozen=True, order=True)
class Difference:
    """One fact in which two artifacts differ.

    Attributes:
        stage: whose fact it is: the artifact's own, or that of an input, which it follows from too.
        key: `epochs`, `version`, `data`, `seed`, …
        stored: value of the nearest artifact.
        wanted: value of this one.
    """

    stage: str
    key: str
    stored: str
    wanted: str


@dataclass(frozen=True)
class Reason:
    """The reason why a stage was built.

    Attributes:
        stage: its name.
        signature: of its artifact.
        built: parts that the trial built; None where its outcome does not tell.
        reused: parts that it found.
        seconds: of building.
        nearest: signature of the artifact that differs least, of those that were there before.
        differences: between the two.
        note: what else there is to say.
    """

    stage: str
    signature: str
    built: int | None
    reused: int
    seconds: float
    nearest: str | None = None
    differences: Sequence[Difference] = ()
    note: str = ""


def reasons(store: Store, outcome: Outcome) -> Iterator[Reason]:
    """Goes through the stages of a trial: those that it built with the reason, the others without."""
    manifests = cache(lambda stage: _manifests(store, stage))
    quarantined = store.storage.child(QUARANTINE).folders()
    for stage, signature in outcome.stages.items():
        work = outcome.work.get(stage)
        built = None if work is None else int(work.get("built", 0))
        reused, seconds = (0, 0.0) if work is None else (int(work.get("reused", 0)), float(work.get("seconds", 0.0)))
        if built == 0:
            yield Reason(stage, signature, built, reused, seconds)
            continue
        nearest, differences, note = _compared(stage, signature, manifests)
        if damaged := _damaged_before(stage, signature, quarantined, manifests):
            note = f"a damaged one of this very signature is in the quarantine: {', '.join(damaged)}"
        yield Reason(stage, signature, built, reused, seconds, nearest, differences, note)


def _damaged_before(stage: str, signature: str, quarantined: Sequence[str], manifests: Any) -> list[str]:
    """The folders of the quarantine with this artifact as it was before it was built again."""
    own = manifests(stage).get(signature)
    made = re.sub(r"\..*|[-:Z]", "", str(own["created"])) if own else ""
    folders = [name for name in quarantined if name.startswith(f"{stage}-{signature}-")]
    return [name for name in folders if name.rpartition("-")[2].removesuffix("Z") <= made]


def _compared(stage: str, signature: str, manifests: Any) -> tuple[str | None, list[Difference], str]:
    own = manifests(stage).get(signature)
    if own is None:
        return None, [], "its artifact is in the store no more, so what it followed from is not known"
    if "follows_from" not in own:
        return None, [], "it was built before manifests kept what they follow from"
    before = {
        other: manifest
        for other, manifest in manifests(stage).items()
        if other != signature and str(manifest.get("created")) < str(own.get("created")) and "follows_from" in manifest
    }
    if not before:
        return None, [], "no other of its stage that was built before it is in the store"
    found = {other: sorted(_differences(stage, other, signature, manifests)) for other in before}
    nearest = min(sorted(found, key=lambda other: before[other]["created"], reverse=True), key=lambda n: len(found[n]))
    return nearest, found[nearest], ""


def _differences(stage: str, stored: str, wanted: str, manifests: Any) -> set[Difference]:
    """The facts in which two artifacts of a stage differ, down to those of their inputs."""
    one, other = manifests(stage).get(stored), manifests(stage).get(wanted)
    if not (one and other and "follows_from" in one and "follows_from" in other):
        return {Difference(stage, "signature", stored, wanted)}
    one, other = one["follows_from"], other["follows_from"]
    found = {Difference(stage, key, _text(a), _text(b)) for key, a, b in _unequal(_own(one), _own(other))}
    for name, a, b in _unequal(one["inputs"], other["inputs"]):
        if ABSENT in (a, b):
            found.add(Difference(stage, f"input {name}", "none" if a == ABSENT else a, "none" if b == ABSENT else b))
        else:
            found |= _differences(name, a, b, manifests)
    return found


def _own(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's own facts: its settings, and all else but its inputs."""
    others = {key: value for key, value in facts.items() if key not in ("stage", "inputs", "settings")}
    return {**others, **facts["settings"]}


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in {**one, **other}:
        a, b = one.get(key, ABSENT), other.get(key, ABSENT)
        if a != b:
            yield key, a, b


def _text(value: Any) -> str:
    """A value on one line: long lists and hashes by their beginning."""
    if isinstance(value, list) and len(value) > 6:
        return f"{value[0]}, {value[1]} … {value[-1]} ({len(value)} values)"
    text = ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}"
    return text if len(text) <= 40 else f"{text[:12]}…"


def _manifests(store: Store, stage: str) -> dict[str, Mapping[str, Any]]:
    """The manifests of a stage by signature; of an artifact in parts, that of the first part."""
    found: dict[str, Mapping[str, Any]] = {}
    for manifest in store.artifacts([stage]):
        found.setdefault(whole_signature(str(manifest["signature"])), manifest)
    return found
