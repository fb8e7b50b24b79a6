"""The stages that attack images: those for validation, and those that the U-Net learns from."""

from __future__ import annotations

from typing import Literal

from safetensors.torch import load_file, save_file
from torch import Tensor

from components.attacks import attack
from components.datasets.dataset import DataSplit
from tune.pipeline.classifier import classifier_of
from tune.pipeline.job import Inputs, Job
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES, Rates, Stage
from tune.space.config import ExperimentConfig

Split = Literal["validation", "train"]


class AttackStage(Stage):
    """Attacks one split of the images."""

    version = 2

    def __init__(self, name: str, split: Split) -> None:
        self.name, self.split = name, split

    def settings(self, recipe: Recipe) -> dict[str, object]:
        settings = recipe.config.attack.identity()
        return settings if self.split == "validation" else {**settings, "images": recipe.config.unet.images}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("classifier",)

    def images(self, recipe: Recipe) -> int:
        return images_of(recipe, self.split)

    def bytes(self, recipe: Recipe) -> int:
        return 4 * self.images(recipe) * recipe.data.train.images[0].numel()

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        return self.images(recipe) * rates["classifier"].seconds

    def build(self, job: Job) -> None:
        split = split_of(job.recipe, self.split)
        images = attack(job.config.attack, classifier_of(job), split.images, split.labels)
        save_file({"images": images}, job.draft.folder / "attacked.safetensors")


STAGES.register("attack")(AttackStage("attack", "validation"))
STAGES.register("attack_train")(AttackStage("attack_train", "train"))


def images_of(recipe: Recipe, split: Split) -> int:
    """Number of validation images, or of training images that are attacked for the U-Net to learn from."""
    if split == "validation":
        return len(recipe.data.validation) if recipe.data.validation is not None else 0
    return min(recipe.config.unet.images or len(recipe.data.train), len(recipe.data.train))


def split_of(recipe: Recipe, split: Split) -> DataSplit:
    """The validation images, or the training images that the U-Net learns from, each class in its proportion."""
    if split == "validation":
        return recipe.data.held
    train, count = recipe.data.train, images_of(recipe, "train")
    return train if count == len(train) else train.sample(count, seed=0)


def attacked_of(inputs: Inputs, stage: str) -> Tensor:
    """The images (N, C, H, W) that an attack stage made."""
    return load_file(inputs.folder(stage) / "attacked.safetensors")["images"]
