"""The look at the test images: everything that is measured of a finished defense."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.attacks import attack
from components.datasets.dataset import DataSplit
from components.defense import Defense, Purification, in_batches
from components.metrics import agreement, threshold
from tune.execution.adaptive import adaptive
from tune.pipeline.purifier import cost
from tune.space.config import ExperimentConfig

EPSILONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
CURVE_IMAGES, CURVE_EVALUATIONS = 400, 16_000  # per ε of the curve: more images where each costs little
FIGURE_IMAGES = 10
DRAW = 0  # seed of what is drawn for the curve and the figure: chosen before anything was seen


def evaluate(
    defense: Defense, config: ExperimentConfig, test: DataSplit, tell: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Measures a defense on the test images.

    Args:
        defense: trained, every choice made.
        config: its configuration, with the attack.
        test: images and true labels.
        tell: told what is being measured.

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
    known = adaptive(defense, config, test, tell)
    tell("other strengths of the attack")
    scores = {
        "n": len(test),
        "metrics": _metrics(defense, test, attacked, purified, clean) | ({"robust": known["worst"]} if known else {}),
        "adaptive": known,
        "epsilon": _curve(defense, config, test),
        "epsilon_images": curve_images(config, len(test)),
        "confusion": _confusion(test.labels, purified.label, judge.classes),
        "images_per_second": len(test) / seconds,
    }
    return scores, _pictures(defense, test, attacked, purified)


def _metrics(
    defense: Defense, test: DataSplit, attacked: Tensor, purified: Purification, clean: Purification
) -> dict[str, float]:
    predict = defense.classifier.predict
    originals, noisy = predict(test.images), predict(attacked)
    unet_alone = predict(defense.denoise(attacked, attacked))  # the attacked image stands in for x_g
    return {
        "pso": agreement(originals, test.labels),
        "noisy": agreement(noisy, test.labels),
        "threshold": agreement(predict(threshold(attacked)), test.labels),
        "psd_gan": agreement(purified.label_before, test.labels),
        "psd_unet": agreement(unet_alone, test.labels),
        "psd": agreement(purified.label, test.labels),
        "pco": agreement(purified.label, originals),
        "clean_gan": agreement(clean.label_before, test.labels),
        "clean_purified": agreement(clean.label, test.labels),
        "attacked_label": agreement(purified.label, noisy),
    }


def curve_images(config: ExperimentConfig, images: int) -> int:
    """Number of test images that each ε of the curve is measured on."""
    return min(images, max(CURVE_IMAGES, CURVE_EVALUATIONS // max(1, cost(config))))


def _curve(defense: Defense, config: ExperimentConfig, test: DataSplit) -> dict[str, list[float]]:
    """PSD, PCO and what they stand beside, on the same images for every ε."""
    some = test.sample(curve_images(config, len(test)), seed=DRAW)
    judge = defense.classifier
    originals = judge.predict(some.images)
    curve: dict[str, list[float]] = {"values": list(EPSILONS)}
    for epsilon in EPSILONS:
        stronger = config.attack.model_copy(update={"epsilon": epsilon})
        attacked = attack(stronger, judge, some.images, some.labels)
        purified = defense.inspect(attacked)
        point = {
            "noisy": agreement(judge.predict(attacked), some.labels),
            "threshold": agreement(judge.predict(threshold(attacked)), some.labels),
            "psd_gan": agreement(purified.label_before, some.labels),
            "psd": agreement(purified.label, some.labels),
            "pco": agreement(purified.label, originals),
        }
        for name, value in point.items():
            curve.setdefault(name, []).append(value)
    return curve


def _confusion(truth: Tensor, predicted: Tensor, classes: int) -> list[list[int]]:
    counts = torch.bincount(truth * classes + predicted, minlength=classes * classes)
    return counts.view(classes, classes).tolist()


def _pictures(
    defense: Defense, test: DataSplit, attacked: Tensor, purified: Purification
) -> dict[str, NDArray[Any]]:
    """Images for the figure, drawn by a fixed seed, and the mistakes that the classifier was surest of."""
    drawn = np.random.default_rng(DRAW).permutation(len(test))[:FIGURE_IMAGES]
    logits = in_batches(defense.classifier, purified.images, defense.projector.device)
    confidence = logits.softmax(1).max(1).values.where(purified.label != test.labels, -1.0)
    wrong = int((purified.label != test.labels).sum())
    worst = confidence.argsort(descending=True)[: min(FIGURE_IMAGES, wrong)].numpy()
    stages = {
        "original": test.images,
        "attacked": attacked,
        "gan": purified.generated,
        "denoised": purified.images,
    }
    labels = torch.stack([defense.classifier.predict(images) for images in stages.values()])
    return {
        **_chosen(drawn, stages, labels, test.labels, purified.realism, ""),
        **_chosen(worst, stages, labels, test.labels, purified.realism, "worst_"),
    }


def _chosen(
    index: NDArray[np.int64],
    stages: Mapping[str, Tensor],
    labels: Tensor,
    truth: Tensor,
    realism: Tensor,
    prefix: str,
) -> dict[str, NDArray[Any]]:
    images = {prefix + name: (part[index] * 255).round().byte().numpy() for name, part in stages.items()}
    return {
        **images,
        f"{prefix}true": truth[index].numpy(),
        f"{prefix}labels": labels[:, index].numpy(),
        f"{prefix}realism": realism[index].numpy(),
    }
