"""The precision that `auto` means is measured."""

import pytest
import torch

from components import precision
from components.precision import resolved

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _unmeasured() -> None:
    precision._faster.cache_clear()


def test_what_is_named_is_used() -> None:
    assert resolved("float32", CPU) == "float32"
    assert resolved("bfloat16", CPU) == "bfloat16"


@pytest.mark.parametrize(("half", "meant"), [(0.1, "bfloat16"), (0.9, "float32"), (3.0, "float32")])
def test_auto_is_what_the_device_is_fast_at(monkeypatch: pytest.MonkeyPatch, half: float, meant: str) -> None:
    monkeypatch.setattr(precision, "_seconds", lambda kind, dtype: half if dtype == torch.bfloat16 else 1.0)
    assert resolved("auto", CPU) == meant


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.dtype] = []
    monkeypatch.setattr(precision, "_seconds", lambda kind, dtype: asked.append(dtype) or 1.0)
    assert {resolved("auto", CPU) for _ in range(3)} == {"float32"}
    assert asked == [torch.float32, torch.bfloat16]


def test_a_real_product_takes_time_and_one_that_is_refused_takes_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < precision._seconds("cpu", torch.float32) < float("inf")
    assert precision._seconds("nowhere", torch.bfloat16) == float("inf")


def test_a_card_is_judged_by_products_that_outlast_their_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def ones(*shape: int, **of: object) -> None:
        asked.append(shape)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(precision, "_timed", lambda work, kind: 1.0)
    for kind in ("cpu", "cuda"):
        precision._seconds(kind, torch.float32)
    assert asked == [(512, 512), (2048, 2048)]
