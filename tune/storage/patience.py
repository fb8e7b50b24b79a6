"""Patience with a storage that does not answer: a request that failed for the moment is made again."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tune.storage.outage import passing

log = logging.getLogger(__name__)

PATIENCE = 600.0  # seconds, of a search that runs
SHORTEST, LONGEST = 0.5, 15.0  # seconds between two requests, before chance; pyarrow itself tries for 6 s at each


P = ParamSpec("P")
R = TypeVar("R")


def patiently(method: Callable[P, R]) -> Callable[P, R]:
    """Makes a storage's method try again while what it raises may pass, with pauses that grow, as long as its patience.

    The pauses differ by chance, so that not all who wait ask at once when the store is back.
    """

    @wraps(method)
    def trying(*args: P.args, **options: P.kwargs) -> R:
        storage: Any = args[0]  # or leases on it: with its patience in seconds
        began, pause = time.monotonic(), SHORTEST
        while True:
            try:
                return method(*args, **options)
            except OSError as error:
                waited = time.monotonic() - began
                if not passing(error) or waited >= storage.patience:
                    raise
                log.warning("%s; trying again, for %.0f s more", error, storage.patience - waited)
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST)

    return trying
