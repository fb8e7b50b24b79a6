"""Errors of a GPU: too little memory is a trial's failure, a broken kernel the end of its process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, setting_on, try_here
from tests.tune.tiny_search import PATIENCE, ROOT, outcomes, searching, words, write_space
from tune.execution.gpu_errors import GpuLost, broken, out_of_memory
from tune.pipeline.executor import Executor

FULL = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.25 GiB is "
    "free. Process 7 has 77.86 GiB memory in use. Of the allocated memory 77.00 GiB is allocated by PyTorch."
)
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


def raising(error: Exception) -> Any:
    def fail(*arguments: Any) -> None:
        raise error

    return fail


def cuda_error() -> RuntimeError:
    """As torch raises it: a kind of its own since torch 2.8."""
    return getattr(torch, "AcceleratorError", RuntimeError)(ASSERT)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(FULL), "expected 20.00 GiB free, found 1.25 GiB of 79.11 GiB; give each trial more"),
        (RuntimeError("CUDA error: out of memory\nCompile with"), "expected what the trial needs free, found less ("),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "GPU out of memory"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "GPU out of memory"),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), "GPU out of memory"),
    ],
)
def test_out_of_memory_says_what_to_change(error: Exception, expected: str) -> None:
    said = out_of_memory(error, 0.25)
    assert said is not None
    assert expected in said
    assert "--gpus-per-trial, now 0.25" in said
    assert not broken(str(error))


@pytest.mark.parametrize(
    ("text", "ends"), [(ASSERT, True), ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True), ("too warm", False)]
)
def test_what_ends_a_process(text: str, ends: bool) -> None:
    assert broken(text) == ends
    assert out_of_memory(RuntimeError(text), 1.0) is None


def test_a_trial_that_lacks_memory_fails(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Executor, "get", raising(torch.OutOfMemoryError(FULL)))
    outcome = try_here(setting_on(tmp_path, tiny_dataset), tiny_dataset, 3, PARAMS)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.startswith("GPU out of memory: expected 20.00 GiB free")


def test_a_trial_that_breaks_two_processes_has_failed(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    monkeypatch.setattr(Executor, "get", raising(cuda_error()))
    with pytest.raises(GpuLost, match="device-side assert"):
        try_here(setting, tiny_dataset, 3, PARAMS)
    outcome = try_here(setting, tiny_dataset, 3, PARAMS)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "device-side assert triggered" in outcome.error


def test_a_trial_without_its_gpu_fails_at_once(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = try_here(replace(setting_on(tmp_path, tiny_dataset), gpus=0.5), tiny_dataset, 3, PARAMS)
    assert outcome.error is not None
    assert "--gpus-per-trial: expected a GPU that torch can use for each trial, found none: " in outcome.error


SEARCH = """
from pathlib import Path
import tune.execution.driver as driver
from tune import search

run = driver.run_trial

def run_trial(config, *, setting, arrays, channel):
    import os
    from components.classifiers.training import ClassifierTraining
    from tune.pipeline.executor import Executor
    notes = Path(setting.storage) / "processes.txt"
    notes.open("a").write(f"{config['trial']} {os.getpid()}\\n")
    build = Executor.get
    def get(executor, *arguments):
        if config["trial"] == 1 and notes.read_text().count("\\n1 ") < FAULTS + 1:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return build(executor, *arguments)
    Executor.get = get
    try:
        run(config, setting=setting, arrays=arrays, channel=channel)
    finally:
        Executor.get = build

driver.run_trial = run_trial
search.main()
"""


@pytest.mark.slow
@pytest.mark.timeout(400 * PATIENCE)
@pytest.mark.parametrize(("faults", "status"), [(1, "finished"), (2, "failed")])
def test_the_worker_is_replaced_and_the_trial_tried_once_more(tmp_path: Path, faults: int, status: str) -> None:
    (tmp_path / "faulty_search.py").write_text(SEARCH.replace("FAULTS", str(faults)))
    space = write_space(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        with searching(words(space, tmp_path / "results"), tmp_path / "log", "faulty_search") as search:
            assert search.wait(300) == 0, search.output
    found = outcomes(tmp_path / "results/one")
    assert [found[number].status for number in range(3)] == ["finished", status, "finished"]
    tries = [line.split() for line in (tmp_path / "results/processes.txt").read_text().splitlines()]
    processes = [process for number, process in tries if number == "1"]
    assert len(processes) == len(set(processes)) == 2 + (faults == 2)  # the last finds the trial's record
    assert "device-side assert" in (tmp_path / "results/one/gpu_faults/001.txt").read_text()
