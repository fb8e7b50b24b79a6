"""Every metric once, and what the trials of each target are judged by.

Free of torch, so that a report can be built without it. Shares are fractions in files and percent in tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Target = Literal["gan", "projection", "unet", "defense"]
Objective = Literal["psd", "robust", "both"]
Direction = Literal["max", "min"]
Unit = Literal["share", "count", "number"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        key: its name in files.
        title: a few words, for column heads, axes and the terminal.
        meaning: of its value.
        direction: of better values.
        unit: a share of images, a count, or another number.
        row: its name in the report's table of test scores; empty where it is none of them.
        part: the part of the defense behind which attacked images are counted; empty where it counts something else.
    """

    key: str
    title: str
    meaning: str
    direction: Direction = "max"
    unit: Unit = "share"
    row: str = ""
    part: str = ""

    def text(self, value: float) -> str:
        """A value as people read it: `87.5 %`, `1,240`, `0.0421`."""
        if not math.isfinite(value):
            return str(value)
        if self.unit == "share":
            return f"{100 * value:.1f} %"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


_LABELLED = "that the classifier labels correctly"
# In the order of tables. Metrics with a part stand in the order of those parts, from none to all.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.key: metric
        for metric in (
            Metric("pso", "PSO", f"originals {_LABELLED}", row="PSO, originals right"),
            Metric(
                "noisy",
                "no defense",
                f"attacked images {_LABELLED}",
                row="attacked images right, no defense",
                part="no defense",
            ),
            Metric(
                "threshold",
                "threshold",
                f"attacked images, reduced to black and white, {_LABELLED}",
                row="thresholded attacked images right",
                part="threshold at 0.5",
            ),
            Metric(
                "psd_gan",
                "PSD, no U-Net",
                f"attacked images behind the purifier alone {_LABELLED}",
                row="{purifier} images right, no U-Net",
                part="{purifier} only",
            ),
            Metric(
                "psd_unet",
                "PSD, U-Net only",
                f"attacked images behind the U-Net alone {_LABELLED}",
                row="attacked images through the U-Net alone right",
                part="U-Net only",
            ),
            Metric(
                "psd",
                "PSD",
                f"denoised images {_LABELLED}",
                row="PSD, denoised images right",
                part="{purifier} and U-Net",
            ),
            Metric(
                "pco",
                "PCO",
                "denoised images that the classifier labels as it labels their original",
                row="PCO, denoised labelled as original",
            ),
            Metric(
                "clean_purified",
                "clean accuracy",
                f"originals behind the whole defense {_LABELLED}",
                row="originals behind the defense, right",
            ),
            Metric(
                "clean_gan",
                "clean accuracy, no U-Net",
                f"originals behind the purifier alone {_LABELLED}",
                row="originals behind the {purifier} alone, right",
            ),
            Metric(
                "attacked_label",
                "attack's label",
                "denoised images that the classifier labels as it labels the attacked image",
                row="denoised labelled as attacked image",
            ),
            Metric(
                "robust",
                "robust accuracy",
                "images that stay right under the worst of all adaptive attacks, per image",
                row="worst case of an attacker who knows the defense, right",
            ),
            Metric(
                "cost",
                "cost",
                "generator gradient evaluations per image: restarts × steps",
                "min",
                "count",
            ),
            Metric("images_per_second", "images/s", "purified images per second, measured", "max", "number"),
            Metric(
                "validation_loss",
                "validation loss",
                "the U-Net's loss (Eq. 3) on validation images",
                "min",
                "number",
            ),
            Metric(
                "error",
                "projection error",
                "mean distance between an attacked image and its projection",
                "min",
                "number",
            ),
            Metric(
                "reconstruction",
                "reconstruction error",
                "mean squared error per pixel of clean images",
                "min",
                "number",
            ),
            Metric(
                "frechet",
                "Fréchet distance",
                "between the features of generated and of real images",
                "min",
                "number",
            ),
        )
    }
)


@dataclass(frozen=True)
class TargetMetrics:
    """The metrics by which the trials of a target are judged.

    Attributes:
        title: of the target, in a sentence, with the title of its `{purifier}`.
        objectives: measured on validation images. The first decides, ties go to the next. Cost is an exact count, where
            seconds depend on the machine.
        shown: metrics of each trial's row in TensorBoard.
        tested: those that the retrained seeds are tested for.
    """

    title: str
    objectives: tuple[str, ...]
    shown: tuple[str, ...]
    tested: tuple[str, ...] = ()


_DEFENDED = ("psd", "pco", "cost", "images_per_second", "validation_loss")
_TESTED = ("psd", "pco", "robust")
TARGETS: Mapping[Target, TargetMetrics] = MappingProxyType(
    {
        "gan": TargetMetrics("the GAN alone", ("clean_gan",), ("clean_gan", "reconstruction", "frechet")),
        "projection": TargetMetrics(
            "the part before the U-Net: {purifier}",
            ("psd_gan", "cost"),
            ("psd_gan", "clean_gan", "error", "cost", "images_per_second"),
        ),
        "unet": TargetMetrics("the U-Net alone", ("psd",), _DEFENDED, _TESTED),
        "defense": TargetMetrics("the whole defense: {purifier} and U-Net", ("psd", "cost"), _DEFENDED, _TESTED),
    }
)
OBJECTIVES: Mapping[Target, Mapping[str, Direction]] = MappingProxyType(
    {
        target: MappingProxyType({key: METRICS[key].direction for key in judged.objectives})
        for target, judged in TARGETS.items()
    }
)


DEFENSE_TARGETS: tuple[Target, ...] = ("unet", "defense")  # each trial is a whole defense; the chosen one is retrained


def objectives_of(target: Target, objective: Objective = "psd") -> Mapping[str, Direction]:
    """The objectives of a target, where robust is asked for in the place of PSD, or before it."""
    found = OBJECTIVES[target]
    if objective == "psd" or target not in DEFENSE_TARGETS:
        return found
    others = {key: way for key, way in found.items() if key != "psd" or objective == "both"}
    return {"robust": METRICS["robust"].direction, **others}


def images_measured(metric: str, validation: int, robust_images: int) -> int:
    """Number of the validation images that a metric is a share of: of `robust`, those that the attacker is given."""
    return min(robust_images, validation) if metric == "robust" else validation


def title_of(key: str) -> str:
    """A metric's title; its key where it is not known here, as in the files of a later version."""
    return METRICS[key].title if key in METRICS else key


def text_of(key: str, value: float) -> str:
    """A metric's value as people read it."""
    return METRICS.get(key, Metric(key, key, "", unit="number")).text(value)
