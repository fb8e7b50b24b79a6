"""The evaluation without autograd is the projector's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.fused import Fused
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tests.tiny_networks import generator_of


def projector(**settings: Any) -> Projector:
    published = {"distance": "l2", "init": "random", "optimizer": "sgd", "restarts": 2, "steps": 5}
    return Projector(generator_of().float(), ProjectorConfig.model_validate({**published, **settings}))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_errors_and_latents_are_the_same(precision: str) -> None:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected, other = projector(precision=precision).trace(images), projector(precision=precision)
    Fused(other, compiled=False)
    found = other.trace(images)
    torch.testing.assert_close(found.errors, expected.errors)
    torch.testing.assert_close(found.latents, expected.latents)


def test_another_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="expected distance l2"):
        Fused(projector(distance="huber"), compiled=False)
