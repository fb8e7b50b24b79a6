"""The files of an experiment as frozen values. What is missing or torn is named, never fatal."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from components.robustness import Robustness
from tune.metrics import Direction
from tune.space.strict_yaml import read_mapping
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome, warn

ROWS = ("original", "attacked", "gan", "denoised")  # the rows of the published figure, a to d


@dataclass(frozen=True)
class Pictures:
    """Images of one seed's test run, and what the classifier sees in each."""

    rows: Mapping[str, np.ndarray]  # row name → uint8 (n, C, H, W)
    true: np.ndarray  # (n,) true labels
    labels: np.ndarray  # (4, n) predicted labels, rows as in ROWS

    def __len__(self) -> int:
        return len(self.true)


_OrNone = BeforeValidator(lambda mapping: mapping or {})  # files may have null for what was not measured


class SeedScore(BaseModel):
    """One retrained seed of the best configuration, on the test images: best/seeds/<seed>.json and its images."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    seed: int
    settings: str | None = None  # hash of the configuration that was measured; None in files of before
    images: int = Field(alias="n", ge=1)  # number of test images
    metrics: dict[str, float]  # fractions, unless the name says otherwise
    epsilon: Annotated[dict[str, list[float]], _OrNone] = {}  # "values" and, per metric, its course
    epsilon_images: int | None = None  # how many of the test images the course over ε is on
    counts: list[list[int]] | None = Field(default=None, alias="confusion")  # true row, denoised column
    seconds: Annotated[dict[str, float], _OrNone] = {}  # stage → computing seconds
    images_per_second: float | None = None  # of the projection
    adaptive: Robustness | None = None  # by an attacker who knows the defense; None where that was not measured
    adaptive_left_out: str | None = None  # why not, where that is known
    examples: Pictures | None = None
    worst: Pictures | None = None

    @field_validator("counts")
    @classmethod
    def _square(cls, rows: list[list[int]] | None) -> list[list[int]] | None:
        if rows is not None and (not rows or any(len(row) != len(rows) for row in rows)):
            raise ValueError("expected as many columns as rows")
        return rows

    @property
    def confusion(self) -> np.ndarray | None:
        """Image counts (classes, classes), true label by row, denoised image's by column; None where there are none."""
        return None if self.counts is None else np.array(self.counts, dtype=np.int64)


class Choice(BaseModel):
    """The chosen configuration: best/choice.json."""

    trial: int
    params: dict[str, Any]
    rule: str | None = None
    objectives: dict[str, Direction] | None = None
    max_cost: float | None = None
    settings: str | None = None  # hash of the configuration; None in files of before
    saved_seed: int | None = Field(None, validation_alias=AliasChoices("saved_seed", "median_seed"))  # as of before


class Finalist(BaseModel):
    """One trial of finalists.json."""

    trial: int
    searched: float
    scores: dict[str, float] = Field(min_length=1)  # by seed
    mean: float
    fresh: float  # mean of the seeds that the search did not rank it by
    behind: float  # the best one's mean
    error: float  # standard error of that
    equal: bool  # whether it cannot be told from the best


class Finalists(BaseModel):
    """finalists.json."""

    chosen: int
    best: int
    finalists: list[Finalist] = Field(min_length=1)
    left_out: dict[int, str] = Field(default_factory=dict)  # trials of which a training failed, and why
    seconds: dict[str, float] = Field(default_factory=dict)  # of their further seeds, by stage; not in files of before


class ProjectionMap(BaseModel):
    """Validation accuracy of the GAN's images for every number of restarts (rows) and of steps (columns)."""

    model_config = ConfigDict(frozen=True)

    restarts: tuple[int, ...]
    steps: tuple[int, ...]
    rows: list[list[float]] = Field(alias="psd_gan", min_length=1)

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        shape = (len(self.restarts), len(self.steps))
        if len(self.rows) != shape[0] or any(len(row) != shape[1] for row in self.rows):
            raise ValueError("expected a row for each of restarts, with a value for each of steps")
        return self

    @property
    def psd_gan(self) -> np.ndarray:
        """Fractions (restarts, steps)."""
        return np.array(self.rows)


Model = TypeVar("Model", bound=BaseModel)


class Reader:
    """Reads the files of one experiment, and collects what is wrong with them in `problems`.

    Args:
        storage: the experiment's folder.
        tell: told of each of them at once.
    """

    def __init__(self, storage: Storage, tell: Callable[[str], None] = warn) -> None:
        self.storage, self.tell = storage, tell
        self.problems: list[str] = []

    def outcomes(self) -> tuple[Outcome, ...]:
        """The trials, by number."""
        ledger = Ledger(self.storage, self.tell)
        outcomes = tuple(ledger.outcomes())
        self.problems += ledger.problems  # which the ledger has told
        return outcomes

    def space(self) -> dict[str, Any]:
        """The space's entries as written, not as today's config models: old searches outlive a renamed field."""
        entries = self.mapping("space.yaml", lambda text: dict(read_mapping(text, "space.yaml")))
        return {key: entry.value for key, entry in entries.items()}

    def mapping(self, name: str, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
        """A file's content; empty where it is missing or torn."""
        content = self._bytes(name)
        if content is None:
            return {}
        try:
            value = parse(content.decode("utf-8"))
        except ValueError as error:
            self._tell(f"{name}: not readable: {str(error).splitlines()[0]}")
            return {}
        if not isinstance(value, dict):
            self._tell(f"{name}: expected a mapping, found {type(value).__name__}")
            return {}
        return value

    def model(self, name: str, kind: type[Model]) -> Model | None:
        """A file's content as a model; None where it is none."""
        raw = self.mapping(name)
        if not raw:
            return None
        try:
            return kind.model_validate(raw)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(map(str, detail["loc"]))
            self._tell(f"{name}: left out: {': '.join(filter(None, [place, detail['msg']]))}")
            return None

    def seeds(self, choice: Choice | None) -> tuple[SeedScore, ...]:
        """The retrained seeds of the choice, each with its images and without what is no number."""
        names = self.storage.child("best").child("seeds").names()
        found = [self._seed(f"best/seeds/{name}", choice) for name in names if name.endswith(".json")]
        return tuple(sorted(filter(None, found), key=lambda score: score.seed))

    def _seed(self, name: str, choice: Choice | None) -> SeedScore | None:
        score = self.model(name, SeedScore)
        if score is None:
            return None
        if choice and choice.settings and score.settings not in (None, choice.settings):
            self._tell(f"{name}: left out: it was measured of another configuration than that of trial {choice.trial}")
            return None
        good = {metric: value for metric, value in score.metrics.items() if math.isfinite(value)}
        if lost := sorted(set(score.metrics) - set(good)):
            self._tell(f"{name}: not a finite number, left out: {', '.join(lost)}")
        return score.model_copy(update={"metrics": good, **self._pictures(name.replace(".json", ".npz"))})

    def _pictures(self, name: str) -> dict[str, Pictures | None]:
        content = self._bytes(name)
        if content is None:
            return {}
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            self._tell(f"{name}: not readable: {error}")
            return {}
        found = {"examples": _pictures(arrays, ""), "worst": _pictures(arrays, "worst_")}
        if found["examples"] is None:
            self._tell(f"{name}: expected four rows of as many images and their labels")
        return found

    def _tell(self, problem: str) -> None:
        self.problems.append(problem)
        self.tell(f"{self.storage.uri}/{problem}")

    def _bytes(self, name: str) -> bytes | None:
        try:
            return self.storage.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"{name}: not readable: {error}")
            return None


def _pictures(arrays: Mapping[str, np.ndarray], prefix: str) -> Pictures | None:
    names = [*(prefix + row for row in ROWS), prefix + "true", prefix + "labels"]
    if any(name not in arrays for name in names):
        return None
    *rows, true, labels = (arrays[name] for name in names)
    whole = all(row.ndim == 4 and row.shape[1] in (1, 3) and len(row) == true.size for row in rows)
    if not whole or true.size == 0 or labels.shape != (len(ROWS), true.size):
        return None
    return Pictures(dict(zip(ROWS, rows, strict=True)), true, labels)
