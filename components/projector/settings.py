"""The settings that the projector reads; importing them imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.config import AnythingBut, ReadWhen
from components.precision import Precision
from components.purifiers import PurifierConfig


class ProjectorSettings(PurifierConfig):
    """The search for the latent of each image."""

    title = "GAN"

    retired: ClassVar[Mapping[str, Any]] = {
        "race_from": None, "race_factor": 1.5, "stop_error": None, "compile": False
    }  # fmt: skip

    read_when: ClassVar[ReadWhen] = {
        "tolerance": {"distance": ("huber", "insensitive")},
        "spread": {"init": ("encoder",), "restarts": AnythingBut((1,))},
        "bank_size": {"init": ("bank",)},
        "momentum": {"optimizer": ("sgd",)},
    }

    restarts: int = Field(default=4, ge=1, le=1000)  # R, independent starts per image
    steps: int = Field(default=60, ge=1, le=100_000)  # L, gradient steps per start
    distance: Literal["l2", "huber", "insensitive"] = "insensitive"  # l2 as published; insensitive: free to tolerance
    tolerance: float = Field(default=0.3, ge=0, le=1)  # where huber turns linear, or insensitive begins
    init: Literal["random", "bank", "encoder"] = "bank"  # random as published; bank: nearest drawn; encoder: a guess
    spread: float = Field(default=0.5, ge=0)  # of the further restarts around the encoder's guess, per latent
    bank_size: int = Field(default=8192, ge=1, le=1_000_000)  # images drawn for init: bank
    optimizer: Literal["sgd", "adam"] = "adam"  # sgd (with momentum) as published
    learning_rate: float = Field(default=0.1, gt=0, le=1000)  # published for sgd: 10
    momentum: float = Field(default=0.7, ge=0, lt=1)  # of sgd; published: 0.7
    prior_weight: float = Field(default=0.0, ge=0)  # of ‖z‖² / latent_dim, which keeps z where G was trained
    realism_weight: float = Field(default=0.0, ge=0)  # of softplus(−D(G(z))), which keeps x_g like an image
    precision: Precision = "float32"  # of the generator's arithmetic; z stays in float32
    chunk: int | None = Field(default=None, ge=1, le=10**7)  # latents evaluated at once; null = what suits the device

    @property
    def needs(self) -> tuple[str, ...]:
        others = {"encoder": self.init == "encoder", "discriminator": self.realism_weight > 0}
        return ("generator", *(name for name, needed in others.items() if needed))

    @model_validator(mode="after")
    def _bank_holds_restarts(self) -> Self:
        if self.init == "bank" and self.bank_size < self.restarts:
            found = f"found {self.bank_size}"
            raise ValueError(f"bank_size: expected at least restarts ({self.restarts}), {found}")
        return self
