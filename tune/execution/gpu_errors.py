"""Errors of a GPU: not enough memory for this trial, or a process that can no longer use the GPU."""

from __future__ import annotations

import gc
import logging
import os
import re
from typing import NoReturn

import torch

from tune.cluster.resources import gpu_problem
from tune.storage.folder import Storage

log = logging.getLogger(__name__)

PRETENDED = "LATENT_DEFENSE_PRETENDED_GPUS"  # set in tests of a cluster whose nodes only say that they have GPUs
LOST = 75  # status of a process that ends itself after such an error, for Ray to start another
# cuBLAS and cuDNN have words of their own for it; where the memory of no algorithm was there, torch has found no engine
_FULL = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "unable to find an engine")
_OF_GPU = ("CUDA error", "CUDA out of memory", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "find an engine")
_SIZES = re.compile(r"allocate ([\d.]+ \w+)\..*total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", re.DOTALL)


def out_of_memory(error: BaseException, gpus: float) -> str | None:
    """Says what to change where an error is a card's lack of memory; None where it is none.

    Args:
        error: as torch raised it.
        gpus: that each trial gets.
    """
    text = str(error)
    if not isinstance(error, torch.OutOfMemoryError) and not (_of_gpu(text) and any(word in text for word in _FULL)):
        return None
    sizes = _SIZES.search(text)
    found = f"{sizes[3]} of {sizes[2]}" if sizes else f"less ({text.strip().splitlines()[0]})"
    expected = sizes[1] if sizes else "what the trial needs"
    return (
        f"GPU out of memory: expected {expected} free, found {found}; give each trial more of a GPU "
        f"(--gpus-per-trial, now {gpus:g}) or lower projector.chunk, the batch sizes or the widths"
    )


class GpuLost(BaseException):
    """This process can compute on its GPU no more. No Exception, as it ends the process and not the trial."""


def broken(text: str) -> bool:
    """Tells from an error's text that its process must end: after one in a kernel CUDA refuses all that follows."""
    return _of_gpu(text) and not any(word in text for word in _FULL)


def lacking_gpu(gpus: float) -> str | None:
    """Says that this process was to have a GPU and torch cannot use it; None where all is well.

    Without this a worker would compute on its processor for hours, unnoticed.
    """
    if not gpus or torch.cuda.is_available() or os.environ.get(PRETENDED):
        return None
    return f"--gpus-per-trial: expected a GPU that torch can use for each trial, found none: {gpu_problem()}"


def free_memory() -> None:
    """Gives the card what the allocator keeps, after a trial that has filled it, for those beside and after it."""
    if torch.cuda.is_initialized():
        gc.collect()  # networks, optimizers and schedules hold each other
        torch.cuda.empty_cache()


class GpuErrorCount:
    """Counts GPU errors by trial in the experiment's folder; a trial with a second error is recorded as failed.

    Args:
        home: the experiment's folder.
    """

    def __init__(self, home: Storage) -> None:
        self._folder = home.child("gpu_faults")

    def first(self, trial: int, error: BaseException) -> bool:
        """Notes the error, and says whether it is the trial's first of this kind."""
        name = f"{trial:03d}.txt"
        if self._folder.exists(name):
            return False
        self._folder.write(name, f"{type(error).__name__}: {error}\n".encode())
        return True


def end_process(error: BaseException) -> NoReturn:
    """Ends this worker at once, without what Python would do at its end on a card that answers no more."""
    log.error("ending this worker after %s: %s", type(error).__name__, str(error).strip().splitlines()[0])
    logging.shutdown()
    os._exit(LOST)


def _of_gpu(text: str) -> bool:
    return any(word in text for word in _OF_GPU)
