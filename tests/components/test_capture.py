"""A captured step is the step: on a processor it is called, on a card replayed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from components.hardware import WORTHWHILE, Captured

CPU = torch.device("cpu")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


def course_of(device: torch.device, calls: int, steps: int = 100) -> tuple[Tensor, list[int]]:
    """Descends a quadratic, and counts how often Python itself took the step."""
    z, called = torch.linspace(-1, 1, 7, device=device), []

    def step() -> None:
        called.append(1)
        z.sub_(0.1 * z + 0.01 * z.square())

    captured = Captured(step, device, calls)
    for _ in range(steps):
        captured()
    return z.cpu(), called


def test_on_a_processor_each_call_is_a_step() -> None:
    z, called = course_of(CPU, calls=10**6)
    assert len(called) == 100
    assert torch.equal(z, course_of(CPU, calls=1)[0])


@pytest.mark.gpu
@needs_card
def test_a_graph_takes_the_same_steps() -> None:
    card = torch.device("cuda")
    eager, called = course_of(card, calls=WORTHWHILE - 1)
    assert len(called) == 100
    replayed, called = course_of(card, calls=WORTHWHILE)
    assert len(called) < 10
    assert torch.equal(replayed, eager)


@pytest.mark.gpu
@needs_card
def test_a_step_that_waits_for_the_card_runs_without_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    total = torch.zeros((), device="cuda")

    def step() -> None:
        total.add_(1 if total.item() >= 0 else 2)

    captured = Captured(step, torch.device("cuda"), WORTHWHILE)
    for _ in range(20):
        captured()
    assert float(total) == 20
    assert "it runs without one" in caplog.text
