"""Puts the best pair of a finished `gan` search beside this file, with the record of how it was trained.

    python -m tune.search --space shipped_gan --data-dir DIR
    python -m components.pretrained.ship results/shipped_gan mnist
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from components.files import read_json, write_atomic, write_json

NETWORKS = ("generator.safetensors", "discriminator.safetensors", "encoder.safetensors")


def ship(experiment: Path, name: str, home: Path = Path(__file__).parent) -> Path:
    """Copies the networks of the chosen trial and returns the folder.

    Raises:
        FileNotFoundError: the experiment names no choice, or its store has lost the artifact.
    """
    choice = read_json(experiment / "best" / "choice.json")
    outcome = read_json(experiment / "trials" / f"{choice['trial']:03d}.json")
    artifact = experiment.parent / "store" / "gan" / outcome["stages"]["gan"]
    target = home / name
    target.mkdir(exist_ok=True)
    for file in NETWORKS:
        if (artifact / file).is_file():
            write_atomic(target / file, (artifact / file).read_bytes())
    record, manifest = read_json(experiment / "record.json"), read_json(artifact / "manifest.json")
    shape = read_json(artifact / "gan.json")
    write_json(target / "gan.json", {**shape, "trained": _trained(record, outcome, manifest)})
    return target


def _trained(record: dict[str, Any], outcome: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": "python -m tune.search --space shipped_gan --data-dir DIR",
        "data": record["data"]["name"],
        "images": record["data"]["train"],
        "fingerprint": record["data"]["fingerprint"],
        "seed": outcome["seed"],
        "config": manifest["config"]["gan"],
        "params": outcome["params"],
        "metrics": outcome["metrics"],
        "seconds": manifest["seconds"],
        "packages": record["packages"],
    }


if __name__ == "__main__":
    print(ship(Path(sys.argv[1]), sys.argv[2]))
