"""The encoder: learned from the generator alone, and continued to the same weights."""

import pytest
import torch
from torch import Tensor, nn

from components.encoder import Encoder, EncoderTraining
from components.metrics import threshold
from components.projector import Projector, ProjectorConfig, squeezed
from tests.tiny_networks import generator_of

GENERATOR = generator_of().float()


def training_of(steps: int = 6) -> EncoderTraining:
    return EncoderTraining(GENERATOR, (1, 8, 8), width=4, steps=steps, steps_per_epoch=3, batch_size=8, seed=3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10), (1, 28, 28)])
def test_images_of_any_size_become_latents(shape: tuple[int, int, int]) -> None:
    assert Encoder(5, 4, shape).eval()(torch.rand(2, *shape)).shape == (2, 5)


class Spots(nn.Module):
    """A generator whose latent is seen in its images: a bright spot at z, on a grid from -2 to 2."""

    latent_dim = 2

    def forward(self, latents: Tensor) -> Tensor:
        grid = torch.linspace(-2, 2, 8)
        away = (grid - latents[:, :1]).square()[:, None, :] + (grid - latents[:, 1:]).square()[:, :, None]
        return torch.exp(-away)[:, None]

    def folded(self) -> nn.Module:
        return self


def test_a_trained_encoder_starts_nearer_than_random_draws() -> None:
    spots = Spots()
    training = EncoderTraining(spots, (1, 8, 8), width=4, steps=200, steps_per_epoch=100, batch_size=32)
    training.run()
    latents = torch.randn(40, 2, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        missed = (training.encoder(spots(latents)) - latents).square().mean()
    assert float(missed) < 0.25  # a guess that knows nothing misses by the latents' variance, 1


def test_an_interrupted_training_ends_in_the_same_weights() -> None:
    whole, first, second = training_of(), training_of(), training_of()
    whole.run()
    next(iter(first))
    second.load_state_dict(first.state_dict())
    second.run()
    for one, other in zip(whole.encoder.parameters(), second.encoder.parameters(), strict=True):
        assert torch.equal(one, other)


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
