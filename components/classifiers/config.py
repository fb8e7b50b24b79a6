"""The settings of the classifier; importing them imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from components.classifiers.catalogue import CLASSIFIERS, known
from components.classifiers.weights import file_of
from components.config import Config, ReadWhen
from components.precision import Precision

_TRAINED: dict[str, tuple[Any, ...]] = {"weights": (None,)}
_NAMES: dict[str, Any] = {
    "expected": "one of A, B, C, D, E, F, the name of a torchvision model such as resnet18, or of a plug-in's"
}


class ClassifierConfig(Config):
    """The classifier to defend, and its training on clean images, which given weights make needless."""

    read_when: ClassVar[ReadWhen] = dict.fromkeys(("epochs", "batch_size", "learning_rate", "precision"), _TRAINED)

    architecture: Annotated[str, AfterValidator(known)] = Field(
        default="A", json_schema_extra=_NAMES
    )  # Defense-GAN's A to F, a torchvision model or the classifier of a plug-in
    epochs: int = Field(default=6, ge=1, le=10_000)  # passes over the training images
    batch_size: int = Field(default=128, ge=2, le=10**6)  # images per step
    learning_rate: float = Field(default=1e-3, gt=0, le=1)  # Adam's at the peak of a one-cycle schedule
    precision: Precision = "float32"  # of the training's matrix products
    weights: str | None = Field(
        default=None, json_schema_extra={"neutral": None, "expected": "the path of a safetensors file, or null"}
    )  # file of weights to take, in place of training

    def identity(self) -> dict[str, Any]:
        """Architecture and training, or in its place the sha256 of the weights; of a plug-in its sha256 too."""
        settings = super().identity()
        if self.weights is not None:
            settings = {"architecture": self.architecture, "weights": file_of(self.weights).sha256}
        source = CLASSIFIERS.sources.get(self.architecture)
        return {**settings, "plugin": source} if source else settings
