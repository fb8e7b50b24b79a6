"""The benchmark of a card runs, on a processor and as little as can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import QUICK, RESTARTS, _plain_rows
from benchmarks.roofs import Ceilings
from components.defense import Defense
from components.pretrained import shipped_defense

ROOT = Path(__file__).parents[2]


def benchmark(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_a_card_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = benchmark()
    assert done.returncode == 2
    assert done.stderr.startswith("error: --device: expected a GPU that torch can use, found none: ")


def test_restarts_in_sequence_are_as_many_latents_at_once_as_there_are_images() -> None:
    limits = Ceilings({"float32": 1e12}, 1e12)
    defense = Defense.load(shipped_defense("mnist"))
    rows = {row["projection"]: row["chunk"] for row in _plain_rows(defense, torch.device("cpu"), QUICK, limits)}
    latents = QUICK.chunks[-1]
    assert rows == {"plain, restarts in sequence": str(latents // RESTARTS), "plain, one batch": str(latents)}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_table_is_filled(tmp_path: Path) -> None:
    done = benchmark("--device", "cpu", "--quick", "--space", "none", "--json", str(tmp_path / "tables.json"))
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert [row["ceiling"] for row in tables["ceilings"]["rows"]] == [
        "product, float32", "product, bfloat16", "copy, bytes"
    ]  # fmt: skip
    names = {row["training"] for row in tables["trainings"]["rows"]}
    assert names == {
        f"{name}, {precision}" for name in ("classifier", "encoder", "unet") for precision in ("float32", "bfloat16")
    } | {"gan, float32"}
    assert [row["known by"] for row in tables["memory"]["rows"]] == ["counted on the processor"]
    for section in ("projection", "trainings"):
        for row in tables[section]["rows"]:
            assert all(row[roof] > 0 for roof in ("roof by operations", "roof by bytes")), row
