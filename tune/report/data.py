"""An experiment's folder as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from components.robustness import Robustness
from tune.metrics import METRICS, OBJECTIVES, Direction, Objective, Target, objectives_of
from tune.optimizer.choice import NoChoiceError, Objectives, choose, has_objectives, median_seed, pareto_front
from tune.optimizer.finalists import finalists_of
from tune.space.config import PURIFIERS
from tune.storage.ledger import Outcome

ROWS = ("original", "attacked", "gan", "denoised")  # the rows of the published figure, a to d


@dataclass(frozen=True)
class Pictures:
    """Images of one seed's test run, and what the classifier sees in each."""

    rows: Mapping[str, np.ndarray]  # row name → uint8 (n, C, H, W)
    true: np.ndarray  # (n,) true labels
    labels: np.ndarray  # (4, n) predicted labels, rows as in ROWS
    realism: np.ndarray | None = None  # (n,) the discriminator's score of each GAN image

    def __len__(self) -> int:
        return len(self.true)


_OrNone = BeforeValidator(lambda mapping: mapping or {})  # files may have null for what was not measured


class SeedScore(BaseModel):
    """One retrained seed of the best configuration, on the test images: best/seeds/<seed>.json and its images."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    seed: int
    images: int = Field(alias="n", ge=1)  # number of test images
    metrics: dict[str, float]  # fractions, unless the name says otherwise
    epsilon: Annotated[dict[str, list[float]], _OrNone] = {}  # "values" and, per metric, its course
    epsilon_images: int | None = None  # how many of the test images the course over ε is on
    counts: list[list[int]] | None = Field(default=None, alias="confusion")  # true row, denoised column
    seconds: Annotated[dict[str, float], _OrNone] = {}  # stage → computing seconds
    images_per_second: float | None = None  # of the projection
    adaptive: Robustness | None = None  # by an attacker who knows the defense; None where that was not measured
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
    median_seed: int | None = None


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


@dataclass(frozen=True)
class ProjectionMap:
    """Validation accuracy of the GAN's images for every number of restarts (rows) and of steps (columns)."""

    restarts: tuple[int, ...]
    steps: tuple[int, ...]
    psd_gan: np.ndarray  # (restarts, steps), fractions


@dataclass(frozen=True)
class Experiment:
    """Everything that a search left on disk, and `problems`, what of it could not be read."""

    name: str
    place: str  # folder or URI
    space: Mapping[str, Any]  # dotted key → fixed value, or the mapping that describes its range
    record: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]  # by trial number
    choice: Choice | None
    seeds: tuple[SeedScore, ...]  # by seed
    projection: ProjectionMap | None
    problems: tuple[str, ...]
    finalists: Finalists | None = None  # None where there were none

    @property
    def target(self) -> Target:
        target: Target = self.space.get("search.target", "defense")
        return target if target in OBJECTIVES else "defense"

    @property
    def _objective(self) -> Objective:
        asked: Objective = self.space.get("search.objective", "psd")
        return asked if asked in get_args(Objective) else "psd"

    @cached_property
    def objectives(self) -> Objectives:
        return (self.choice and self.choice.objectives) or objectives_of(self.target, self._objective)

    @cached_property
    def ranges(self) -> dict[str, Mapping[str, Any]]:
        """The searched keys and the description of each one's range."""
        return {key: value for key, value in self.space.items() if isinstance(value, Mapping)}

    @cached_property
    def best(self) -> Outcome | None:
        """The chosen trial: the one retrained, or that the rule would choose; None where none qualifies."""
        chosen = [o for o in self.outcomes if self.choice and o.trial == self.choice.trial]
        return chosen[0] if chosen else self.ruled

    @cached_property
    def ruled(self) -> Outcome | None:
        """The trial that the rule names now; None where none qualifies."""
        if self.finalists:
            rows = {row.trial for row in self.finalists.finalists}
            now = finalists_of(self.outcomes, self.objectives, len(rows), self.max_cost)
            if {o.trial for o in now} == rows:
                return next((o for o in now if o.trial == self.finalists.chosen), None)
        try:
            return choose(self.outcomes, self.objectives, self.max_cost)
        except NoChoiceError:
            return None

    @property
    def best_params(self) -> dict[str, Any]:
        return dict((self.choice and self.choice.params) or (self.best.params if self.best else {}))

    @property
    def max_cost(self) -> float | None:
        if self.choice and self.choice.max_cost is not None:
            return self.choice.max_cost
        limit: float | None = self.space.get("search.max_cost")
        return limit

    @property
    def wall_s(self) -> float | None:
        """Wall time of the search in seconds, where it was recorded."""
        wall = self.record.get("wall_s")
        return float(wall) if isinstance(wall, int | float) else None

    @cached_property
    def front(self) -> list[Outcome]:
        """The finished trials that no other beats in one objective without losing in another, cheapest first."""
        return pareto_front(self.finished, self.objectives)

    @cached_property
    def finished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if has_objectives(outcome, self.objectives)]

    def with_status(self, status: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @cached_property
    def median(self) -> SeedScore | None:
        """The seed whose defense was saved."""
        scores = {s.seed: s.metrics["psd"] for s in self.seeds if "psd" in s.metrics}
        named = self.choice and self.choice.median_seed
        wanted = named if named in scores else (median_seed(scores) if scores else None)
        return next((score for score in self.seeds if score.seed == wanted), None)

    @property
    def purifier(self) -> str:
        """The title of the component that rebuilt the attacked images; its name where it is not known here."""
        name = self.setting("defense.purifier") or "projector"
        return PURIFIERS[name].title if name in PURIFIERS else str(name)

    def row(self, metric: str) -> str:
        """The name of a test score in tables."""
        return METRICS[metric].row.format(purifier=self.purifier)

    def part(self, metric: str) -> str:
        """The part of the defense behind which a test score counts attacked images."""
        return METRICS[metric].part.format(purifier=self.purifier)

    def setting(self, key: str) -> Any:
        """The value of a dotted key in the chosen configuration; None where it is not known."""
        return self.best_params.get(key, None if key in self.ranges else self.space.get(key))


Item = TypeVar("Item")


def spaced(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, at even distances."""
    return items[:: stride(len(items), most)]


def stride(count: int, most: int) -> int:
    """One of so many is taken, for at most `most` of them."""
    return max(1, -(-count // most))
