"""The settings of generator, discriminator and encoder; importing them imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field

from components.config import AnythingBut, Config, ReadWhen
from components.precision import Precision
from components.pretrained import shipped_folder


def _shipped(name: str | None) -> str | None:
    """The name, where a shipped pair has it."""
    if name is not None:
        shipped_folder(name)
    return name


ShippedPair: TypeAlias = Annotated[str | None, AfterValidator(_shipped)]
_TRAINED: dict[str, tuple[Any, ...]] = {"pretrained": (None,)}  # a shipped pair is as it is
_ENCODED = {**_TRAINED, "encoder_steps": AnythingBut((0,))}


class GanConfig(Config):
    """Generator, discriminator and their training."""

    read_when: ClassVar[ReadWhen] = {
        **dict.fromkeys(("loss", "latent_dim", "width", "discriminator_width", "average"), _TRAINED),
        **dict.fromkeys(("steps", "steps_per_epoch", "batch_size", "learning_rate"), _TRAINED),
        "encoder_steps": _TRAINED,
        **dict.fromkeys(("encoder_width", "encoder_levels", "encoder_precision"), _ENCODED),
    }

    loss: Literal["wgan_gp", "nonsaturating"] = "nonsaturating"  # as published, or non-saturating with lazy R1
    latent_dim: int = Field(default=64, ge=1, le=4096)  # length of z
    width: int = Field(default=32, ge=1, le=1024)  # channels of the generator's widest full-size map
    discriminator_width: int = Field(default=32, ge=1, le=1024)  # channels of the discriminator's first map
    steps: int = Field(default=6000, ge=1, le=10**7)  # generator steps
    steps_per_epoch: int = Field(default=500, ge=1, le=10**7)  # generator steps between two measurements (and saves)
    batch_size: int = Field(default=64, ge=2, le=10**6)  # images per step
    learning_rate: float | None = Field(default=None, gt=0, le=1)  # Adam's, of both; null = the loss's own
    average: float = Field(default=0.999, ge=0, lt=1)  # decay of the running average of the generator's weights
    encoder_steps: int = Field(
        default=0, ge=0, le=10**7
    )  # after that, of generator and an encoder, see projector.init; 0 = none
    encoder_width: int = Field(default=32, ge=1, le=1024)  # channels of the encoder's first map
    encoder_levels: int | None = Field(default=None, ge=2, le=256)  # grey levels it learns from, evenly placed
    encoder_precision: Precision = "float32"  # of the matrix products in these further steps
    pretrained: ShippedPair = None  # a pair that comes with the project, such as mnist; null = train one
