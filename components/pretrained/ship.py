"""Puts what a finished search found beside this file, with the record of how it was trained.

    python -m tune.search --space shipped_gan --data-dir DIR
    python -m components.pretrained.ship results/shipped_gan mnist   # the best generator, with its encoder
    python -m tune.search --space mnist --data-dir DIR
    python -m components.pretrained.ship results/mnist mnist         # and the best defense around it
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from components.files import read_json, sha256_file, write_atomic, write_json

GENERATOR, DEFENSE = "gan.json", "card.json"  # the records, by which a reader knows what is there
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
    write_json(target / GENERATOR, {**shape, "trained": _trained(record, outcome, manifest)})
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


def ship_defense(experiment: Path, name: str, home: Path = Path(__file__).parent) -> Path:
    """Copies the saved defense around the generator of that name and returns the folder.

    Raises:
        FileNotFoundError: the experiment has no report, or no defense.
        ValueError: the defense was made around another generator than the one that is shipped.
    """
    best, target = experiment / "best", home / name
    manifest = read_json(best / "manifest.json")
    for file, digest in manifest["sha256"].items():
        if file in NETWORKS and sha256_file(target / file) != digest:
            raise ValueError(f"{best / file}: expected the {file} that is shipped as {name}, found another")
    (target / "manifest.json").unlink(missing_ok=True)  # until all files stand, this is no defense
    for file in (*manifest["sha256"], "manifest.json"):
        if file not in NETWORKS:
            write_atomic(target / file, (best / file).read_bytes())
    report, record = read_json(experiment / "report.json"), read_json(experiment / "record.json")
    write_json(target / DEFENSE, _card(report, record))
    return target


def _card(report: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    return {
        # the command that was typed names folders of the machine that it was typed on
        "made": {"git": record.get("git"), "seed": record.get("seed"), "how": "docs/results/mnist.md"},
        "data": {key: record["data"][key] for key in ("name", "train", "fingerprint")},
        "attack": report["attack"],
        "best": report["best"],
        "test": report["test"],
        "packages": record["packages"],
        "limits": "Gray box: measured against an attacker who knows the classifier and not the defense. "
        "It shows nothing about attackers who know the defense, other attacks, or other data.",
    }


if __name__ == "__main__":
    found, wanted = Path(sys.argv[1]), sys.argv[2]
    print((ship_defense if (found / "best" / "manifest.json").is_file() else ship)(found, wanted))
