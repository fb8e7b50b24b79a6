"""An experiment without a saved defense: why it has none, and how to come by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.saved_defense import DefenseError
from tune.metrics import DEFENSE_TARGETS
from tune.planning.call import resumed
from tune.report.reading import Reader
from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock
from tune.storage.record import recorded


def check_finished(home: Storage) -> None:
    """Refuses an experiment that has saved no defense, as its search runs, was interrupted, or gives none.

    Raises:
        DefenseError: why there is none.
    """
    if not home.exists("space.yaml") or home.child("best").exists("manifest.json"):
        return
    target = Reader(home).space().get("search.target")
    if target is not None and target not in DEFENSE_TARGETS:
        found = f"a search with the target {target}, which saves none (those that do: {', '.join(DEFENSE_TARGETS)})"
    elif holder := ExperimentLock(home).holder():
        found = f"a search that has not finished yet: it runs on {holder.host} with process id {holder.pid}"
    else:
        found = f"a search that has not finished. To go on with it:\n  {resumed(_last_command(recorded(home)))}"
    raise DefenseError(f"{home.uri}: expected a saved defense, found {found}")


def _last_command(record: Mapping[str, Any]) -> str:
    """That of the last session, which may have asked for more than the first one."""
    commands = [noted.get("command") for noted in (record, *record.get("sessions", []))]
    return next((command for command in reversed(commands) if isinstance(command, str)), "python -m tune.search …")
