"""The benchmark of a card runs, on a processor and as little as can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_table_is_filled(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--quick", "--space", "none", "--json", str(tmp_path / "tables.json")]
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert [row["ceiling"] for row in tables["ceilings"]["rows"]] == [
        "product, float32", "product, bfloat16", "copy, bytes"
    ]  # fmt: skip
    names = {row["training"] for row in tables["trainings"]["rows"]}
    assert names == {
        f"{name}, {precision}" for name in ("classifier", "encoder", "unet") for precision in ("float32", "bfloat16")
    } | {"gan, float32"}
    for section in ("projection", "trainings"):
        for row in tables[section]["rows"]:
            assert all(row[roof] > 0 for roof in ("roof by operations", "roof by bytes")), row
