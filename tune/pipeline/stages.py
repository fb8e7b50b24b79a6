"""The path of a trial through the stages.

    classifier ─▶ attack ─────────▶ projection ───────▶ map
        │                              ├─────────────▶ score_projection ◀─ projection_clean
        │                              ▼
        ├───────▶ attack_train ─▶ projection_train ─▶ unet ─▶ score_unet
       gan  (feeds every projection, and score_gan)

Another purifier puts stages of its own in the place of the projections.
"""

from __future__ import annotations

from collections.abc import Sequence

from tune.pipeline import attack, classifier, gan, projection, smoothing, unet  # noqa: F401  (each adds its stages)
from tune.pipeline.purifier import purifier_of
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES
from tune.space.config import ExperimentConfig

__all__ = ["STAGES", "final_path_of", "path_of", "signatures_of"]


def path_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Stages of a trial, each after its inputs; the last one scores it."""
    if config.search.target == "gan":
        return ("classifier", "gan", "score_gan")
    purifier = purifier_of(config)
    purified = ("classifier", *purifier.sources, "attack", purifier.validation, *purifier.beside)
    if config.search.target == "projection":
        return (*purified, purifier.clean, "score_projection")
    return (*purified, *_trained(config), "score_unet")


def final_path_of(config: ExperimentConfig) -> tuple[str, ...]:
    """Stages of the final training. It has no validation images, so nothing in it can be chosen by them."""
    purifier = purifier_of(config)
    return ("classifier", *purifier.sources, *_trained(config))


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
