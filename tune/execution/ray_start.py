"""The start of Ray for a search: resources of each trial, the checks of a cluster, the experiment's lock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ray

from tune.cluster.cards import Card, cards, check_nodes
from tune.cluster.connection import check_shared, connect, gpu_nodes, last_line, nodes, on_each, other_nodes
from tune.cluster.coordinator import start_coordinator
from tune.cluster.own_ray import check_ray
from tune.cluster.resources import Request, Resources, on_cluster
from tune.errors import Refused
from tune.planning.machine import memory_of, resources_here
from tune.planning.preflight import Plan
from tune.planning.user_code import UserCode
from tune.storage.lock import ExperimentLock

UNKEPT = "PYTHONDONTWRITEBYTECODE"  # what Python compiles is not kept


@contextmanager
def running_ray(
    plan: Plan, request: Request, *, quiet: bool = False, verbose: bool = False
) -> Iterator[tuple[Resources, ExperimentLock]]:
    """Starts or joins Ray and locks the experiment for the block; yields the resources of each trial, and the lock.

    A cluster is joined before the experiment is locked: the request may be refused there, and then nothing may be
    written. A local Ray is started after, as another driver may hold the experiment; it takes seconds, and so does its
    end: unless `quiet`, both are said.

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
            _say("Starting Ray on this machine …", quiet)
            _say_slow(quiet)
            stack.enter_context(connect(None, verbose=verbose))
            stack.callback(_say, "Stopping Ray …", quiet)
        else:
            stack.enter_context(connect(request.address, verbose=verbose))
            resources = _of_cluster(plan, request)
            check_shared(plan.storage)
            _check_user_code(plan.user_code)
            stack.enter_context(lock)
        start_coordinator()  # long before the first trial, for which it need not start then
        yield resources, lock


def _say_slow(quiet: bool) -> None:
    """Says where each process of Ray compiles torch anew, for seconds: images of containers often ask for it unseen."""
    if not os.environ.get(UNKEPT):
        return
    spec = find_spec("torch")
    if not (spec and spec.cached and Path(spec.cached).exists()):
        _say(f"{UNKEPT} is set: each process compiles torch anew, for seconds; once without it, and it is kept", quiet)


def _say(sentence: str, quiet: bool) -> None:
    """One line of progress; where nobody reads it any more, that is no reason to leave Ray running."""
    if not quiet:
        with suppress(OSError):
            print(sentence, flush=True)


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
    found: dict[str, Sequence[Card] | str] = {}
    kinds = {_kind(node): node for node in gpu_nodes()}
    for host, answer in on_each(list(kinds.values()), _cards, gpus=0.01):
        if isinstance(answer, ray.exceptions.GetTimeoutError):
            continue
        if isinstance(answer, ray.exceptions.RayError):
            reason = last_line(answer)
            answer = f"--gpus-per-trial: expected a node that knows its cards, found {reason}"
        found[host] = answer
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
    for host, answer in on_each(other_nodes(), _install, user_code, seconds=120.0):
        if isinstance(answer, ray.exceptions.RayError):
            what, reason = "--plugin" if user_code.plugin else "classifier", last_line(answer)
            raise Refused(f"{what}: expected what every node can use, found {host}, which cannot: {reason}") from answer


def _install(user_code: UserCode) -> None:
    user_code.install()
