"""Saves of trainings: what is damaged, of another training or harmful is not gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.saves import TrainingFile, opened, saved, sealed, unsealed
from components.training import Training


class Walk(Training):
    """Two layers that change a little in each epoch."""

    def __init__(self, width: int = 2) -> None:
        super().__init__(3, 0)
        self.layers = nn.Linear(2, 2), nn.Linear(width, width)

    def run_epoch(self) -> dict[str, float]:
        for layer in self.layers:
            layer.bias.data += torch.rand_like(layer.bias)
        return {}

    def parts(self) -> Mapping[str, Any]:
        return {str(place): layer for place, layer in enumerate(self.layers)}


def flat(training: Training) -> list[float]:
    state = training.state_dict()
    return [state["epoch"], *(number for part in ("0", "1") for number in state[part]["bias"].tolist())]


def after(epochs: int) -> Walk:
    training = Walk()
    for _, _ in zip(range(epochs), training, strict=False):
        pass
    return training


def test_a_seal_is_the_hash_of_what_follows() -> None:
    assert unsealed(sealed(b"content")) == b"content"
    with pytest.raises(ValueError, match="damaged"):
        unsealed(sealed(b"content")[:-1])


def test_what_is_noted_is_read_again() -> None:
    state = opened(saved(after(1), history=[{"psd": 0.5}], seconds=2.5))
    assert (state["history"], state["seconds"], state["training"]["epoch"]) == ([{"psd": 0.5}], 2.5, 1)


def test_a_training_goes_on_to_the_same_end(tmp_path: Path) -> None:
    begun, again = after(2), Walk()
    file = TrainingFile(tmp_path / "training", {"seed": 0})
    assert not file.go_on(again)
    file.write(begun)
    assert TrainingFile(file.path, {"seed": 0}).go_on(again)
    assert flat(again) == flat(begun)
    for training in (begun, again):
        training.run()
    assert flat(again) == flat(begun)
    file.end()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["of another", "torn", "empty", "a folder", "other layers", "a bomb"])
def test_what_cannot_be_gone_on_with_changes_nothing(tmp_path: Path, kind: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    file = TrainingFile(tmp_path / "training", {"seed": 0})
    file.write(after(2))
    if kind == "of another":
        TrainingFile(file.path, {"seed": 1}).write(after(2))
    elif kind == "torn":
        file.path.write_bytes(file.path.read_bytes()[:-1])
    elif kind == "empty":
        file.path.write_bytes(b"")
    elif kind == "a folder":
        file.path.unlink()
        file.path.mkdir()
    elif kind == "other layers":
        file.write(Walk(width=3))
    else:
        torch.save({"training": Bomb(), "asked": '{"seed": 0}'}, tmp_path / "bomb")
        file.path.write_bytes(sealed((tmp_path / "bomb").read_bytes()))
    training = after(1)
    before = flat(training)
    assert not file.go_on(training)
    assert flat(training) == before
    assert not (tmp_path / "exploded").exists()
