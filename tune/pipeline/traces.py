"""Projection traces as files.

    trace.safetensors     steps, leads, latents, errors: what `ProjectionTrace.select` reads
    standing.safetensors  step, latents and the optimizer's memory of all restarts: what a larger search goes on from
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.projector.projector import ProjectionTrace
from components.projector.trace import DescentState

_TRACE, _STANDING = "trace.safetensors", "standing.safetensors"


def write_trace(trace: ProjectionTrace, folder: Path) -> None:
    """Saves a trace, and where its restarts stand if it can go on."""
    tensors = {"steps": trace.steps, "leads": trace.leads, "latents": trace.latents, "errors": trace.errors}
    save_file(tensors, folder / _TRACE)
    if trace.standing:
        memory = {f"memory.{name}": tensor.contiguous() for name, tensor in trace.standing.memory.items()}
        latents = trace.standing.latents.contiguous()
        save_file({"step": torch.tensor(trace.standing.step), "latents": latents, **memory}, folder / _STANDING)


def read_trace(folder: Path, render: Callable[[Tensor], Tensor], *, standing: bool = False) -> ProjectionTrace:
    """Loads a trace, and with `standing` where its restarts stand."""
    tensors = load_file(folder / _TRACE)
    return ProjectionTrace(
        tensors["steps"],
        tensors["leads"],
        tensors["latents"],
        tensors["errors"],
        render,
        _read_standing(folder) if standing else None,
    )


def _read_standing(folder: Path) -> DescentState:
    tensors = load_file(folder / _STANDING)
    memory = {
        name.removeprefix("memory."): tensor for name, tensor in tensors.items() if name.startswith("memory.")
    }
    return DescentState(int(tensors["step"]), tensors["latents"], memory)
