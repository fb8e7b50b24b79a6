"""The benchmark of adversarial training attacks with the radius that it trained for."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import robust
from components.datasets.dataset import DataSplit
from tests.tiny_networks import defense_of


def test_every_attack_of_a_report_has_the_radius_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radii = []

    def attack(config: Any, classifier: Any, images: Tensor, labels: Tensor) -> Tensor:
        radii.append(config.epsilon)
        return images

    def evaluated(*_: Any, epsilon: float = 0.3, **others: Any) -> Namespace:
        radii.append(epsilon)
        return Namespace(stands=torch.ones(4, dtype=torch.bool), table=str, to_json=dict)

    monkeypatch.setattr(robust, "attack", attack)
    monkeypatch.setattr(robust, "evaluate_defense", evaluated)
    test = DataSplit(torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64))
    images = {"quick_images": 4, "test_images": 0, "full_images": 0}
    robust.report(defense_of(), test, Namespace(out=tmp_path, seed=0, epsilon=0.1, **images))
    assert radii == [0.1, 0.1]
    assert json.loads((tmp_path / "robust.json").read_text())["epsilon"] == 0.1
