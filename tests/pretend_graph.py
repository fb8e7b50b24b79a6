"""Steps of `Captured` on the pretended device as a card takes them: recorded once, and then its kernels alone.

    with pretending(), graphs() as made:
        training.run()  # each step is called, then recorded, then replayed
    assert made

A replay repeats every operation on the same tensors, with the numbers of Python's that were passed at the recording.
What a card refuses within a capture, as it would have to wait, raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

from components.hardware import Captured
from tests.pretend_accelerator import Operation, not_pretending, taped


class Recorded:
    """The operations of one step.

    Attributes:
        replays: how often they were repeated.
    """

    def __init__(self, operations: list[Operation]) -> None:
        self._operations, self.replays = operations, 0

    def replay(self) -> None:
        """Does the operations again, with results where they were."""
        self.replays += 1
        with not_pretending(), torch.no_grad():
            for one in self._operations:
                again = one.function(*one.args, **one.kwargs)
                for old, new in zip(tree_iter(one.result), tree_iter(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def graphs() -> Iterator[list[Recorded]]:
    """Within the block each `Captured` is called once, then recorded and replayed; yields the recordings."""
    made: list[Recorded] = []
    known: WeakKeyDictionary[Captured, Recorded | None] = WeakKeyDictionary()

    def call(step: Any) -> None:
        if step not in known:
            known[step] = None
            step._step()
        elif (recorded := known[step]) is None:
            with taped(waits=False) as operations:
                step._step()
            known[step] = recorded = Recorded(operations)
            made.append(recorded)
        else:
            recorded.replay()

    with mock.patch.object(Captured, "__call__", call):
        yield made
