"""The settings of the U-Net; importing them imports no torch."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import AnythingBut, Config, ReadWhen
from components.precision import Precision

Input = Literal["generated", "both", "attacked"]
Learning = Literal["all", "unet", "encoder", "generator", "encoder+unet", "generator+encoder", "generator+unet"]
_ATTACKED: dict[str, tuple[Any, ...]] = {"training": ("attacked",)}
_ADAPTIVE: dict[str, tuple[Any, ...]] = {"training": ("adaptive",)}
_HIGH_LEVEL = {**_ATTACKED, "high_level_weight": AnythingBut((0.0,))}
_STEPPED = {**_ADAPTIVE, "attacked": AnythingBut((0.0,))}


def _later(default: Any, **bounds: Any) -> Any:
    """A field that came later, at whose default what was trained before stays what it is."""
    return Field(default=default, json_schema_extra={"neutral": default}, **bounds)


class UNetConfig(Config):
    """The U-Net, its loss (Eq. 3) and its training."""

    read_when: ClassVar[ReadWhen] = {
        **dict.fromkeys(("first_images", "high_level_weight"), _ATTACKED),
        **dict.fromkeys(("layer", "norm"), _HIGH_LEVEL),
        **dict.fromkeys(("learning", "attacked"), _ADAPTIVE),
        **dict.fromkeys(("first_steps", "steps", "step_size"), _STEPPED),
        **dict.fromkeys(("smoothing", "augment", "weight_decay", "average"), _ADAPTIVE),
    }

    width: int = Field(default=16, ge=1, le=1024)  # channels at full size; doubled at each halving
    depth: int = Field(default=2, ge=1, le=8)  # halvings of the contracting path
    input: Input = "generated"  # x_g, as published; both: and x; attacked: x alone
    images: int | None = Field(default=None, ge=2, le=10**8)  # training images that are projected for it; null = all
    first_images: int | None = _later(None, ge=2, le=10**8)  # of them, those of the first epoch; then more; null = all
    epochs: int = Field(default=8, ge=1, le=10_000)  # passes over the projected training images
    batch_size: int = Field(default=64, ge=2, le=10**6)  # images per step
    learning_rate: float = Field(default=2e-3, gt=0, le=1)  # Adam's (adaptive: AdamW's) at the peak of one cycle
    pixel_weight: float = Field(default=1.0, ge=0)  # of ‖U(x_g) − x‖₁; adaptive: and of ‖x_g − x‖₁
    high_level_weight: float = Field(default=1.0, ge=0)  # of ‖F(U(x_g)) − F(x)‖, what C sees
    label_weight: float = Field(default=0.1, ge=0)  # of CE(C(U(x_g)), y), y the true label
    layer: str = "logits"  # F: logits, penultimate, or a layer's name such as conv2
    norm: Literal["l1", "l2"] = "l1"  # of the high-level term
    precision: Precision = "float32"  # of the training's matrix products
    training: Literal["attacked", "adaptive"] = _later("attacked")  # adaptive: by attacks through the defense
    learning: Learning = _later("unet")  # networks that learn in it, from the GAN's; the others stay as they are
    attacked: float = _later(0.75, ge=0, le=1)  # share of each batch that is attacked
    first_steps: int = _later(1, ge=1, le=1000)  # of an attack in the first epoch
    steps: int = _later(10, ge=1, le=1000)  # of an attack in the last epoch; in between they grow evenly
    step_size: float = _later(0.3, gt=0, le=1)  # of each pixel, each step of an attack
    smoothing: float = _later(0.0, ge=0, lt=1)  # of the labels
    augment: float = _later(0.0, ge=0, le=1)  # random turns, sizes and shifts of the images
    weight_decay: float = _later(1e-2, ge=0)  # AdamW's
    average: float = _later(0.99, ge=0, lt=1)  # decay of the running average of weights that is kept

    @model_validator(mode="after")
    def _images_can_grow(self) -> Self:
        if self.first_images is None:
            return self
        if self.training == "adaptive":
            raise ValueError(f"first_images: expected null for training adaptive, found {self.first_images}")
        if self.epochs < 2:
            raise ValueError(f"first_images: expected null for a single epoch, found {self.first_images}")
        if self.images is not None and self.first_images > self.images:
            raise ValueError(f"first_images: expected at most images ({self.images}), found {self.first_images}")
        return self

    def images_of_epochs(self, images: int) -> list[int]:
        """The number of images of each epoch: `first_images`, growing geometrically to all of `images` in the last."""
        first, last = min(self.first_images or images, images), self.epochs - 1
        if first == images:
            return [images] * self.epochs
        return [round(images * (first / images) ** (1 - epoch / last)) for epoch in range(last)] + [images]
