"""The path of a trial through the stages.

    classifier ─▶ attack ─────────▶ projection ───────▶ map
        │                              ├─────────────▶ score_projection ◀─ projection_clean
        │                              ▼
        ├───────▶ attack_train ─▶ projection_train ─▶ unet ─▶ score_unet
       gan  (feeds every projection, and score_gan)

Another purifier puts stages of its own in the place of the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tune.pipeline import attack, classifier, gan, projection, smoothing, unet  # noqa: F401  (each adds its stages)
from tune.pipeline.purifier import purifier_of
from tune.pipeline.recipe import Development, Recipe, bounds_of
from tune.pipeline.stage import STAGES
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace

__all__ = ["STAGES", "final_path_of", "further_path_of", "path_of", "signatures_of", "signer", "sources_of"]


def path_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Stages of a trial, each after its inputs; the last one scores it."""
    if config.search.target == "gan":
        return ("classifier", "gan", "score_gan")
    purifier = purifier_of(config)
    purified = (*sources_of(config), "attack", purifier.validation, *purifier.beside)
    if config.search.target == "projection":
        return (*purified, purifier.clean, "score_projection")
    return (*purified, *_trained(config), "score_unet")


def further_path_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Stages of a finalist with a further seed: those of a trial without what is for the report alone."""
    beside = purifier_of(config).beside
    return tuple(stage for stage in path_of(config) if stage not in beside)


def final_path_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Stages of the final training. It has no validation images, so nothing in it can be chosen by them."""
    return (*sources_of(config), *_trained(config))


def sources_of(config: ExperimentConfig) -> tuple[str, ...]:
    """The networks that stand before the U-Net's images, which many configurations share."""
    return ("classifier", *purifier_of(config).sources)


def _trained(config: ExperimentConfig) -> tuple[str, ...]:
    """The U-Net, after the images that it learns from; an adaptive training makes its own."""
    if config.unet.training == "adaptive":
        return ("unet",)
    return ("attack_train", purifier_of(config).training, "unet")


def signatures_of(recipe: Recipe, path: Sequence[str]) -> dict[str, str]:
    """The signature of each stage of a path."""
    signatures: dict[str, str] = {}
    for name in path:
        signatures[name] = STAGES[name].signature(recipe, signatures)
    return signatures


def signer(space: SearchSpace, data: Development, seed: int) -> Callable[[Mapping[str, Any]], dict[str, str]]:
    """The function from parameters of a search's trial to the signature of each stage of its path."""
    bounds = bounds_of(space)

    def signatures(params: Mapping[str, Any]) -> dict[str, str]:
        config = space.config(params)
        return signatures_of(Recipe(config, bounds, data, seed), path_of(config))

    return signatures
