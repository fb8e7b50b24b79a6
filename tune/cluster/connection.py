"""The Ray that runs the trials: one of our own on this machine, or a running cluster."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from ray._private import services
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.cluster.autoscaler import growth
from tune.cluster.coordinator import HEAD
from tune.cluster.cores import usable_cores
from tune.cluster.resources import NodeKind, Nodes
from tune.cluster.watcher import watched
from tune.errors import Refused
from tune.storage.folder import Storage
from tune.storage.mounts import NETWORKED, existing, mounted

START_SECONDS = 300.0  # for Ray to start in
# bytes: the data once, and little else
OBJECT_STORE = int(os.environ.get("LATENT_DEFENSE_OBJECT_STORE", str(512 << 20)))
_SHARED = (
    "--storage: expected a folder that all nodes share (a network file system) and may write, or an address such as "
    "s3://bucket/folder that they have the keys of"
)


@contextmanager
def connect(address: str | None, *, verbose: bool = False) -> Iterator[None]:
    """Starts Ray for the block, or joins a cluster, which is left as it was.

    On one machine Ray listens on loopback and serves this search alone.
    """
    level = logging.INFO if verbose else logging.ERROR
    common: dict[str, Any] = {"logging_level": level, "log_to_driver": verbose, "configure_logging": True}
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(watched())
        stack.callback(ray.shutdown)
        if address is None:
            with _on_loopback(), _with_patience():
                _start(common)
        else:
            _join(address, common)
        yield


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
            num_cpus=usable_cores(),
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
        _check_listening(address)
        ray.init(address=address, **options)
    except (OSError, ValueError, RuntimeError) as error:  # which one depends on how far it came
        reason = str(error).strip().splitlines()[0]
        raise Refused(f"--address: expected a running Ray cluster, found none at {address}: {reason}") from error


def _check_listening(address: str) -> None:
    """Raises OSError where nothing listens at `host:port`; Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def nodes() -> Nodes:
    """The nodes of the connected cluster, and those that its autoscaler can add."""
    alive = [NodeKind(node["Resources"]) for node in _alive()]
    head = next((kind for kind in alive if HEAD in kind.resources), NodeKind({}))
    return Nodes(alive, head, *growth(ray.get_runtime_context().gcs_address))


def other_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes but this one, as Ray describes them."""
    return [node for node in _alive() if node["NodeID"] != ray.get_runtime_context().get_node_id()]


def gpu_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes with a GPU, as Ray describes them."""
    return [node for node in _alive() if node["Resources"].get("GPU")]


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def on_each(
    nodes: Sequence[Mapping[str, Any]],
    function: Callable[..., Any],
    *words: Any,
    seconds: float = 60.0,
    gpus: float = 0.0,
) -> list[tuple[str, Any]]:
    """Runs a function once on each of the nodes, beside whatever they do.

    Args:
        nodes: as Ray describes them.
        function: called with `words`.
        seconds: for which the answers are waited for.
        gpus: that each call takes.

    Returns:
        Host and answer of each node; in the place of an answer Ray's error, where there is none in time.
    """
    task = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=0)(function)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=there).remote(*words)] = node["NodeManagerHostname"]
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds) if asked else ([], [])
    for reference in late:
        ray.cancel(reference)
    silent = ray.exceptions.GetTimeoutError(f"no answer within {seconds:g} s")
    return [(asked[one], _result(one)) for one in done] + [(asked[one], silent) for one in late]


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return error


def last_line(error: BaseException) -> str:
    """The end of what Ray says of an error, which names its cause."""
    return str(error).strip().splitlines()[-1]


def check_shared(storage: Storage) -> None:
    """Checks that every node of a cluster reads and writes where the driver does.

    A folder on the driver's own disk would be lost on the others, and so would be a bucket that they have no key of.

    Raises:
        Refused: a node does not, or where only this one is there yet, others will not.
    """
    folder = storage if storage.local is None else Storage(existing(storage.local))
    others = other_nodes()
    if others and (lacking := _lacking(folder, others)):
        raise Refused(f"{_SHARED}, found {storage.uri}, which {'; '.join(lacking)}")
    if storage.local is None or others or not nodes().can_grow:
        return
    if not (kind := mounted(existing(storage.local))).startswith(NETWORKED):
        raise Refused(f"{_SHARED}, found {storage.uri} on a disk of this node ({kind}), which workers will not see")


def _lacking(folder: Storage, others: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says of each node that does not share a folder, with what is made in it for the test, what it cannot do."""
    place, file = folder.child(f".preflight-{uuid.uuid4().hex}"), "of-the-driver"
    try:
        place.write(file, b"0")
        answers = on_each(others, unshared, place.uri, file)
    finally:
        place.remove_tree()
    silent = ray.exceptions.RayError
    said = [(host, f"did not try ({last_line(why)})" if isinstance(why, silent) else why) for host, why in answers]
    return [f"{host} {why}" for host, why in said if why]


def unshared(uri: str, name: str) -> str | None:
    """Says what this node cannot do in a folder in which another has written a file; None where it can do all."""
    doing, own = "read", f"of-{uuid.uuid4().hex}"
    try:
        place = Storage(uri)
        place.read(name)
        doing = "write"
        place.write(own, b"0")
        place.delete(own)
    except FileNotFoundError as error:
        return "does not see" if doing == "read" else f"cannot write: {error}"
    except (OSError, ValueError) as error:
        return f"cannot {doing}: {error}"
    return None
