"""Reads an experiment's folder as it stands. What is missing or torn is named, never fatal."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, ValidationError

from tune.report.data import ROWS, Choice, Experiment, Finalists, Pictures, ProjectionMap, SeedScore
from tune.space.strict_yaml import read_mapping
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

Model = TypeVar("Model", bound=BaseModel)


class _Reader:
    """Reads the files of one experiment and collects what is wrong with them."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.problems: list[str] = []

    def bytes(self, storage: Storage, name: str) -> bytes | None:
        try:
            return storage.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problems.append(f"{name}: not readable: {error}")
            return None

    def mapping(self, storage: Storage, name: str, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
        content = self.bytes(storage, name)
        if content is None:
            return {}
        try:
            value = parse(content.decode("utf-8"))
        except ValueError as error:
            self.problems.append(f"{name}: not readable: {str(error).splitlines()[0]}")
            return {}
        if not isinstance(value, dict):
            self.problems.append(f"{name}: expected a mapping, found {type(value).__name__}")
            return {}
        return value

    def checked(self, raw: dict[str, Any], name: str, kind: type[Model]) -> Model | None:
        """A file's content as a model; None, and named, where it is none. Without content, silently None."""
        if not raw:
            return None
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(map(str, detail["loc"]))
            self.problems.append(f"{name}: left out: {': '.join(filter(None, [place, detail['msg']]))}")
            return None

    def seeds(self) -> Iterator[SeedScore]:
        folder = self.storage.child("best").child("seeds")
        for name in sorted(name for name in folder.names() if name.endswith(".json")):
            score = self.checked(self.mapping(folder, name), f"best/seeds/{name}", SeedScore)
            if score is not None:
                yield self._whole(score, folder, name)

    def _whole(self, score: SeedScore, folder: Storage, name: str) -> SeedScore:
        """The score with its images, and without what is no number."""
        good = {metric: value for metric, value in score.metrics.items() if math.isfinite(value)}
        if lost := sorted(set(score.metrics) - set(good)):
            self.problems.append(f"best/seeds/{name}: not a finite number, left out: {', '.join(lost)}")
        return score.model_copy(update={"metrics": good, **self._pictures(folder, name.replace(".json", ".npz"))})

    def _pictures(self, folder: Storage, name: str) -> dict[str, Pictures | None]:
        content = self.bytes(folder, name)
        if content is None:
            return {}
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            self.problems.append(f"best/seeds/{name}: not readable: {error}")
            return {}
        found = {"examples": _pictures(arrays, ""), "worst": _pictures(arrays, "worst_")}
        if found["examples"] is None:
            self.problems.append(f"best/seeds/{name}: expected four rows of as many images and their labels")
        return found


def _space(text: str) -> dict[str, Any]:
    """The entries as written, not as today's config models: old searches outlive a renamed field."""
    return {key: entry.value for key, entry in read_mapping(text, "space.yaml").items()}


def _pictures(arrays: Mapping[str, np.ndarray], prefix: str) -> Pictures | None:
    names = [*(prefix + row for row in ROWS), prefix + "true", prefix + "labels"]
    if any(name not in arrays for name in names):
        return None
    *rows, true, labels = (arrays[name] for name in names)
    whole = all(row.ndim == 4 and row.shape[1] in (1, 3) and len(row) == true.size for row in rows)
    if not whole or true.size == 0 or labels.shape != (len(ROWS), true.size):
        return None
    return Pictures(dict(zip(ROWS, rows, strict=True)), true, labels, arrays.get(prefix + "realism"))


def _projection(raw: Mapping[str, Any], problems: list[str]) -> ProjectionMap | None:
    if not raw:
        return None
    try:
        restarts, steps = tuple(raw["restarts"]), tuple(raw["steps"])
        values = np.array(raw["psd_gan"], dtype=float)
        if values.shape != (len(restarts), len(steps)) or not values.size:
            raise ValueError(f"expected {len(restarts)} × {len(steps)} values, found {values.shape}")
    except (KeyError, TypeError, ValueError) as error:
        problems.append(f"validation_map.json: left out: {type(error).__name__}: {error}")
        return None
    return ProjectionMap(restarts, steps, values)


def read_experiment(storage: Storage) -> Experiment:
    """Reads all that the experiment's folder holds.

    Raises:
        FileNotFoundError: the folder holds neither a space nor a trial: no experiment.
    """
    reader = _Reader(storage)
    ledger = Ledger(storage)
    outcomes = tuple(ledger.outcomes())
    reader.problems += ledger.problems
    space = reader.mapping(storage, "space.yaml", _space)
    if not outcomes and not space:
        raise FileNotFoundError(f"{storage.uri}: expected an experiment's folder (space.yaml, trials/), found neither")
    choice = reader.checked(reader.mapping(storage.child("best"), "choice.json"), "best/choice.json", Choice)
    finalists = reader.checked(reader.mapping(storage, "finalists.json"), "finalists.json", Finalists)
    return Experiment(
        name=urlsplit(storage.uri).path.rstrip("/").rsplit("/", 1)[-1],
        place=str(storage.local or storage.uri),
        space=space,
        record=reader.mapping(storage, "record.json"),
        outcomes=outcomes,
        choice=choice,
        seeds=tuple(sorted(reader.seeds(), key=lambda score: score.seed)),
        projection=_projection(reader.mapping(storage, "validation_map.json"), reader.problems),
        problems=tuple(reader.problems),
        finalists=finalists,
    )
