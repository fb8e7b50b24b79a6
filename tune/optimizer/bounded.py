"""A dictionary that forgets: what was computed for thousands of points, at each of thousands of proposals."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Bounded(dict[Key, Value]):
    """A dictionary of at most `MOST` items, of which the oldest goes first.

    Attributes:
        MOST: more than the points that one proposal looks at, so that the next finds them again.
    """

    MOST = 5000

    def __setitem__(self, key: Key, value: Value) -> None:
        if len(self) >= self.MOST and key not in self:
            del self[next(iter(self))]
        super().__setitem__(key, value)
