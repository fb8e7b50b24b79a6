"""Shows a search to Optuna's samplers: so few trials that a suggestion after 10,000 takes as long as after 500."""

from __future__ import annotations

import copy
from collections.abc import Container

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

_FORGOTTEN = create_trial(state=TrialState.FAIL)


class History(InMemoryStorage):
    """Optuna's storage of one study, which can forget trials: no sampler sees them any more, and they take no room."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, None] = {}  # ids, which are the trials' numbers as there is one study

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Adds a trial."""
        trial_id = super().create_new_trial(study_id, template_trial)
        self._kept[trial_id] = None
        return trial_id

    def forget(self, number: int) -> None:
        """Removes a trial that has ended; the others keep their numbers."""
        del self._kept[number]
        self._set_trial(number, _FORGOTTEN)

    def withdraw(self) -> None:
        """Removes the newest trial as if it had never been: the next one has its number."""
        study_id, number = self._trial_id_to_study_id_and_number.pop(self._max_trial_id)
        self._studies[study_id].trials.pop()
        self._max_trial_id -= 1
        del self._kept[number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials that are not forgotten, by number."""
        found = [trial for trial in map(self.get_trial, self._kept) if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found
