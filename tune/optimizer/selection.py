"""Chooses the few of many ended trials that a sampler learns from, or a page shows: the best, the latest, a sample.

What is chosen depends on which trials have ended and not on the order in which they did, so that a resumed search
chooses as the undisturbed one would. A trial that is left out once is never chosen again, however many follow, so
that it can be forgotten.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Hashable
from dataclasses import dataclass

# Ended trials that a sampler sees. TPE learns what is good from at most 25 of one objective; the others tell it where
# trials are dense. A search with fewer trials than the latest and the sample leaves out none.
BEST, LATEST, SAMPLE = 25, 100, 150


@dataclass
class _Leader:
    number: int
    losses: tuple[float, ...]
    beaten_by: int = 0

    def beats(self, other: _Leader) -> bool:
        """True where it is nowhere worse; of two equals the earlier one beats the later."""
        if self.losses == other.losses:
            return self.number < other.number
        return all(mine <= theirs for mine, theirs in zip(self.losses, other.losses, strict=True))


class Selection:
    """A bounded choice among trials that come one by one.

    Args:
        best: a trial that fewer than so many others beat in every loss stays: of one loss these are the best so many;
            of n trials with two unrelated losses some best · (1 + ln(n / best)).
        latest: trials with the highest numbers, which stay.
        sample: others that stay, drawn evenly from all.
    """

    def __init__(self, best: int, latest: int, sample: int) -> None:
        self._best, self._most_latest, self._most_sampled = best, latest, sample
        self._leaders: dict[Hashable, list[_Leader]] = {}
        self._latest: list[int] = []
        self._sample: list[tuple[float, int]] = []
        self._reasons: dict[int, int] = {}  # number → reasons for which it stays

    def __contains__(self, number: int) -> bool:
        return number in self._reasons

    def __len__(self) -> int:
        return len(self._reasons)

    def add(
        self, number: int, losses: tuple[float, ...] | None = None, kind: Hashable = None, again: bool = False
    ) -> list[int]:
        """Takes a trial in, once; returns the numbers of those that are left out from now on, perhaps its own.

        Args:
            number: of the trial.
            losses: each the less the better; None = it is never among the best.
            kind: only trials of one kind are compared, and they have equally many losses.
            again: it was taken in before, without losses.
        """
        out = [] if losses is None else self._lead(_Leader(number, losses), self._leaders.setdefault(kind, []))
        if not again:
            insort(self._latest, number)
            if len(self._latest) > self._most_latest:
                out.append(self._latest.pop(0))
            insort(self._sample, (random.Random(number).random(), number))
            if len(self._sample) > self._most_sampled:
                out.append(self._sample.pop()[1])
        self._reasons[number] = (self._reasons.get(number, 0) if again else 2) + (losses is not None)
        for left in out:
            self._reasons[left] -= 1
        gone = [left for left in dict.fromkeys([*out, number]) if not self._reasons[left]]
        for left in gone:
            del self._reasons[left]
        return gone

    def _lead(self, new: _Leader, leaders: list[_Leader]) -> list[int]:
        """Adds a leader. One that beats a trial is beaten by fewer, so those that stay are enough to count by."""
        new.beaten_by = sum(leader.beats(new) for leader in leaders)
        if new.beaten_by >= self._best:
            return [new.number]
        for leader in leaders:
            leader.beaten_by += new.beats(leader)
        out = [leader.number for leader in leaders if leader.beaten_by >= self._best]
        leaders[:] = [leader for leader in leaders if leader.beaten_by < self._best]
        leaders.append(new)
        return out
