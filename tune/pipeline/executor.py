"""Builds what a trial needs and the store has not: each artifact once on the whole cluster, by whoever is free.

A trial that finds an artifact being built by another does not wait for that one: it builds another that it will need,
such as the next part of the same projection, and waits only when there is none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from components.files import read_json
from tune.pipeline.job import Inputs, Job, Progress, Work
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.pipeline.stage import Stage
from tune.pipeline.stages import STAGES, signatures_of
from tune.space.config import ExperimentConfig
from tune.storage.leases import Leases
from tune.storage.store import Artifact, Store

log = logging.getLogger(__name__)

POLL, LONGEST_POLL = 0.25, 2.0  # seconds between two looks at what others are building: the first, and after many


@dataclass
class Path:
    """The artifacts of one configuration.

    Attributes:
        recipe: what they follow from.
        signatures: by stage.
        artifacts: by stage, all parts in order.
        work: what was done to get them.
    """

    recipe: Recipe
    signatures: dict[str, str]
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """One artifact to have: a part of a stage."""

    stage: Stage
    part: int
    signature: str


@dataclass(frozen=True)
class Executor:
    """Gets or builds the artifacts of configurations.

    Attributes:
        store: of artifacts.
        leases: who builds what.
        data: the images that stages may see.
        bounds: of the projections.
        seed: of everything that is random.
        device: where to compute.
    """

    store: Store
    leases: Leases
    data: Development
    bounds: Bounds
    seed: int
    device: torch.device

    def recipe(self, config: ExperimentConfig) -> Recipe:
        """The recipe of a configuration with this executor's data, bounds and seed."""
        return Recipe(config, self.bounds, self.data, self.seed)

    def signatures(self, config: ExperimentConfig, stages: Sequence[str]) -> dict[str, str]:
        """The signature of each stage of a path."""
        return signatures_of(self.recipe(config), stages)

    def inputs(self, path: Path) -> Inputs:
        """The artifacts of a path, to be read on this executor's device."""
        return Inputs(path.recipe, self.device, path.artifacts)

    def get(
        self,
        config: ExperimentConfig,
        stages: Sequence[str],
        report: Callable[[Progress], None] = lambda progress: None,
    ) -> Path:
        """Every artifact of a path: found, built, or waited for while another builds it."""
        recipe = self.recipe(config)
        path = Path(recipe, signatures_of(recipe, stages))
        pending = _nodes(path)
        found: dict[tuple[str, int], Artifact] = {}
        pause = POLL
        while pending:
            left = [node for node in pending if not self._settle(node, pending, path, found, report)]
            if len(left) == len(pending):
                report(Progress(f"waiting for {left[0].stage.name}", 0, 0))
                time.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL) if len(left) == len(pending) else POLL
            pending = left
        for (name, _), artifact in sorted(found.items()):
            path.artifacts.setdefault(name, []).append(artifact)
        return path

    def _settle(
        self,
        node: Node,
        pending: Sequence[Node],
        path: Path,
        found: dict[tuple[str, int], Artifact],
        report: Callable[[Progress], None],
    ) -> bool:
        """Finds or builds one artifact; False where that must wait for others."""
        name = node.stage.name
        work = path.work.setdefault(name, Work())
        config = path.recipe.config
        observed = (stage for stage in node.stage.observed(config) if stage in path.signatures)
        needed = {*node.stage.inputs(config), *observed}
        if needed & {other.stage.name for other in pending if (other.stage.name, other.part) not in found}:
            # What it is made from is not all there. It is not looked for either: of the 127 artifacts of a full MNIST
            # each waiting trial would ask an object store for every one, at every look.
            return False
        artifact = self.store.find(name, node.signature)
        if artifact is not None:
            work.reused += 1
            if node.stage.judged:
                _replay(name, artifact, report)
        else:
            artifact = self._build(node, needed, path, found, report)
            if artifact is None:
                return False
            work.built += 1
            work.seconds += float(artifact.manifest["seconds"])
        found[name, node.part] = artifact
        report(Progress(name, 1, 1, artifact=artifact, work=path.work))
        return True

    def _build(
        self,
        node: Node,
        needed: set[str],
        path: Path,
        found: Mapping[tuple[str, int], Artifact],
        report: Callable[[Progress], None],
    ) -> Artifact | None:
        """Builds one artifact unless another is building it."""
        name = node.stage.name
        if not self.leases.acquire(node.signature):
            return None
        try:
            if self.store.has(name, node.signature) and (artifact := self.store.find(name, node.signature)):
                return artifact  # finished between the look and the lease
            inputs: dict[str, list[Artifact]] = {}
            for (stage, _), artifact in sorted(found.items()):
                if stage in needed:
                    inputs.setdefault(stage, []).append(artifact)
            base = node.stage.base(path.recipe, path.signatures)
            smaller = self._smaller(node, base, path.signatures[name])
            with self.store.draft(name, node.signature) as draft:
                saves = self.store.unfinished(node.signature)
                job = Job(path.recipe, self.device, inputs, name, node.part, draft, saves, report, smaller)
                facts = node.stage.facts(path.recipe, path.signatures)
                draft.description.update(job.description, follows_from=facts)
                report(Progress(name, 0, 0))
                node.stage.build(job)
            if base is not None:
                held = {"restarts": list(self.bounds.restarts), "steps": list(self.bounds.steps)}
                self.store.relate(name, base, path.signatures[name], held)
        finally:
            self.leases.release(node.signature)
        return self.store.find(name, node.signature)

    def _smaller(self, node: Node, base: str | None, signature: str) -> Artifact | None:
        """The same part of the largest projection that this one can go on from."""
        if base is None:
            return None
        part = node.signature.removeprefix(signature)
        relatives = self.store.relatives(node.stage.name, base)
        held = {other: Bounds(facts["restarts"], facts["steps"]) for other, facts in relatives.items()}
        fitting = [other for other in held if other != signature and self.bounds.extend(held[other])]
        for other in sorted(fitting, key=lambda other: -max(held[other].restarts) * max(held[other].steps)):
            artifact = self.store.find(node.stage.name, other + part)
            if artifact is not None:
                return artifact
        return None


def _nodes(path: Path) -> list[Node]:
    """Every artifact of a path, in an order in which they can be built."""
    return [
        Node(STAGES[name], part, key)
        for name, signature in path.signatures.items()
        for part, key in enumerate(part_signatures(STAGES[name], path.recipe, signature))
    ]


def part_signatures(stage: Stage, recipe: Recipe, signature: str) -> list[str]:
    """The names under which the store keeps the parts of a stage's artifact."""
    parts = stage.parts(recipe)
    return [f"{signature}-{part:03d}" for part in range(parts)] if parts > 1 else [signature]


def _replay(stage: str, artifact: Artifact, report: Callable[[Progress], None]) -> None:
    """Reports the epochs of a training that is over: who compares trials by epoch sees the same, built or found."""
    history = read_json(artifact.folder / "history.json")
    for row in history:
        report(Progress(stage, int(row["epoch"]), len(history), row))
