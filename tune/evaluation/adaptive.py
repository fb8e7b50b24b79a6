"""The look at the test images by an attacker who knows the defense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from components.attacks.adaptive import evaluate_defense
from components.attacks.target import Stage
from components.classifiers.base import ClassifierError
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.robustness import Robustness
from components.static_reference import static_reference
from tune.pipeline.adaptive import settings
from tune.pipeline.purifier import cost
from tune.space.config import ExperimentConfig

IMAGES, FEWEST, EVALUATIONS = 100, 20, 300  # fewer images where each costs much: half a minute a seed
DRAW = 0  # seed of which images are drawn: chosen before anything was seen
BESIDE: tuple[Stage, ...] = ("threshold", "gan")  # what stands beside the whole defense, under the same attacks
_NAMES = {"defense": "the whole defense", "threshold": "the threshold alone", "gan": "the purifier alone"}


def adaptive_images(config: ExperimentConfig, images: int) -> int:
    """Number of test images that are attacked through the defense."""
    return min(images, IMAGES, max(FEWEST, EVALUATIONS // max(1, cost(config))))


def adaptive(
    defense: Defense,
    config: ExperimentConfig,
    train: DataSplit,
    test: DataSplit,
    tell: Callable[[str], None],
    *,
    whole: bool = True,
) -> dict[str, Any]:
    """The quick adaptive attacks on a sample of the test images, with the ε of the configuration's attack.

    Where the defense was trained against such attacks, the classifier itself is too, by the same settings and on the
    same images `train`, behind the grey levels alone: a static reference at the same effort.

    Args:
        defense, config, train, test, tell: as of `tune.evaluation.scores.evaluate`.
        whole: also the courses over ε and over steps, and what stands beside the defense: two thirds of the time.

    Returns:
        As `Robustness.to_json`, with the threshold, the purifier alone and the static reference in `beside`; without
        seconds, which differ each time.

    Raises:
        NoGradient: none passes through the defense, as through a part of a plug-in's: nothing can be said.
    """
    some = test.sample(adaptive_images(config, len(test)), seed=DRAW)

    def attacked(model: Defense, stage: Stage, curves: bool = False) -> Robustness:
        return evaluate_defense(
            model,
            some.images,
            some.labels,
            epsilon=config.attack.epsilon,
            preset="quick",
            stage=stage,
            curves=curves,
            tell=lambda what: tell(f"an attacker who knows {_NAMES[stage]}"),  # one stage, however many attacks
        )

    known = attacked(defense, "defense", curves=whole)
    if not whole:
        return known.model_copy(update={"seconds": None}).to_json()
    found: dict[str, Robustness] = {stage: attacked(defense, stage) for stage in BESIDE}
    if config.unet.training == "adaptive":
        reference = _static(defense, config, train, tell)
        if reference is not None:
            found["static"] = attacked(reference, "threshold")
    beside = {name: {"clean": one.clean, "worst": one.worst} for name, one in found.items()}
    return known.model_copy(update={"beside": beside, "seconds": None}).to_json()


def _static(
    defense: Defense, config: ExperimentConfig, train: DataSplit, tell: Callable[[str], None]
) -> Defense | None:
    """The static reference; None where the classifier, of which only the weights were wanted, cannot be trained."""
    try:
        return static_reference(
            defense, train, settings(config), DRAW, lambda what: tell(f"a static reference, {what}")
        )
    except ClassifierError as error:
        tell(f"no static reference: {error}")
        return None
