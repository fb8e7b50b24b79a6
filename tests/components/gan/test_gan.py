"""Generator and discriminator of any image size, folding, losses and training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from components.datasets.dataset import DataSplit
from components.gan.config import GanConfig
from components.gan.losses import NonSaturatingR1, WassersteinGP
from components.gan.networks import Discriminator
from components.gan.training import GanTraining
from tests.tiny import tiny_split
from tests.tiny_networks import generator_of

SIZES = [(1, 8, 8), (3, 12, 10), (1, 28, 28), (2, 9, 15)]


@pytest.mark.parametrize("shape", SIZES)
def test_images_have_the_size_and_range_asked_for(shape: tuple[int, ...]) -> None:
    images = generator_of(shape)(10 * torch.randn(6, 5).double()).detach()
    assert images.shape == (6, *shape)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert Discriminator(4, shape).double()(images).shape == (6,)


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from(SIZES), latent_dim=st.integers(1, 6), seed=st.integers(0, 99))
def test_a_folded_generator_makes_the_same_images(
    size: tuple[int, ...], latent_dim: int, seed: int
) -> None:
    generator = generator_of(size, latent_dim, seed)
    latents = torch.randn(4, latent_dim, generator=torch.Generator().manual_seed(seed)).double()
    torch.testing.assert_close(generator.folded()(latents), generator(latents))


def test_folding_leaves_the_original_as_it_was() -> None:
    generator = generator_of((1, 8, 8)).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    folded = generator.folded()
    folded(torch.randn(4, 5).double())
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert before.keys() == generator.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in folded.modules())


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="expected images of at least 8 × 8, found 7 × 9"):
        Discriminator(4, (1, 7, 9))


class Slope(nn.Module):
    """D(x) = slope · Σx, whose gradient is known."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images.flatten(1).sum(1)


def test_the_wasserstein_loss_is_the_published_one() -> None:
    loss, real, fake = WassersteinGP(), torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)
    judge = Slope(3.0)
    expected = judge(fake).mean() - judge(real).mean() + 10 * (3.0 * 4**0.5 - 1) ** 2
    torch.testing.assert_close(loss.discriminator(judge, real, fake, 1), expected)
    torch.testing.assert_close(loss.generator(torch.tensor([1.0, 3.0])), torch.tensor(-2.0))
    assert (loss.critic_steps, loss.learning_rate, loss.betas) == (5, 1e-4, (0.5, 0.9))


@pytest.mark.parametrize(("step", "penalty"), [(0, 16 * 0.05 / 2 * 9 * 4), (1, 0.0), (15, 0.0), (16, 14.4)])
def test_the_penalty_of_the_nonsaturating_loss_is_lazy(step: int, penalty: float) -> None:
    loss, real, fake = NonSaturatingR1(), torch.rand(6, 1, 2, 2), torch.rand(6, 1, 2, 2)
    judge = Slope(3.0)
    entropy = -judge(real).sigmoid().log().mean() - (1 - judge(fake).double().sigmoid()).log().mean().float()
    torch.testing.assert_close(loss.discriminator(judge, real, fake, step), entropy + penalty)
    torch.testing.assert_close(loss.generator(torch.zeros(2)), torch.tensor(2.0).log())


CONFIG = GanConfig(latent_dim=3, width=4, discriminator_width=4, steps=6, steps_per_epoch=3, batch_size=4)
IMAGES = DataSplit.of(tiny_split(12)).images


def test_epochs_cover_the_steps() -> None:
    assert GanTraining(CONFIG.model_copy(update={"steps": 7}), IMAGES, 0).epochs == 3
    assert GanTraining(CONFIG.model_copy(update={"steps": 2}), IMAGES, 0).epochs == 1


@pytest.mark.parametrize("loss", ["wgan_gp", "nonsaturating"])
def test_the_averaged_generator_serves_at_every_epoch(loss: str) -> None:
    training = GanTraining(CONFIG.model_copy(update={"loss": loss}), IMAGES, 0)
    start = [parameter.clone() for parameter in training.generator.parameters()]
    for _ in training:
        assert not training.generator.training
        assert not any(parameter.requires_grad for parameter in training.generator.parameters())
        assert training.learner.training
    moved = list(training.generator.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(start, moved, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(training.learner.parameters(), moved, strict=True))


def test_without_memory_the_average_is_the_learner() -> None:
    training = GanTraining(CONFIG.model_copy(update={"average": 0.0}), IMAGES, 0)
    training.run()
    for ours, learner in zip(training.generator.parameters(), training.learner.parameters(), strict=True):
        torch.testing.assert_close(ours, learner)


def test_the_averaged_generators_normalisation_is_measured_on_its_own_weights() -> None:
    training = GanTraining(CONFIG, IMAGES, 0)
    training.run()
    latents = torch.randn(4096, 3, generator=torch.Generator().manual_seed(1))
    linear, norm = training.generator.dense
    with torch.no_grad():
        outputs = linear(latents)
    spread = outputs.std(0)
    assert float(((norm.running_mean - outputs.mean(0)) / spread).abs().max()) < 0.5
    assert float((norm.running_var.sqrt() / spread).min()) > 0.6
    assert float((norm.running_var.sqrt() / spread).max()) < 1.5


@pytest.mark.parametrize(
    "wrong", [{"loss": "hinge"}, {"steps": 0}, {"average": 1.0}, {"pretrained": "no such"}, {"batch_size": 1}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GanConfig.model_validate(wrong)
