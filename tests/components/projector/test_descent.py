"""Distances by their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from components.projector.descent import DISTANCES, huber, insensitive, l2

DIFFERENCE = torch.randn(2, 3, 1, 4, 5, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("name", DISTANCES)
def test_images_are_measured_one_by_one(name: str) -> None:
    distance = DISTANCES[name]
    found = distance(DIFFERENCE, 0.3)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found[1, 2], distance(DIFFERENCE[1, 2], 0.3))
    assert distance(torch.zeros(1, 4, 5), 0.3) == 0
    torch.testing.assert_close(distance(-DIFFERENCE, 0.3), found)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 1))
def test_definitions(tolerance: float) -> None:
    image = DIFFERENCE[0, 0]
    zero = torch.zeros_like(image)
    torch.testing.assert_close(l2(image, tolerance), functional.mse_loss(image, zero))
    torch.testing.assert_close(huber(image, tolerance), 2 * functional.huber_loss(image, zero, delta=tolerance))
    free = (image.abs() - tolerance).clamp(min=0)
    torch.testing.assert_close(insensitive(image, tolerance), free.square().mean())


def test_what_an_attack_can_have_added_costs_nothing() -> None:
    assert insensitive(torch.full((1, 2, 2), 0.3), 0.3) == 0
    assert insensitive(torch.full((1, 2, 2), -0.5), 0.3) == pytest.approx(0.04)
    assert huber(torch.full((1, 2, 2), 0.1), 0.3) == pytest.approx(0.01)
