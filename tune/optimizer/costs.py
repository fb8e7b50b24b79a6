"""Predicts the seconds of the stages that a configuration would still have to build, from those built so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tune.optimizer.bounded import Bounded
from tune.optimizer.grid import identity
from tune.storage.ledger import Outcome, Params

Signatures = Callable[[Params], Mapping[str, str]]

# Settings by which work grows in proportion, until measurements say otherwise; any other may have an effect, too.
_WORK = ("steps", "epochs", "images", "restarts", "encoder_steps", "encoder_epochs", "width")
_TRUST = 0.5  # how firmly these are believed, in measurements
_LEAST = 1e-3  # seconds that anything takes


class StageCosts:
    """Seconds of each stage by parameters, and what is there already.

    Everything follows from the trials, in their order: those of the ledger, with what their stages took, and those that
    run. Seconds are rounded to a power of two, so that a machine's small moods do not change what is proposed.

    Args:
        signatures: parameters → the signature of each stage of their path.
        stored: signatures that were in the store when the search began; they cost nothing.
    """

    def __init__(self, signatures: Signatures, stored: frozenset[str] = frozenset()) -> None:
        self._signatures = _kept(signatures)  # those of thousands of points are asked for again at each proposal
        self._there = set(stored)
        self._measured: dict[str, list[tuple[Params, float]]] = {}

    def start(self, params: Params) -> None:
        """Takes all stages of a trial for built or being built."""
        self._there.update(self._signatures(params).values())

    def learn(self, params: Params, outcome: Outcome) -> None:
        """Learns from what a trial's stages took. A trial that died teaches nothing."""
        for stage, work in outcome.work.items():
            if work.get("built") and not work.get("reused") and float(work.get("seconds", 0)) > 0:
                self._measured.setdefault(stage, []).append((params, float(work["seconds"])))

    def seconds(self, points: Sequence[Params]) -> np.ndarray:
        """Seconds that each point would still take, (n,)."""
        paths = [self._signatures(point) for point in points]
        totals = np.full(len(points), _LEAST)
        for stage in dict.fromkeys(stage for path in paths for stage in path):
            missing = [n for n, path in enumerate(paths) if stage in path and path[stage] not in self._there]
            if missing:
                totals[missing] += self._stage_seconds(stage, [points[n] for n in missing])
        return totals

    def _stage_seconds(self, stage: str, points: Sequence[Params]) -> np.ndarray:
        measured = self._measured.get(stage, [])
        if not measured:
            return np.ones(len(points))  # unknown, and yet more than nothing
        keys = self._keys(stage, points)
        known, asked = (
            np.array([[_size(params.get(key)) for key in keys] for params in some]).reshape(len(some), -1)
            for some in ([params for params, _ in measured], points)
        )
        logs = np.log([seconds for _, seconds in measured])
        return _rounded(np.exp(_regression(known, logs, _slopes(keys), asked)))

    def _keys(self, stage: str, points: Sequence[Params]) -> list[str]:
        """Numeric parameters of the stage's own section that measured ones differ in."""
        kind = stage.split("_", maxsplit=1)[0]
        section = _SECTIONS.get(kind, kind)
        measured = [params for params, _ in self._measured[stage]]
        keys = sorted({key for params in (*measured, *points) for key in params if key.split(".")[0] == section})
        if stage.startswith("projection"):  # one with the largest R and L serves them all
            keys = [key for key in keys if key not in ("projector.restarts", "projector.steps")]
        return [key for key in keys if all(_is_number(params.get(key, 1)) for params in (*measured, *points))]


def _kept(signatures: Signatures) -> Signatures:
    known = Bounded[Hashable, Mapping[str, str]]()

    def of(params: Params) -> Mapping[str, str]:
        key = identity(params)
        if key not in known:
            known[key] = signatures(params)
        return known[key]

    return of


_SECTIONS = {"projection": "projector", "attack": "unet"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(value: Any) -> float:
    """A number on the scale on which work is proportional to it."""
    return math.log(1 + abs(float(value))) if _is_number(value) else 0.0


def _slopes(keys: Sequence[str]) -> np.ndarray:
    return np.array([float(key.split(".")[-1] in _WORK) for key in keys])


def _regression(known: np.ndarray, logs: np.ndarray, prior: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Linear, towards the slopes believed beforehand (ridge)."""
    if not known.shape[1]:
        return np.full(len(asked), np.median(logs))
    centre = known.mean(0)
    rest = logs - (known - centre) @ prior
    middle = float(np.median(rest))
    gram = (known - centre).T @ (known - centre) + _TRUST * np.eye(known.shape[1])
    change = np.linalg.solve(gram, (known - centre).T @ (rest - middle))
    result: np.ndarray = middle + (asked - centre) @ (prior + change)
    return result


def _rounded(seconds: np.ndarray) -> np.ndarray:
    result: np.ndarray = 2.0 ** np.round(np.log2(np.maximum(seconds, _LEAST)))
    return result
