"""The settings of the U-Net; importing them imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.config import Config
from components.precision import Precision

Input = Literal["generated", "both", "attacked"]


class UNetConfig(Config):
    """The U-Net, its loss (Eq. 3) and its training."""

    width: int = Field(default=16, ge=1, le=1024)  # channels at full size; doubled at each halving
    depth: int = Field(default=2, ge=1, le=8)  # halvings of the contracting path
    input: Input = "generated"  # x_g, as published; both: and x; attacked: x alone
    images: int | None = Field(default=None, ge=2)  # training images that are projected for it; null = all
    epochs: int = Field(default=8, ge=1)  # passes over the projected training images
    batch_size: int = Field(default=64, ge=2)  # images per step
    learning_rate: float = Field(default=2e-3, gt=0, le=1)  # Adam's at the peak of a one-cycle schedule
    pixel_weight: float = Field(default=1.0, ge=0)  # of ‖U(x_g) − x‖₁
    high_level_weight: float = Field(default=1.0, ge=0)  # of ‖F(U(x_g)) − F(x)‖, what C sees
    label_weight: float = Field(default=0.1, ge=0)  # of CE(C(U(x_g)), y), y the true label
    layer: str = "logits"  # F: logits, penultimate, or a layer's name such as conv2
    norm: Literal["l1", "l2"] = "l1"  # of the high-level term
    precision: Precision = "float32"  # of the training's matrix products
