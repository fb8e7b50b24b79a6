"""A second purifier, launched, searched and scored like the projector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import executor_on, search_here
from tests.tune.tiny_search import SETTINGS
from tune.evaluation.retraining import assemble
from tune.metrics import Target
from tune.pipeline.recipe import Development
from tune.pipeline.stages import final_path_of, path_of
from tune.space.space import SearchSpace, parse_space


def space_of(target: Target) -> SearchSpace:
    """A search of the window by itself, or of the defense behind it."""
    ranges = {"projector.restarts", "projector.steps", "unet.high_level_weight"}
    settings = {key: value for key, value in SETTINGS.items() if key not in ranges}
    settings |= {"defense.purifier": "smoothing", "smoothing.window": "{choice: [1, 2, 3]}", "search.target": target}
    return parse_space("\n".join(f"{key}: {value}" for key, value in settings.items()), "smooth", "smooth.yaml")


@pytest.mark.parametrize("target", ["projection", "defense"])
def test_it_is_searched_like_the_projector(tmp_path: Path, tiny_dataset: Dataset, target: Target) -> None:
    outcomes = search_here(tmp_path, tiny_dataset, space_of(target)).outcomes()
    assert {outcome.status for outcome in outcomes} == {"finished"}
    assert {outcome.params["smoothing.window"] for outcome in outcomes} == {1, 2, 3}
    assert all(0 <= outcome.metrics["psd_gan"] <= 1 and outcome.metrics["cost"] == 0 for outcome in outcomes)
    assert not {"gan", "projection"} & set(outcomes[0].stages)  # what it does not need is not built


def test_without_smoothing_images_stay(tmp_path: Path, tiny_dataset: Dataset) -> None:
    ledger = search_here(tmp_path, tiny_dataset, space_of("defense"))
    outcomes = {outcome.params["smoothing.window"]: outcome for outcome in ledger.outcomes()}
    assert outcomes[1].metrics["psd_gan"] == outcomes[1].metrics["noisy"]


def test_a_defense_is_assembled_from_its_stages(tmp_path: Path, tiny_dataset: Dataset) -> None:
    space = space_of("defense")
    config = space.config({"smoothing.window": 2})
    executor = replace(executor_on(tmp_path, tiny_dataset), data=Development.for_retraining(tiny_dataset))
    assert path_of(config)[-1] == "score_unet"
    defense = assemble(executor, executor.get(config, final_path_of(config)))
    assert defense.projector.config == config.section("smoothing")
    assert defense.purify(tiny_dataset.test.images).shape == tiny_dataset.test.images.shape
