"""Tests that need a real GPU: `make test-gpu`, five minutes on an H100 with 16 cores beside two trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tune.cluster.resources import gpu_problem


@pytest.fixture(autouse=True, scope="session")
def _card() -> None:
    """Skips where there is no card, and says why."""
    if reason := gpu_problem():
        pytest.skip(f"no GPU that torch can use: {reason}")


@pytest.fixture
def device() -> torch.device:
    """The card."""
    return torch.device("cuda")


@pytest.fixture
def exact() -> Iterator[None]:
    """float32 in earnest: by default a card's convolutions round their inputs to ten bits (TF32)."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
