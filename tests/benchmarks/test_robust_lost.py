"""What is told of lost images: each has its own candidate, and only what an attack broke counts as broken."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks import robust_lost, robust_pairs
from benchmarks.robust_lost import Left, everywhere, left_of, print_again, print_overlap
from components.attacks.adaptive import evaluate_defense
from components.datasets.dataset import DataSplit
from tests.tiny_networks import defense_of


def test_candidates_stand_at_the_places_of_lost_images(tmp_path: Path) -> None:
    images = torch.rand(5, 1, 8, 8)
    groups = [
        {"first": 0, "stands": [True, False, True], "clean": [True, True, True]},
        {"first": 3, "stands": [False, False], "clean": [False, True]},
    ]
    lost = torch.rand(3, 1, 8, 8)
    save_file({"lost": lost[:1]}, tmp_path / "00000.safetensors")
    save_file({"lost": lost[1:]}, tmp_path / "00003.safetensors")
    left = left_of(groups, tmp_path, images)
    assert left.broken.tolist() == [False, True, False, False, True]
    assert torch.equal(left.candidates, torch.stack([images[0], lost[0], images[2], lost[1], lost[2]]))


def test_chance_is_that_of_independent_losses(capsys: pytest.CaptureFixture[str]) -> None:
    images = torch.zeros(8, 1, 2, 2)
    found = {
        "one": Left(torch.tensor([True, True, False, False, False, False, False, False]), images),
        "other": Left(torch.tensor([True, False, True, True, False, False, False, False]), images),
    }
    assert everywhere(found).tolist() == [True] + 7 * [False]
    print_overlap(found)
    said = capsys.readouterr().out
    assert "8 images; broken: one 2, other 3" in said
    assert "behind all of them 1; by chance 0.75" in said


def test_it_reads_what_attacks_left_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(tmp_path / name) for name in ("one", "same")]
    defense, images = defense_of(), torch.rand(12, 1, 8, 8)
    *_, last = (layer for layer in defense.classifier.modules() if isinstance(layer, nn.Linear))
    last.bias.data -= defense(images).mean(0)  # or one class stands far above the others
    for name in names:
        defense.save(Path(name))
    data = Namespace(test=DataSplit(images, defense(images).argmax(1)))  # all right without an attack
    monkeypatch.setattr(robust_pairs, "load_dataset", lambda *_: data)

    def run(command: ModuleType, *options: str) -> str:
        given = ["--out", str(tmp_path / "out"), "--preset", "quick", *options, *names]
        monkeypatch.setattr(sys, "argv", ["benchmark", *given])
        command.main()
        return capsys.readouterr().out

    figure = tmp_path / "lost.png"
    with pytest.raises(SystemExit, match="found none in"):
        run(robust_lost)
    run(robust_pairs, "--images", "12", "--group", "6")
    said = run(robust_lost, "--figure", str(figure))
    count = int(re.findall(r"behind all of them (\d+)", said)[0])
    assert count > 0
    assert f"broken: {names[0]} {count}, {names[1]} {count}" in said
    for name in names:
        assert f"made against {name}: {count} break {names[0]}, {count} break {names[1]}" in said
    assert figure.stat().st_size > 1000
    assert f"{names[0]} keeps none that another loses" in run(robust_lost, "--again", "quick")


def test_what_is_kept_is_attacked_once_more(capsys: pytest.CaptureFixture[str]) -> None:
    images, defense = torch.rand(4, 1, 8, 8), defense_of()
    labels = defense(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # wrong without an attack: not kept
    options = Namespace(again="quick", seed=0)
    print_again("one", defense, DataSplit(images, labels), options)
    left = evaluate_defense(defense, images, labels, preset="quick", curves=False).stands.sum()
    assert f"one keeps 3 that another loses; by quick it keeps {left} of these" in capsys.readouterr().out
