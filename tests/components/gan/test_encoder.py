"""The encoder: learned with its generator, and continued to the same weights."""

from typing import Any

import pytest
import torch

from components.datasets.dataset import DataSplit
from components.gan.config import GanConfig
from components.gan.encoder import Encoder
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Generator
from components.gan.training import GanTraining
from components.metrics import threshold
from components.precision import Precision
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.squeezing import squeezed
from components.training import drawn_from, freeze
from tests.tiny import tiny_split
from tests.tiny_networks import generator_of

GENERATOR = generator_of().float()
IMAGES = DataSplit.of(tiny_split(64)).images


def training_of(generator: Generator = GENERATOR, steps: int = 6, **settings: Any) -> EncoderTraining:
    sizes = {"width": 4, "steps": steps, "steps_per_epoch": 3, "batch_size": 8, "seed": 3}
    return EncoderTraining(generator, IMAGES, **{**sizes, **settings})


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10), (1, 28, 28)])
def test_images_of_any_size_become_latents(shape: tuple[int, int, int]) -> None:
    assert Encoder(5, 4, shape).eval()(torch.rand(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_to_rebuild_what_lies_under_noise(levels: int | None, precision: Precision) -> None:
    with drawn_from(0):
        untrained = freeze(Generator(5, 8, (1, 8, 8)))
    training = training_of(untrained, 400, steps_per_epoch=200, width=8, levels=levels, precision=precision)
    training.run()
    noisy = squeezed(training._noisy(IMAGES, patch=1), levels)
    with torch.no_grad():
        missed = (training.generator(training.encoder(noisy)) - IMAGES).square().mean()
        mean = (IMAGES.mean(0) - IMAGES).square().mean()  # the best guess that looks at no image
    assert float(missed) < float(mean) / 2


def test_the_generator_that_it_was_given_stays() -> None:
    before = GENERATOR.out.weight.clone()
    training = training_of()
    training.run()
    assert torch.equal(GENERATOR.out.weight, before)
    assert not torch.equal(training.generator.out.weight, before)


def test_an_interrupted_training_ends_in_the_same_weights() -> None:
    whole, first, second = training_of(), training_of(), training_of()
    whole.run()
    next(iter(first))
    second.load_state_dict(first.state_dict())
    second.run()
    for name in ("encoder", "generator"):
        other = getattr(second, name).state_dict()
        assert all(torch.equal(value, other[key]) for key, value in getattr(whole, name).state_dict().items())


def test_it_is_the_same_of_a_generator_read_again() -> None:
    """As where a search is resumed between the two trainings."""
    config = GanConfig(latent_dim=3, width=4, discriminator_width=4, steps=2, steps_per_epoch=2, batch_size=8)
    whole, again = (GanTraining(config, IMAGES, 0) for _ in range(2))
    whole.run()
    again.load_state_dict(whole.state_dict())
    encoded = [training_of(gan.generator) for gan in (whole, again)]
    for training in encoded:
        training.run()
    one, other = (training.generator.state_dict() for training in encoded)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_noise_stays_within_its_bounds() -> None:
    training = training_of()
    images = torch.full((50, 1, 8, 8), 0.5)
    noisy = training._noisy(images, patch=2)
    strength = (noisy - images).abs()
    assert float(strength.max()) <= 0.4
    assert torch.equal(strength[:, :, ::2, ::2], strength[:, :, 1::2, 1::2])  # patches of 2 x 2 move together


def test_squeezing_to_two_levels_is_the_threshold_baseline() -> None:
    images = torch.tensor([0.0, 0.3, 0.5, 0.51, 1.0]).view(1, 1, 1, 5)
    assert torch.equal(squeezed(images, 2), threshold(images))
    assert torch.equal(squeezed(images, None), images)
    greys = squeezed(torch.linspace(0, 1, 101).view(1, 1, 1, -1), 4).unique()
    assert greys.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_start_that_needs_an_encoder_says_so() -> None:
    with pytest.raises(ValueError, match="init: expected random or bank, or an encoder"):
        Projector(GENERATOR, ProjectorConfig(init="encoder"))
