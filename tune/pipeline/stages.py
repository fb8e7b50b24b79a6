"""The stages of a trial: what each follows from, and how it is built.

    classifier ─▶ attack ─────────▶ projection ───────▶ map
        │                              ├─────────────▶ score_projection ◀─ projection_clean
        │                              ▼
        ├───────▶ attack_train ─▶ projection_train ─▶ unet ─▶ score_unet
       gan  (feeds every projection, and score_gan)

A stage's signature is a hash of what it follows from: its settings, its inputs' signatures, the data and the seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune.pipeline import builders
from tune.pipeline.job import Bounds, Development, Job
from tune.pipeline.readback import training_images
from tune.space.config import ExperimentConfig, Target

PART = 500  # images per part of a projection: the most that a killed worker loses


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of the stage, and of its folder in the store.
        version: raised by hand when the code makes another result of the same settings.
        build: makes the artifact of a job.
        settings: what of the configuration the result follows from, beside the inputs.
        inputs: the stages whose results it follows from.
        observed: the stages that it measures itself with; its result does not follow from theirs.
        images: how many images it goes through where it can be built in parts; 0 = in one piece.
        judged: whether trials are compared by its epochs while it trains.
        growing: its settings without the bounds, where a larger artifact can go on from a smaller; None = it cannot.
        shipped: identity of a ready-made artifact that stands in for training, where the configuration asks for one.
    """

    name: str
    version: int
    build: Callable[[Job], None]
    settings: Callable[[ExperimentConfig, Bounds], Mapping[str, Any]]
    inputs: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    images: Callable[[ExperimentConfig, Development], int] = lambda config, data: 0
    judged: bool = False
    growing: Callable[[ExperimentConfig], Mapping[str, Any] | None] = lambda config: None
    shipped: Callable[[ExperimentConfig], str | None] = lambda config: None

    def parts(self, config: ExperimentConfig, data: Development) -> int:
        """How many parts it has."""
        return max(1, -(-self.images(config, data) // PART))

    def signature(
        self,
        config: ExperimentConfig,
        bounds: Bounds,
        data: Development,
        seed: int,
        inputs: Mapping[str, str],
    ) -> str:
        """Hash of everything that the result follows from; `inputs` are the signatures of the stage's inputs."""
        return self._hash(self.settings(config, bounds), config, data, seed, inputs)

    def base(
        self, config: ExperimentConfig, data: Development, seed: int, inputs: Mapping[str, str]
    ) -> str | None:
        """What artifacts have in common of which a larger can go on from a smaller; None where it cannot."""
        settings = self.growing(config)
        return None if settings is None else self._hash(settings, config, data, seed, inputs)

    def _hash(
        self,
        settings: Mapping[str, Any],
        config: ExperimentConfig,
        data: Development,
        seed: int,
        inputs: Mapping[str, str],
    ) -> str:
        shipped = self.shipped(config)
        origin = {"shipped": shipped} if shipped else {"data": data.fingerprint, "seed": seed}
        facts = {
            "stage": self.name,
            "version": self.version,
            "settings": settings,
            "inputs": {name: inputs[name] for name in self.inputs},
            **origin,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def signatures_of(
    config: ExperimentConfig, path: Sequence[str], bounds: Bounds, data: Development, seed: int
) -> dict[str, str]:
    """The signature of each stage of a path; a path names a stage after its inputs."""
    signatures: dict[str, str] = {}
    for name in path:
        signatures[name] = STAGES[name].signature(config, bounds, data, seed, signatures)
    return signatures


def _section(name: str) -> Callable[[ExperimentConfig, Bounds], Mapping[str, Any]]:
    return lambda config, bounds: getattr(config, name).identity()


def _unbounded(config: ExperimentConfig) -> dict[str, Any]:
    """Without R and L, and the chunk size, which changes speed, not results; so did `compile`."""
    left_out = {"restarts", "steps", "chunk", "compile"}
    return {name: value for name, value in config.projector.identity().items() if name not in left_out}


def _projector(config: ExperimentConfig, bounds: Bounds) -> Mapping[str, Any]:
    """The upper bounds in place of R and L."""
    return {**_unbounded(config), "restarts": max(bounds.restarts), "steps": list(bounds.steps)}


def _grid(config: ExperimentConfig, bounds: Bounds) -> Mapping[str, Any]:
    return {"restarts": list(bounds.restarts), "steps": list(bounds.steps)}


def _chosen(config: ExperimentConfig, bounds: Bounds) -> Mapping[str, Any]:
    return {"restarts": config.projector.restarts, "steps": config.projector.steps}


def _attack_train(config: ExperimentConfig, bounds: Bounds) -> Mapping[str, Any]:
    return {**config.attack.identity(), "images": config.unet.images}


def _unet(config: ExperimentConfig, bounds: Bounds) -> Mapping[str, Any]:
    return {**config.unet.identity(), **_chosen(config, bounds)}


def _validation(config: ExperimentConfig, data: Development) -> int:
    return len(data.split("validation"))


_ALL = (
    Stage("classifier", 1, builders.classifier, _section("classifier")),
    Stage(
        "gan",
        2,
        builders.gan,
        _section("gan"),
        observed=("classifier",),
        shipped=lambda c: builders.shipped_gan(c.gan),
    ),
    Stage("attack", 1, builders.attack_validation, _section("attack"), ("classifier",)),
    Stage("attack_train", 1, builders.attack_train, _attack_train, ("classifier",)),
    Stage(
        "projection",
        1,
        builders.project("attack"),
        _projector,
        ("gan", "attack"),
        images=_validation,
        growing=_unbounded,
    ),
    Stage(
        "projection_clean",
        1,
        builders.project_clean,
        _projector,
        ("gan",),
        images=_validation,
        growing=_unbounded,
    ),
    Stage(
        "projection_train",
        1,
        builders.project("attack_train"),
        _projector,
        ("gan", "attack_train"),
        images=training_images,
        growing=_unbounded,
    ),
    Stage("map", 1, builders.success_map, _grid, ("classifier", "gan", "projection")),
    Stage(
        "unet",
        2,
        builders.unet,
        _unet,
        ("classifier", "gan", "attack_train", "projection_train"),
        observed=("attack", "projection"),
        judged=True,
    ),
    Stage("score_gan", 1, builders.score_gan, lambda config, bounds: {}, ("classifier", "gan")),
    Stage(
        "score_projection",
        1,
        builders.score_projection,
        _chosen,
        ("classifier", "gan", "attack", "projection", "projection_clean"),
    ),
    Stage(
        "score_unet", 1, builders.score_unet, _chosen, ("classifier", "gan", "attack", "projection", "unet")
    ),
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _ALL}

_TO_PROJECTION = ("classifier", "gan", "attack", "projection", "map")
_TO_UNET = (*_TO_PROJECTION, "attack_train", "projection_train", "unet", "score_unet")
PATHS: Mapping[Target, Sequence[str]] = {
    "gan": ("classifier", "gan", "score_gan"),
    "projection": (*_TO_PROJECTION, "projection_clean", "score_projection"),
    "unet": _TO_UNET,
    "defense": _TO_UNET,
}
# The final training has no validation images, so nothing in it can be chosen by them.
FINAL_PATH = ("classifier", "gan", "attack_train", "projection_train", "unet")
