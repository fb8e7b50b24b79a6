"""The GPUs of this machine, held against what a search would have them do, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from tune.cluster.resources import GIB, NeededMemory, Request, Resources, gpu_problem
from tune.errors import Refused
from tune.space.space import SearchSpace

BFLOAT16 = (8, 0)  # the first compute capability (NVIDIA Ampere) with bfloat16 of its own; before, it is imitated


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: the maker's.
        memory: bytes.
        capability: NVIDIA's compute capability, such as (9, 0).
    """

    name: str
    memory: int
    capability: tuple[int, int]

    def __str__(self) -> str:
        """`Tesla T4 (16 GiB, compute capability 7.5)`."""
        major, minor = self.capability
        return f"{self.name} ({self.memory / GIB:.3g} GiB, compute capability {major}.{minor})"


def cards() -> list[Card]:
    """The GPUs that torch may use here.

    Raises:
        Refused: it can use none, and why.
    """
    if reason := gpu_problem():
        raise Refused(
            f"--gpus-per-trial: expected a GPU that torch can use, found none: {reason}; "
            f"0 computes on the processor"
        )
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Card(card.name, card.total_memory, (card.major, card.minor)) for card in found]


def fitted(
    resources: Resources,
    request: Request,
    space: SearchSpace,
    found: Sequence[Card],
    memory: Callable[[], NeededMemory],
) -> Resources:
    """The resources with no more trials on a card than it has memory for, and how that is known.

    Args:
        resources: what each trial would get.
        request: what was asked for.
        space: what is searched.
        found: the cards.
        memory: of a trial on a GPU.

    Raises:
        Refused: a card lacks the memory or the arithmetic.
    """
    _check_arithmetic(space, found)
    least, needed = min(found, key=lambda card: card.memory), memory()
    share = least.memory * min(1.0, resources.gpus)
    reason = f"a trial takes about {needed.bytes / GIB:.1f} GiB of {least}, {needed.how}"
    if needed.bytes <= share:
        return replace(resources, reason=reason)
    most = int(least.memory / needed.bytes)
    if request.gpus is not None or not most:
        raise _too_small(space, needed, resources.gpus, least)
    concurrent = min(resources.concurrent, len(found) * most)
    return replace(resources, gpus=math.floor(1e4 / most) / 1e4, concurrent=concurrent, reason=reason)


def check_nodes(
    resources: Resources,
    request: Request,
    space: SearchSpace,
    found: Mapping[str, Sequence[Card] | str],
    memory: Callable[[], NeededMemory],
) -> None:
    """Checks that the cards of a cluster's nodes can do what a trial asks of them.

    Args:
        resources: what each trial gets.
        request: what was asked for; a share that was not follows from the card's name, and is not questioned here.
        space: what is searched.
        found: host → its cards, or why torch can use none there.
        memory: of a trial on a GPU.

    Raises:
        Refused: cards are too small, lack the arithmetic, or cannot be used; with the host.
    """
    there: list[Card] = []
    for host, cards_there in found.items():
        if isinstance(cards_there, str):
            raise Refused(f"{cards_there} (on {host})")
        there += [replace(card, name=f"{host}'s {card.name}") for card in cards_there]
    if not there:
        return
    _check_arithmetic(space, there)
    least, needed = min(there, key=lambda card: card.memory), memory()
    share = 1.0 if request.gpus is None else min(1.0, resources.gpus)
    if needed.bytes > share * least.memory:
        raise _too_small(space, needed, share, least)


def _too_small(space: SearchSpace, needed: NeededMemory, gpus: float, card: Card) -> Refused:
    return Refused(
        f"--gpus-per-trial: expected about {needed.bytes / GIB:.1f} GiB of GPU memory for each trial ({needed.how}), "
        f"found {min(1.0, gpus) * card.memory / GIB:.1f} GiB: {gpus:g} of {card}; give each trial more, or lower "
        f"projector.chunk, the batch sizes or the widths ({space.where()})"
    )


def _check_arithmetic(space: SearchSpace, found: Sequence[Card]) -> None:
    """No bfloat16 on a card that would only imitate it, slower than float32."""
    without = [card for card in found if card.capability < BFLOAT16]
    if not without:
        return
    for key in sorted({*space.fixed, *space.ranges}):
        if key.endswith("precision") and "bfloat16" in (space.values(key) or ()):
            raise Refused(
                f"{key}: expected float32 on a card without bfloat16 (compute capability below 8.0), "
                f"found bfloat16 and {without[0]} ({space.where(key)})"
            )
