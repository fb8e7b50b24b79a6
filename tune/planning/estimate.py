"""Estimates the artifacts that a search will build, without those in the store, and their size on disk.

Counted on configurations that the space proposes: those drawn already, those that the search begins with, and for those
that will follow results, what it would draw without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.datasets.dataset import Dataset
from tune.metrics import DEFENSE_TARGETS
from tune.optimizer.finalists import finalists_of
from tune.optimizer.study import LedgerStudy
from tune.pipeline.executor import part_signatures
from tune.pipeline.purifier import cost
from tune.pipeline.recipe import Bounds, Development, Recipe, bounds_for
from tune.pipeline.stage import Rates
from tune.pipeline.stages import STAGES, final_path_of, further_path_of, path_of, signatures_of
from tune.space.config import ExperimentConfig
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
        times: artifacts that one of `missing` stands for; one where all trials were drawn, or share what was found.
    """

    stage: str
    recipes: Mapping[str, Recipe]
    held: frozenset[str]
    times: float = 1.0
    passing: bool = False  # each is removed before the next one is built

    @property
    def missing(self) -> list[Recipe]:
        """Those to be built."""
        return [recipe for signature, recipe in self.recipes.items() if signature not in self.held]

    @property
    def parts(self) -> float:
        """Workers that can build at the same time what is missing."""
        return self.times * sum(STAGES[self.stage].parts(recipe) for recipe in self.missing)

    @property
    def bytes(self) -> int:
        """Room for what is missing."""
        each = [STAGES[self.stage].bytes(recipe) for recipe in self.missing]
        return max(each, default=0) if self.passing else int(self.times * sum(each))

    def seconds(self, rates: Rates) -> float:
        """Computing time of what is missing."""
        return self.times * sum(STAGES[self.stage].seconds(recipe, rates) for recipe in self.missing)


@dataclass(frozen=True)
class Counted:
    """The stages of a search and of the trainings that follow it.

    Attributes:
        search: of the trials that have not ended.
        finalists: of the best ones' further seeds; empty where they have none.
        final: of the retraining; empty where the target has none.
        typical: the recipe of middle projection cost, which stands for the best, yet unknown.
        kinds: recipes that together do all kinds of work, the typical one first.
        trials: of the search, those that have ended included.
    """

    search: Sequence[Artifacts]
    finalists: Sequence[Artifacts]
    final: Sequence[Artifacts]
    typical: Recipe
    kinds: Sequence[Recipe]
    trials: int

    def bytes(self) -> int:
        """Room for all that is missing."""
        stages = (*self.search, *self.finalists, *self.final)
        return self.trials * PER_TRIAL + sum(artifacts.bytes for artifacts in stages)


def count(
    space: SearchSpace, dataset: Dataset, storage: Storage, home: Storage, bounds: Bounds, reuse: bool = True
) -> Counted:
    """Counts the artifacts that a search of `space` and the trainings after it need.

    Args:
        space: what is searched.
        dataset: its images.
        storage: that holds experiment and store.
        home: the experiment's folder; its trials that have ended need nothing.
        bounds: of the space.
        reuse: whether trials share what they build, also with other searches.
    """
    search = space.config(probe(space, {})).search
    ledger, store = Ledger(home), Store(storage.child("store"))
    drawn, left, trials = draw(space, ledger)
    ended = [outcome for outcome in ledger.outcomes() if space.contains(outcome.params)]
    configs = [space.config(params) for params in drawn]
    data, merged = Development.for_search(dataset), Development.for_retraining(dataset)
    known = [*(space.config(outcome.params) for outcome in ended), *configs] or [space.config(probe(space, {}))]
    ranked = sorted(known, key=cost)
    typical = ranked[len(ranked) // 2]
    own = [bounds if reuse else bounds_for(config) for config in configs]
    recipes = [Recipe(config, each, data, search.seed) for config, each in zip(configs, own, strict=True)]
    paths = [(recipe, path_of(recipe.config)) for recipe in recipes]
    during = _artifacts(store, paths, left) if reuse else _unshared(paths, left)
    finalists, final = [], []
    if search.target in DEFENSE_TARGETS:
        if reuse and search.finalists > 1:
            best = [] if left else finalists_of(ended, search.objectives, search.finalists, search.max_cost)
            middle = ranked[max(0, (len(ranked) - search.finalists) // 2) :][: search.finalists]
            middle = [space.config(outcome.params) for outcome in best] or middle
            seeds = range(search.seed + 1, search.seed + search.finalist_seeds)
            recipes = [Recipe(config, bounds_for(*middle), data, seed) for seed in seeds for config in middle]
            finalists = _artifacts(store, [(recipe, further_path_of(recipe.config)) for recipe in recipes])
        seeds = range(search.seed, search.seed + search.retrain_seeds)
        recipes = [Recipe(typical, bounds_for(typical), merged, seed) for seed in seeds]
        final = _artifacts(store, [(recipe, final_path_of(typical)) for recipe in recipes])
    kinds = {_kind(config): Recipe(config, bounds, data, search.seed) for config in (typical, *ranked, typical)}
    return Counted(during if left else [], finalists, final, kinds[_kind(typical)], list(kinds.values()), trials)


def draw(space: SearchSpace, ledger: Ledger) -> tuple[list[dict[str, Any]], int, int]:
    """Parameters of up to `DRAWN` trials without outcome: as proposed, or as they would be while nothing is known.

    Returns:
        Them; how many have not ended; and how many trials the search has in all: as many as asked for, or as its space
        has points.
    """
    fixed = space.fixed
    study = LedgerStudy(space, int(fixed["search.seed"]), int(fixed["search.startup_trials"]), fixed["search.max_cost"])
    trials = min(int(fixed["search.trials"]), study.size or int(fixed["search.trials"]))
    proposed, points = ledger.proposals(), fixed["search.points"]
    ended = {outcome.trial: outcome for outcome in ledger.outcomes()}
    waiting: list[dict[str, Any]] = []
    for number in range(trials):
        params = proposed.get(number) or study.suggest(number, points[number] if number < len(points) else None)
        if params is None:  # every point of the space is among them
            break
        study.start(number, params)
        if number in ended:
            study.finish(number, None)  # nothing is known, but this point is not proposed again
        else:
            waiting.append(dict(params))
        if len(waiting) == DRAWN:
            break
    left = sum(number not in ended for number in range(trials))
    return waiting, left, trials


def _kind(config: ExperimentConfig) -> Hashable:
    """Equal for configurations that do the same kinds of work."""
    return (*path_of(config), config.defense.purifier, bool(config.gan.pretrained), config.gan.encoder_steps > 0)


def _artifacts(
    store: Store, paths: Sequence[tuple[Recipe, Sequence[str]]], left: int | None = None
) -> list[Artifacts]:
    """Artifacts of each stage. Of `left` trials more than there are paths, as many others as the later half shows."""
    found: dict[str, dict[str, Recipe]] = {}
    new: dict[str, int] = Counter()  # found first in the later half
    for number, (recipe, path) in enumerate(paths):
        for name, signature in signatures_of(recipe, path).items():
            known = found.setdefault(name, {})
            new[name] += signature not in known and number >= len(paths) // 2
            known.setdefault(signature, recipe)
    more = max(0, (len(paths) if left is None else left) - len(paths)) / max(1, len(paths) - len(paths) // 2)
    return [
        Artifacts(name, recipes, _held(store, name, recipes), 1 + more * new[name] / len(recipes))
        for name, recipes in found.items()
    ]


def _unshared(paths: Sequence[tuple[Recipe, Sequence[str]]], left: int) -> list[Artifacts]:
    """Artifacts of trials that share nothing, and find nothing in the store."""
    found: dict[str, dict[str, Recipe]] = {}
    for number, (recipe, path) in enumerate(paths):
        for name in path:
            found.setdefault(name, {})[f"trial {number}"] = recipe
    return [Artifacts(name, recipes, frozenset(), left / len(paths), passing=True) for name, recipes in found.items()]


def _held(store: Store, stage: str, wanted: Mapping[str, Recipe]) -> frozenset[str]:
    """Those signatures of which every part is in the store."""
    return frozenset(
        signature
        for signature, recipe in wanted.items()
        if all(store.has(stage, key) for key in part_signatures(STAGES[stage], recipe, signature))
    )
