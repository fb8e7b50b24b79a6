"""A storage as searches leave it: two experiments, and a store with what they and others built."""

import json
import time
from pathlib import Path
from typing import Any

from tune.commands.units import DAY
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.store import Store

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


def filled_storage(tmp_path: Path) -> Storage:
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
