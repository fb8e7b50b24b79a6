"""The settings of the classifier; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.config import Config
from components.precision import Precision


class ClassifierConfig(Config):
    """The classifier to defend, and its training on clean images."""

    architecture: Literal["A", "B", "C", "D", "E", "F"] = "A"  # Defense-GAN's name for it
    epochs: int = Field(default=6, ge=1)  # passes over the training images
    batch_size: int = Field(default=128, ge=2)  # images per step
    learning_rate: float = Field(default=1e-3, gt=0, le=1)  # Adam's at the peak of a one-cycle schedule
    precision: Precision = "float32"  # of the training's matrix products
