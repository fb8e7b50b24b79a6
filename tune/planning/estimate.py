"""Estimates the artifacts that a search will build, without those in the store, and their size on disk.

Counted on configurations that the space proposes: those drawn already, those that the search begins with, and for those
that will follow results, what it would draw without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.datasets.dataset import Dataset
from tune.optimizer.study import LedgerStudy
from tune.pipeline.executor import part_signatures
from tune.pipeline.purifier import cost
from tune.pipeline.recipe import Bounds, Development, Recipe, bounds_of_one
from tune.pipeline.stage import Rates
from tune.pipeline.stages import STAGES, final_path_of, path_of, signatures_of
from tune.space.space import SearchSpace, probe
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.store import Store

DRAWN = 64  # configurations to count on; more trials are taken to be like them
PER_TRIAL = 100_000  # bytes of one trial's record, event files and pictures


@dataclass(frozen=True)
class Artifacts:
    """All that is to be built of one stage.

    Attributes:
        stage: its name.
        recipes: signature → a recipe that it is for.
        held: those signatures that are in the store, every part of them.
        scale: trials per configuration that was drawn: what varies is taken that many times.
    """

    stage: str
    recipes: Mapping[str, Recipe]
    held: frozenset[str]
    scale: float = 1.0

    @property
    def missing(self) -> list[Recipe]:
        """Those to be built."""
        return [recipe for signature, recipe in self.recipes.items() if signature not in self.held]

    @property
    def times(self) -> float:
        """Artifacts that one of `missing` stands for: one where a single artifact serves all trials."""
        return 1.0 if len(self.recipes) == 1 else self.scale

    @property
    def parts(self) -> float:
        """Workers that can build at the same time what is missing."""
        return self.times * sum(STAGES[self.stage].parts(recipe) for recipe in self.missing)

    @property
    def bytes(self) -> int:
        """Room for what is missing."""
        return int(self.times * sum(STAGES[self.stage].bytes(recipe) for recipe in self.missing))

    def seconds(self, rates: Rates) -> float:
        """Computing time of what is missing."""
        return self.times * sum(STAGES[self.stage].seconds(recipe, rates) for recipe in self.missing)


@dataclass(frozen=True)
class Counted:
    """The stages of a search and of the retraining that follows it.

    Attributes:
        search: of the trials.
        final: of the retraining; empty where the target has none.
        typical: the recipe of middle projection cost, which stands for the best, yet unknown.
        trials: of the search.
    """

    search: Sequence[Artifacts]
    final: Sequence[Artifacts]
    typical: Recipe
    trials: int

    def bytes(self) -> int:
        """Room for all that is missing."""
        return self.trials * PER_TRIAL + sum(artifacts.bytes for artifacts in (*self.search, *self.final))


def count(space: SearchSpace, dataset: Dataset, storage: Storage, home: Storage, bounds: Bounds) -> Counted:
    """Counts the artifacts that a search of `space` and its retraining need."""
    search, trials = space.config(probe(space, {})).search, int(space.fixed["search.trials"])
    ledger = Ledger(home)
    configs = [space.config(params) for params in draw(space, ledger, min(trials, DRAWN))]
    trials = trials if len(configs) == min(trials, DRAWN) else len(configs)
    ended = {outcome.trial for outcome in ledger.outcomes()}
    waiting = [config for number, config in enumerate(configs) if number not in ended]
    scale = sum(number not in ended for number in range(trials)) / max(1, len(waiting))
    store = Store(storage.child("store"))
    data, merged = Development.for_search(dataset), Development.for_retraining(dataset)
    typical = sorted(configs, key=cost)[len(configs) // 2]
    recipes = [Recipe(config, bounds, data, search.seed) for config in waiting]
    during = _artifacts(store, [(recipe, path_of(recipe.config)) for recipe in recipes], scale)
    final: Sequence[Artifacts] = ()
    if search.target in ("unet", "defense"):
        seeds = range(search.seed, search.seed + search.retrain_seeds)
        recipes = [Recipe(typical, bounds_of_one(typical), merged, seed) for seed in seeds]
        final = _artifacts(store, [(recipe, final_path_of(typical)) for recipe in recipes], 1.0)
    return Counted(during, final, Recipe(typical, bounds, data, search.seed), trials)


def draw(space: SearchSpace, ledger: Ledger, trials: int) -> list[dict[str, Any]]:
    """Parameters of the first `trials` trials: as proposed, or as they would be while nothing is known."""
    study = LedgerStudy(space, int(space.fixed["search.seed"]), int(space.fixed["search.startup_trials"]))
    proposed, points = ledger.proposals(), space.fixed["search.points"]
    drawn = []
    for number in range(trials):
        params = proposed.get(number) or study.suggest(number, points[number] if number < len(points) else None)
        if params is None:  # every point of the space is among them
            break
        study.start(number, params)
        drawn.append(dict(params))
    return drawn


def _artifacts(
    store: Store, paths: Sequence[tuple[Recipe, Sequence[str]]], scale: float
) -> list[Artifacts]:
    found: dict[str, dict[str, Recipe]] = {}
    for recipe, path in paths:
        for name, signature in signatures_of(recipe, path).items():
            found.setdefault(name, {}).setdefault(signature, recipe)
    return [Artifacts(name, recipes, _held(store, name, recipes), scale) for name, recipes in found.items()]


def _held(store: Store, stage: str, wanted: Mapping[str, Recipe]) -> frozenset[str]:
    """Those signatures of which every part is in the store."""
    return frozenset(
        signature
        for signature, recipe in wanted.items()
        if all(store.has(stage, key) for key in part_signatures(STAGES[stage], recipe, signature))
    )
