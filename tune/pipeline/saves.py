"""Saves and private stores, which trials go on from, and which go once their trials are over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

from tune.pipeline.recipe import Development
from tune.pipeline.stages import STAGES, signer
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome, Params
from tune.storage.store import UNFINISHED, Store

log = logging.getLogger(__name__)


class Saves:
    """Removes what trials that were stopped early, or failed by their own error, have saved of their U-Nets, and of
    each ended trial that shares nothing its whole store.

    Nobody would go on from it, and a search of a thousand U-Nets would fill the disk. What several trials share, such
    as a GAN, or a U-Net of which another trial has not ended, stays; and so does, as long as trials may be promoted,
    what those need that were set aside.

    Args:
        space: what is searched.
        data: the images of the search.
        seed: of the search.
        store: that of the search.
        going_on: tells the parameters of the trials that have not ended for good, by number.
        unshared: the stores of trials that share nothing, a folder for each; None where trials share.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: Development,
        seed: int,
        store: Store,
        going_on: Callable[[], Mapping[int, Params]],
        unshared: Storage | None = None,
    ) -> None:
        self._signatures, self._store, self._unshared = signer(space, data, seed), store, unshared
        self._going_on = going_on
        self._promotes = bool(space.fixed["search.promotion"])

    def forget(self, outcomes: Iterable[Outcome], last: bool = False) -> None:
        """Removes what is kept for those of the trials that are over.

        Args:
            outcomes: of the trials.
            last: no further trial will be promoted.
        """
        aside = ("pruned",) if self._promotes and not last else ()
        over = [outcome for outcome in outcomes if outcome.status not in aside]
        try:
            self._forget_saves({outcome.trial: outcome.params for outcome in over if outcome.status != "finished"})
            self._forget_stores(over)
        except OSError as error:  # no reason to end a search; the next start tries again
            log.warning("saves of trials that have ended are not removed: %s", error)

    def _forget_saves(self, ended: Mapping[int, Params]) -> None:
        saved = set(self._store.storage.child(UNFINISHED).folders()) if ended else set()
        left = saved & self._trained(ended.values()) if saved else set()
        if left:  # of an adaptive training several trials may have the same U-Net
            left -= self._trained(params for number, params in self._going_on().items() if number not in ended)
        for signature in left:
            self._store.unfinished(signature).remove_tree()

    def _forget_stores(self, ended: Collection[Outcome]) -> None:
        if self._unshared is None or not ended:
            return
        numbers = {outcome.trial for outcome in ended}
        for name in self._unshared.folders():
            if name.isdecimal() and int(name) in numbers:
                self._unshared.child(name).remove_tree()

    def _trained(self, trials: Iterable[Params]) -> set[str]:
        """The signatures of the trainings by which trials are judged."""
        found: set[str] = set()
        for params in trials:
            with suppress(ValueError):  # it failed by its settings, and trained nothing
                found |= {signature for stage, signature in self._signatures(params).items() if STAGES[stage].judged}
        return found
