"""Resources of each trial on this machine."""

from __future__ import annotations

import torch

from tune.cluster.cards import cards, fitted
from tune.cluster.resources import NeededMemory, Request, Resources, on_this_machine
from tune.pipeline.recipe import Development, bounds_of
from tune.planning.gpu_memory import CardMemory, memory_per_trial
from tune.planning.preflight import Plan


def resources_here(plan: Plan, request: Request) -> Resources:
    """The resources that each trial gets on this machine.

    Raises:
        Refused: it has less than was asked for.
    """
    resources = on_this_machine(request, plan.config.search.trials)
    if not resources.gpus:
        return resources
    found, card = cards(), None
    if resources.gpus < 1:  # that of a trial that has a whole card to itself is not worth the seconds
        card = CardMemory(torch.device("cuda", min(range(len(found)), key=lambda index: found[index].memory)))
    return fitted(resources, request, plan.space, found, lambda: memory_of(plan, card))


def memory_of(plan: Plan, card: CardMemory | None = None) -> NeededMemory:
    """The memory of a GPU that the largest trial of the search takes; measured on `card` where one is given."""
    return memory_per_trial(plan.space, Development.for_search(plan.dataset), bounds_of(plan.space), card)


def tell_of(resources: Resources) -> None:
    """Says what each trial gets, where that is not simply a core."""
    if resources.address is not None or resources.gpus:
        print(f"{'GPU' if resources.address is None else 'Cluster'}: {resources}", flush=True)
