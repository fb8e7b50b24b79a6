"""The memory that a trial takes, counted tensor by tensor."""

from __future__ import annotations

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import tiny_space
from tune.pipeline.recipe import Development, bounds_of
from tune.planning.gpu_memory import PROCESS, PeakMemory, bytes_per_trial, largest


def test_the_peak_is_of_what_lives_at_once() -> None:
    images = torch.empty(1000)  # 4,000 bytes, used below
    with PeakMemory() as memory:
        doubled = images * 2
        more = doubled + 1  # 12,000 live here
        del doubled
        more.add_(1)  # in place
        view = more[:10]
        del images, more
        result = view * 3  # 4,000 of its base, and 40
    assert memory.peak == 12_000
    assert len(result) == 10


def test_what_autograd_keeps_counts() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with PeakMemory() as kept:
        loss = weight.exp().exp().exp().sum()
    with PeakMemory() as dropped, torch.no_grad():
        weight.exp().exp().exp().sum()
    assert loss.requires_grad
    assert kept.peak >= dropped.peak + 4000


def of(dataset: Dataset, **changes: object) -> int:
    space = tiny_space(**changes)
    return bytes_per_trial(space, Development.for_search(dataset), bounds_of(space)) - PROCESS


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ({"projector__chunk": 1024}, {"projector__chunk": 8192}),
        ({"unet__width": 4, "projector__chunk": 8}, {"unet__width": 64, "projector__chunk": 8}),
        ({"unet__width": 4, "projector__chunk": 8}, {"unet__width": "{choice: [4, 64]}", "projector__chunk": 8}),
        ({"gan__width": 4}, {"gan__width": 16}),
    ],
)
def test_more_takes_more(tiny_dataset: Dataset, small: dict[str, object], large: dict[str, object]) -> None:
    assert of(tiny_dataset, **large) > 1.5 * of(tiny_dataset, **small)


def test_a_projection_grows_with_what_is_evaluated_at_once(tiny_dataset: Dataset) -> None:
    sizes = [of(tiny_dataset, projector__chunk=chunk) for chunk in (4096, 8192, 16384)]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=1e-3)


def test_the_largest_configuration_is_meant() -> None:
    space = tiny_space(unet__width="{choice: [8, 32, 16]}", projector__distance="{choice: [l2, huber]}")
    assert largest(space)["unet.width"] == 32
    assert largest(space)["projector.steps"] == 6
    assert largest(space)["projector.distance"] == "l2"
