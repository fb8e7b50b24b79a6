"""Training against an attacker who knows the defense, as a stage of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import executor_on, tiny_config, tiny_space
from tune.evaluation.retraining import assemble
from tune.pipeline.executor import Executor
from tune.pipeline.job import Progress
from tune.pipeline.stages import final_path_of, path_of
from tune.space.config import ExperimentConfig
from tune.space.space import SpaceError

ENCODED = {"projector__init": "encoder", "projector__levels": 2, "gan__encoder_steps": 10, "gan__encoder_width": 4}


def config_of(**changes: Any) -> ExperimentConfig:
    settings = {"unet__training": "adaptive", "unet__steps": 2, "unet__batch_size": 16, **ENCODED, **changes}
    return tiny_config(**settings)


def test_its_defense_is_scored_and_retrained(tmp_path: Path, tiny_dataset: Dataset) -> None:
    bench, config = executor_on(tmp_path, tiny_dataset), config_of()
    path = bench.get(config, path_of(config))
    (score,) = path.artifacts["score_unet"]
    assert 0 <= score.metrics["psd"] <= 1
    assert not {"attack_train", "projection_train"} & set(path_of(config))
    assert final_path_of(config) == ("classifier", "gan", "unet")
    images = tiny_dataset.test.images
    assert assemble(bench, path).purify(images).shape == images.shape


@pytest.mark.parametrize("learning", ["unet", "all", "encoder+unet"])
def test_what_learned_beside_the_u_net_is_what_purifies(tmp_path: Path, tiny_dataset: Dataset, learning: str) -> None:
    bench, config = executor_on(tmp_path, tiny_dataset), config_of(unet__learning=learning)
    path = bench.get(config, path_of(config))
    defense = assemble(bench, path)
    gan = path.artifacts["gan"][0].folder
    for name, network in defense.projector.networks.items():
        before, now = load_file(gan / f"{name}.safetensors"), network.state_dict()
        moved = any(not torch.equal(before[key], now[key].cpu()) for key in before)
        assert moved == (learning == "all" or name in learning.split("+")), name
    held = bench.data.held
    attacked = load_file(path.artifacts["attack"][0].folder / "attacked.safetensors")["images"]
    right = float((defense(attacked).argmax(1) == held.labels).double().mean())
    assert path.artifacts["score_unet"][0].metrics["psd"] == pytest.approx(right)


def test_a_training_that_was_stopped_ends_in_the_same_weights(tmp_path: Path, tiny_dataset: Dataset) -> None:
    config = config_of(unet__epochs=3)

    def weights(bench: Executor) -> dict[str, torch.Tensor]:
        path = bench.get(config, path_of(config)[:-1])
        return load_file(path.artifacts["unet"][0].folder / "unet.safetensors")

    def stop(progress: Progress) -> None:
        if progress.stage == "unet" and progress.done == 2:
            raise KeyboardInterrupt

    whole = weights(executor_on(tmp_path / "whole", tiny_dataset))
    stopped = executor_on(tmp_path / "stopped", tiny_dataset)
    with pytest.raises(KeyboardInterrupt):
        stopped.get(config, path_of(config)[:-1], stop)
    again = weights(executor_on(tmp_path / "stopped", tiny_dataset))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_it_does_not_follow_from_r_and_l_but_from_its_attacks(tmp_path: Path, tiny_dataset: Dataset) -> None:
    bench = executor_on(tmp_path, tiny_dataset)

    def signature(**changes: Any) -> str:
        config = config_of(**changes)
        return bench.signatures(config, path_of(config))["unet"]

    plain = config_of()
    other = plain.model_copy(update={"projector": plain.projector.model_copy(update={"steps": 6})})
    assert bench.signatures(other, path_of(other))["unet"] == signature()
    changes: list[dict[str, Any]] = [
        {"attack__epsilon": 0.2},
        {"projector__levels": 3},
        {"unet__steps": 3},
        {"unet__learning": "all"},
    ]
    assert len({signature(), *(signature(**change) for change in changes)}) == 5


@pytest.mark.parametrize("changes", [{"projector__init": "random"}, {"unet__input": "both"}])
def test_what_it_cannot_train_is_refused(changes: dict[str, Any]) -> None:
    settings = {**ENCODED, "unet__training": "adaptive", **changes}
    with pytest.raises(SpaceError, match=r"unet\.training: adaptive: expected purifier projector"):
        tiny_space(**settings)
