"""Random numbers that follow from a seed alone, whatever torch's default type and device are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def chance_of(seed: int) -> Generator:
    """The source of draws, one after the other."""
    return Generator("cpu").manual_seed(seed)


def uniform(shape: Sequence[int], chance: Generator) -> Tensor:
    """Numbers in [0, 1), float32."""
    return torch.rand(*shape, generator=chance, dtype=torch.float32, device="cpu")


def normal(shape: Sequence[int], chance: Generator) -> Tensor:
    """Numbers of mean 0 and variance 1, float32."""
    return torch.randn(*shape, generator=chance, dtype=torch.float32, device="cpu")


def integers(count: int, shape: Sequence[int], chance: Generator) -> Tensor:
    """Whole numbers in 0 … count − 1, int64."""
    return torch.randint(count, tuple(shape), generator=chance, device="cpu")
