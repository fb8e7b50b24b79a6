"""Latents that a projector evaluates at once: on a processor what its caches hold, on a card what fits its memory.

Measured on an H100 with the shipped generator in bfloat16: 3.78 million evaluations a second with 2,048 at once, 4.32
with 8,192 and 4.69 with 32,768. More than that was not tried.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CPU_CHUNK, GPU_CHUNK = 128, 8192  # the latter where nothing is known of the device's memory
CHUNKS = (32768, 16384, 8192, 4096, 2048, 1024)  # of a card, of which the first one that fits is taken
SHARE = 16  # of the memory that is free a 16th is used: as many trials may ask at the same moment
BESIDE = 2.5  # times what autograd keeps, at the most: gradients and intermediate results; counted: 2.2


def chunk_on(device: torch.device, bytes_per_latent: Callable[[], int]) -> int:
    """Number of latents to evaluate at once on a device; `bytes_per_latent` is only called where that decides."""
    if device.type == "cpu":
        return CPU_CHUNK
    free = free_memory(device)
    if free is None:
        return GPU_CHUNK
    most = free // SHARE // max(1, bytes_per_latent())
    return next((chunk for chunk in CHUNKS if chunk <= most), CHUNKS[-1])


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process may still take there, those among them that it has already and does not use.

    None where that is not known.
    """
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def bytes_for_gradient(evaluate: Callable[[], object]) -> int:
    """Bytes that an evaluation with its gradient takes at the most, by what autograd keeps of it."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        evaluate()
    return int(BESIDE * kept)
