"""What trials may use, and the Ray that gives it to them: this machine alone, or a running cluster."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray._private import services
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.lock import ExperimentLock
from tune.preflight import Refused
from tune.storage import Storage

START_SECONDS = 300.0  # for Ray to start in
OBJECT_STORE = int(os.environ.get("LATENT_DEFENSE_OBJECT_STORE", 512 << 20))  # bytes: the data once, and little else


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
def alone(storage: Storage, home: Storage, resources: Resources, *, verbose: bool = False) -> Iterator[None]:
    """The experiment's lock, and Ray, for the length of the block.

    A cluster is joined before the experiment is locked, as it may refuse what was asked for, and then nothing is to be
    written; a Ray of our own is started after, as the experiment may be another driver's.
    """
    with ExitStack() as stack:
        if resources.address is not None:
            stack.enter_context(connect(resources, verbose=verbose))
            check_shared(storage)
        stack.enter_context(ExperimentLock(home))
        if resources.address is None:
            stack.enter_context(connect(resources, verbose=verbose))
        yield


@contextmanager
def connect(resources: Resources, *, verbose: bool = False) -> Iterator[None]:
    """Ray for the length of the block.

    On one machine it listens on loopback and is ours alone; a cluster is joined and left as it was.
    """
    level = logging.INFO if verbose else logging.ERROR
    common: dict[str, Any] = {"logging_level": level, "log_to_driver": verbose, "configure_logging": True}
    if resources.address is None:
        with _on_loopback(), _with_patience():
            _start(common)
    else:
        _join(resources.address, common)
    try:
        if resources.address is not None:
            _check_nodes(resources)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Within the block Ray takes 127.0.0.1 as the node's address, and then listens nowhere else.

    Otherwise ray 2.60 replaces it, on Linux, by the machine's outer address and listens on all interfaces.
    """
    replaced = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = replaced


@contextmanager
def _with_patience() -> Iterator[None]:
    """Within the block Ray waits longer for its node: the 30 s fixed in ray 2.60 are too few on a busy machine."""
    look = services.get_node

    def wait(address: str, node: str) -> Any:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                return look(address, node)
            except RuntimeError:  # it has not registered yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    services.get_node = wait
    try:
        yield
    finally:
        services.get_node = look


def _start(options: dict[str, Any]) -> None:
    """Ray on this machine.

    Raises:
        TimeoutError: it did not start in time.
    """
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE,
            **options,
        )
    except Exception as error:  # no kind of its own
        if "timed out" not in str(error):
            raise
        raise TimeoutError(f"expected Ray to start within {START_SECONDS:g} s, found: {error}") from error


def _join(address: str, options: dict[str, Any]) -> None:
    try:
        _knock(address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:  # which one depends on how far it came
        reason = str(error).strip().splitlines()[0]
        raise Refused(f"--address: expected a running Ray cluster, found none at {address}: {reason}") from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at `host:port`, of which Ray makes sure for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _check_nodes(resources: Resources) -> None:
    """Some node has what a trial asks for, or a kind of node that the cluster can start: Ray would wait for ever.

    Raises:
        Refused: no node has.
    """
    kinds = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    config = ray._private.state.state.get_cluster_config()
    kinds += [dict(group.resources) for group in config.node_group_configs] if config is not None else []
    for flag, kind, wanted in (
        ("--cpus-per-trial", "CPU", resources.cpus),
        ("--gpus-per-trial", "GPU", resources.gpus),
    ):
        most = max((float(found.get(kind, 0)) for found in kinds), default=0.0)
        if wanted > most:
            raise Refused(
                f"{flag}: expected at most the {most:g} {kind}s of the cluster's largest node, found {wanted:g}"
            )
    if not any(found.get("CPU", 0) >= resources.cpus and found.get("GPU", 0) >= resources.gpus for found in kinds):
        raise Refused(
            f"--gpus-per-trial: expected a node with {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, found none"
        )


def check_shared(storage: Storage) -> None:
    """Every node of a cluster sees the storage's files: one on the driver's own disk would be lost on the others.

    Raises:
        Refused: a node does not.
    """
    if storage.local is None:
        return
    name = f".preflight-{uuid.uuid4().hex}"
    storage.write(name, b"0")
    try:
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        look = ray.remote(num_cpus=0)(_sees)
        tasks = {
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                storage.uri, name
            ): host
            for node, host in nodes.items()
        }
        blind = [host for task, host in tasks.items() if not ray.get(task, timeout=60)]
    finally:
        storage.delete(name)
    if blind:
        raise Refused(
            f"--storage: expected a folder that all nodes share (NFS), or an address such as s3://bucket/folder, "
            f"found {storage.uri}, which {', '.join(blind)} does not see"
        )


def _sees(uri: str, name: str) -> bool:
    return Storage(uri).exists(name)


def _check(flag: str, value: float, *, above: float | None = None, least: float | None = None) -> None:
    if above is not None and not value > above:
        raise Refused(f"{flag}: expected a number > {above:g}, found {value:g}")
    if least is not None and not value >= least:
        raise Refused(f"{flag}: expected a number ≥ {least:g}, found {value:g}")


def _fits(flag: str, wanted: float, available: int, noun: str) -> None:
    if wanted > available:
        raise Refused(f"{flag}: expected at most the {available} {noun} of this machine, found {wanted:g}")
