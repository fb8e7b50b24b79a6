"""On a real card what tests/tune/pipeline does on a pretended one, and what only a card shows."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, PATH, executor_on, setting_on, tiny_config, tiny_space, try_here
from tests.tune.pipeline.test_on_accelerator import (  # noqa: F401  (tests, to be collected here, too)
    test_a_larger_projection_goes_on_from_the_processors,
    test_a_training_begun_here_goes_on_there,
    test_every_stage_of_every_target,
    test_retraining_and_the_look_at_the_test_images,
    test_the_measurements_of_the_dry_run,
)
from tune.pipeline.job import Progress

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(240)]

BFLOAT16 = {f"{section}__precision": "bfloat16" for section in ("classifier", "unet", "projector")}
ROOM = 500 << 20  # bytes of the card that the test of a full one leaves; the large U-Net wants 1.6 GB


def test_every_stage_in_bfloat16(tmp_path: Path, tiny_dataset: Dataset, device: torch.device) -> None:
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("a card without bfloat16")
    path = replace(executor_on(tmp_path, tiny_dataset), device=device).get(tiny_config(**BFLOAT16), PATH)
    assert set(path.artifacts) == set(PATH)


def test_a_training_begun_on_the_card_goes_on_on_the_processor(
    tmp_path: Path, tiny_dataset: Dataset, device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    executor, config = executor_on(tmp_path, tiny_dataset), tiny_config(unet__epochs=3)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "unet" and progress.row and progress.row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(executor, device=device).get(config, PATH, interrupt)
    told: list[Progress] = []
    executor.get(config, PATH, told.append)
    assert [row.row["epoch"] for row in told if row.stage == "unet" and row.row] == [1, 2, 3]
    assert "starting over" not in caplog.text


def test_a_trial_that_the_card_has_no_room_for_fails_and_the_next_finishes(
    tmp_path: Path, tiny_dataset: Dataset
) -> None:
    large = {"unet__width": "{choice: [4, 1024]}", "projector__chunk": 64}
    setting = replace(setting_on(tmp_path, tiny_dataset, tiny_space(**large)), gpus=1.0)
    gc.collect()
    torch.cuda.empty_cache()
    held, (_, total) = torch.cuda.memory_reserved(), torch.cuda.mem_get_info()  # earlier tests may hold some of it
    torch.cuda.set_per_process_memory_fraction((held + ROOM) / total)
    try:
        full = try_here(setting, tiny_dataset, 0, {**PARAMS, "unet.width": 1024})
        small = try_here(setting, tiny_dataset, 1, {**PARAMS, "unet.width": 4})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert full.status == "failed"
    assert full.error is not None
    assert full.error.startswith("GPU out of memory: expected ")
    assert "--gpus-per-trial, now 1" in full.error
    assert (small.status, small.error) == ("finished", None)
