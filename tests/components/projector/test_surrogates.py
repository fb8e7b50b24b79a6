"""The gradients of a defense: the values stay real, the stand-ins give what they say, or say what is missing."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.defense import Defense
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.purifiers import NoGradient, Surrogates
from components.squeezing import squeezed, squeezed_with_gradient, thresholds
from tests.tiny_networks import defense_of, generator_of

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
EVERY = [
    {"init": "encoder", "levels": 2},
    {"init": "encoder", "levels": 3, "optimizer": "sgd"},
    {"init": "bank", "distance": "l2"},
    {"init": "random", "restarts": 4, "prior_weight": 0.1, "realism_weight": 0.1},
    {"init": "encoder", "restarts": 3, "spread": 1.0},
]
each_projector = pytest.mark.parametrize("settings", EVERY, ids=str)


def gradient_of(defense: Defense, surrogates: Surrogates | None = None, images: torch.Tensor = IMAGES) -> torch.Tensor:
    x = images.clone().requires_grad_()
    logits = defense(x) if surrogates is None else defense.through(x, surrogates)
    torch.testing.assert_close(logits, defense(images))  # the values are the real ones
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert bool(gradient.isfinite().all())
    return gradient


@each_projector
def test_a_defense_passes_gradients(settings: dict[str, Any]) -> None:
    defense = defense_of(**settings)
    assert float(gradient_of(defense).abs().amax((1, 2, 3)).min()) > 0
    assert not any(parameter.requires_grad for parameter in defense.parameters())
    assert not defense(IMAGES).requires_grad
    with torch.no_grad():
        assert not defense(IMAGES.clone().requires_grad_()).requires_grad


@each_projector
@pytest.mark.parametrize(
    "surrogates",
    [Surrogates(), Surrogates(descent="unrolled"), Surrogates(exact=False)],
    ids=["own", "unrolled", "inexact"],
)
def test_a_defense_cast_to_bfloat16_passes_gradients_too(settings: dict[str, Any], surrogates: Surrogates) -> None:
    """Its generator's last map, in float32, is cast back before the U-Net reads it."""
    defense, x = defense_of(**settings).bfloat16(), IMAGES.clone().requires_grad_()
    logits = defense.through(x, surrogates)
    assert logits.dtype == defense(IMAGES).dtype == torch.bfloat16
    if surrogates.exact:
        assert torch.equal(logits, defense(IMAGES))
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), x)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) > 0


@each_projector
def test_an_images_gradient_does_not_depend_on_its_neighbours(settings: dict[str, Any]) -> None:
    defense = defense_of(**settings).double()
    together = gradient_of(defense, images=IMAGES.double())
    alone = torch.cat([gradient_of(defense, images=image[None]) for image in IMAGES.double()])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("init", ["random", "bank", "encoder"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_unrolling_all_steps_gives_the_true_gradient(init: str, optimizer: str) -> None:
    """Without grey levels the descent is smooth, so its gradient can be had by finite differences."""
    defense = defense_of(init=init, optimizer=optimizer, restarts=3, steps=3, learning_rate=0.2, distance="l2").double()
    x = IMAGES[:2].double()
    gradient = gradient_of(defense, Surrogates(descent="unrolled", steps=3), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    direction *= (x > 0.01) & (x < 0.99)
    h = 1e-6
    slope = (defense(x + h * direction) - defense(x - h * direction))[:, 1].sum() / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-6)


def test_fewer_steps_than_all_are_unrolled_from_where_the_winner_stands() -> None:
    defense = defense_of(init="random", restarts=3, steps=6).double()
    one, all_of_them, more = (
        gradient_of(defense, Surrogates(descent="unrolled", steps=steps), IMAGES.double()) for steps in (1, 6, 60)
    )
    torch.testing.assert_close(all_of_them, more)
    assert not torch.allclose(one, all_of_them)


def test_the_encoder_stands_in_for_the_steps() -> None:
    defense = defense_of(init="encoder", restarts=1, levels=2).double()
    encoder, generator = defense.projector.encoder, defense.projector.generator
    x = IMAGES.double()
    seen = squeezed(x, 2).requires_grad_()
    latents = defense.projector.project(x).latents
    guess = encoder(seen)
    logits = defense.classifier(defense.unet(generator(latents + guess - guess.detach())))
    (expected,) = torch.autograd.grad(logits[:, 1].sum(), seen)
    torch.testing.assert_close(gradient_of(defense, Surrogates(descent="encoder"), x), expected)


@given(levels=st.integers(2, 8), threshold=st.none() | st.floats(0.01, 0.99), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_squeezing_keeps_its_values_under_every_surrogate(levels: int, threshold: float | None, seed: int) -> None:
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    for surrogate in ("straight_through", "sigmoid"):
        values = squeezed_with_gradient(images, levels, threshold, surrogate)  # type: ignore[arg-type]
        assert torch.equal(values, squeezed(images.detach(), levels, threshold))
        (slope,) = torch.autograd.grad(values.sum(), images)
        assert float(slope.min()) >= 0
        assert float(slope.sum()) > 0
        if surrogate == "straight_through":
            torch.testing.assert_close(slope, torch.ones_like(slope))
    assert squeezed_with_gradient(images, None) is images


@given(levels=st.integers(2, 8), threshold=st.none() | st.floats(0.01, 0.49))
def test_levels_begin_at_their_places(levels: int, threshold: float | None) -> None:
    places = thresholds(levels, threshold)
    assert len(places) == levels - 1
    assert places == sorted(places)
    for count, place in enumerate(places):
        pixels = torch.tensor([place - 1e-4, place + 1e-4])
        reached = (squeezed(pixels, levels, threshold) * (levels - 1)).round().tolist()
        assert reached[0] <= count < reached[1]
    assert squeezed(torch.tensor([0.0, 1.0]), levels, threshold).tolist() == [0, 1]


def test_the_sigmoid_is_steepest_at_the_thresholds() -> None:
    grey = torch.linspace(0, 1, 101, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(squeezed_with_gradient(grey, 3, None, "sigmoid").sum(), grey)
    assert slope.topk(2).indices.sort().values.tolist() == [25, 75]


def test_what_has_no_gradient_is_named_with_the_surrogates_that_exist() -> None:
    bare = defense_of()
    bare.projector.encoder = None
    with pytest.raises(NoGradient, match=r"expected an encoder .* \(projector.init: bank\).* exists is: unrolled"):
        gradient_of(bare, Surrogates(descent="encoder"))

    class Foreign:
        latent_dim, width = 5, 4

        def folded(self) -> torch.nn.Module:
            return generator_of().float().folded()

    defense = defense_of()
    config = ProjectorConfig(restarts=2, steps=2, init="random")
    foreign = Defense(Projector(Foreign(), config), defense.unet, defense.classifier, defense.discriminator)
    assert foreign(IMAGES).shape == (5, 4)
    with pytest.raises(NoGradient, match=r"projector.generator: expected a torch module.*found Foreign.*exist: none"):
        foreign(IMAGES.clone().requires_grad_())


def test_it_works_in_inference_mode() -> None:
    defense = defense_of(init="encoder", levels=2)
    expected, seen = defense(IMAGES), defense.inspect(IMAGES)
    with torch.inference_mode():
        images = IMAGES.clone()
        torch.testing.assert_close(defense(images), expected)
        torch.testing.assert_close(defense.purify(images), seen.images)
        torch.testing.assert_close(defense.inspect(images).generated, seen.generated)
        assert not defense(images).requires_grad


def test_arrays_get_a_sentence() -> None:
    with pytest.raises(TypeError, match=r"images: expected a tensor, found numpy.ndarray; torch.as_tensor makes one"):
        defense_of()(np.zeros((2, 1, 8, 8), np.float32))


@pytest.mark.parametrize("off", [-1e-4, 9e-5, 1e-7])
def test_a_rounding_error_beyond_the_range_is_clamped(off: float) -> None:
    edge = torch.where(IMAGES > 0.5, 1.0, 0.0)
    defense = defense_of()
    beyond = torch.where(edge > 0.5, 1 + abs(off), -abs(off))
    torch.testing.assert_close(defense(beyond), defense(edge))
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\]"):
        defense(edge + 2e-4)


def test_a_generator_of_another_range_is_refused() -> None:
    class Wide(torch.nn.Module):
        latent_dim, width = 5, 4

        def __init__(self) -> None:
            super().__init__()
            self.inner = generator_of().float()

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(latents) - 1

        def folded(self) -> torch.nn.Module:
            return self.eval()

    defense = defense_of()
    config = ProjectorConfig(restarts=2, steps=2, init="random")
    wide = Defense(Projector(Wide(), config), defense.unet, defense.classifier, defense.discriminator)
    for use in (wide, wide.purify, wide.inspect, lambda x: wide(x.clone().requires_grad_())):
        with pytest.raises(ValueError, match=r"generator: expected images in \[0, 1\], found -"):
            use(IMAGES)


def test_state_holds_every_network_and_moves_it() -> None:
    defense = defense_of(init="encoder", levels=2, restarts=1)  # further restarts follow from the seed too
    parts = {name.partition(".")[0] for name in defense.state_dict()}
    assert parts == {"generator", "encoder", "unet", "classifier", "discriminator"}
    other = defense_of(seed=7, init="encoder", levels=2, restarts=1)
    assert not torch.allclose(other(IMAGES), defense(IMAGES))
    other.load_state_dict(defense.state_dict())
    torch.testing.assert_close(other(IMAGES), defense(IMAGES))
    gone = other.to("meta")
    assert {parameter.device.type for parameter in gone.projector.generator.parameters()} == {"meta"}


def test_it_computes_in_double_precision() -> None:
    defense = defense_of(init="encoder", levels=2)
    single = defense(IMAGES)
    assert defense.double() is defense
    assert defense(IMAGES.double()).dtype == torch.float64
    torch.testing.assert_close(defense(IMAGES.double()).float(), single, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda defense: copy.deepcopy(copy.deepcopy(defense))])
def test_a_copy_is_its_own(duplicate: Callable[[Defense], Defense]) -> None:
    defense = defense_of(init="encoder", levels=2, realism_weight=0.1)
    defense.surrogates = Surrogates("sigmoid")
    clone = duplicate(defense)
    before = defense(IMAGES)
    torch.testing.assert_close(clone(IMAGES), before)
    assert clone.surrogates == Surrogates("sigmoid")
    assert clone.projector.discriminator is clone.discriminator
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.add_(0.1)
    clone.load_state_dict(clone.state_dict())
    assert torch.equal(defense(IMAGES), before)
    assert not torch.allclose(clone(IMAGES), before)
