"""The stages of the latent projector: projections of three sets of images, the map over R and L, and its score."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.gan.networks import Discriminator, Generator
from components.metrics import agreement
from components.projector.projector import Projector
from components.projector.trace import Projection, ProjectionTrace
from components.training import freeze
from components.weights import load_weights
from tune.pipeline.attack import attacked_of, images_of
from tune.pipeline.classifier import classifier_of
from tune.pipeline.gan import gan_of
from tune.pipeline.job import Inputs, Job, Progress
from tune.pipeline.purifier import PURIFIERS, PurifierStages, cost, purifier_of
from tune.pipeline.recipe import Recipe
from tune.pipeline.scoring import undefended
from tune.pipeline.stage import STAGES, Rates, Stage, Workload
from tune.pipeline.traces import read_trace, write_trace
from tune.space.config import ExperimentConfig

SAMPLED_STEPS = 4  # of a measured projection
SAMPLED_RESTARTS = 8  # at most


class ProjectionStage(Stage):
    """Projects images, once for every R and L of the search.

    Args:
        name: of the stage.
        attacked: the stage that made the images; None = the validation images as they are.
    """

    divisible = True

    def __init__(self, name: str, attacked: str | None) -> None:
        self.name, self.attacked = name, attacked

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """The upper bounds in place of R and L."""
        bounds = {"restarts": max(recipe.bounds.restarts), "steps": list(recipe.bounds.steps)}
        return {**_unbounded(recipe.config), **bounds}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("gan", self.attacked) if self.attacked else ("gan",)

    def growing(self, config: ExperimentConfig) -> dict[str, Any]:
        return _unbounded(config)

    def images(self, recipe: Recipe) -> int:
        return images_of(recipe, "train" if self.attacked == "attack_train" else "validation")

    def bytes(self, recipe: Recipe) -> int:
        restarts = max(recipe.bounds.restarts)
        leads = sum(1 / rank for rank in range(1, restarts + 1))  # of restarts in random order, those that ever lead
        numbers = leads * 4 * (recipe.config.gan.latent_dim + 1)
        return int(self.images(recipe) * len(recipe.bounds.steps) * (restarts + numbers))

    def seconds(self, recipe: Recipe, rates: Rates) -> float:
        evaluations = self.images(recipe) * max(recipe.bounds.restarts) * max(recipe.bounds.steps)
        return evaluations * rates["projection"].seconds

    def workloads(self, recipe: Recipe, device: torch.device, batches: int) -> Iterator[Workload]:
        projector = sampled_projector(recipe, device)
        restarts = projector.config.restarts
        images = recipe.data.train.images[: max(1, projector.chunk // restarts)]
        evaluations = len(images) * restarts * SAMPLED_STEPS
        yield Workload(
            "projection", "projection", "evaluation", evaluations, lambda: projector.trace(images, [SAMPLED_STEPS])
        )

    def build(self, job: Job) -> None:
        images = attacked_of(job, self.attacked) if self.attacked else job.data.held.images
        images = images[job.part * self.part_images : (job.part + 1) * self.part_images]
        projector = largest_projector(job)
        projector.warm_up()
        began, saved = time.perf_counter(), 0

        def progress(done: int) -> None:
            job.report(Progress(job.stage, done, len(images)))

        if job.smaller is None:
            trace = projector.trace(images, job.bounds.steps, progress)
        else:
            held = read_trace(job.smaller.folder, projector.render, standing=True)
            trace = projector.extend(held, images, job.bounds.steps, progress)
            saved = held.restarts * int(held.steps[-1])
        seconds = time.perf_counter() - began
        write_trace(trace, job.draft.folder)
        evaluations = len(images) * (projector.config.restarts * projector.config.steps - saved)
        job.draft.metrics.update(
            images=len(images), evaluations=evaluations, evaluations_per_second=evaluations / seconds
        )


class MapStage(Stage):
    """Measures the GAN-only PSD of every R and L that the trace holds."""

    name = "map"

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        return {"restarts": list(recipe.bounds.restarts), "steps": list(recipe.bounds.steps)}

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        return ("classifier", "gan", "projection")

    def build(self, job: Job) -> None:
        judge, labels, bounds = classifier_of(job), job.data.held.labels, job.bounds
        grid = [(r, step) for r in bounds.restarts for step in bounds.steps]
        hits, errors = dict.fromkeys(grid, 0), dict.fromkeys(bounds.steps, 0.0)
        seen = 0
        for trace in traces_of(job, "projection"):
            truth = labels[seen : seen + len(trace)]
            seen += len(trace)
            # each latent is classified once, however many (R, L) it wins
            predicted = torch.cat([judge.predict(trace.render(part)) for part in trace.latents.split(5000)])
            for r, step in grid:
                hits[r, step] += int((predicted[trace.winners(r, step)] == truth).sum())
            for step in errors:
                errors[step] += float(trace.errors[trace.winners(max(bounds.restarts), step)].double().sum())
        job.draft.metrics.update(
            restarts=list(bounds.restarts),
            steps=list(bounds.steps),
            error=[errors[step] / len(labels) for step in bounds.steps],
            psd_gan=[[hits[r, step] / len(labels) for step in bounds.steps] for r in bounds.restarts],
        )


class ScoreProjection(Stage):
    """Judges a purifier alone on the validation images."""

    name = "score_projection"

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        return dict(purifier_of(recipe.config).settings(recipe.config))

    def inputs(self, config: ExperimentConfig) -> tuple[str, ...]:
        purifier = purifier_of(config)
        return ("classifier", *purifier.sources, "attack", purifier.validation, purifier.clean)

    def build(self, job: Job) -> None:
        held, judge, purifier = job.data.held, classifier_of(job), purifier_of(job.config)
        attacked, clean = purifier.read(job, purifier.validation), purifier.read(job, purifier.clean)
        shares, _, _ = undefended(judge, held, attacked_of(job, "attack"))
        job.draft.metrics.update(
            **shares,
            psd_gan=agreement(judge.predict(attacked.images), held.labels),
            clean_gan=agreement(judge.predict(clean.images), held.labels),
            error=float(attacked.errors.mean()),
            cost=cost(job.config),
        )


class ProjectorStages(PurifierStages):
    """The latent projector as a purifier."""

    sources = ("gan",)
    validation, clean, training = "projection", "projection_clean", "projection_train"
    beside = ("map",)

    def cost(self, config: ExperimentConfig) -> int:
        return config.projector.restarts * config.projector.steps

    def settings(self, config: ExperimentConfig) -> dict[str, Any]:
        return {"restarts": config.projector.restarts, "steps": config.projector.steps}

    def read(self, inputs: Inputs, stage: str) -> Projection:
        wanted = inputs.config.projector.restarts, inputs.config.projector.steps
        return Projection.concatenate([trace.select(*wanted) for trace in traces_of(inputs, stage)])

    def component(self, inputs: Inputs) -> Projector:
        return _projector(inputs, {}, inputs.folder("unet") if "unet" in inputs.artifacts else None)


STAGES.register("projection")(ProjectionStage("projection", "attack"))
STAGES.register("projection_clean")(ProjectionStage("projection_clean", None))
STAGES.register("projection_train")(ProjectionStage("projection_train", "attack_train"))
STAGES.register("map")(MapStage())
STAGES.register("score_projection")(ScoreProjection())
PURIFIERS.register("projector")(ProjectorStages())


def traces_of(inputs: Inputs, stage: str) -> Iterator[ProjectionTrace]:
    """The trace of a projection stage, part by part: one part is in memory at a time, and of it what is read."""
    render = largest_projector(inputs).render
    for artifact in inputs.artifacts[stage]:
        yield read_trace(artifact.folder, render)


def largest_projector(inputs: Inputs) -> Projector:
    """The projector with the largest restarts and steps of the search."""
    return _projector(inputs, {"restarts": max(inputs.bounds.restarts), "steps": max(inputs.bounds.steps)})


def _projector(inputs: Inputs, changes: dict[str, Any], learned: Path | None = None) -> Projector:
    """The projector; with the networks that an adaptive training left in the folder `learned` beside the U-Net."""
    pair = gan_of(inputs)
    networks = (("generator", pair.generator), ("encoder", pair.encoder))
    for name, network in networks:
        if learned is not None and network is not None and (learned / f"{name}.safetensors").exists():
            load_weights(network, learned / f"{name}.safetensors")
    return Projector(
        pair.generator,
        inputs.config.projector.model_copy(update=changes),
        discriminator=pair.discriminator,
        encoder=pair.encoder,
        seed=inputs.seed,
        device=inputs.device,
    )


def sampled_projector(recipe: Recipe, device: torch.device, bank: int = 64) -> Projector:
    """An untrained projector of a configuration with few restarts of few steps.

    Args:
        recipe: the configuration, and images of its shape.
        device: where to compute.
        bank: images to draw where it starts from a bank.
    """
    config, shape = recipe.config, recipe.data.image_shape
    restarts = min(config.projector.restarts, SAMPLED_RESTARTS)
    settings: dict[str, Any] = {"restarts": restarts, "steps": SAMPLED_STEPS, "bank_size": max(restarts, bank)}
    if config.projector.init == "encoder":  # it may not be there yet, and costs little beside the steps
        settings["init"] = "random"
    judge = freeze(Discriminator(config.gan.discriminator_width, shape)).to(device)
    generator = Generator(config.gan.latent_dim, config.gan.width, shape)
    return Projector(
        generator, config.projector.model_copy(update=settings), discriminator=judge, device=device
    )


def _unbounded(config: ExperimentConfig) -> dict[str, Any]:
    """Settings without R and L, and the chunk size, which changes speed, not results; so did `compile`."""
    left_out = {"restarts", "steps", "chunk", "compile"}
    return {name: value for name, value in config.projector.identity().items() if name not in left_out}
