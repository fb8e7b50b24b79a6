"""The ledger of a search: one small JSON file per trial, from which alone a search is resumed.

    <experiment>/proposals/007.json   what trial 7 is to try, written before it starts
    <experiment>/trials/007.json      what became of it, written when it ends, and anew where it goes on after all
    <experiment>/trials.csv           the same as a table, derived
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tune.storage.folder import Storage

__all__ = ["Ledger", "Outcome", "Params", "Status", "in_words"]

Status = Literal["finished", "failed", "pruned"]
Value = bool | int | float | str | None
Params = dict[str, Value]

_FILE = re.compile(r"(\d+)\.json")
_READERS = 16  # requests in flight against an object store, where each takes tens of milliseconds
_log = logging.getLogger(__name__)


def in_words(status: str) -> str:
    """A status as people read it, who prune stores and not trials."""
    return "stopped early" if status == "pruned" else status


@cache
def warn(problem: str) -> None:
    """Logs what is wrong with a file; once in a process, in which several may read it."""
    _log.warning(problem)


class Proposal(BaseModel):
    """The parameters of a trial, written before it starts."""

    # unknown fields are passed over: a record written by a later version is no reason to run its trial again
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    trial: int = Field(ge=0)  # its number in the search
    params: Params  # dotted key → value, of the searched fields only

    @property
    def promotions(self) -> int:
        """The number of times that the trial went on after it had been set aside."""
        return 0


class Outcome(Proposal):
    """The result of a trial: status, metrics, and the artifacts that it used."""

    status: Status  # pruned: stopped early, as others were better after as many epochs
    metrics: dict[str, int | float] = Field(default_factory=dict)  # on validation images
    stages: dict[str, str] = Field(default_factory=dict)  # stage → signature of its artifact
    seconds: float = Field(default=0.0, ge=0)  # wall time
    ended: float | None = None  # when, in seconds since 1970, by the clock of who recorded it
    seed: int = 0  # of its trainings
    error: str | None = None  # the last line of the traceback
    work: dict[str, dict[str, int | float]] = Field(default_factory=dict)  # built, reused, seconds by stage
    intermediate: dict[str, int | float] = Field(default_factory=dict)  # first objective by epoch
    right: dict[str, str] = Field(default_factory=dict)  # by epoch, validation images that are right: bits as hex
    earlier: list[list[float]] = Field(default_factory=list)  # from when to when it ran before it was promoted

    @property
    def promotions(self) -> int:
        return len(self.earlier)

    @property
    def spans(self) -> list[list[float]]:
        """From when to when it ran, in seconds since 1970; where it is not known when it ended, nothing."""
        if self.ended is None:
            return []
        own = self.seconds - sum(end - begin for begin, end in self.earlier)
        return [*self.earlier, [self.ended - own, self.ended]]

    def settled(self) -> Outcome:
        """This outcome; or, where a result in it is NaN or infinite, the failed one that says so."""
        results = {"metrics": self.metrics, "intermediate": self.intermediate}
        found = next(_not_finite(results), None)
        if found is None:
            return self
        kept = {
            name: {key: value for key, value in values.items() if math.isfinite(value)}
            for name, values in results.items()
        }
        return self.model_copy(update={**kept, "status": "failed", "error": self.error or found})


class Ledger:
    """The proposals and outcomes of one experiment, which several processes may read and write.

    A record, once valid, never changes, and each is read only once: the first one counts, until its trial is promoted,
    whose next record takes its place. A file that is torn, truncated or no record is treated as not there, named in
    `problems`, and replaced by the next one.

    Every method raises OSError where the storage fails: a record out of reach is not a lost one.

    Args:
        storage: the experiment's folder.
        tell: told of each problem at once.
    """

    def __init__(self, storage: Storage, tell: Callable[[str], None] = warn) -> None:
        self._storage = storage
        self._outcomes = _Records(storage.child("trials"), Outcome, tell)
        self._proposals = _Records(storage.child("proposals"), Proposal, tell)

    @property
    def uri(self) -> str:
        """The address of the experiment's folder."""
        return self._storage.uri

    @property
    def problems(self) -> list[str]:
        """The files read so far that are no valid record, one line each: where, expected, found."""
        return [*self._proposals.problems.values(), *self._outcomes.problems.values()]

    def outcomes(self) -> list[Outcome]:
        """All valid outcomes, by trial number."""
        return list(self._outcomes.all().values())

    def known(self) -> Collection[Outcome]:
        """The outcomes read or recorded so far, in no order; looks for no others."""
        return self._outcomes.known.values()

    def outcome(self, trial: int, promotions: int = 0) -> Outcome | None:
        """A trial's outcome; None while there is no valid one, or none since it was promoted so many times."""
        return self._outcomes.one(trial, promotions)

    def learn(self, trial: int, record: str) -> None:
        """Takes the JSON of an outcome from who has recorded it, so that it need not be read."""
        self._outcomes.learn(trial, record.encode())

    def record(self, outcome: Outcome) -> Outcome:
        """Writes a trial's outcome unless it has one after as many promotions; returns the one that counts.

        Raises:
            ValueError: a number in it is NaN or infinite; `Outcome.settled` makes a failure of it.
        """
        return self._outcomes.add(outcome)

    def propose(self, trial: int, params: Mapping[str, Value]) -> Params:
        """Writes what a trial is to try unless that is settled; returns the parameters that count.

        Raises:
            ValueError: a number in it is NaN or infinite.
        """
        return dict(self._proposals.add(Proposal(trial=trial, params=dict(params))).params)

    def proposals(self) -> dict[int, Params]:
        """The parameters of every trial proposed so far, by trial number."""
        return {trial: dict(proposal.params) for trial, proposal in self._proposals.all().items()}

    def write_csv(self) -> None:
        """Writes trials.csv: a row per outcome, with its parameters and metrics as columns.

        A parameter that is null stands as `null`; one that the trial does not have, as its condition did not hold,
        leaves the cell empty.
        """
        outcomes = self.outcomes()
        keys = sorted({key for outcome in outcomes for key in outcome.params})
        metrics = sorted({key for outcome in outcomes for key in outcome.metrics})
        columns = ["trial", "status", *keys, *metrics, "seconds", "seed", "error"]
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        for outcome in outcomes:
            own = outcome.model_dump(include={"trial", "status", "seconds", "seed", "error"})
            params = {key: "null" if value is None else value for key, value in outcome.params.items()}
            table.writerow({**params, **outcome.metrics, **own})
        self._storage.write("trials.csv", text.getvalue().encode())

    def __reduce__(self) -> tuple[type[Ledger], tuple[Storage]]:
        return Ledger, (self._storage,)  # without what it has read, which a worker does not need


Record = TypeVar("Record", bound=Proposal)


class _Records(Generic[Record]):
    """The numbered JSON files of one folder, as records of one kind."""

    def __init__(self, folder: Storage, kind: type[Record], tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._kind = kind
        self._tell = tell
        self.known: dict[int, Record] = {}
        self.problems: dict[int, str] = {}

    def one(self, trial: int, promotions: int = 0) -> Record | None:
        if not self._has(trial, promotions):
            try:
                data = self._folder.read(_name(trial))
            except FileNotFoundError:
                return None
            self.learn(trial, data)
        return self.known[trial] if self._has(trial, promotions) else None

    def _has(self, trial: int, promotions: int) -> bool:
        return trial in self.known and self.known[trial].promotions >= promotions

    def all(self) -> dict[int, Record]:
        numbers = {int(match[1]) for match in map(_FILE.fullmatch, self._folder.names()) if match}
        self._read_new(sorted(numbers - self.known.keys()))
        return dict(sorted(self.known.items()))

    def add(self, record: Record) -> Record:
        where = f"{self._folder.uri}/{_name(record.trial)}"
        if found := next(_not_finite(dict(record)), None):
            raise ValueError(f"{found} ({where})")
        if self._has(record.trial, record.promotions):
            return self.known[record.trial]
        data = json.dumps(record.model_dump(), indent=1, allow_nan=False, ensure_ascii=False).encode()
        if not self._folder.create(_name(record.trial), data):
            if (earlier := self.one(record.trial, record.promotions)) is not None:
                return earlier
            self._folder.write(_name(record.trial), data)  # there stood no record, or one from before it was promoted
        self.learn(record.trial, data)
        return self.known[record.trial]

    def _read_new(self, trials: list[int]) -> None:
        if self._folder.local is not None or len(trials) < 2:
            for trial in trials:
                self.one(trial)
            return
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(self.one, trials))

    def learn(self, trial: int, data: bytes) -> None:
        try:
            record = self._kind.model_validate_json(data)
            _check(record, trial)
        except ValueError as error:
            self._complain(trial, data, error)
        else:
            self.known[trial] = record
            self.problems.pop(trial, None)

    def _complain(self, trial: int, data: bytes, error: ValueError) -> None:
        reason = _first(error) if isinstance(error, ValidationError) else str(error)
        expected = f"expected the {self._kind.__name__.lower()} of trial {trial}"
        found = f"found {len(data)} bytes that are none ({reason}); treated as not there"
        problem = f"{self._folder.uri}/{_name(trial)}: {expected}, {found}"
        if self.problems.get(trial) != problem:
            self._tell(problem)
        self.problems[trial] = problem


def _name(trial: int) -> str:
    return f"{trial:03d}.json"


def _check(record: Proposal, trial: int) -> None:
    if record.trial != trial:
        raise ValueError(f"trial: expected {trial}, found {record.trial}")
    for found in _not_finite(dict(record)):
        raise ValueError(found)


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, detail["loc"])), detail["msg"]]))


def _not_finite(value: Any, path: str = "") -> Iterator[str]:
    """A complaint for each number in nested mappings that JSON cannot hold: `metrics.psd: expected …`."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: expected a finite number, found {value}"
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{path}.{key}" if path else str(key))
