"""The saves of trainings that will not be continued."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from tune.pipeline.recipe import Development
from tune.pipeline.stages import STAGES, signer
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome
from tune.storage.store import UNFINISHED, Store

log = logging.getLogger(__name__)


class Saves:
    """Removes what trials that were stopped early, or failed by their own error, have saved of their U-Nets.

    Nobody would go on from it, and a search of a thousand U-Nets would fill the disk. What several trials share, such
    as a GAN, stays; and so do, as long as trials may be promoted, the saves of those that were set aside.

    Args:
        space: what is searched.
        data: the images of the search.
        seed: of the search.
        store: that of the search.
    """

    def __init__(self, space: SearchSpace, data: Development, seed: int, store: Store) -> None:
        self._signatures, self._store = signer(space, data, seed), store
        self._promotes = bool(space.fixed["search.promotion"])

    def forget(self, outcomes: Iterable[Outcome], last: bool = False) -> None:
        """Removes the saves of those of the trials that have not finished.

        Args:
            outcomes: of the trials.
            last: no further trial will be promoted.
        """
        over = ("failed",) if self._promotes and not last else ("failed", "pruned")
        ended = [outcome for outcome in outcomes if outcome.status in over]
        try:
            saved = set(self._store.storage.child(UNFINISHED).folders()) if ended else set()
            for outcome in ended if saved else ():
                for signature in saved & self._own(outcome):
                    self._store.unfinished(signature).remove_tree()
        except OSError as error:  # no reason to end a search; the next start tries again
            log.warning("saves of trials that have ended are not removed: %s", error)

    def _own(self, outcome: Outcome) -> set[str]:
        """The signatures of the trainings that are this trial's alone."""
        try:
            signatures = self._signatures(outcome.params)
        except ValueError:  # it failed by its settings, and trained nothing
            return set()
        return {signature for stage, signature in signatures.items() if STAGES[stage].judged}
