"""What a search will build, as far as it is not in the store, and how much room that takes.

Counted on configurations that the space proposes: those drawn already, those that the search begins with, and for those
that will follow results, what it would draw without them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from components.classifiers.defense_gan import Classifier
from components.datasets.dataset import Dataset
from components.gan.gan import Discriminator, Generator
from components.unet.unet import UNet
from tune.optimizer.study import LedgerStudy
from tune.pipeline.builders import cost
from tune.pipeline.job import Bounds, Development, bounds_of_one
from tune.pipeline.readback import training_images
from tune.pipeline.stages import FINAL_PATH, PATHS, STAGES, signatures_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.mounts import existing
from tune.storage.store import Store

DRAWN = 64  # configurations to count on; more trials are taken to be like them
PER_TRIAL = 100_000  # bytes of one trial's record, event files and pictures


@dataclass(frozen=True)
class Artifacts:
    """All that is to be built of one stage.

    Attributes:
        stage: its name.
        signatures: signature → a configuration that it is for.
        held: those of them that are in the store, every part of them.
        scale: trials per configuration that was drawn: what varies is taken that many times.
    """

    stage: str
    signatures: Mapping[str, ExperimentConfig]
    held: frozenset[str]
    scale: float = 1.0

    @property
    def shared(self) -> bool:
        """Whether one artifact serves all trials."""
        return len(self.signatures) == 1

    @property
    def missing(self) -> Mapping[str, ExperimentConfig]:
        """Those to be built."""
        return {key: config for key, config in self.signatures.items() if key not in self.held}

    @property
    def times(self) -> float:
        """How many artifacts one of `missing` stands for."""
        return 1.0 if self.shared else self.scale

    def parts(self, data: Development) -> float:
        """How many workers can build at the same time what is missing."""
        return self.times * sum(STAGES[self.stage].parts(config, data) for config in self.missing.values())


@dataclass(frozen=True)
class Counted:
    """The stages of a search and of the retraining that follows it."""

    search: Sequence[Artifacts]
    final: Sequence[Artifacts]
    typical: ExperimentConfig  # the configuration of middle projection cost, which stands for the best, yet unknown
    bounds: Bounds
    data: Development
    merged: Development
    trials: int

    def bytes(self) -> int:
        """Room for all that is missing."""
        total = self.trials * PER_TRIAL
        for artifacts, data in [(a, self.data) for a in self.search] + [(a, self.merged) for a in self.final]:
            for config in artifacts.missing.values():
                bounds = self.bounds if data is self.data else bounds_of_one(config)
                total += int(artifacts.times * size(artifacts.stage, config, bounds, data))
        return total


def count(space: SearchSpace, dataset: Dataset, storage: Storage, home: Storage, bounds: Bounds) -> Counted:
    """What a search of `space` will need."""
    search, trials = space.config(_first(space)).search, int(space.fixed["search.trials"])
    ledger = Ledger(home)
    configs = [space.config(params) for params in draw(space, ledger, min(trials, DRAWN))]
    trials = trials if len(configs) == min(trials, DRAWN) else len(configs)
    ended = {outcome.trial for outcome in ledger.outcomes()}
    waiting = [config for number, config in enumerate(configs) if number not in ended]
    scale = sum(number not in ended for number in range(trials)) / max(1, len(waiting))
    store = Store(storage.child("store"))
    data, merged = Development.for_search(dataset), Development.for_retraining(dataset)
    typical = sorted(configs, key=cost)[len(configs) // 2]
    sources = [(config, bounds, search.seed) for config in waiting]
    during = _artifacts(store, data, sources, PATHS[search.target], scale)
    final: Sequence[Artifacts] = ()
    if search.target in ("unet", "defense"):
        seeds = range(search.seed, search.seed + search.retrain_seeds)
        sources = [(typical, bounds_of_one(typical), seed) for seed in seeds]
        final = _artifacts(store, merged, sources, FINAL_PATH, 1.0)
    return Counted(during, final, typical, bounds, data, merged, trials)


def free_bytes(storage: Storage) -> int | None:
    """Room on the storage's disk; None where it has no end that could be asked for."""
    if storage.local is None:
        return None
    return shutil.disk_usage(existing(storage.local)).free


def readable(size: float) -> str:
    """`320 kB`, `1.4 GB`."""
    power = min(3, max(1, int(math.log10(max(size, 1)) // 3)))
    return f"{size / 1000**power:.3g} {('kB', 'MB', 'GB')[power - 1]}"


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


def images_of(stage: str, config: ExperimentConfig, data: Development) -> int:
    """How many images a stage goes through, or learns from."""
    if stage in ("classifier", "gan"):
        return len(data.train)
    if stage in ("attack_train", "projection_train", "unet"):
        return training_images(config, data)
    return len(data.validation) if data.validation is not None else 0


def size(stage: str, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    """Bytes of one artifact."""
    return _SIZES.get(stage, _small)(images_of(stage, config, data), config, bounds, data)


def _weights(*modules: torch.nn.Module) -> int:
    return sum(4 * value.numel() for module in modules for value in module.state_dict().values())


def _classifier(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    return _weights(Classifier(config.classifier.architecture, data.image_shape, data.classes))


def _gan(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    gan = config.gan
    with torch.device("meta"):
        return _weights(Generator(gan.latent_dim, gan.width, data.image_shape)) + _weights(
            Discriminator(gan.discriminator_width, data.image_shape)
        )


def _images(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    return 4 * images * math.prod(data.image_shape)


def _trace(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    restarts = max(bounds.restarts)
    leads = sum(1 / rank for rank in range(1, restarts + 1))  # of restarts in random order, those that ever lead
    return int(images * len(bounds.steps) * (restarts + leads * 4 * (config.gan.latent_dim + 1)))


def _unet(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    with torch.device("meta"):
        network = UNet(data.image_shape[0], config.unet.width, config.unet.depth, config.unet.input)
    return 4 * _weights(network)  # also the save of its training: weights and Adam's two moments


def _small(images: int, config: ExperimentConfig, bounds: Bounds, data: Development) -> int:
    return 10_000


_SIZES: Mapping[str, Callable[[int, ExperimentConfig, Bounds, Development], int]] = {
    "classifier": _classifier,
    "gan": _gan,
    "attack": _images,
    "attack_train": _images,
    "projection": _trace,
    "projection_clean": _trace,
    "projection_train": _trace,
    "unet": _unet,
}


def _artifacts(
    store: Store,
    data: Development,
    sources: Sequence[tuple[ExperimentConfig, Bounds, int]],
    path: Sequence[str],
    scale: float,
) -> list[Artifacts]:
    found: dict[str, dict[str, ExperimentConfig]] = {name: {} for name in path}
    for config, bounds, seed in sources:
        for name, signature in signatures_of(config, path, bounds, data, seed).items():
            found[name].setdefault(signature, config)
    return [Artifacts(name, found[name], _held(store, data, name, found[name]), scale) for name in path]


def _held(store: Store, data: Development, stage: str, wanted: Mapping[str, ExperimentConfig]) -> frozenset[str]:
    """Those signatures of which every part is in the store."""
    held = set()
    for signature, config in wanted.items():
        parts = STAGES[stage].parts(config, data)
        keys = [f"{signature}-{part:03d}" if parts > 1 else signature for part in range(parts)]
        if all(store.has(stage, key) for key in keys):
            held.add(signature)
    return frozenset(held)


def _first(space: SearchSpace) -> dict[str, Any]:
    """Parameters with the first value of every range, to read what is fixed."""
    params: dict[str, Any] = {}
    for key, values in space.ranges.items():
        if space.applies(key, params):
            params[key] = values.ends()[0]
    return params
