"""The autoscaler's choice between spot and on-demand machines, as Ray itself makes it from the scorer."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest

pytest.importorskip("ray.autoscaler._private.resource_demand_scheduler")
from ray.autoscaler._private.node_provider_availability_tracker import (
    NodeAvailabilityRecord,
    NodeAvailabilitySummary,
)
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for

from deploy import spot_first

GPU_NODE = {"CPU": 4, "GPU": 1, "memory": 16 * 2**30}
TYPES = {
    "head": {"resources": {"CPU": 0, "GPU": 0}, "max_workers": 0},
    "gpu_on_demand": {"resources": GPU_NODE, "max_workers": 8},
    "gpu_spot": {"resources": GPU_NODE, "max_workers": 8},
}


def launched(demands: list[dict[str, Any]], refused: tuple[str, ...] = ()) -> dict[str, int]:
    """How many nodes of each type Ray's (v1) scheduler would launch."""
    records = {name: NodeAvailabilityRecord(name, False, time.time(), None) for name in refused}
    scorer = functools.partial(
        spot_first.score, node_availability_summary=NodeAvailabilitySummary(node_availabilities=records)
    )
    place: Any = get_nodes_for
    return dict(place(TYPES, {"head": 1}, "head", 8, demands, scorer)[0])


def test_spot_comes_first() -> None:
    assert launched([{"CPU": 1, "GPU": 1}] * 3) == {"gpu_spot": 3}


def test_on_demand_while_spot_is_refused() -> None:
    assert launched([{"CPU": 1, "GPU": 1}] * 3, refused=("gpu_spot",)) == {"gpu_on_demand": 3}


def test_spot_again_when_both_are_refused() -> None:
    assert launched([{"CPU": 1, "GPU": 1}], refused=("gpu_spot", "gpu_on_demand")) == {"gpu_spot": 1}


def test_four_trials_share_a_gpu() -> None:
    assert launched([{"CPU": 1, "GPU": 0.25}] * 4) == {"gpu_spot": 1}


def test_what_fits_nowhere_launches_nothing() -> None:
    assert launched([{"GPU": 2}]) == {}
