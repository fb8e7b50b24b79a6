"""What a card does of the search's work, beside what it could do.

    python -m benchmarks.gpu [--data-dir DIR] [--space NAME] [--device cuda] [--quick] [--json FILE]

First the card's own ceilings: large matrix products, a large copy. Then each row's speed, and the speed at which its
operations, or the bytes that they read and write one by one, would reach those ceilings; and the memory of a trial,
counted and measured. At last a whole search of the space `mnist` by stage, where --data-dir has MNIST. Under five
minutes on an H100. `--device cpu --quick` shows in a minute that it works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines import PUBLISHED, in_one_batch, in_sequence
from benchmarks.fused import Fused
from benchmarks.gpu_hours import mnist_like
from benchmarks.printing import Paper
from benchmarks.roofs import Ceilings, Demand, ceilings, demand, finish, shortest
from components import hardware
from components.defense import Defense
from components.hardware import keep_memory
from components.pretrained import shipped_defense
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tune.cluster.resources import GIB, gpu_problem
from tune.pipeline.recipe import Development, Recipe, bounds_for, bounds_of
from tune.planning.gpu_memory import CardMemory, memory_per_trial
from tune.planning.rates import workloads
from tune.space.config import ExperimentConfig
from tune.space.space import load_space

EPOCH = 54_000  # training images of MNIST
RESTARTS = 8  # divides every chunk
GAN: dict[str, Any] = {"encoder_steps": 1000}


@dataclass(frozen=True)
class Sizes:
    """How much of each is measured.

    Attributes:
        chunks: latents at once.
        steps: of a projection; fewer than 60 are not worth a CUDA graph.
        batches: of a measured training.
        purified: images.
        seconds: of each row.
        space: the memory of one of its trials.
    """

    chunks: tuple[int, ...] = (2048, 8192, 32768)
    steps: int = 100
    batches: int = 100
    purified: int = 10_000
    seconds: float = 1.5
    space: str = "mnist"


QUICK = Sizes(chunks=(64,), steps=4, batches=2, purified=20, seconds=0.0, space="smoke")


def main() -> None:
    """Runs all of it."""
    asked = arguments()
    device, sizes = torch.device(asked.device), QUICK if asked.quick else Sizes()
    if device.type == "cuda" and (reason := gpu_problem()):
        print(f"error: --device: expected a GPU that torch can use, found none: {reason}; to see that it works: "
              f"--device cpu --quick --space none", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    keep_memory()
    paper = Paper()
    if device.type == "cuda":
        paper.note("card", f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    limits = ceilings(device, quick=asked.quick)
    rows = [{"ceiling": f"product, {name}", "10^12/s": rate / 1e12} for name, rate in limits.operations.items()]
    paper.table("ceilings", "Ceilings", [*rows, {"ceiling": "copy, bytes", "10^12/s": limits.bytes / 1e12}])
    defense = Defense.load(shipped_defense("mnist"), device)
    title = f"Projection with the shipped generator, {sizes.steps} steps: gradient evaluations a second"
    paper.table("projection", title, projection_rows(defense, device, sizes, limits))
    paper.table("trainings", "Training steps", training_rows(device, sizes, limits))
    paper.table("purify", f"{sizes.purified:,} images through the shipped defense", purify_rows(defense, sizes, device))
    paper.table("memory", f"Memory of a trial of the space {sizes.space}", memory_rows(device, sizes))
    paper.save(asked.json)  # whatever becomes of the search
    if asked.space == "mnist" and not asked.data_dir:
        paper.note("search", "No search: --data-dir names no folder with MNIST.")
    elif asked.space != "none":
        paper.table("search", f"A search of the space {asked.space}, seconds", search_rows(asked))
    paper.save(asked.json)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("MNIST"), help="folder with MNIST, for the search")
    parser.add_argument("--space", default="mnist", help="to search at the end (default mnist); none = no search")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--quick", action="store_true", help="as little of each as shows that it works")
    parser.add_argument("--json", help="file to write the tables to")
    return parser.parse_args()


# ------------------------------------------------------------------ projection


def projection_rows(defense: Defense, device: torch.device, sizes: Sizes, limits: Ceilings) -> list[dict[str, Any]]:
    """Plain PyTorch, then ours by precision, chunk and, where there are any, CUDA graphs."""
    rows = [*_plain_rows(defense, device, sizes, limits)]
    for precision in ("float32", "bfloat16"):
        needed = _demand_of_projection(defense, precision)
        chosen = _chosen_chunk(defense, device, sizes, precision)
        for chunk in dict.fromkeys([*sizes.chunks, chosen]):
            for graphs in (False, True):
                with _graphs(on=graphs):
                    rate = _projected_per_second(defense, device, sizes, precision, chunk)
                name = f"ours, {precision}" + (", CUDA graph" if graphs else "")
                label = {"projection": name, "chunk": f"{chunk}, chosen" if chunk == chosen else str(chunk)}
                rows.append(_row(label, rate, limits.roofs(needed, precision)))
        rows.append(_fused_row(defense, device, sizes, precision) | limits.roofs(needed, precision))
    return rows


def _fused_row(defense: Defense, device: torch.device, sizes: Sizes, precision: str) -> dict[str, Any]:
    """The experiment of `benchmarks.fused` with the largest chunk, and by how much its errors differ from ours."""
    generator: Any = defense.projector.generator
    chunk, compiled = sizes.chunks[-1], device.type == "cuda"
    label = {"projection": f"ours, {precision}, {'compiled' if compiled else 'without autograd'}", "chunk": str(chunk)}
    images = torch.rand(chunk // RESTARTS, *generator.image_shape, device=device)
    ours, fused = (Projector(generator, _settings(sizes.steps, precision, chunk), device=device) for _ in range(2))
    try:
        Fused(fused, compiled=compiled)
        found, expected = (float(one.trace(images, [sizes.steps]).errors.mean()) for one in (fused, ours))
        taken = shortest(lambda: fused.trace(images, [sizes.steps]), device, sizes.seconds)
    except Exception as error:  # whatever a compiler raises where its own compiler is missing
        return {**label, "projection": f"{label['projection']}: {type(error).__name__}: {str(error).splitlines()[0]}"}
    differing = 100 * abs(found - expected) / expected
    return {**label, "evaluations/s": chunk * sizes.steps / taken, "errors differ by %": differing}


def _plain_rows(
    defense: Defense, device: torch.device, sizes: Sizes, limits: Ceilings
) -> Iterator[dict[str, Any]]:
    generator: Any = defense.projector.generator
    generator.requires_grad_(True)  # as after training, or from a plain load
    latents = sizes.chunks[-1] if len(sizes.chunks) == 1 else sizes.chunks[1]
    images = torch.rand(latents // RESTARTS, *generator.image_shape, device=device)
    starts = torch.randn(RESTARTS, generator.latent_dim, device=device)
    roofs = limits.roofs(_demand_of_plain(generator), "float32")
    steps = max(2, sizes.steps // 5)  # one costs the same whichever it is
    ways = (("restarts in sequence", in_sequence, len(images)), ("one batch", in_one_batch, latents))
    for name, way, chunk in ways:
        taken = shortest(lambda way=way: way(generator, images, starts, steps), device, sizes.seconds)  # type: ignore[misc]
        yield _row({"projection": f"plain, {name}", "chunk": str(chunk)}, latents * steps / taken, roofs)
    generator.requires_grad_(False)


def _demand_of_plain(generator: Any) -> Demand:
    """Of one gradient evaluation of the plain loop; the weights' gradients are among it."""
    copy = type(generator)(generator.latent_dim, generator.width, generator.image_shape).eval()
    images, starts = torch.rand(16, *generator.image_shape), torch.randn(2, generator.latent_dim)
    return demand(lambda times: in_one_batch(copy, images, starts, times), 32)


def _chosen_chunk(defense: Defense, device: torch.device, sizes: Sizes, precision: str) -> int:
    """The chunk that a projector takes where the configuration names none."""
    return Projector(defense.projector.generator, _settings(sizes.steps, precision, None), device=device).chunk


def _settings(steps: int, precision: str, chunk: int | None) -> ProjectorConfig:
    settings = {"restarts": RESTARTS, "steps": steps, "precision": precision, "chunk": chunk, **PUBLISHED}
    return ProjectorConfig.model_validate(settings)


def _demand_of_projection(defense: Defense, precision: str) -> Demand:
    generator: Any = defense.projector.generator
    copy = type(generator)(generator.latent_dim, generator.width, generator.image_shape).eval()
    images = torch.rand(16, *generator.image_shape)
    projector = Projector(copy, _settings(2, precision, RESTARTS * len(images)))
    return demand(lambda times: projector.trace(images, [times]), RESTARTS * len(images))


def _projected_per_second(
    defense: Defense, device: torch.device, sizes: Sizes, precision: str, chunk: int
) -> float:
    """Evaluations a second over as many latents as the largest chunk has."""
    generator: Any = defense.projector.generator
    projector = Projector(generator, _settings(sizes.steps, precision, chunk), device=device)
    latents = max(chunk, 8192 if len(sizes.chunks) > 1 else chunk)
    images = torch.rand(latents // RESTARTS, *generator.image_shape, device=device)
    taken = shortest(lambda: projector.trace(images, [sizes.steps]), device, sizes.seconds)
    return latents * sizes.steps / taken


@contextmanager
def _graphs(*, on: bool) -> Iterator[None]:
    """Within the block steps are captured, or none is."""
    if on:
        yield
        return
    before = hardware.WORTHWHILE
    hardware.WORTHWHILE = math.inf
    try:
        yield
    finally:
        hardware.WORTHWHILE = before


# ------------------------------------------------------------------- trainings


def training_rows(device: torch.device, sizes: Sizes, limits: Ceilings) -> list[dict[str, Any]]:
    """Each training that the search knows, at its defaults, on images of MNIST's size."""
    data = Development.for_search(mnist_like())
    rows = []
    for precision in ("float32", "bfloat16"):
        sections = {"classifier": {"precision": precision}, "unet": {"precision": precision, "batch_size": 128}}
        settings = {**sections, "gan": {**GAN, "encoder_precision": precision}}
        config = ExperimentConfig.model_validate(settings)
        recipe = Recipe(config, bounds_for(config), data, seed=0)
        needs = _demand_of_trainings(recipe)
        for work in workloads(recipe, device, sizes.batches):
            if work.name not in needs or (work.name, precision) == ("gan", "bfloat16"):
                continue  # the GAN's training has no precision of its own
            batch = {"gan": config.gan.batch_size, "encoder": 128}.get(work.name, 1)  # images of a unit of work
            rate = work.units * batch / shortest(work.run, device, sizes.seconds)
            roofs = {roof: batch * most for roof, most in limits.roofs(needs[work.name], precision).items()}
            label = {"training": f"{work.name}, {precision}"}
            rows.append(_row(label, rate, roofs, "images/s") | {f"s per {EPOCH:,} images": EPOCH / rate})
    return rows


def _demand_of_trainings(recipe: Recipe) -> dict[str, Demand]:
    """Of an image, or of a step of GAN and encoder: of epochs of two batches and of one, the difference."""
    found: dict[str, Demand] = {}
    pairs = [list(workloads(recipe, torch.device("cpu"), batches)) for batches in (1, 2)]
    for one, two in zip(*pairs, strict=True):
        runs = {1: one.run, 2: two.run}
        if one.name != "projection":  # which has rows of its own
            found[one.name] = demand(lambda times, runs=runs: runs[times](), one.units)  # type: ignore[misc]
    return found


def purify_rows(defense: Defense, sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Images that come from the processor and return there."""
    images: Tensor = torch.rand(sizes.purified, *defense.classifier.image_shape)
    taken = shortest(lambda: defense.purify(images), device, sizes.seconds)
    return [{"defense": "shipped", "seconds": taken, "images/s": sizes.purified / taken}]


def memory_rows(device: torch.device, sizes: Sizes) -> list[dict[str, Any]]:
    """GPU memory of the largest trial of a space: counted on the processor, and on a card measured."""
    space, data = load_space(sizes.space), Development.for_search(mnist_like())
    cards = [None, CardMemory(device)] if device.type == "cuda" else [None]
    needed = [memory_per_trial(space, data, bounds_of(space), card) for card in cards]
    return [{"known by": how, "GiB": size / GIB} for size, how in needed]


def _row(
    label: Mapping[str, str], rate: float, roofs: Mapping[str, float], unit: str = "evaluations/s"
) -> dict[str, Any]:
    """A speed, what would be possible by each ceiling, and its share of the lower one."""
    return {**label, unit: rate, **roofs, "% of the lower": 100 * rate / min(roofs.values())}


# --------------------------------------------------------------- a whole search


def search_rows(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Four trials and the space's retraining from the command to the report, by stage."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--space", asked.space, "--storage", folder, "--name", "one", "--trials", "4", "--quiet"]
        words += ["--data-dir", asked.data_dir] if asked.data_dir else []
        words += ["--gpus-per-trial", "0"] if asked.device == "cpu" else []
        finish(torch.device(asked.device))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tune.search", *words], check=True)
        seconds = time.perf_counter() - began
        rows = _stages(Path(folder) / "one")
    return [*rows, {"stage": "from command to report", "wall time": seconds}]


def _stages(home: Path) -> list[dict[str, Any]]:
    """Seconds of computing by stage, of all trials and of all seeds."""
    during, final = defaultdict(float), defaultdict(float)
    for path in sorted(home.glob("trials/*.json")):
        for stage, work in json.loads(path.read_text())["work"].items():
            during[stage] += work.get("seconds", 0.0)
    seeds = [json.loads(path.read_text()) for path in sorted(home.glob("best/seeds/*.json"))]
    for stage, taken in ((stage, taken) for seed in seeds for stage, taken in seed["seconds"].items()):
        final[stage] += taken
    psd = [100 * seed["metrics"]["psd"] for seed in seeds]
    names = dict.fromkeys([*during, *final])
    rows = [{"stage": name, "trials": during.get(name), "seeds": final.get(name)} for name in names]
    return [*rows, {"stage": f"PSD of {len(seeds)} seeds, mean %", "seeds": sum(psd) / len(psd)}]


if __name__ == "__main__":
    main()
