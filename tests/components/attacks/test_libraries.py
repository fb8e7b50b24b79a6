"""Attack libraries run on a saved defense as it is: a module whose logits have a gradient."""

from __future__ import annotations

import pytest
import torch

from components.datasets.dataset import load_dataset
from components.defense import Defense
from components.pretrained import shipped_defense

pytestmark = pytest.mark.slow
EPSILON = 0.3


@pytest.fixture(scope="module")
def defense() -> Defense:
    return Defense.load(shipped_defense("mnist"))


def few(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    test = load_dataset("mnist_mini").test
    return test.images[:count], test.labels[:count]


def assert_attacked(defense: Defense, images: torch.Tensor, attacked: torch.Tensor) -> None:
    assert attacked.shape == images.shape
    assert float((attacked - images).abs().max()) <= EPSILON + 1e-5
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    assert bool(defense(attacked).isfinite().all())


def test_foolbox_runs_on_a_loaded_defense(defense: Defense) -> None:
    foolbox = pytest.importorskip("foolbox")
    images, labels = few(8)
    model = foolbox.PyTorchModel(defense, bounds=(0, 1), device="cpu")
    _, (attacked,), success = foolbox.attacks.LinfPGD(steps=5)(model, images, labels, epsilons=[EPSILON])
    assert_attacked(defense, images, attacked)
    assert torch.equal(success[0], defense(attacked).argmax(1) != labels)


def test_autoattack_runs_on_a_loaded_defense(defense: Defense) -> None:
    library = pytest.importorskip("pyautoattack")
    images, labels = few(8)
    attack = library.AutoAttack(defense, eps=EPSILON, version="custom", attacks=["apgd-ce"], seed=0)
    attack.apgd.n_iter, attack.apgd.n_restarts = 5, 1
    attacked, _ = attack.run_standard_evaluation(images, labels, batch_size=8)
    assert_attacked(defense, images, attacked)
