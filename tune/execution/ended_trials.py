"""Keeps what Tune remembers of ended trials small: an event costs as much after 10,000 trials as after 100."""

from __future__ import annotations

from collections import deque
from typing import Any

KEPT = 100  # of the latest: how trials are shared out is decided by what they needed


class EndedTrials:
    """The ended trials that Tune still has in its own list, which it goes through at every event.

    Of each metric of each trial Tune keeps statistics (15 kB per trial), and at the end it writes a state of them all,
    which takes 5 ms per trial and is never read.
    """

    def __init__(self) -> None:
        self._new: list[Any] = []
        self._kept: deque[Any] = deque()

    def add(self, trial: Any) -> None:
        """Takes note of a trial that is ending; Tune is not done with it before `forget`."""
        self._new.append(trial)

    def forget(self, trials: list[Any]) -> None:
        """Takes all but the latest ended trials out of Tune's list, and their statistics from all."""
        for trial in self._new:
            trial.run_metadata.metric_analysis.clear()
            trial.run_metadata.metric_n_steps.clear()
            trial._state_json = "{}"
        self._kept.extend(self._new)
        self._new.clear()
        while len(self._kept) > KEPT:
            oldest = self._kept.popleft()
            if oldest in trials:  # one whose end failed is told of twice
                trials.remove(oldest)
