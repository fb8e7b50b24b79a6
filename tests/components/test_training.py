"""Trainings that are interrupted and continued, that diverge, and what they draw."""

import io
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.classifiers.config import ClassifierConfig
from components.classifiers.defense_gan import Classifier
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import DataSplit
from components.gan.config import GanConfig
from components.gan.training import GanTraining
from components.training import Training, TrainingDiverged, batches, drawn_from, evaluating, freeze, mix, seeded
from components.unet.config import UNetConfig
from components.unet.training import UNetTraining
from tests.tiny import tiny_split

SPLIT = DataSplit.of(tiny_split(21))
Build = Callable[[int], Training]


def classifier_training(seed: int, images: Tensor = SPLIT.images) -> ClassifierTraining:
    config = ClassifierConfig(epochs=3, batch_size=8)  # 21 = 8 + 8 + 5, and A has dropout
    return ClassifierTraining(config, DataSplit(images, SPLIT.labels), 4, seed)


def gan_training(loss: str) -> Callable[..., GanTraining]:
    def build(seed: int, images: Tensor = SPLIT.images) -> GanTraining:
        # 17 steps of 20: the last epoch is shorter, and the lazy penalty falls into the third
        config = GanConfig(
            loss=loss,  # type: ignore[arg-type]
            latent_dim=3,
            width=4,
            discriminator_width=4,
            steps=17,
            steps_per_epoch=7,
            batch_size=4,
        )
        return GanTraining(config, images, seed)

    return build


def unet_training(seed: int, images: Tensor = SPLIT.images, first_images: int | None = None) -> UNetTraining:
    with drawn_from(0):
        judge = freeze(Classifier("D", (1, 8, 8), 4))
    config = UNetConfig(width=2, depth=1, epochs=3, batch_size=8, first_images=first_images)
    return UNetTraining(config, images.flip(3), SPLIT.images, SPLIT.labels, judge, seed)


def growing_training(seed: int, images: Tensor = SPLIT.images) -> UNetTraining:
    return unet_training(seed, images, first_images=5)


EACH = pytest.mark.parametrize(
    "build",
    [classifier_training, gan_training("nonsaturating"), gan_training("wgan_gp"), unet_training, growing_training],
)


def saved(training: Training) -> Any:
    """The state as it comes back from a file that is read without unpickling code."""
    buffer = io.BytesIO()
    torch.save(training.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def weights(training: Training) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, part in training.parts().items()
        if isinstance(part, nn.Module)
        for key, value in part.state_dict().items()
    }


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@EACH
@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_training_ends_in_the_same_weights(build: Build, stop: int) -> None:
    whole = build(5)
    rows = list(whole)
    assert len(rows) == whole.epochs == whole.epoch == 3
    first = build(5)
    begun = list(islice(first, stop))
    torch.rand(7)  # another process has drawn other numbers
    second = build(5)
    second.load_state_dict(saved(first))
    assert second.epoch == stop
    assert begun + list(second) == rows
    assert equal(weights(second), weights(whole))


@EACH
def test_the_seed_decides(build: Build) -> None:
    one, same, other = build(1), build(1), build(2)
    for training in (one, same, other):
        next(iter(training))
    assert equal(weights(one), weights(same))
    assert not equal(weights(one), weights(other))


@EACH
def test_the_callers_random_numbers_are_left_alone(build: Build) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build(1).run()
    assert torch.equal(torch.rand(4), expected)


@EACH
def test_a_training_that_diverges_says_so(build: Callable[..., Training]) -> None:
    training = build(0, SPLIT.images * float("nan"))
    with pytest.raises(TrainingDiverged, match="loss: expected a finite number, found nan in epoch 1"):
        training.run()


@EACH
def test_a_state_of_another_training_is_refused(build: Build) -> None:
    with pytest.raises((KeyError, RuntimeError)):
        build(0).load_state_dict({"epoch": 1})


def test_an_ended_training_has_nothing_to_run() -> None:
    training = classifier_training(0)
    assert training.run()["loss"] > 0
    assert training.run() == {}


@pytest.mark.parametrize(("count", "size", "sizes"), [(5, 2, [2, 2]), (6, 4, [4, 2]), (1, 4, [1]), (3, 9, [3])])
def test_batches_hold_each_index_once_and_no_lone_image(count: int, size: int, sizes: list[int]) -> None:
    groups = list(batches(count, size))
    assert [len(group) for group in groups] == sizes
    seen = torch.cat(groups).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(count))


def test_seeds_are_mixed() -> None:
    mixed = {mix(a, b) for a in range(30) for b in range(30)}
    assert len(mixed) == 900
    assert all(0 <= seed < 2**63 for seed in mixed)
    assert mix(1, 2) == mix(1, 2) != mix(2, 1)


def test_seeded_draws_follow_from_the_seeds_alone() -> None:
    torch.manual_seed(0)
    with seeded(1, 2):
        one = torch.rand(3)
    torch.rand(5)
    with seeded(1, 2):
        assert torch.equal(torch.rand(3), one)
    with seeded(1, 3):
        assert not torch.equal(torch.rand(3), one)


def test_freeze_stops_gradients_to_weights_only() -> None:
    module = freeze(nn.Linear(2, 1))
    images = torch.ones(1, 2, requires_grad=True)
    module(images).sum().backward()
    assert images.grad is not None
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not module.training


def test_evaluating_restores_the_mode_of_each_part() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    module[1].eval()

    def fail() -> None:
        with evaluating(module):
            assert not any(part.training for part in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [part.training for part in module.modules()] == [True, True, False, False]
