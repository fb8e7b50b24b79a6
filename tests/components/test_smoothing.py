"""Median smoothing, the second purifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.defense import Defense, Surrogates
from components.purifiers import PURIFIERS, PurifierConfig
from components.smoothing import Smoothing, SmoothingConfig, medians
from components.squeezing import squeezed
from tests.tiny_networks import defense_of


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(5, 9), st.integers(0, 100))
def test_each_pixel_is_the_median_of_its_neighbourhood(window: int, channels: int, size: int, seed: int) -> None:
    images = torch.rand(2, channels, size, size + 1, generator=torch.Generator().manual_seed(seed))
    smoothed = medians(images, window)
    assert smoothed.shape == images.shape
    row, column = size // 2, size // 2
    before, after = (window - 1) // 2, window // 2
    seen = images[:, :, row - before : row + after + 1, column - before : column + after + 1]
    torch.testing.assert_close(smoothed[:, :, row, column], seen.flatten(2).sort(2).values[..., (window**2 - 1) // 2])


def test_a_single_changed_pixel_vanishes() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, 4, 4] = 1
    assert medians(images, 3).abs().max() == 0
    assert torch.equal(medians(images, 1), images)


def test_images_are_smoothed_in_parts_as_at_once() -> None:
    images = torch.rand(501, 1, 8, 8)
    found = Smoothing(SmoothingConfig()).project(images)
    torch.testing.assert_close(found.images, medians(images, 3))
    torch.testing.assert_close(found.errors, (found.images - images).square().flatten(1).mean(1))


def test_errors_are_measured_to_the_squeezed_image_as_the_projector_does() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    smoothing, tiny = Smoothing(SmoothingConfig(levels=2)), defense_of(levels=2, distance="l2")
    for purifier in (smoothing, tiny.projector):
        found = purifier.project(images)
        expected = (found.images - squeezed(images, 2)).square().flatten(1).mean(1)
        torch.testing.assert_close(found.errors, expected)


def test_a_defense_of_it_is_saved_and_passes_gradients(tmp_path: Path) -> None:
    tiny = defense_of()
    defense = Defense(Smoothing(SmoothingConfig(levels=2)), tiny.unet, tiny.classifier)
    images = torch.rand(3, 1, 8, 8)
    defense.save(tmp_path)
    again = Defense.load(tmp_path)
    assert again.projector.config == SmoothingConfig(levels=2)
    torch.testing.assert_close(again.purify(images), defense.purify(images))
    assert again.inspect(images).realism.isnan().all()
    images.requires_grad_()
    again.through(images, Surrogates()).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert again.double()(images.detach().double()).dtype == torch.float64


@pytest.mark.parametrize("given_settings", [{"window": 0}, {"window": 16}, {"levels": 1}, {"size": 3}])
def test_refused(given_settings: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        SmoothingConfig.model_validate(given_settings)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"title": "idle"}, "Idle: expected a method `component`, found none"),
        ({"component": lambda *_: None}, "Idle: expected a class variable `title`, its name in reports, found none"),
    ],
)
def test_a_purifier_that_lacks_something_is_refused_with_its_file(attributes: dict[str, object], said: str) -> None:
    idle = type("Idle", (PurifierConfig,), {"__module__": __name__, **attributes})
    with PURIFIERS.scope(), pytest.raises(ValueError, match=rf"^defense\.purifier: {__file__}: {said}$"):
        PURIFIERS.register("idle")(idle)
