"""Steps as CUDA graphs: the same steps, and what becomes of one that no graph can hold."""

from __future__ import annotations

import pytest
import torch

from components.hardware import WORTHWHILE, Captured
from components.training import drawn_from
from tests.components.test_hardware import course_of

pytestmark = pytest.mark.gpu


def test_a_graph_takes_the_same_steps(device: torch.device) -> None:
    eager, called = course_of(device, calls=WORTHWHILE - 1)
    assert len(called) == 100
    replayed, called = course_of(device, calls=WORTHWHILE)
    assert len(called) < 10
    assert torch.equal(replayed, eager)


def test_a_step_that_waits_for_the_card_runs_without_a_graph(caplog: pytest.LogCaptureFixture) -> None:
    total, before = torch.zeros((), device="cuda"), torch.cuda.current_stream()

    def step() -> None:
        total.add_(1 if total.item() >= 0 else 2)
        torch.dropout(total, 0.5, train=True)  # random numbers, of which no capture may hold the generator

    captured = Captured(step, torch.device("cuda"), WORTHWHILE)
    for _ in range(20):
        captured()
    assert float(total) == 20
    assert "it runs without one" in caplog.text
    assert torch.cuda.current_stream() == before


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs that torch can use")
def test_a_card_that_is_not_the_current_one_takes_its_steps_too() -> None:
    other = torch.device("cuda:1")
    eager, replayed = (course_of(other, calls)[0] for calls in (WORTHWHILE - 1, WORTHWHILE))
    assert torch.equal(replayed, eager)
    assert torch.cuda.current_device() == 0
    before = torch.cuda.get_rng_state(other)
    with drawn_from(5):
        torch.rand(3, device=other)
    assert torch.equal(torch.cuda.get_rng_state(other), before)
