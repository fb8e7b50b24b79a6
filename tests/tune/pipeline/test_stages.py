"""Signatures: what a stage's result follows from, no more and no less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.datasets.dataset import Dataset, DataSplit
from components.gan.config import GanConfig
from tests.tune.executor_fixture import executor_on, path_to, tiny_config, with_test_labels
from tune.metrics import TARGETS
from tune.pipeline.recipe import Development, Recipe, bounds_of
from tune.pipeline.stages import STAGES, final_path_of, signatures_of
from tune.space.space import parse_space

PATHS = {target: path_to(target) for target in TARGETS}
FINAL_PATH = final_path_of(tiny_config())
ALL = tuple(dict.fromkeys(name for path in (PATHS["projection"], PATHS["gan"], PATHS["defense"]) for name in path))
FOLLOW = {  # a change → the stages that it changes
    "classifier__epochs": set(ALL) - {"gan", "projection_clean"},
    "gan__steps": set(ALL) - {"classifier", "attack", "attack_train"},
    "projector__learning_rate": {
        "projection", "projection_clean", "projection_train", "map", "unet", "score_projection", "score_unet"
    },
    "unet__epochs": {"unet", "score_unet"},
    "unet__images": {"attack_train", "projection_train", "unet", "score_unet"},
    "search__retries": set(),
    "projector__chunk": set(),
}  # fmt: skip
VALUES = {"classifier__epochs": 1, "gan__steps": 10, "projector__learning_rate": 0.5, "unet__epochs": 1,
          "unet__images": 10, "search__retries": 5, "projector__chunk": 7}  # fmt: skip


@pytest.mark.parametrize("change", FOLLOW)
def test_a_setting_changes_what_follows_from_it(tmp_path: Path, tiny_dataset: Dataset, change: str) -> None:
    executor = executor_on(tmp_path, tiny_dataset)
    before = executor.signatures(tiny_config(), ALL)
    after = executor.signatures(tiny_config(**{change: VALUES[change]}), ALL)
    assert {name for name in ALL if before[name] != after[name]} == FOLLOW[change]


def test_one_projection_serves_every_r_and_l(tmp_path: Path, tiny_dataset: Dataset) -> None:
    executor = executor_on(tmp_path, tiny_dataset)
    config = tiny_config()
    other = config.model_copy(update={"projector": config.projector.model_copy(update={"restarts": 1, "steps": 6})})
    one, two = executor.signatures(config, ALL), executor.signatures(other, ALL)
    assert {name for name in ALL if one[name] != two[name]} == {"unet", "score_unet", "score_projection"}


def test_no_signature_follows_from_the_test_images(tmp_path: Path, tiny_dataset: Dataset) -> None:
    other = with_test_labels(tiny_dataset, lambda labels: labels[::-1].copy())
    config = tiny_config()
    one, two = executor_on(tmp_path, tiny_dataset), executor_on(tmp_path, other)
    assert one.signatures(config, ALL) == two.signatures(config, ALL)


@pytest.mark.parametrize("path", [*PATHS.values(), FINAL_PATH])
def test_a_path_names_a_stage_after_its_inputs(path: tuple[str, ...]) -> None:
    for index, name in enumerate(path):
        assert set(STAGES[name].inputs(tiny_config())) <= set(path[:index])


def test_the_final_path_needs_no_validation_images() -> None:
    needing = {"attack", "projection", "projection_clean", "map", "score_gan", "score_projection", "score_unet"}
    assert not needing & set(FINAL_PATH)


QUICKSTART = """
data.name: mnist_mini
classifier.epochs: 4
gan.pretrained: mnist
projector.levels: 2
projector.init: encoder
projector.learning_rate: 0.005
projector.restarts: {choice: [1, 2]}
projector.steps: {choice: [1, 5, 20]}
unet.images: 4000
unet.epochs: 4
unet.high_level_weight: 0.03
unet.label_weight: 0.3
"""


def test_signatures_are_those_of_before() -> None:
    """The settings of `quickstart` as they were: who changes a field's name or default finds old artifacts again.

    Classifier and GAN are those of the first release; attack and U-Net have a new version since, and with them what
    follows from them.
    """
    space = parse_space(QUICKSTART, "quickstart", "quickstart.yaml")
    config = space.config({"projector.restarts": 1, "projector.steps": 1})
    images = DataSplit(torch.zeros(6, 1, 8, 8), torch.arange(6))
    data = Development(images, images, 10, "images")
    recipe = Recipe(config, bounds_of(space), data, 0)
    signatures = signatures_of(recipe, [*PATHS["unet"], "projection_clean"])
    assert signatures == {
        "classifier": "be8bd9f11a1a41d0cc5e",
        "gan": "cd31c311890f959baa3a",
        "attack": "36bb8e35f2ef80ae5a96",
        "projection": "794f3b17597fd37ae4bf",
        "map": "e5b659ebfae9f20a29b2",
        "attack_train": "a27a18112217750e30d4",
        "projection_train": "3efba34f0cbfbd2f2c3f",
        "unet": "beb41caa4268e473c83c",
        "score_unet": "a535f428b2e927058709",
        "projection_clean": "b4828679ead42cdfc511",
    }
    assert STAGES["projection"].base(recipe, {"gan": "g", "attack": "a"}) == "69f1c46dfea69e5fac13"
    trained = replace(recipe, config=config.model_copy(update={"gan": GanConfig()}))
    versions = [STAGES["gan"].facts(one, {})["version"] for one in (recipe, trained)]
    assert versions == [2, STAGES["gan"].version]  # a shipped pair is not made anew where the training has changed
