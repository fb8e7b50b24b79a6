"""Attack libraries run on a saved defense as it is, and the project's own list finds what theirs finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from components.attacks import PGD
from components.attacks.adaptive import evaluate_defense
from components.attacks.presets import PresetName
from components.datasets.dataset import load_dataset
from components.defense import Defense
from components.pretrained import shipped_defense
from components.training import drawn_from
from tests.components.attacks.test_adaptive import digits

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


@pytest.fixture(scope="module")
def trained_by_pgd() -> nn.Module:
    """A small classifier of tiny digits, trained by plain PGD."""
    with drawn_from(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        images, labels = digits(400)
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        attack = PGD(epsilon=0.2, steps=5, step_size=0.08)
        for step in range(100):
            attacked = attack.perturb(net, images, labels, seed=step)
            optimizer.zero_grad()
            functional.cross_entropy(net(attacked), labels).backward()
            optimizer.step()
    return net.eval()


@pytest.mark.parametrize("preset", ["standard", "full"])
@pytest.mark.parametrize("epsilon", [0.33, 0.34, 0.35])  # where some images break and some do not
def test_the_lists_leave_no_more_than_autoattack_does(
    trained_by_pgd: nn.Module, epsilon: float, preset: PresetName
) -> None:
    library = pytest.importorskip("pyautoattack")
    images, labels = digits(200, seed=1)
    kinds = ["apgd-ce", "apgd-t", "fab-t", "square"]
    attack = library.AutoAttack(trained_by_pgd, eps=epsilon, version="custom", attacks=kinds, seed=0)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = 3
    attack.square.n_queries = 1000
    attacked, _ = attack.run_standard_evaluation(images, labels, batch_size=200)
    theirs = float((trained_by_pgd(attacked).argmax(1) == labels).double().mean())
    ours = evaluate_defense(trained_by_pgd, images, labels, epsilon=epsilon, preset=preset, curves=False).worst
    assert 0 < theirs < 1
    assert ours <= theirs + 0.01
