"""Costs of the stages that were not in the store when the search began."""

from __future__ import annotations

import json
from collections.abc import Callable

from tune.optimizer.costs import StageCosts
from tune.pipeline.recipe import Development
from tune.pipeline.stages import signer
from tune.planning.preflight import Plan
from tune.storage.folder import Storage
from tune.storage.store import Store

FILE = "stored.json"


def stage_costs(plan: Plan) -> Callable[[], StageCosts] | None:
    """Makes the costs by which proposals are ranked; None where the search is not to be aware of them.

    What was in the store at the beginning is noted once: a search that is resumed must not see more, or it would
    propose otherwise than one that was not interrupted.
    """
    if not plan.config.search.cost_aware:
        return None
    stored = _stored(plan.home, Store(plan.storage.child("store")))
    signatures = signer(plan.space, Development.for_search(plan.dataset), plan.config.search.seed)
    return lambda: StageCosts(signatures, stored)


def _stored(home: Storage, store: Store) -> frozenset[str]:
    try:
        return frozenset(json.loads(home.read(FILE)))
    except (FileNotFoundError, ValueError, TypeError):
        # a part of a projection is named after it; with one of them most likely come the others
        found = sorted({str(manifest["signature"])[:20] for manifest in store.artifacts()})
        home.write(FILE, json.dumps(found).encode())
        return frozenset(found)
