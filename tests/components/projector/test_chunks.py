"""How many latents are evaluated at once, by the memory that a card has free."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from components.projector import chunks
from components.projector.chunks import CHUNKS, GPU_CHUNK, SHARE, bytes_for_gradient, chunk_on
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tests.pretend_accelerator import PRETEND, pretending
from tests.tiny_networks import generator_of

CUDA = torch.device("cuda")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "chunk"),
    [(80 * GIB, 32768), (24 * GIB, 8192), (16 * GIB, 8192), (8 * GIB, 4096), (2 * GIB, 1024), (0, 1024)],
)
def test_the_largest_that_fits_a_sixteenth_is_taken(monkeypatch: pytest.MonkeyPatch, free: int, chunk: int) -> None:
    monkeypatch.setattr(chunks, "free_memory", lambda device: free)
    assert chunk_on(CUDA, lambda: 113_000) == chunk  # the shipped generator in bfloat16, 60 steps


def test_where_the_memory_is_not_known_nothing_is_measured() -> None:
    assert chunk_on(PRETEND, lambda: pytest.fail("measured")) == GPU_CHUNK
    assert chunk_on(torch.device("cpu"), lambda: pytest.fail("measured")) == chunks.CPU_CHUNK


def test_what_this_process_keeps_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {
        "memory_reserved": lambda device: 5 * GIB,
        "memory_allocated": lambda device: GIB,
        "mem_get_info": lambda device: (10 * GIB, 80 * GIB),
    }
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(**sizes))
    assert chunks.free_memory(CUDA) == 14 * GIB


def test_bytes_are_of_what_a_gradient_needs() -> None:
    weight = torch.ones(1000, requires_grad=True)
    assert bytes_for_gradient(lambda: weight.exp().exp()) == int(chunks.BESIDE * 2 * 4000)
    assert bytes_for_gradient(lambda: weight + 1) == 0


class TestProjector:
    """On a card of the tests' own, whose free memory is told."""

    @pytest.fixture(autouse=True)
    def _pretending(self) -> Iterator[None]:
        with pretending():
            yield

    def projector(self, **settings: Any) -> Projector:
        config = ProjectorConfig.model_validate({"steps": 3, "bank_size": 16, "restarts": 2, **settings})
        return Projector(generator_of().float(), config, device=PRETEND)

    def test_it_takes_what_fits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "free_memory", lambda device: None)
        needed = self.projector()._bytes_per_latent()
        for chunk in CHUNKS:
            monkeypatch.setattr(chunks, "free_memory", lambda device, chunk=chunk: SHARE * chunk * needed)
            assert self.projector().chunk == chunk
        assert self.projector(chunk=50).chunk == 50
        assert self.projector(steps=2000)._bytes_per_latent() > 2 * needed

    def test_the_result_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(chunks, "CHUNKS", (4,))
        monkeypatch.setattr(chunks, "free_memory", lambda device: 0)
        few = self.projector()
        assert few.chunk == 4
        monkeypatch.setattr(chunks, "free_memory", lambda device: None)
        torch.testing.assert_close(few.project(images).errors, self.projector().project(images).errors)
