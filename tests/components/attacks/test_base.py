"""The contract of an attack: what a plug-in's is given, and what is done where it breaks it."""

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from components.attacks import ATTACKS, FGSM, Attack, AttackError, attack
from components.classifiers.defense_gan import Classifier
from components.training import freeze

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(5) % 4
Perturb = Callable[[nn.Module, Tensor, Tensor], object]


@pytest.fixture
def made(classifier: Classifier) -> Iterator[Callable[[Perturb], Tensor]]:
    """What an attack of a user's makes of the images."""
    with ATTACKS.scope():

        @ATTACKS.register("mine")
        class Mine(Attack):
            name: Literal["mine"] = "mine"

            def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
                return does[0](classifier, images, labels)  # type: ignore[return-value]

        does: list[Perturb] = []

        def run(perturb: Perturb) -> Tensor:
            does[:] = [perturb]
            return attack(Mine(epsilon=0.1), classifier, IMAGES, LABELS, batch_size=2)

        yield run


@pytest.fixture
def classifier() -> Classifier:
    return freeze(Classifier("D", (1, 8, 8), 4))


def by_torchattacks_habits(classifier: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """FGSM as it is often written: on the images themselves, by .grad, without a thought for the caller."""
    images.requires_grad_()
    nn.functional.cross_entropy(classifier(images), labels).backward()
    assert images.grad is not None
    images.data.add_(0.1 * images.grad.sign()).clamp_(0, 1)
    labels.zero_()
    classifier.train()
    return images


def test_what_it_changes_is_its_own(made: Callable[[Perturb], Tensor], classifier: Classifier) -> None:
    images, labels = IMAGES.clone(), LABELS.clone()
    attacked = made(by_torchattacks_habits)
    assert (attacked != IMAGES).any()
    assert not attacked.requires_grad
    assert torch.equal(IMAGES, images)
    assert torch.equal(LABELS, labels)
    assert not classifier.training


@pytest.mark.parametrize(
    ("perturb", "said"),
    [
        (lambda classifier, images, labels: images.numpy(), "expected a tensor, found numpy.ndarray"),
        (lambda classifier, images, labels: images[:1], "expected images (2, 1, 8, 8), found (1, 1, 8, 8)"),
        (lambda classifier, images, labels: images - 0.05, "expected images in [0, 1], found -0.0"),
        (lambda classifier, images, labels: images * torch.nan, "expected images in [0, 1], found nan … nan"),
        (lambda classifier, images, labels: 1 - images, "expected pixels moved by at most 0.1, found 0.9"),
    ],
)
def test_what_is_no_attack_is_refused(made: Callable[[Perturb], Tensor], perturb: Perturb, said: str) -> None:
    with pytest.raises(AttackError, match="mine: expected") as error:
        made(perturb)
    assert said in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_images_of_another_precision_are_attacked(dtype: torch.dtype, classifier: Classifier) -> None:
    """In bfloat16 0.3 is 0.30078, and an image with it added is rounded once more."""
    images = torch.linspace(0, 1, 640).view(10, 1, 8, 8).to(dtype)
    attacked = attack(FGSM(epsilon=0.3), classifier.to(dtype), images, torch.arange(10) % 4)
    assert attacked.dtype == dtype
    assert float((attacked.double() - images.double()).abs().max()) <= 0.3 + max(1e-5, torch.finfo(dtype).eps)


def test_the_last_batch_is_looked_at_too(made: Callable[[Perturb], Tensor]) -> None:
    with pytest.raises(AttackError, match="moved by at most"):
        made(lambda classifier, images, labels: images if len(images) == 2 else 1 - images)
