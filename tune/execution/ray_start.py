"""The start of Ray for a search: resources of each trial, the checks of a cluster, the experiment's lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune.cluster.connection import check_shared, connect, nodes, other_nodes
from tune.cluster.coordinator import start_coordinator
from tune.cluster.own_ray import check_ray
from tune.cluster.resources import Request, Resources, on_cluster
from tune.errors import Refused
from tune.planning.machine import memory_of, resources_here
from tune.planning.preflight import Plan
from tune.planning.user_code import UserCode
from tune.storage.lock import ExperimentLock


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
    return on_cluster(request, plan.config.search.trials, nodes(), lambda: memory_of(plan))


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
