"""The look at the test images: everything that is measured of a finished defense."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.attacks import attack
from components.classifiers.base import ImageClassifier
from components.datasets.dataset import DataSplit
from components.defense import Defense, Purification, in_batches
from components.metrics import agreement, threshold
from components.purifiers import NoGradient
from tune.evaluation.adaptive import adaptive
from tune.pipeline.purifier import cost
from tune.space.config import ExperimentConfig

EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CURVE_IMAGES, CURVE_EVALUATIONS = 400, 16_000  # per ε of the curve: more images where each costs little …
CURVE_SHARE = 5  # … up to a fifth of the test images, so that the curve takes less than the result itself …
MOST_CURVE_IMAGES = 1000  # … and no more than a curve shows: a share of 1,000 is known to a point
FIGURE_IMAGES = 10
DRAW = 0  # seed of what is drawn for the curve and the figure: chosen before anything was seen


def evaluate(
    defense: Defense,
    config: ExperimentConfig,
    train: DataSplit,
    test: DataSplit,
    tell: Callable[[str], None],
    *,
    saved: bool = True,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Measures a defense on the test images.

    Args:
        defense: trained, every choice made.
        config: its configuration, with the attack.
        train: images that its U-Net learned from, for what is trained to stand beside it.
        test: images and true labels.
        tell: told what is being measured.
        saved: whether it is the one that goes to users, of which the report shows each adaptive attack, its courses
            and what stands beside it; of the others it shows the worst case alone.

    Returns:
        What goes to `best/seeds/<seed>.json` and to the `.npz` beside it.
    """
    judge = defense.classifier
    tell("attacked test images")
    attacked = attack(config.attack, judge, test.images, test.labels)
    began = time.perf_counter()
    purified = defense.inspect(attacked)
    seconds = time.perf_counter() - began
    tell("clean test images")
    clean = defense.inspect(test.images)
    plain, seen = Labels.of(judge, test.images, clean), Labels.of(judge, attacked, purified)
    tell("the U-Net alone")
    metrics = _metrics(defense, test, attacked, plain, seen)
    known, left_out = None, None
    try:
        known = adaptive(defense, config, train, test, tell, whole=saved)
    except NoGradient as error:
        left_out = str(error)
        tell(f"no adaptive attack: {left_out}")
    tell("other strengths of the attack")
    scores = {
        "n": len(test),
        "metrics": metrics | ({"robust": known["worst"]} if known else {}),
        "adaptive": known,
        "adaptive_left_out": left_out,
        "epsilon": _curve(defense, config, test, {0.0: plain, config.attack.epsilon: seen}),
        "epsilon_images": curve_images(config, len(test)),
        "confusion": _confusion(test.labels, purified.label, judge.classes),
        "images_per_second": len(test) / seconds,
    }
    return scores, _pictures(defense, test, attacked, purified, plain, seen)


@dataclass(frozen=True)
class Labels:
    """Labels that the classifier gives images on their way through the defense, each int64 (N,).

    Attributes:
        bare: of the images themselves.
        threshold: of their thresholds.
        generated: of x_g.
        purified: of U(x_g).
    """

    bare: Tensor
    threshold: Tensor
    generated: Tensor
    purified: Tensor

    @classmethod
    def of(cls, judge: ImageClassifier, images: Tensor, found: Purification) -> Labels:
        """The labels of images and of what became of them."""
        return cls(judge.predict(images), judge.predict(threshold(images)), found.label_before, found.label)

    def rows(self, index: Tensor) -> Labels:
        """Those of some of the images."""
        return Labels(self.bare[index], self.threshold[index], self.generated[index], self.purified[index])


def _metrics(
    defense: Defense, test: DataSplit, attacked: Tensor, plain: Labels, seen: Labels
) -> dict[str, float]:
    """Everything that is measured once, of the labels of the test images and of these attacked."""
    unet_alone = defense.classifier.predict(defense.denoise(attacked, attacked))  # attacked images stand in for x_g
    return {
        "pso": agreement(plain.bare, test.labels),
        "noisy": agreement(seen.bare, test.labels),
        "threshold": agreement(seen.threshold, test.labels),
        "psd_gan": agreement(seen.generated, test.labels),
        "psd_unet": agreement(unet_alone, test.labels),
        "psd": agreement(seen.purified, test.labels),
        "pco": agreement(seen.purified, plain.bare),
        "clean_gan": agreement(plain.generated, test.labels),
        "clean_purified": agreement(plain.purified, test.labels),
        "attacked_label": agreement(seen.purified, seen.bare),
    }


def curve_images(config: ExperimentConfig, images: int) -> int:
    """Number of so many test images that each ε of the curve is measured on."""
    affordable = CURVE_EVALUATIONS // max(1, cost(config))
    return min(images, max(CURVE_IMAGES, min(affordable, images // CURVE_SHARE, MOST_CURVE_IMAGES)))


def _curve(
    defense: Defense, config: ExperimentConfig, test: DataSplit, known: Mapping[float, Labels]
) -> dict[str, list[float]]:
    """PSD, PCO and what they stand beside, on the same images for every ε; all test images are `known` at some."""
    judge = defense.classifier
    drawn = test.draw(curve_images(config, len(test)), seed=DRAW)
    some = test.subset(drawn)
    curve: dict[str, list[float]] = {"values": list(EPSILONS)}
    for epsilon in EPSILONS:
        if epsilon in known:
            seen = known[epsilon].rows(drawn)
        else:
            stronger = config.attack.model_copy(update={"epsilon": epsilon})
            attacked = attack(stronger, judge, some.images, some.labels)
            seen = Labels.of(judge, attacked, defense.inspect(attacked))
        point = {
            "noisy": agreement(seen.bare, some.labels),
            "threshold": agreement(seen.threshold, some.labels),
            "psd_gan": agreement(seen.generated, some.labels),
            "psd": agreement(seen.purified, some.labels),
            "pco": agreement(seen.purified, known[0.0].bare[drawn]),
        }
        for name, value in point.items():
            curve.setdefault(name, []).append(value)
    return curve


def _confusion(truth: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    counts = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.view(classes, classes).tolist()


def _pictures(
    defense: Defense, test: DataSplit, attacked: Tensor, purified: Purification, plain: Labels, seen: Labels
) -> dict[str, NDArray[Any]]:
    """Images for the figure, drawn by a fixed seed, and the mistakes that the classifier was surest of."""
    drawn = np.random.default_rng(DRAW).permutation(len(test))[:FIGURE_IMAGES]
    worst = _surest(defense, purified, (purified.label != test.labels).nonzero().flatten())
    stages = {
        "original": test.images,
        "attacked": attacked,
        "gan": purified.generated,
        "denoised": purified.images,
    }
    labels = torch.stack([plain.bare, seen.bare, seen.generated, seen.purified])
    return {
        **_chosen(drawn, stages, labels, test.labels, ""),
        **_chosen(worst, stages, labels, test.labels, "worst_"),
    }


def _surest(defense: Defense, purified: Purification, which: Tensor) -> NDArray[np.int64]:
    """Indices of those images of `which`, int64 (M,), that the classifier is surest of."""
    if len(which):
        logits = in_batches(defense.classifier, purified.images[which], defense.projector.device)
        which = which[logits.softmax(1).max(1).values.argsort(descending=True)]
    return which[:FIGURE_IMAGES].numpy()


def _chosen(
    index: NDArray[np.int64],
    stages: Mapping[str, Tensor],
    labels: Tensor,
    truth: Tensor,
    prefix: str,
) -> dict[str, NDArray[Any]]:
    images = {prefix + name: (part[index] * 255).round().byte().numpy() for name, part in stages.items()}
    return {
        **images,
        f"{prefix}true": truth[index].numpy(),
        f"{prefix}labels": labels[:, index].numpy(),
    }
