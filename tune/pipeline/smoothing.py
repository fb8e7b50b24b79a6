"""The stages of median smoothing: three sets of images, and how the U-Net's stages read them."""

from __future__ import annotations

from typing import Any

from safetensors.torch import load_file, save_file

from components.projector.trace import Projection
from components.smoothing import Smoothing, SmoothingConfig
from tune.pipeline.attack import attacked_of, images_of
from tune.pipeline.job import Inputs, Job
from tune.pipeline.purifier import PURIFIERS, PurifierStages
from tune.pipeline.recipe import Recipe
from tune.pipeline.stage import STAGES, Stage
from tune.space.config import ExperimentConfig

_FILE = "purified.safetensors"


class SmoothingStage(Stage):
    """Smooths the images that the stage `attacked` made; None = the validation images as they are."""

    version = 2

    def __init__(self, name: str, attacked: str | None) -> None:
        self.name, self.attacked = name, attacked

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        return settings_of(recipe.config).identity()

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        return (self.attacked,) if self.attacked else ()

    def images(self, recipe: Recipe) -> int:
        return images_of(recipe, "train" if self.attacked == "attack_train" else "validation")

    def bytes(self, recipe: Recipe) -> int:
        return 4 * self.images(recipe) * recipe.data.train.images[0].numel()

    def build(self, job: Job) -> None:
        images = attacked_of(job, self.attacked) if self.attacked else job.data.held.images
        found = SMOOTHING.component(job).project(images)
        save_file({"images": found.images, "errors": found.errors}, job.draft.folder / _FILE)


class SmoothingStages(PurifierStages):
    """Median smoothing as a purifier."""

    validation, clean, training = "smoothing", "smoothing_clean", "smoothing_train"

    def cost(self, config: ExperimentConfig) -> int:
        return 0

    def read(self, inputs: Inputs, stage: str) -> Projection:
        found = load_file(inputs.folder(stage) / _FILE)
        return Projection(found["images"], found["images"].new_empty(len(found["images"]), 0), found["errors"])

    def component(self, inputs: Inputs) -> Smoothing:
        return settings_of(inputs.config).component({}, inputs.seed, inputs.device)


def settings_of(config: ExperimentConfig) -> SmoothingConfig:
    """The section `smoothing` of a configuration."""
    section = config.section("smoothing")
    assert isinstance(section, SmoothingConfig)
    return section


SMOOTHING = SmoothingStages()
PURIFIERS.register("smoothing")(SMOOTHING)
STAGES.register("smoothing")(SmoothingStage("smoothing", "attack"))
STAGES.register("smoothing_clean")(SmoothingStage("smoothing_clean", None))
STAGES.register("smoothing_train")(SmoothingStage("smoothing_train", "attack_train"))
