"""What trials may use, and the Ray that gives it to them: this machine alone, or a running cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch

from tune.preflight import Refused

OBJECT_STORE = 512 << 20  # bytes on one machine: the data once, and little else


@dataclass(frozen=True)
class Resources:
    """What each trial gets.

    Attributes:
        cpus: cores per trial.
        gpus: GPUs per trial, or a fraction of one.
        concurrent: trials at once.
        address: of a running cluster; None = this machine.
    """

    cpus: float
    gpus: float
    concurrent: int
    address: str | None

    @classmethod
    def asked(
        cls, cpus: float, gpus: float | None, concurrent: int | None, address: str | None, trials: int
    ) -> Resources:
        """Checks what was asked for, and fills in what was not.

        Raises:
            Refused: it is not positive, or this machine has less.
        """
        _check("--cpus-per-trial", cpus, above=0)
        if gpus is not None:
            _check("--gpus-per-trial", gpus, least=0)
            if gpus > 1 and gpus != int(gpus):
                raise Refused(f"--gpus-per-trial: expected a fraction of one, or whole GPUs, found {gpus}")
        if concurrent is not None:
            _check("--concurrent", concurrent, least=1)
        if address is not None:
            # the cluster says what it has once the driver is connected; until then one trial per asked GPU or core
            return cls(cpus, gpus or 0.0, concurrent or trials, address)
        cores, devices = len(os.sched_getaffinity(0)), torch.cuda.device_count()
        _fits("--cpus-per-trial", cpus, cores, "cores")
        _fits("--gpus-per-trial", gpus or 0.0, devices, "GPUs")
        at_once = max(1, int(cores // cpus))
        if gpus is None:
            gpus = min(1.0, devices / min(concurrent or at_once, trials)) if devices else 0.0
        if gpus:
            at_once = min(at_once, int(devices / gpus + 1e-9))
        return cls(cpus, gpus, max(1, min(concurrent or at_once, at_once, trials)), None)


@contextmanager
def connect(resources: Resources, *, verbose: bool = False) -> Iterator[None]:
    """Ray for the length of the block.

    On one machine it listens on loopback and is ours alone; a cluster is joined and left as it was.
    """
    level = logging.INFO if verbose else logging.ERROR
    common: dict[str, Any] = {"logging_level": level, "log_to_driver": verbose, "configure_logging": True}
    if resources.address is None:
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE,
            **common,
        )
    else:
        ray.init(address=resources.address, **common)
    try:
        yield
    finally:
        ray.shutdown()


def _check(flag: str, value: float, *, above: float | None = None, least: float | None = None) -> None:
    if above is not None and not value > above:
        raise Refused(f"{flag}: expected a number > {above:g}, found {value:g}")
    if least is not None and not value >= least:
        raise Refused(f"{flag}: expected a number ≥ {least:g}, found {value:g}")


def _fits(flag: str, wanted: float, available: int, noun: str) -> None:
    if wanted > available:
        raise Refused(f"{flag}: expected at most the {available} {noun} of this machine, found {wanted:g}")
