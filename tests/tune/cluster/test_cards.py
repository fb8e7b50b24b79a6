"""A card that cannot do what a search asks of it is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tune.executor_fixture import tiny_space
from tune.cluster.cards import Card, cards, check_nodes, fitted
from tune.cluster.resources import GIB, NeededMemory, Request, Resources, gpu_problem, on_this_machine
from tune.errors import Refused

T4 = Card("Tesla T4", 16 * GIB, (7, 5))
H100 = Card("NVIDIA H100", 80 * GIB, (9, 0))


def fit(card: Card, gpus: float, *, asked: bool, needs: int = 5 * GIB, **space: Any) -> Resources:
    resources = Resources(1.0, gpus, int(1 / gpus))
    request = Request(gpus=gpus if asked else None)
    return fitted(resources, request, tiny_space(**space), [card], lambda: NeededMemory(needs, "counted"))


def test_what_fits_stays_as_it_is() -> None:
    assert fit(H100, 0.0625, asked=True).gpus == 0.0625
    assert fit(T4, 0.25, asked=True, needs=4 * GIB).concurrent == 4


def test_fewer_trials_share_a_card_that_is_too_small_for_all() -> None:
    resources = fit(T4, 0.0625, asked=False)
    assert (resources.concurrent, resources.gpus) == (3, 0.3333)
    assert resources.reason == "a trial takes about 5.0 GiB of Tesla T4 (16 GiB, compute capability 7.5), counted"


@pytest.mark.parametrize(
    ("gpus", "asked", "needs", "found"), [(0.25, True, 5, "4.0 GiB: 0.25 of Tesla T4"), (0.25, False, 17, "4.0 GiB")]
)
def test_a_card_that_is_too_small_is_refused(gpus: float, asked: bool, needs: int, found: str) -> None:
    with pytest.raises(Refused, match=rf"--gpus-per-trial: expected about {needs}\.0 GiB .* found {found}"):
        fit(T4, gpus, asked=asked, needs=needs * GIB)


@pytest.mark.parametrize("section", ["classifier", "unet", "projector"])
def test_a_card_without_bfloat16_is_refused_it(section: str) -> None:
    space = {f"{section}__precision": "{choice: [float32, bfloat16]}"}
    said = rf"{section}.precision: expected float32 .*found bfloat16 and Tesla T4 \(16 GiB, compute capability 7.5\)"
    with pytest.raises(Refused, match=said):
        fit(T4, 1.0, asked=True, **space)
    assert fit(H100, 1.0, asked=True, **space).gpus == 1.0


def test_a_driver_that_torch_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nPlease update")

    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.init", too_old)
    with pytest.raises(Refused, match=r"GPU that torch can use, found none: The NVIDIA driver .* 11040\); 0 comp"):
        cards()


def test_a_card_older_than_torch_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {
        "init": lambda: None,
        "get_device_capability": lambda index: (3, 7),
        "get_arch_list": lambda: ["sm_75", "sm_90a", "sm_100"],
        "get_device_name": lambda index: "Tesla K80",
    }
    monkeypatch.setattr("torch.version.cuda", "13.0")
    for name, answer in found.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    reason = gpu_problem()
    assert reason is not None
    assert reason.endswith("needs compute capability 7.5 or newer, Tesla K80 has 3.7")


def test_a_gpu_asked_for_on_a_machine_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.version.cuda", None)
    said = r"expected at most the 0 GPUs of this machine \(torch .* is built without CUDA\), found 1"
    with pytest.raises(Refused, match=said):
        on_this_machine(Request(gpus=1), 1)


def of_nodes(found: dict[str, Any], gpus: float | None = None, needs: int = 5 * GIB, **space: Any) -> None:
    request = Request(gpus=gpus, address="auto")
    resources = Resources(1.0, 0.25 if gpus is None else gpus, 4, "auto")
    check_nodes(resources, request, tiny_space(**space), found, lambda: NeededMemory(needs, "counted"))


def test_cards_of_nodes_that_suffice_pass() -> None:
    of_nodes({"one": [H100, H100], "two": [T4]})
    of_nodes({"one": [T4]}, gpus=0.5)
    of_nodes({})  # all are busy, or none is there yet


@pytest.mark.parametrize(
    ("found", "asked", "said"),
    [
        ({"one": [H100], "two": [T4]}, {"needs": 17 * GIB}, r"about 17.0 GiB .*found 16.0 GiB: 1 of two's Tesla T4"),
        ({"one": [T4]}, {"gpus": 0.25}, r"expected about 5.0 GiB .*found 4.0 GiB: 0.25 of one's Tesla T4"),
        ({"one": [T4]}, {"unet__precision": "bfloat16"}, r"unet.precision: expected float32 .*and one's Tesla"),
        ({"one": [H100], "two": "found none: too old a driver"}, {}, r"found none: too old a driver \(on two\)"),
    ],
)
def test_a_node_whose_card_does_not_is_named(found: dict[str, Any], asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        of_nodes(found, **asked)
