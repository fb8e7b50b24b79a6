"""The projection cost of configurations, which follows from their parameters, and the largest one allowed."""

from __future__ import annotations

from collections.abc import Hashable

from tune.optimizer.bounded import Bounded
from tune.space.space import SearchSpace, SpaceError
from tune.storage.ledger import Params

_ELSEWHERE = ("attack", "classifier", "data", "gan", "unet")  # sections that no purifier's cost follows from


class CostLimit:
    """Gradient evaluations per image of configurations, known before a trial runs, and how many are allowed.

    Args:
        space: what is searched.
        most: the largest cost allowed; None for any.
    """

    def __init__(self, space: SearchSpace, most: float | None = None) -> None:
        self._space, self.most = space, most
        self._known = Bounded[Hashable, int]()  # a configuration takes milliseconds, and thousands are asked for

    def cost(self, params: Params) -> int:
        """Gradient evaluations per image; 0 of what is no configuration of the space, whose trial will say so."""
        # here, as torch comes with it, which a report and a space without a limit do not need
        from tune.pipeline import stages  # noqa: F401  (with it the purifiers)
        from tune.pipeline.purifier import cost

        own = frozenset(item for item in params.items() if item[0].split(".")[0] not in _ELSEWHERE)
        if own not in self._known:
            try:
                self._known[own] = cost(self._space.config(params))
            except SpaceError:
                return 0
        return self._known[own]

    def allows(self, params: Params) -> bool:
        """True where a configuration costs no more than is allowed."""
        return self.most is None or self.cost(params) <= self.most
