"""The memory that a trial takes, counted tensor by tensor."""

from __future__ import annotations

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import tiny_space
from tune.cluster.resources import NeededMemory
from tune.pipeline.recipe import Development, Recipe, bounds_of
from tune.planning import gpu_memory
from tune.planning.gpu_memory import PROCESS, CardMemory, PeakMemory, largest, memory_per_trial


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
    needed = memory_per_trial(space, Development.for_search(dataset), bounds_of(space))
    assert needed.how == "counted on the processor"
    return needed.bytes - PROCESS


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
    found = largest(space)
    assert {params["unet.width"] for params in found} == {32}
    assert {params["projector.steps"] for params in found} == {6}
    assert [params["projector.distance"] for params in found] == ["l2", "huber"]


@pytest.mark.parametrize("order", ["[A, E]", "[E, A]"])
def test_of_networks_by_name_the_one_that_takes_most_counts(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    def needed(recipe: Recipe, card: object) -> NeededMemory:
        return NeededMemory({"A": 10, "E": 30}[recipe.config.classifier.architecture], "made up")

    monkeypatch.setattr(gpu_memory, "_needed", needed)
    space = tiny_space(classifier__architecture=f"{{choice: {order}}}")
    assert memory_per_trial(space, Development.for_search(tiny_dataset), bounds_of(space)).bytes == 30


def test_not_too_many_configurations_are_tried() -> None:
    ranges = {"unet__norm": "{choice: [l1, l2]}", "unet__layer": "{choice: [logits, penultimate]}"}
    space = tiny_space(projector__distance="{choice: [l2, huber, insensitive]}", **ranges)
    assert len(largest(space)) == 6


class PretendCard(CardMemory):
    """A card of the tests' own: the processor, with every tensor's bytes counted."""

    def __init__(self, counted: PeakMemory) -> None:
        self.device, self.name, self.counted = torch.device("cpu"), "a card", counted
        self.cleared = 0

    def clear(self) -> None:
        self.cleared += 1
        self.counted.peak = self.counted._now

    def peak(self) -> int:
        return self.counted.peak


def test_on_a_card_the_peak_is_measured(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "SECONDS", 0.0)
    data, needed = Development.for_search(tiny_dataset), []
    for width in (4, 64):
        space = tiny_space(unet__width=f"{{choice: [2, {width}]}}", projector__chunk=8)
        with PeakMemory() as counted:
            card = PretendCard(counted)
            needed.append(memory_per_trial(space, data, bounds_of(space), card))
    assert {how for _, how in needed} == {"measured on a card"}
    assert card.cleared == 2 * 5 + 1  # twice for classifier, GAN, projection, U-Net and attack; what the last one left
    assert needed[1].bytes - PROCESS > 1.5 * (needed[0].bytes - PROCESS)
    counted_bytes = of(tiny_dataset, unet__width=64, projector__chunk=8)  # the first batch, with all that it sets up
    assert counted_bytes / 4 < needed[1].bytes - PROCESS <= counted_bytes


def test_a_card_that_is_too_full_to_measure_is_counted_for(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_memory, "_measured", full)
    space = tiny_space()
    needed = memory_per_trial(
        space, Development.for_search(tiny_dataset), bounds_of(space), PretendCard(PeakMemory())
    )
    assert needed.how == "counted on the processor, as a card has too little free to measure it"
    assert needed.bytes - PROCESS == of(tiny_dataset)
