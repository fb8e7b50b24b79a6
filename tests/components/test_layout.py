"""The order of maps in memory, on which a user's network or attack may rely."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from components.adversarial_training import AdversarialConfig
from components.attacks import FGSM, attack
from components.attacks.losses import input_gradient, log_odds
from components.classifiers.catalogue import CLASSIFIERS
from components.classifiers.config import ClassifierConfig
from components.classifiers.training import ClassifierTraining
from components.classifiers.victim import Victim
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.layout import channels_first, channels_last
from components.static_reference import StaticTraining
from components.unet.config import UNetConfig
from components.unet.training import UNetTraining
from tests.tiny_networks import defense_of

CLASSES = 4


class Flattening(nn.Module):
    """A network in the style of PyTorch's first tutorials, whose `view` needs maps with the channels first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, 6, 3)
        self.logits = nn.Linear(6 * 3 * 3, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.max_pool2d(self.maps(images), 2).relu()
        logits: Tensor = self.logits(maps.view(-1, 6 * 3 * 3))
        return logits


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    with CLASSIFIERS.scope():
        CLASSIFIERS.register("flattening")(lambda shape, classes: Flattening(shape[0]))
        yield


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def split(request: pytest.FixtureRequest) -> DataSplit:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(12, request.param, 8, 8, generator=draw)
    return DataSplit(images, torch.arange(12) % CLASSES)


def victim_of(split: DataSplit) -> Victim:
    shape = split.images.shape[1:]
    return Victim(Flattening(shape[0]), shape, CLASSES)


def test_a_network_that_flattens_by_view_is_trained(split: DataSplit) -> None:
    training = ClassifierTraining(ClassifierConfig(architecture="flattening", epochs=1), split, CLASSES, seed=0)
    assert training.run()["loss"] > 0


def test_a_network_that_flattens_by_view_reads_what_the_unet_made(split: DataSplit) -> None:
    config = UNetConfig(epochs=1, batch_size=6, width=4, depth=1, high_level_weight=1.0, label_weight=1.0)
    training = UNetTraining(config, split.images, split.images, split.labels, victim_of(split), seed=0)
    assert training.run()["loss"] > 0
    training.validate(split.images, split.images, split.labels)


def test_a_network_that_flattens_by_view_is_trained_against_attacks(split: DataSplit) -> None:
    config = AdversarialConfig(epochs=1, batch_size=6)
    assert StaticTraining(config, victim_of(split), split.images, split.labels).run()["loss"] > 0


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_defended_network_may_flatten_by_view(split: DataSplit, order: torch.memory_format) -> None:
    tiny = defense_of(tuple(split.images.shape[1:]), CLASSES)
    defense = Defense(tiny.projector, tiny.unet, victim_of(split), tiny.discriminator)
    images = split.images.contiguous(memory_format=order)
    attacked = attack(FGSM(epsilon=0.3), defense.classifier, images, split.labels)
    assert defense.inspect(attacked).label.shape == (12,)
    assert defense(attacked).shape == (12, CLASSES)


@pytest.mark.parametrize("whole", [True, False], ids=["defense", "classifier"])
def test_gradients_and_purified_images_can_be_flattened_by_view(split: DataSplit, whole: bool) -> None:
    defense = defense_of(tuple(split.images.shape[1:]), CLASSES, reads="both")
    gradient, _ = input_gradient(defense if whole else defense.classifier, split.images, split.labels, log_odds)
    assert gradient.view(12, -1).any()
    assert defense.purify(split.images).view(12, -1).shape == split.images.view(12, -1).shape


def test_images_keep_their_values_and_their_gradient(split: DataSplit) -> None:
    given = split.images.to(memory_format=torch.channels_last).requires_grad_()
    ordered = channels_first(given)
    assert ordered.stride() == split.images.contiguous().stride()
    torch.testing.assert_close(ordered, given, rtol=0, atol=0)
    weights = torch.rand_like(split.images)
    (gradient,) = torch.autograd.grad((channels_last(nn.Identity())(ordered) * weights).sum(), given)
    torch.testing.assert_close(gradient, weights, rtol=0, atol=0)
