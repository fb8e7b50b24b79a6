"""Resources of each trial and the number of concurrent trials, from the request and the available hardware."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tune.cluster.cores import usable_cores
from tune.errors import Refused

GIB = 1 << 30
# What NVIDIA's data sheets give, by the name that Ray has for the GPU: of the smallest version where there are several.
MEMORY: Mapping[str, int] = {
    **{"P4": 8 * GIB, "T4": 16 * GIB, "V100": 16 * GIB, "P100": 16 * GIB, "A10": 24 * GIB, "A10G": 24 * GIB},
    **{"L4": 24 * GIB, "A100": 40 * GIB, "L40": 48 * GIB, "L40S": 48 * GIB, "A100-80G": 80 * GIB},
    **{"H100": 80 * GIB, "H200": 141 * GIB, "B200": 180 * GIB},
}
_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Request:
    """Resources requested on the command line; None = not given.

    Attributes:
        cpus: cores per trial, above 0.
        gpus: GPUs per trial: a fraction of one, or whole ones.
        concurrent: trials at once, at least 1.
        address: of a running cluster; None = this machine.
    """

    cpus: float = 1.0
    gpus: float | None = None
    concurrent: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        """Raises Refused where it makes no sense anywhere."""
        if not self.cpus > 0:
            raise Refused(f"--cpus-per-trial: expected a number > 0, found {self.cpus:g}")
        if self.gpus is not None and not self.gpus >= 0:
            raise Refused(f"--gpus-per-trial: expected a number ≥ 0, found {self.gpus:g}")
        for flag, share in (("--cpus-per-trial", self.cpus), ("--gpus-per-trial", self.gpus or 0.0)):
            if round(share, 4) != share:  # Ray counts in steps of 0.0001, and refuses others when a trial starts
                raise Refused(f"{flag}: expected at most four decimals, found {share!r}")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise Refused(f"--gpus-per-trial: expected a fraction of one, or whole GPUs, found {self.gpus:g}")
        if self.concurrent is not None and self.concurrent < 1:
            raise Refused(f"--concurrent: expected a number ≥ 1, found {self.concurrent}")


@dataclass(frozen=True)
class Resources:
    """Resources of each trial.

    Attributes:
        cpus: cores per trial.
        gpus: GPUs per trial, or a fraction of one.
        concurrent: trials at once.
        address: of a running cluster; None = this machine.
        reason: why so many GPUs, where that was not asked for.
    """

    cpus: float
    gpus: float
    concurrent: int
    address: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        """`0.25 GPUs and 1 cores per trial (…), 16 trials at once`."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.gpus:g} GPUs and {self.cpus:g} cores per trial{reason}, {self.concurrent} trials at once"


class NeededMemory(NamedTuple):
    """GPU memory of a trial: bytes, and how they are known, as `measured on NVIDIA L4`."""

    bytes: int
    how: str


@dataclass(frozen=True)
class NodeKind:
    """Equal nodes of a cluster.

    Attributes:
        resources: of one of them, as Ray counts them: CPU, GPU, accelerator_type:L4, …
        most: how many there can be.
    """

    resources: Mapping[str, float]
    most: int = 1

    @property
    def cpus(self) -> float:
        """Cores of one node."""
        return float(self.resources.get("CPU", 0))

    @property
    def gpus(self) -> float:
        """GPUs of one node."""
        return float(self.resources.get("GPU", 0))

    @property
    def accelerator(self) -> str | None:
        """Ray's name of its GPUs, where it is known."""
        names = [name.removeprefix(_ACCELERATOR) for name in self.resources if name.startswith(_ACCELERATOR)]
        return names[0] if names else None

    def holds(self, cpus: float, gpus: float) -> int:
        """Number of trials that one node can run at once."""
        # Ray keeps a fraction on one GPU: of 0.4 two fit on each
        by_gpu = self.gpus * math.floor(1 / gpus + 1e-6) if 0 < gpus < 1 else self.gpus / gpus if gpus else math.inf
        return int(min(self.cpus / cpus + 1e-6, by_gpu + 1e-6))


@dataclass(frozen=True)
class Nodes:
    """The nodes of a cluster, present and possible.

    Attributes:
        alive: the nodes that are there now.
        head: the one of them that stays whatever the autoscaler does; it may take trials too.
        growth: what the autoscaler can start.
        most: how many of `growth` together; None where that is not known (Kubernetes).
    """

    alive: Sequence[NodeKind]
    head: NodeKind = field(default_factory=lambda: NodeKind({}))
    growth: Sequence[NodeKind] = ()
    most: int | None = 0

    @property
    def can_grow(self) -> bool:
        """True where nodes that are not there yet may run trials later."""
        return self.most is None or (self.most > 0 and any(kind.most for kind in self.growth))

    @property
    def with_gpu(self) -> list[NodeKind]:
        """The kinds that have a GPU."""
        return [kind for kind in (*self.alive, *self.growth) if kind.gpus]

    def at_once(self, cpus: float, gpus: float) -> int:
        """Number of concurrent trials once the autoscaler has started all nodes that it can."""
        now = sum(kind.most * kind.holds(cpus, gpus) for kind in self.alive)
        grown, left = self.head.holds(cpus, gpus), self.most or 0
        for kind in sorted(self.growth, key=lambda kind: -kind.holds(cpus, gpus)):
            started = min(kind.most, left)
            grown, left = grown + started * kind.holds(cpus, gpus), left - started
        return max(now, grown)


def on_this_machine(request: Request, trials: int) -> Resources:
    """Fills in what was not asked for.

    Raises:
        Refused: this machine has less.
    """
    import torch  # which takes seconds, and the rest of this module none

    cores, devices = usable_cores(), torch.cuda.device_count()
    gpus = request.gpus
    _fits("--cpus-per-trial", request.cpus, cores, "cores")
    _fits("--gpus-per-trial", gpus or 0.0, devices, "GPUs", "" if devices else f" ({gpu_problem()})")
    at_once = max(1, int(cores // request.cpus))
    if gpus is None:
        gpus = min(1.0, devices / min(request.concurrent or at_once, trials)) if devices else 0.0
    if gpus:
        at_once = min(at_once, int(devices / gpus + 1e-9))
    return Resources(request.cpus, gpus, max(1, min(request.concurrent or at_once, at_once, trials)))


def gpu_problem() -> str | None:
    """The reason why torch cannot compute on a GPU of this machine; None where it can."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()
        capability, known = torch.cuda.get_device_capability(0), torch.cuda.get_arch_list()
    except (RuntimeError, AssertionError) as error:  # torch raises both: a driver too old, none, or no device
        return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
    oldest = min((int(name.split("_")[1].rstrip("af")) for name in known if name.startswith("sm_")), default=0)
    if 10 * capability[0] + capability[1] < oldest:
        found = f"{torch.cuda.get_device_name(0)} has {capability[0]}.{capability[1]}"
        return f"torch {torch.__version__} needs compute capability {oldest / 10:.1f} or newer, {found}"
    return None


def on_cluster(request: Request, trials: int, nodes: Nodes, memory: Callable[[], NeededMemory]) -> Resources:
    """Fills in what was not asked for: GPUs by a trial's memory, trials at once by what the cluster can grow to.

    With fewer trials at once an autoscaler would start the nodes one after the other.

    Args:
        request: what was asked for.
        trials: of the search.
        nodes: of the cluster.
        memory: of a trial on a GPU; only asked for where that decides.

    Raises:
        Refused: no node, present or possible, has what a trial is to get.
    """
    gpus, reason = request.gpus, ""
    if gpus is None:
        gpus, reason = _share(nodes, request.cpus, memory)
    if nodes.most is not None:
        _check_some_node_holds(nodes, request.cpus, gpus)
    room = nodes.at_once(request.cpus, gpus) or trials  # 0: not known
    return Resources(request.cpus, gpus, max(1, min(request.concurrent or room, trials)), request.address, reason)


def _share(nodes: Nodes, cpus: float, memory: Callable[[], NeededMemory]) -> tuple[float, str]:
    """GPUs per trial, and why: the largest number of trials that each GPU has memory and cores for."""
    if nodes.most is None:
        return 1.0, "a whole one, as it is not known what GPUs the workers have; --gpus-per-trial to share them"
    if not nodes.with_gpu:
        return 0.0, "no node has one"
    unknown = [kind for kind in nodes.with_gpu if kind.accelerator not in MEMORY]
    if unknown:
        name = unknown[0].accelerator or "GPUs of an unknown kind"
        return 1.0, f"a whole one, as it is not known how much memory {name} has; --gpus-per-trial to share it"
    needed, how = memory()
    least = min(nodes.with_gpu, key=lambda kind: MEMORY[kind.accelerator or ""])
    by_memory = int(MEMORY[least.accelerator or ""] / needed)
    by_cores = int(min(kind.cpus / kind.gpus / cpus for kind in nodes.with_gpu))
    trials = max(1, min(by_memory, by_cores))
    which = f"about {needed / GIB:.1f} of the {MEMORY[least.accelerator or ''] / GIB:g} GiB of {least.accelerator}"
    return math.floor(1e4 / trials) / 1e4, f"a trial takes {which}, {how}, and there are cores for {by_cores}"


def _check_some_node_holds(nodes: Nodes, cpus: float, gpus: float) -> None:
    """Refuses what Ray would wait for in vain."""
    kinds = [*nodes.alive, *(kind for kind in nodes.growth if kind.most)]
    for flag, noun, wanted, most in (
        ("--cpus-per-trial", "CPU", cpus, max((kind.cpus for kind in kinds), default=0.0)),
        ("--gpus-per-trial", "GPU", gpus, max((kind.gpus for kind in kinds), default=0.0)),
    ):
        if wanted > most:
            raise Refused(
                f"{flag}: expected at most the {most:g} {noun}s of the cluster's largest node, found {wanted:g}"
            )
    if not any(kind.holds(cpus, gpus) for kind in kinds):
        raise Refused(f"--gpus-per-trial: expected a node with {cpus:g} CPUs and {gpus:g} GPUs, found none")


def _fits(flag: str, wanted: float, available: int, noun: str, why: str = "") -> None:
    if wanted > available:
        raise Refused(f"{flag}: expected at most the {available} {noun} of this machine{why}, found {wanted:g}")
