"""Every stage, retraining and the dry run's measurements on a device that is not the processor."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.datasets.dataset import Dataset
from components.defense import Defense
from tests.pretend_accelerator import PRETEND, PretendTensor, not_pretending, pretending
from tests.tune.executor_fixture import PATH, executor_on, path_to, setting_on, tiny_config
from tune.evaluation.retraining import retrain_seed, save_defense
from tune.execution.seeds import final_executor
from tune.execution.trial import arrays_of
from tune.metrics import TARGETS
from tune.pipeline.executor import Executor
from tune.pipeline.executor import Path as Built
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Bounds, Development, Recipe, bounds_for
from tune.planning.rates import measure
from tune.space.config import ExperimentConfig
from tune.storage.folder import Storage

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "as published": {
        "gan__loss": "wgan_gp",
        "projector__init": "random",
        "projector__optimizer": "sgd",
        "projector__distance": "l2",
    },
    "with an encoder": {
        "gan__encoder_steps": 4,
        "gan__encoder_width": 4,
        "gan__encoder_levels": 2,
        "projector__init": "encoder",
        "projector__realism_weight": 0.1,
        "attack__labels": "predicted",
        "unet__label_weight": 0,
    },
    "trained against attacks": {
        "gan__encoder_steps": 4,
        "gan__encoder_width": 4,
        "projector__init": "encoder",
        "projector__levels": 2,
        "unet__training": "adaptive",
        "unet__augment": 0.5,
    },
}


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The other device; tests/gpu runs most of these tests on a real one."""
    with pretending():
        yield PRETEND


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_every_stage_of_every_target(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device, changes: dict[str, Any]
) -> None:
    executor = replace(executor_on(tmp_path, tiny_dataset), device=device)
    for stages in map(path_to, TARGETS):
        assert set(executor.get(tiny_config(**changes), stages).artifacts) == set(stages)


def test_it_finds_what_the_processor_finds(tmp_path: Path, tiny_dataset: Dataset, device: torch.device) -> None:
    here = executor_on(tmp_path / "here", tiny_dataset).get(tiny_config(), PATH)
    elsewhere = replace(executor_on(tmp_path / "there", tiny_dataset), device=device).get(tiny_config(), PATH)
    assert elsewhere.signatures == here.signatures
    scores = [dict(path.artifacts["score_unet"][0].metrics) for path in (here, elsewhere)]
    assert scores[1] == pytest.approx(scores[0], abs=0.13)  # one of the eight validation images


@pytest.mark.parametrize("stage", ["classifier", "gan", "unet"])
def test_a_training_begun_there_goes_on_where_there_is_no_such_device(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    executor, config = executor_on(tmp_path, tiny_dataset), tiny_config(unet__epochs=3)
    with pytest.raises(KeyboardInterrupt):
        replace(executor, device=device).get(config, PATH, _interrupting(stage, epoch=1))
    with not_pretending():
        assert _epochs(executor, config, stage)[:2] == [1, 2]
    assert "starting over" not in caplog.text


def test_a_training_begun_here_goes_on_there(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    executor, config = executor_on(tmp_path, tiny_dataset), tiny_config(unet__epochs=3)
    with pytest.raises(KeyboardInterrupt):
        executor.get(config, PATH, _interrupting("unet", epoch=1))
    assert _epochs(replace(executor, device=device), config, "unet") == [1, 2, 3]
    assert "starting over" not in caplog.text


def _epochs(executor: Executor, config: ExperimentConfig, stage: str) -> list[float]:
    """The epochs of a stage as the executor reports them while it builds the path."""
    told: list[Progress] = []
    executor.get(config, PATH, told.append)
    return [progress.row["epoch"] for progress in told if progress.stage == stage and progress.row]


def _interrupting(stage: str, epoch: int) -> Any:
    def tell(progress: Progress) -> None:
        if progress.stage == stage and progress.row and progress.row["epoch"] == epoch:
            raise KeyboardInterrupt

    return tell


def test_a_larger_projection_goes_on_from_the_processors(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device
) -> None:
    executor, config = executor_on(tmp_path, tiny_dataset), tiny_config()
    path = ("classifier", "gan", "attack", "projection")
    small = executor.get(config, path).artifacts["projection"][0]
    large: Built = replace(executor, bounds=Bounds([1, 2, 3], [2, 4, 6, 8]), device=device).get(config, path)
    metrics = large.artifacts["projection"][0].metrics
    assert metrics["evaluations"] == 8 * 3 * 8 - small.metrics["evaluations"]


@pytest.mark.parametrize("reads", ["generated", "both"])
def test_retraining_and_the_look_at_the_test_images(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device, reads: str
) -> None:
    final, config = Development.for_retraining(tiny_dataset), tiny_config(unet__input=reads)
    setting = setting_on(tmp_path, tiny_dataset)
    arrays = arrays_of(train=final.train)
    executor = replace(final_executor(setting, arrays, final.fingerprint, config, 0), device=device)
    scores = retrain_seed(executor, config, tiny_dataset.test, setting.home, lambda progress: None)
    save_defense(executor, config, setting.home)
    saved = Defense.load(tmp_path / "one/best", device)
    labels = saved.inspect(tiny_dataset.test.images).label
    assert float((labels == tiny_dataset.test.labels).double().mean()) == scores["metrics"]["clean_purified"]
    assert Storage(tmp_path / "one/best/seeds").exists("0.npz")


@pytest.mark.parametrize("changes", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_the_measurements_of_the_dry_run(tiny_dataset: Dataset, device: torch.device, changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    recipe = Recipe(config, bounds_for(config), Development.for_search(tiny_dataset), seed=0)
    rates = measure([recipe], device, seconds=0.0)
    assert {"classifier", "gan", "projection", "unet"} <= set(rates)
    assert all(rate.seconds > 0 for rate in rates.values())


def test_what_stages_have_done_leaves_nothing_there(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device
) -> None:
    """Without Python's own cleaning up, which may come minutes later; a card that is shared has no room for that."""
    executor = replace(executor_on(tmp_path, tiny_dataset), device=device)
    gc.collect()
    gc.disable()
    try:
        executor.get(tiny_config(), PATH)
        assert not [value for value in gc.get_objects() if type(value) is PretendTensor]
    finally:
        gc.enable()
