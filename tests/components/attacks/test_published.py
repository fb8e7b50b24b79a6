"""Attacks against the text of the papers that they cite, written out once more, plainly and one image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.attacks import APGD, FGSM, PGD, Square
from components.attacks.apgd import _checkpoints, ascend
from components.attacks.eot import EOT
from components.attacks.losses import Loss, cross_entropy, dlr, input_gradient, log_odds, margin
from components.training import drawn_from
from tests.components.attacks.test_adaptive import Learned, digits


@pytest.mark.parametrize(
    ("steps", "places"),
    [(100, {22, 41, 57, 70, 80, 87, 93, 99}), (50, {11, 21, 29, 35, 40, 44, 47, 50}), (10, {3, 5, 6, 7, 8, 9, 10})],
)
def test_apgd_looks_back_where_the_paper_says(steps: int, places: set[int]) -> None:
    """p₁ = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), w_j = ⌈p_j N⌉ (section 3.1)."""
    assert _checkpoints(steps) == places


def algorithm_1(
    f: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, low: Tensor, high: Tensor, epsilon: float, steps: int
) -> list[Tensor]:
    """Auto-PGD on one image as printed: all points at which f is asked, in order."""
    places = [0.0, 0.22]
    while places[-1] < 1:
        places.append(places[-1] + max(places[-1] - places[-2] - 0.03, 0.06))
    w = sorted({math.ceil(round(place * steps, 9)) for place in places if place <= 1})

    def project(x: Tensor) -> Tensor:
        return x.clamp(low, high)

    eta, x0 = 2 * epsilon, start
    f0, g0 = f(x0)
    x1 = project(x0 + eta * g0.sign())
    f1, g1 = f(x1)
    asked = [x0, x1]
    f_max, x_max, g_max = (f0, x0, g0) if f0 >= f1 else (f1, x1, g1)
    previous, x, fx, g = x0, x1, f1, g1
    rises, eta_before, f_max_before = int(f1 > f0), eta, f0
    for k in range(1, steps + 1):
        if k in w:
            last = w[w.index(k) - 1]
            if rises < 0.75 * (k - last) or (eta_before == eta and f_max_before == f_max):
                eta_before, eta = eta, eta / 2
                x, fx, g = x_max, f_max, g_max
            else:
                eta_before = eta
            rises, f_max_before = 0, f_max
        if k == steps:
            break
        z = project(x + eta * g.sign())
        new = project(x + 0.75 * (z - x) + 0.25 * (x - previous))
        previous, f_before = x, fx
        x = new
        fx, g = f(x)
        asked.append(x)
        rises += fx > f_before
        if fx > f_max:
            f_max, x_max, g_max = fx, x, g
    return asked


class Asked(nn.Module):
    """Notes the images at which it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, []  # type: ignore[var-annotated]

    def forward(self, images: Tensor) -> Tensor:
        self.images.append(images.detach().clone())
        logits: Tensor = self.model(images)
        return logits


@pytest.mark.parametrize("loss", [log_odds, dlr])
@pytest.mark.parametrize("steps", [10, 40])
def test_apgd_takes_the_steps_of_algorithm_1(loss: Loss, steps: int) -> None:
    """Several images at once, each with its own step sizes, as each alone by the printed algorithm."""
    with drawn_from(3):
        inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 5)).double()
        images, start = torch.rand(6, 1, 8, 8).double(), torch.rand(6, 1, 8, 8).double()
    epsilon, labels = 0.1, torch.arange(6) % 5
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    start = low + start * (high - low)
    model = Asked(inner)
    found, widest = ascend(model, images, labels, epsilon, steps, loss, start)
    for row in range(6):
        own = slice(row, row + 1)

        def f(x: Tensor, own: slice = own) -> tuple[float, Tensor]:
            x = x.requires_grad_()
            value = loss(inner(x), labels[own]).sum()
            return float(value.detach()), torch.autograd.grad(value, x)[0]

        expected = algorithm_1(f, start[own], low[own], high[own], epsilon, steps)
        assert len(model.images) == len(expected) == steps + 1
        for step, x in enumerate(expected):
            torch.testing.assert_close(model.images[step][own], x.detach(), msg=lambda m, s=step: f"step {s}: {m}")
    torch.testing.assert_close(margin(inner(found), labels), widest)
    assert bool((widest >= torch.stack([margin(inner(x), labels) for x in model.images]).amax(0) - 1e-12).all())


def test_squares_shrink_as_the_paper_says() -> None:
    """Of 10,000 queries p is halved after 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 (section 4)."""
    attack, chance = Square(queries=10_000, share=0.8), torch.Generator().manual_seed(0)
    halved = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    for query in (1, 10, 11, 50, 51, 200, 201, 1000, 1001, 4001, 8000, 8001, 9999):
        p = 0.8 / 2 ** sum(query > place for place in halved)
        rows, columns = attack._square(query, (28, 28), chance)
        side = max(1, round((p * 28 * 28) ** 0.5))
        assert (rows.stop - rows.start, columns.stop - columns.start) == (side, side), query
        assert 0 <= min(rows.start, columns.start) <= max(rows.stop, columns.stop) <= 28


def test_square_asks_at_the_ends_of_the_ball_and_keeps_only_what_is_worse() -> None:
    images, labels = digits(6)
    model = Asked(Learned())
    attacked = Square(epsilon=0.1, queries=60).perturb(model, images, labels)
    ends = (images - 0.1).clamp(0, 1), (images + 0.1).clamp(0, 1)
    first = model.images[0]
    assert bool(((first == ends[0]) | (first == ends[1])).all())
    signs, free = (first - images).sign(), (images > 0.1) & (images < 0.9)
    highest, lowest = signs.masked_fill(~free, -9).amax(2), signs.masked_fill(~free, 9).amin(2)
    assert torch.equal(highest[free.any(2)], lowest[free.any(2)])  # the first query: stripes, one sign a column
    assert bool(((attacked == ends[0]) | (attacked == ends[1])).all())
    assert bool((margin(model(attacked), labels) >= margin(model(first), labels)).all())


class Either(nn.Module):
    """One of two models, in turn."""

    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models, self.calls = nn.ModuleList(models), 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.models[self.calls % len(self.models)](images)
        return logits


def test_eot_takes_the_gradient_of_the_expected_loss() -> None:
    """Not that of the loss of the expected answer, in which a draw that is sure may drown the others."""
    with drawn_from(7):
        sure, unsure = (nn.Sequential(nn.Flatten(), nn.Linear(64, 4)) for _ in range(2))
    with torch.no_grad():
        sure[1].weight.mul_(50)
    images = digits(5)[0]
    labels = sure(images).argmax(1)
    gradient, logits = input_gradient(EOT(Either(sure, unsure), 2), images, labels, log_odds)
    each = [input_gradient(model, images, labels, cross_entropy) for model in (sure, unsure)]
    torch.testing.assert_close(gradient, (each[0][0] + each[1][0]) / 2)
    torch.testing.assert_close(logits, (each[0][1] + each[1][1]) / 2)
    drowned = images.clone().requires_grad_()
    functional.cross_entropy((sure(drowned) + unsure(drowned)) / 2, labels, reduction="sum").backward()
    assert drowned.grad is not None
    assert not torch.allclose(drowned.grad, gradient, atol=0.1)


class Torn(nn.Module):
    """A model with a root whose slope at zero is no number."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return torch.stack([flat.mean(1) + flat[:, :8].sqrt().sum(1) * 0, flat[:, 8:].std(1)], 1)


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=3, random_start=False), APGD(steps=5)])
def test_a_gradient_that_is_no_number_makes_no_pixel_that_is_none(attack: FGSM | PGD | APGD) -> None:
    images = digits(4)[0].clone()
    images[:, :, 0] = 0
    gradient = input_gradient(Torn(), images, torch.zeros(4).long(), log_odds)[0]
    assert bool(gradient.isnan().any())
    attacked = attack.perturb(Torn(), images, torch.zeros(4).long())
    assert bool(attacked.isfinite().all())
    assert 0 < float((attacked - images).abs().max()) <= 0.3 + 1e-6
