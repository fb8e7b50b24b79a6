"""The frozen generator: the same images and gradients as the one it was made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.gan.folded import FrozenGenerator
from tests.tiny_networks import generator_of

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 25, 27), (2, 9, 13), (1, 5, 6), (3, 12, 10), (1, 1, 1)]


def latents_of(count: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
def test_images_and_gradients_are_those_of_the_generator(shape: tuple[int, int, int]) -> None:
    generator, latents = generator_of(shape), latents_of(4)
    weights = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1)).double()
    expected, found = generator(latents), generator.folded()(latents)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((images * weights).sum(), latents)[0] for images in (expected, found)]
    torch.testing.assert_close(gradients[1], gradients[0])
    assert float(gradients[0].abs().max()) > 0


def test_its_weights_stay_as_they_are() -> None:
    frozen, latents = generator_of().folded(), latents_of(2)
    frozen(latents).sum().backward()
    assert latents.grad is not None
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in frozen.parameters())


def test_it_is_no_part_of_the_generator() -> None:
    generator, latents = generator_of(), latents_of(2)
    frozen = generator.folded()
    before = frozen(latents)
    for parameter in generator.parameters():
        nn.init.zeros_(parameter)
    torch.testing.assert_close(frozen(latents), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_less_precision_is_near(dtype: torch.dtype) -> None:
    exact: FrozenGenerator = generator_of((1, 28, 28)).folded()
    latents = latents_of(4)
    rough = generator_of((1, 28, 28)).folded().to(dtype)(latents.to(dtype))
    assert rough.dtype == torch.float32  # the last map leaves bfloat16 before its sigmoid
    assert float((exact(latents) - rough).abs().max()) < (1e-5 if dtype == torch.float32 else 0.05)
