"""Two defenses under one list, image by image: only what both were attacked on counts, and nothing else is reused."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import robust_pairs
from benchmarks.robust_pairs import attacked, label, print_pairs
from components.datasets.dataset import DataSplit
from components.files import write_json
from tests.tiny_networks import defense_of

ROW = {"name": "APGD", "surrogate": "none", "images": 4, "right": 0.75}
ASKED = {"data": "mnist", "preset": "standard", "seed": 0}


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Two searches with a saved defense each, both in a folder `best`."""
    folders = [tmp_path / name / "best" for name in ("one", "other")]
    for seed, folder in enumerate(folders):
        defense_of(seed=seed).save(folder)
    return [str(folder.parent) for folder in folders]


def write(out: Path, name: str, first: int, stands: str, **changes: Any) -> None:
    right = [letter == "1" for letter in stands]
    kept = {"first": first, "last": first + len(right), **ASKED, "clean": [True] * len(right), "stands": right}
    kept |= {"seconds": 1.0, "attacks": [ROW], "flags": [], **changes}
    write_json(out / label(name) / f"{first:05d}.json", kept)


def test_pairs_are_counted_on_common_groups(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = names
    for first, stands, beside in ((0, "1100", "1111"), (4, "0011", "1011")):
        write(tmp_path, one, first, stands)
        write(tmp_path, other, first, beside)
    write(tmp_path, one, 8, "0000")  # not yet attacked behind the other
    print_pairs(tmp_path, names, ASKED)
    said = capsys.readouterr().out
    assert f"{one}: 4 of 8 images stand, 50.00 %" in said
    assert f"{other}: 7 of 8 images stand, 87.50 %" in said
    assert "broken by: APGD (none) 2" in said
    assert f"only {one} stands 0 times, only {other} 3; McNemar, exact, two-sided: 0.25" in said


def test_of_three_it_is_told_how_many_lose_an_image(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    defense_of(seed=2).save(tmp_path / "third")
    names.append(str(tmp_path / "third"))
    for name, stands in zip(names, ("11000", "11010", "10110"), strict=True):
        write(tmp_path, name, 0, stands)
    print_pairs(tmp_path, names, ASKED)
    assert "images by how many lose them: 0: 1, 1: 2, 2: 1, 3: 1" in capsys.readouterr().out


def test_groups_of_other_images_or_settings_are_not_joined(
    tmp_path: Path, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = names
    write(tmp_path, one, 0, "1100")
    write(tmp_path, other, 0, "11")  # of another size
    for first, changes in ((4, {"preset": "quick"}), (8, {"seed": 1}), (12, {"data": "mnist_mini"})):
        for name in names:
            write(tmp_path, name, first, "1111", **changes)
    print_pairs(tmp_path, names, ASKED)
    assert "no group of images is finished" in capsys.readouterr().out
    for name in names:
        write(tmp_path, name, 0, "1100")
        write(tmp_path, name, 2, "0000")  # left by a run with smaller groups, of images that are counted already
    print_pairs(tmp_path, names, ASKED)
    assert f"{one}: 2 of 4 images stand" in capsys.readouterr().out


def test_what_was_attacked_otherwise_is_attacked_again(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def evaluated(model: Any, images: Tensor, labels: Tensor, **_: Any) -> Namespace:
        made.append(len(images))
        return Namespace(stands=torch.arange(len(images)) > 0, candidates=images + 1, attacks=[], flags=())

    monkeypatch.setattr(robust_pairs, "evaluate_defense", evaluated)
    test = DataSplit(torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))

    def run(**changes: Any) -> int:
        """How many images were attacked."""
        made.clear()
        asked = {"out": tmp_path, "group": 4, "images": 8, "training": False, **ASKED}
        attacked(names[0], test, 0, Namespace(**{**asked, **changes}))
        return sum(made)

    assert run(images=3) == 3
    (lost,) = load_file(tmp_path / label(names[0]) / "00000.safetensors").values()
    assert torch.equal(lost, test.images[:1] + 1)
    assert run() == 4
    assert run() == 0
    assert run(group=2) == 2
    assert run(group=2, seed=1) == 2
    assert run(group=2, preset="quick") == 2
    assert run(group=2, preset="quick", data="mnist_mini") == 2
    assert run(group=2, preset="quick", data="mnist_mini", training=True) == 2
    assert run(group=2, preset="quick", data="mnist_mini") == 2
    kept = json.loads((tmp_path / label(names[0]) / "00000.json").read_text())
    assert [kept[name] for name in ("first", "last", "preset", "seed")] == [0, 2, "quick", 0]
    defense_of(seed=5).save(Path(names[0]) / "best")  # trained anew at the same place
    assert run(group=2, preset="quick", data="mnist_mini") == 2


def test_each_defense_has_a_folder_of_its_own(tmp_path: Path, names: list[str]) -> None:
    one, other = (label(f"{name}/best") for name in names)
    assert one != other
    assert [label(name) for name in names] == [one, other]
    assert one.startswith("one-")
    assert label("mnist").startswith("mnist-")
    defense_of(seed=3).save(tmp_path / "again/one/best")
    assert label(str(tmp_path / "again/one")) != one
