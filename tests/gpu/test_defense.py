"""The shipped defense on a card and on the processor: the same labels, but for ties."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from components.attacks import AttackConfig, attack
from components.datasets.dataset import load_dataset
from components.defense import Defense
from components.pretrained import shipped_defense

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

IMAGES = 1000
TIE = 0.1  # logits apart that rounding may change places of


@dataclass(frozen=True)
class Seen:
    """What a device makes of the images.

    Attributes:
        purified: (N, C, H, W).
        logits: (N, classes) of them.
    """

    purified: Tensor
    logits: Tensor


@pytest.fixture(scope="module")
def attacked() -> Tensor:
    """Test images, attacked on the processor."""
    test = load_dataset("mnist_mini").test
    test = test.sample(min(IMAGES, len(test)), seed=0)
    return attack(AttackConfig(), Defense.load(shipped_defense("mnist")).classifier, test.images, test.labels)


@pytest.fixture(scope="module")
def here(attacked: Tensor) -> Seen:
    return seen("cpu", attacked)


def seen(device: str | torch.device, images: Tensor) -> Seen:
    defense = Defense.load(shipped_defense("mnist"), device)
    return Seen(defense.purify(images), defense(images))


@pytest.mark.usefixtures("exact")
def test_labels_are_the_processors_but_for_ties(attacked: Tensor, here: Seen, device: torch.device) -> None:
    there = seen(device, attacked)
    best = here.logits.topk(2, dim=1).values
    differing = there.logits.argmax(1) != here.logits.argmax(1)
    assert int(differing.sum()) <= IMAGES // 100
    assert not differing[best[:, 0] - best[:, 1] > TIE].any(), (best[:, 0] - best[:, 1])[differing]
    assert float((there.purified - here.purified).abs().mean()) < 1e-3


def test_rounded_convolutions_change_few_labels(attacked: Tensor, here: Seen, device: torch.device) -> None:
    there = seen(device, attacked)  # as it runs by default, in TF32
    assert float((there.logits.argmax(1) == here.logits.argmax(1)).double().mean()) >= 0.98


def test_images_on_the_card_stay_there(attacked: Tensor, device: torch.device) -> None:
    defense = Defense.load(shipped_defense("mnist"), device)
    purified = defense.purify(attacked[:10].to(device))
    assert purified.device.type == "cuda"
    assert {part.device.type for part in vars(defense.inspect(attacked[:10].to(device))).values()} == {"cuda"}
