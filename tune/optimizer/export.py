"""The ledger as a database that Optuna's dashboard shows."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.files import write_atomic
from tune.metrics import objectives_of
from tune.optimizer.choice import Objectives, has_objectives, losses_of
from tune.optimizer.cost_limit import CostLimit
from tune.optimizer.selection import Selection
from tune.optimizer.study import constraints_of, new_study, state_of, values_of
from tune.space.space import SearchSpace
from tune.storage.ledger import Ledger, Outcome, Params

_EXPORTED = (25, 300, 500)  # best, latest and sampled trials


def export_study(space: SearchSpace, ledger: Ledger, path: Path, max_cost: float | None = None) -> None:
    """Writes the ledger as an Optuna study in an SQLite file: `optuna-dashboard sqlite:///study.db` shows it.

    It is derived and never read back. It is made in memory and moved into place: SQLite cannot be trusted to
    lock a file on NFS, and a dashboard that has the earlier one open keeps it. Of a search with many trials it holds
    the best, the latest and a sample of the others, some 1,000: each takes Optuna's database about 10 ms.

    Raises:
        OSError: the file cannot be written.
    """
    objectives = objectives_of(space.fixed["search.target"], space.fixed["search.objective"])
    storage = optuna.storages.RDBStorage("sqlite:///:memory:")
    study = new_study(storage, objectives, space.name)
    outcomes = {outcome.trial: outcome for outcome in ledger.outcomes()}
    proposals = {**ledger.proposals(), **{number: outcome.params for number, outcome in outcomes.items()}}
    chosen, limit = Selection(*_EXPORTED), CostLimit(space, max_cost)
    for outcome in outcomes.values():
        chosen.add(outcome.trial, losses_of(outcome, objectives) if has_objectives(outcome, objectives) else None)
    for number, params in sorted(proposals.items()):
        if number in chosen or number not in outcomes:
            study.add_trial(_exported(space, number, params, outcomes.get(number), objectives, limit))
    connection = storage.engine.raw_connection().driver_connection
    assert isinstance(connection, sqlite3.Connection)
    write_atomic(path, connection.serialize())


def _exported(
    space: SearchSpace,
    number: int,
    params: Params,
    outcome: Outcome | None,
    objectives: Objectives,
    limit: CostLimit,
) -> FrozenTrial:
    """A trial for the database: with all its metrics, and one without outcome as running."""
    state = TrialState.RUNNING if outcome is None else state_of(outcome, objectives)
    known = params if space.contains(params) else {}
    epochs = outcome.intermediate if outcome else {}
    trial = create_trial(
        state=state,
        values=values_of(outcome, state, objectives),
        params=known,
        distributions={key: space.distribution(key) for key in known},
        constraints=constraints_of(outcome, state, limit),
        intermediate_values={int(epoch): value for epoch, value in epochs.items()},
        user_attrs={"trial": number, **({**outcome.metrics, "error": outcome.error} if outcome else {})},
    )
    if outcome is not None and trial.datetime_complete is not None:  # that of the export, unless there is a better one
        if outcome.ended is not None:
            trial.datetime_complete = datetime.fromtimestamp(outcome.ended)
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=outcome.seconds)
    return trial
