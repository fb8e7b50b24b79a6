"""Builds what a trial needs and the store has not: each artifact once on the whole cluster, by whoever is free.

A trial that finds an artifact being built by another does not wait for that one: it builds another that it will need,
such as the next part of the same projection, and waits only when there is none. What was looked for in vain is looked
for again when its lease is free: then another has finished it, or has failed to.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch

from components.files import read_json
from components.hardware import let_go
from tune.pipeline.job import Inputs, Job, Progress, Work
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.pipeline.stage import Stage
from tune.pipeline.stages import STAGES, signatures_of
from tune.space.config import ExperimentConfig
from tune.storage.folder import Storage
from tune.storage.leases import Leases
from tune.storage.store import Artifact, Store
from tune.storage.uses import note_uses

log = logging.getLogger(__name__)


@dataclass
class Path:
    """The artifacts of one configuration.

    Attributes:
        recipe: what they follow from.
        signatures: by stage.
        owner: for whom they are got.
        artifacts: by stage, all parts in order.
        work: what was done to get them, by this owner in whatever process.
    """

    recipe: Recipe
    signatures: dict[str, str]
    owner: str
    artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)

    def count(self, stage: str, artifact: Artifact) -> None:
        """Counts an artifact as built where its owner has built it, be it before its process was lost or paused."""
        work = self.work.setdefault(stage, Work())
        if artifact.manifest.get("built_by") == self.owner:
            work.built += 1
            work.seconds += float(artifact.manifest["seconds"])
        else:
            work.reused += 1


@dataclass(frozen=True)
class Node:
    """One artifact to have: a part of a stage."""

    stage: Stage
    part: int
    signature: str


Found = dict[tuple[str, int], Artifact]


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
        uses: the folder that gets a note of each path before any of it is built; None where nobody needs to know.
        owner: for whom it builds, the same whenever a trial or a training is taken up again; None = each call's own.
    """

    store: Store
    leases: Leases
    data: Development
    bounds: Bounds
    seed: int
    device: torch.device
    uses: Storage | None = None
    owner: str | None = None

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
        path = Path(recipe, signatures_of(recipe, stages), self.owner or uuid.uuid4().hex)
        if self.uses is not None:
            note_uses(self.uses, path.signatures)
        pending = {node.signature: node for node in _nodes(path)}
        found: Found = {}
        missing: set[str] = set()  # looked for, and not there
        waited = 0.0
        while pending:
            ready = _ready(pending.values(), path)
            there = dict(self._look([node for node in ready if node.signature not in missing]))
            for node, artifact in there.items():
                path.count(node.stage.name, artifact)
                if node.stage.judged:
                    replay(node.stage.name, artifact, report)
                self._settle(node, artifact, pending, path, found, report)
            if there:
                waited = 0.0
                continue
            missing |= {node.signature for node in ready}
            wanted = [node.signature for node in ready]
            if key := self.leases.acquire(wanted):
                if (built := self._build(pending[key], path, found, report)) is not None:
                    path.count(pending[key].stage.name, built)
                    self._settle(pending[key], built, pending, path, found, report)
                missing.clear()  # others may have finished some meanwhile
                waited = 0.0
            else:
                report(Progress(f"waiting for {ready[0].stage.name}", 0, 0, waits_for=tuple(wanted)))
                began = time.monotonic()
                missing.difference_update(self.leases.wait(wanted, waited))
                waited += time.monotonic() - began
        for (name, _), artifact in sorted(found.items()):
            path.artifacts.setdefault(name, []).append(artifact)
        return path

    def _look(self, nodes: Sequence[Node]) -> Iterator[tuple[Node, Artifact]]:
        """Those of the artifacts that are in the store: of several parts of a stage by one listing."""
        for stage, group in groupby(nodes, lambda node: node.stage):
            parts = list(group)
            listed = self.store.listed(stage.name) if len(parts) > 1 else {parts[0].signature}
            for node in parts:
                if node.signature in listed and (artifact := self.store.find(stage.name, node.signature)):
                    yield node, artifact

    def _settle(
        self,
        node: Node,
        artifact: Artifact,
        pending: dict[str, Node],
        path: Path,
        found: Found,
        report: Callable[[Progress], None],
    ) -> None:
        """Takes an artifact that is there."""
        found[node.stage.name, node.part] = artifact
        del pending[node.signature]
        report(Progress(node.stage.name, 1, 1, artifact=artifact, work=path.work))

    def _build(
        self, node: Node, path: Path, found: Found, report: Callable[[Progress], None]
    ) -> Artifact | None:
        """Builds the artifact, whose lease is held, and frees the lease; None where it is there by now."""
        name = node.stage.name
        try:
            if self.store.find(name, node.signature):
                return None  # finished between the look and the lease
            needed, inputs = _needed(node.stage, path), dict[str, list[Artifact]]()
            for (stage, _), artifact in sorted(found.items()):
                if stage in needed:
                    inputs.setdefault(stage, []).append(artifact)
            base = node.stage.base(path.recipe, path.signatures)
            smaller = self._smaller(node, base, path.signatures[name])
            with self.store.draft(name, node.signature) as draft:
                saves = self.store.unfinished(node.signature)
                job = Job(path.recipe, self.device, inputs, name, node.part, draft, saves, report, smaller)
                facts = node.stage.facts(path.recipe, path.signatures)
                draft.description.update(job.description, follows_from=facts, built_by=path.owner)
                report(Progress(name, 0, 0))
                node.stage.build(job)
                if not node.stage.divisible:  # its parts are many, and leave nothing
                    let_go(self.device)
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


def _needed(stage: Stage, path: Path) -> set[str]:
    """The stages that one is made from, or measures itself with."""
    config = path.recipe.config
    return {*stage.inputs(config), *(other for other in stage.observed(config) if other in path.signatures)}


def _ready(pending: Collection[Node], path: Path) -> list[Node]:
    """Those for which everything is there. The others are not looked for either."""
    lacking = {node.stage.name: node.stage for node in pending}
    ready = {name for name, stage in lacking.items() if not _needed(stage, path) & lacking.keys()}
    return [node for node in pending if node.stage.name in ready]


def part_signatures(stage: Stage, recipe: Recipe, signature: str) -> list[str]:
    """The names under which the store keeps the parts of a stage's artifact."""
    parts = stage.parts(recipe)
    return [f"{signature}-{part:03d}" for part in range(parts)] if parts > 1 else [signature]


def replay(stage: str, artifact: Artifact, report: Callable[[Progress], None]) -> None:
    """Reports the epochs of a training that is over: who compares trials by epoch sees the same, built or found.

    Of what was not trained, such as attacked images or given weights, there are none.
    """
    file = artifact.folder / "history.json"
    history = read_json(file) if file.exists() else []
    for row in history:
        report(Progress(stage, int(row["epoch"]), len(history), row))
