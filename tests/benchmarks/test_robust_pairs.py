"""Two defenses under one list, image by image: only what both were attacked on counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.robust_pairs import place, print_pairs
from components.files import write_json

ROW = {"name": "APGD", "surrogate": "none", "images": 4, "right": 0.75}


def write(out: Path, name: str, first: int, stands: str) -> None:
    right = [letter == "1" for letter in stands]
    kept = {"clean": [True] * len(right), "stands": right, "seconds": 1.0, "attacks": [ROW], "flags": []}
    write_json(place(out, name, first), kept)


def test_pairs_are_counted_on_common_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for first, one, other in ((0, "1100", "1111"), (4, "0011", "1011")):
        write(tmp_path, "one", first, one)
        write(tmp_path, "other", first, other)
    write(tmp_path, "one", 8, "0000")  # not yet attacked behind the other
    print_pairs(tmp_path, ["one", "other"])
    said = capsys.readouterr().out
    assert "one: 4 of 8 images stand, 50.00 %" in said
    assert "other: 7 of 8 images stand, 87.50 %" in said
    assert "broken by: APGD (none) 2" in said
    assert "only one stands 0 times, only other 3; McNemar, exact, two-sided: 0.25" in said


def test_nothing_in_common_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "one", 0, "1111")
    print_pairs(tmp_path, ["one", "other"])
    assert "no group of images is finished" in capsys.readouterr().out
