"""The start of Ray for a search: resources of each trial, the checks of a cluster, the experiment's lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.cluster.cards import Card, cards, check_nodes
from tune.cluster.connection import check_shared, connect, gpu_nodes, nodes, other_nodes
from tune.cluster.coordinator import start_coordinator
from tune.cluster.own_ray import check_ray
from tune.cluster.resources import Request, Resources, on_cluster
from tune.errors import Refused
from tune.planning.machine import memory_of, resources_here
from tune.planning.preflight import Plan
from tune.planning.user_code import UserCode
from tune.storage.lock import ExperimentLock

SECONDS = 60.0  # for a node to say what cards it has


@contextmanager
def running_ray(plan: Plan, request: Request, *, verbose: bool = False) -> Iterator[tuple[Resources, ExperimentLock]]:
    """Starts or joins Ray and locks the experiment for the block; yields the resources of each trial, and the lock.

    A cluster is joined before the experiment is locked: the request may be refused there, and then nothing may be
    written. A local Ray is started after, as another driver may hold the experiment.

    Raises:
        Refused: there is no such cluster, it has too little, or its nodes do not share the storage.
        LockedError: another driver runs the experiment.
    """
    lock = ExperimentLock(plan.home)
    with ExitStack() as stack:
        if request.address is None:
            check_ray()
            resources = resources_here(plan, request)
            stack.enter_context(lock)
            stack.enter_context(connect(None, verbose=verbose))
        else:
            stack.enter_context(connect(request.address, verbose=verbose))
            resources = _of_cluster(plan, request)
            check_shared(plan.storage)
            _check_user_code(plan.user_code)
            stack.enter_context(lock)
        start_coordinator()  # long before the first trial, for which it need not start then
        yield resources, lock


def resources_of_cluster(plan: Plan, request: Request) -> Resources:
    """Returns the resources that each trial would get of the cluster: connects to it, asks, and disconnects."""
    with connect(request.address):
        return _of_cluster(plan, request)


def _of_cluster(plan: Plan, request: Request) -> Resources:
    memory = cache(lambda: memory_of(plan))
    resources = on_cluster(request, plan.config.search.trials, nodes(), memory)
    if resources.gpus:
        check_nodes(resources, request, plan.space, _cards_of_nodes(), memory)
    return resources


def _cards_of_nodes() -> dict[str, Sequence[Card] | str]:
    """The cards of one node of each kind that there is, by host, or why torch can use none of them.

    Nodes whose GPUs are taken are left out: whoever has them can use them.
    """
    task = ray.remote(num_cpus=0, num_gpus=0.01, max_retries=0)(_cards)
    found: dict[str, Sequence[Card] | str] = {}
    asked: dict[Any, str] = {}
    for node in {_kind(node): node for node in gpu_nodes()}.values():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=there).remote()] = node["NodeManagerHostname"]
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS) if asked else ([], [])
    for reference in late:
        ray.cancel(reference)
    for reference in done:
        try:
            found[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            found[asked[reference]] = f"--gpus-per-trial: expected a node that knows its cards, found {reason}"
    return found


def _kind(node: Mapping[str, Any]) -> frozenset[tuple[str, float]]:
    """The resources of a node, but for its name and its memory, in which equal nodes differ a little."""
    return frozenset((name, n) for name, n in node["Resources"].items() if "node:" not in name and "memory" not in name)


def _cards() -> Sequence[Card] | str:
    try:
        return cards()
    except Refused as refusal:
        return str(refusal)


def _check_user_code(user_code: UserCode) -> None:
    """Checks that every other node can import the plug-in and the classifier.

    Raises:
        Refused: a node cannot, and why.
    """
    if user_code.plugin is None and user_code.classifier is None:
        return
    install = ray.remote(num_cpus=0)(_install)
    for node in other_nodes():
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        try:
            ray.get(install.options(scheduling_strategy=strategy).remote(user_code), timeout=120)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            what = "--plugin" if user_code.plugin else "classifier"
            raise Refused(
                f"{what}: expected what every node can use, found {node['NodeManagerHostname']}, which cannot: {reason}"
            ) from error


def _install(user_code: UserCode) -> None:
    user_code.install()
