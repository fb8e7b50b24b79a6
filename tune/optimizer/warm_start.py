"""Earlier experiments that a search learns from, and the note of it that resuming goes by."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tune.errors import Refused
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

log = logging.getLogger(__name__)


def earlier_ledgers(folder: str | None, home: Storage, record: Mapping[str, Any]) -> list[Ledger]:
    """The ledgers to learn from: those that the search was begun with, and the one that is asked for now.

    Args:
        folder: of an experiment, a path or an address; None for no other than before.
        home: the folder of the search itself.
        record: its record, where it has one.

    Raises:
        Refused: the folder is no experiment, or the search's own.
    """
    noted = record.get("warm_start")
    known = [Storage(uri) for uri in noted] if isinstance(noted, Mapping) else []
    for source in known:
        if not source.exists("space.yaml"):
            log.warning("%s: the search was begun with what was learned there; it goes on without", source.uri)
    if folder is not None:
        asked = _experiment(folder)
        if asked == home:
            raise Refused(f"--warm-start: expected another experiment, found this search's own folder {home.uri}")
        known += [asked] if asked not in known else []
    return [Ledger(source) for source in known]


def _experiment(folder: str) -> Storage:
    try:
        source = Storage(folder)
        if source.exists("space.yaml"):
            return source
    except (OSError, ValueError) as error:
        raise Refused(f"--warm-start: {error}") from error
    raise Refused(f"--warm-start: expected the folder of an experiment, found no space.yaml in {source.uri}")
