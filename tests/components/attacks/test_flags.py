"""Reasons for doubt: raised by what was planted, and not by the chance of a few images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from components.attacks.adaptive import evaluate_defense
from components.attacks.bpda import BPDA
from components.attacks.flags import Evidence, Seeds, reasons
from components.training import drawn_from
from tests.components.attacks.test_adaptive import Learned, digits


def of(images: int, **seen: object) -> tuple[str, ...]:
    """The reasons that are seen on so many images of an unremarkable model."""
    return reasons(Evidence(torch.linspace(-3, 5, 10).repeat(images, 1), **{"broken": (5, 0), **seen}))  # type: ignore[arg-type]


def left(images: int, right: int, first: int = 0) -> Tensor:
    """Of so many images those that stay right: `right` of them, from `first` on."""
    return (torch.arange(images) >= first) & (torch.arange(images) < first + right)


@pytest.mark.parametrize(
    ("images", "before", "after", "flagged"),
    [
        (20, left(20, 18), left(20, 17), False),  # one image is 5 %, and nothing
        (20, left(20, 18), left(20, 14), False),  # four of four: one time in sixteen
        (20, left(20, 18), left(20, 13), True),
        (300, left(300, 280), left(300, 276), False),
        (300, left(300, 280), left(300, 270), True),
        (300, left(300, 250), left(300, 240, first=60), False),  # other images each time: chance
        (10_000, left(10_000, 9300), left(10_000, 9290), False),  # no chance, and a tenth of a point
    ],
)
def test_more_steps_gain_only_what_chance_does_not_explain(
    images: int, before: Tensor, after: Tensor, flagged: bool
) -> None:
    assert any("more steps may gain more" in one for one in of(images, over_steps=[before, after])) == flagged


def test_it_is_the_last_doubling_of_the_steps_that_counts() -> None:
    early = [left(300, 300), left(300, 200), left(300, 199)]
    assert not of(300, over_steps=early)
    assert not of(300, over_steps=early[:1])


@pytest.mark.parametrize(
    ("images", "broken", "flagged"),
    [(20, (0, 2), False), (20, (0, 5), True), (1000, (28, 1), False), (1000, (20, 60), True), (1000, (0, 5), False)],
)
def test_queries_that_beat_gradients(images: int, broken: tuple[int, int], flagged: bool) -> None:
    assert any("may be masked" in one for one in of(images, broken=broken)) == flagged


@pytest.mark.parametrize(
    ("counts", "flagged"), [((1, 18), False), ((4, 18), True), ((12, 270), False), ((40, 270), True)]
)
def test_what_stays_right_where_all_grey_is_within_reach(counts: tuple[int, int], flagged: bool) -> None:
    assert any("too weak" in one for one in of(counts[1], escaped=counts)) == flagged


@pytest.mark.parametrize(
    ("counts", "flagged"), [((3, 20), False), ((8, 20), True), ((12, 100), False), ((20, 100), True)]
)
def test_images_without_a_gradient(counts: tuple[int, int], flagged: bool) -> None:
    assert any("gradient" in one for one in of(counts[1], dead=counts)) == flagged


@pytest.mark.parametrize(
    ("images", "seeds", "flagged"),
    [
        (20, Seeds("APGD", 2, by_one=2, later=0), False),
        (20, Seeds("APGD", 2, by_one=6, later=0), True),
        (20, Seeds("APGD", 2, by_one=6, later=4), False),  # other attacks found what a third seed would have
        (20, Seeds("APGD", 1, by_one=12, later=0), False),  # one seed is no worse than itself
        (1000, Seeds("APGD", 2, by_one=28, later=1), False),
        (1000, Seeds("APGD", 2, by_one=90, later=1), True),
    ],
)
def test_seeds_that_break_other_images(images: int, seeds: Seeds, flagged: bool) -> None:
    assert any("more seeds are needed" in one for one in of(images, seeds=[seeds])) == flagged


class NoisyGradient(torch.autograd.Function):
    """The images themselves, with a gradient that says nothing."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.randn_like(gradient)


class Masked(nn.Module):
    """An undefended classifier that looks robust: random noise, and a gradient that says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Learned(noise=0.05)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(NoisyGradient.apply(images))
        return logits


def rounded_with_a_stranger() -> nn.Module:
    """Rounding, and the gradient of another network: none is zero, and none leads anywhere."""
    with drawn_from(5):
        return BPDA(Learned(hides=True), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))


@pytest.mark.parametrize("model", [Masked, rounded_with_a_stranger, lambda: Learned(hides=True, noise=0.02)])
def test_masked_gradients_are_flagged_on_twenty_images(model: type[nn.Module]) -> None:
    images, labels = digits(20, seed=1)
    found = evaluate_defense(model(), images, labels, preset="quick")
    assert found.worst > 0.9
    assert any("too weak" in flag or "gradient" in flag for flag in found.flags)


def test_an_honest_model_is_not_flagged_on_twenty_images() -> None:
    images, labels = digits(20, seed=1)
    found = evaluate_defense(Learned(), images, labels, preset="quick")
    assert found.worst < 0.9
    assert found.flags == ()


class Clamping(nn.Module):
    """A model that clamps what it is given, with no gradient at the bounds, as torch 2.14 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Learned()

    def forward(self, images: Tensor) -> Tensor:
        within = (images > 0) & (images < 1)
        logits: Tensor = self.inner(torch.where(within, images, images.detach()))
        return logits


@pytest.mark.parametrize(("model", "flagged"), [(Clamping(), True), (Learned(), False)], ids=["clamping", "plain"])
@pytest.mark.parametrize("bound", [True, False])
def test_a_gradient_that_ends_at_the_bounds_is_flagged(model: nn.Module, flagged: bool, bound: bool) -> None:
    images, labels = digits(20)
    images = images.clamp(0.01, 0.99)
    if bound:
        images[:, :, :4] = images[:, :, :4].round()
    found = evaluate_defense(model, images, labels, preset="quick", curves=False)
    assert any("exactly 0 or 1" in flag for flag in found.flags) == (flagged and bound)
