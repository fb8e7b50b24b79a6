"""What a projection costs, against Defense-GAN's as its public PyTorch ports write it, and against the processor.

    python benchmarks/projection.py [--data-dir DIR] [--generator FOLDER] [--images N] [--threads N] [--json FILE]

All rows use one generator, by default that which comes with the project, and the same test images: N attacked by FGSM
(ε 0.3) and the same N clean, of MNIST where --data-dir has it, else of the embedded part of it. Under ten minutes on
two cores with N = 1000.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from baselines import MOMENTUM, RATE, in_one_batch, in_sequence
from operations import operations_table, profile_rows, share_rows
from printing import Paper, side_by_side
from torch import Tensor, nn
from trace_memory import memory_rows

from components.attacks.fgsm import fgsm
from components.classifiers.base import ImageClassifier
from components.classifiers.config import ClassifierConfig
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import load_dataset
from components.gan.pair import Pair
from components.hardware import keep_memory
from components.metrics import agreement
from components.pretrained import shipped_folder
from components.projector.config import ProjectorConfig
from components.projector.projector import Projection, Projector
from components.squeezing import squeezed
from components.training import freeze

EPSILON = 0.3
PUBLISHED: dict[str, Any] = {
    "restarts": 10, "steps": 200, "distance": "l2", "init": "random", "optimizer": "sgd", "learning_rate": RATE,
    "momentum": MOMENTUM,
}  # fmt: skip
OURS: dict[str, Any] = {"restarts": 2, "steps": 30, "init": "encoder"}
OURS_ALONE: dict[str, Any] = {"restarts": 4, "steps": 60, "init": "bank"}  # behind a generator without an encoder
PART, PART_STEPS = 100, 20  # what the slow rows are timed on; a step costs the same whichever it is


@dataclass(frozen=True)
class Bench:
    """The networks and images of all rows."""

    generator: Any
    encoder: nn.Module | None
    classifier: ImageClassifier
    clean: Tensor
    attacked: Tensor
    labels: Tensor

    def projector(self, **settings: Any) -> Projector:
        """A projector that has drawn what it draws once."""
        projector = Projector(self.generator, ProjectorConfig(**settings), encoder=self.encoder)
        projector.warm_up()
        return projector

    def psd(self, images: Tensor) -> float:
        """Share of images, those of the first labels, that the classifier takes for the true label."""
        return agreement(self.classifier.predict(images), self.labels[: len(images)])


def main() -> None:
    """Runs all of it."""
    asked = arguments()
    torch.set_num_threads(asked.threads)
    if not asked.return_memory:
        keep_memory()
    paper = Paper()
    bench = prepared(asked, paper)
    speed(bench, paper, asked.threads)
    same_procedure(bench, paper)
    against_the_published(bench, paper)
    share_and_profile(bench, paper, asked.threads)
    paper.table("memory", "Memory of a trace of 60,000 images, R 20, L 200, every step kept", memory_rows())
    paper.save(asked.json)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with MNIST; default: the embedded part of it")
    parser.add_argument("--generator", help="its folder, STORAGE/store/gan/SIGNATURE; default: the shipped one")
    parser.add_argument("--images", type=int, default=1000, help="attacked and clean test images (default 1000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the processor (default all)")
    parser.add_argument("--return-memory", action="store_true", help="leave the allocator as it is, for all rows")
    parser.add_argument("--json", help="file to write the tables to")
    return parser.parse_args()


def prepared(asked: argparse.Namespace, paper: Paper) -> Bench:
    """A classifier trained for a few epochs, and test images attacked through it."""
    data = load_dataset("mnist", asked.data_dir) if asked.data_dir else load_dataset("mnist_mini")
    train = data.train.sample(min(len(data.train), 9000), seed=0)
    training = ClassifierTraining(ClassifierConfig(epochs=3), train, data.classes, seed=0)
    for _ in training:
        pass
    classifier = freeze(training.classifier)
    test = data.test.sample(min(asked.images, len(data.test)), seed=0)
    parts = zip(test.images.split(250), test.labels.split(250), strict=True)
    attacked = torch.cat([fgsm(classifier, images, labels, EPSILON) for images, labels in parts])
    pair = Pair.load(Path(asked.generator or shipped_folder("mnist")))
    generator, encoder = pair.generator, pair.encoder
    bench = Bench(generator, encoder, classifier, test.images, attacked, test.labels)
    clean, noisy = (agreement(classifier.predict(images), test.labels) for images in (test.images, attacked))
    facts = f"{len(test)} test images of {data.name}, attacked by FGSM ε {EPSILON}; {asked.threads} threads"
    paper.note("images", f"{facts}. The classifier is right on {clean:.1%} of the clean, {noisy:.1%} of the attacked.")
    return bench


def speed(bench: Bench, paper: Paper, threads: int) -> None:
    """The same R, L, optimizer and starts, executed in different ways, in turns."""
    starts = bench.projector(**PUBLISHED)._starts(bench.clean[:1])[0]
    images = bench.attacked[:PART]
    short = {**PUBLISHED, "steps": PART_STEPS}
    single, half = bench.projector(**short), bench.projector(**short, precision="bfloat16")
    work = {
        "restarts in sequence, as ports do": lambda: in_sequence(bench.generator, images, starts, PART_STEPS),
        "one plain batch": lambda: in_one_batch(bench.generator, images, starts, PART_STEPS),
        "ours, float32": lambda: single.project(images),
        "ours, bfloat16": lambda: half.project(images),
    }
    bench.generator.requires_grad_(True)  # as after training, or from a plain load; ours freezes a copy
    for count in sorted({1, threads}, reverse=True):
        torch.set_num_threads(count)
        seconds = side_by_side(work, rounds=3 if count > 1 else 2)
        first, second = (seconds[name] for name in list(work)[:2])
        rows = [
            {
                "execution": name,
                "evaluations/s": len(images) * 10 * PART_STEPS / taken,
                "ms per image at R 10, L 200": taken / len(images) / PART_STEPS * 200 * 1e3,
                "× restarts in sequence": first / taken,
                "× one plain batch": second / taken,
            }
            for name, taken in seconds.items()
        ]
        title = f"The published procedure (R 10, L 200, SGD {RATE:g} / {MOMENTUM}), {count} thread(s)"
        paper.table(f"execution_{count}", f"{title}; timed on {PART} images × {PART_STEPS} steps, in turns", rows)
    torch.set_num_threads(threads)
    bench.generator.requires_grad_(False)


def same_procedure(bench: Bench, paper: Paper) -> None:
    """That faster execution, and bfloat16, find what the port's loop finds: errors and PSD, not bits."""
    starts = bench.projector(**PUBLISHED)._starts(bench.clean[:1])[0]
    few, more = bench.attacked[:40], bench.attacked[:200]
    latents, errors = in_sequence(bench.generator, few, starts, PUBLISHED["steps"])
    found = {"restarts in sequence": Projection(bench.projector(**PUBLISHED).render(latents), latents, errors)}
    for precision in ("float32", "bfloat16"):
        found[f"ours, {precision}"] = bench.projector(**PUBLISHED, precision=precision).project(more)
    rows = []
    for name, projection in found.items():
        for count in sorted({len(few), len(projection.images)}):
            part = Projection(projection.images[:count], projection.latents[:count], projection.errors[:count])
            error, psd = float(part.errors.mean()), 100 * bench.psd(part.images)
            rows.append({"execution": name, "images": str(count), "mean error": error, "PSD, GAN only %": psd})
    paper.table("same", "The published procedure finds the same however it is executed (attacked images)", rows)


def against_the_published(bench: Bench, paper: Paper) -> None:
    """Time per image and what it buys, with and without the grey levels, whose own part the second row is."""
    ours = OURS if bench.encoder else OURS_ALONE
    published, half, levels = {**PUBLISHED, "precision": "bfloat16"}, {"precision": "bfloat16"}, {"levels": 2}
    ways: dict[str, dict[str, Any]] = {
        "published": published,
        "two grey levels alone": {},
        "published, two grey levels": {**published, **levels},
        "ours": {**ours, **levels},
        "ours, bfloat16": {**ours, **levels, **half},
        "ours, grey levels kept": ours,
        "ours, grey levels kept, bfloat16": {**ours, **half},
    }
    port = paper.sections[f"execution_{torch.get_num_threads()}"]["rows"][0]["ms per image at R 10, L 200"]
    rows = []
    for name, settings in ways.items():
        purified = purifying(bench, settings)
        began = time.perf_counter()
        attacked, clean = purified(bench.attacked), purified(bench.clean)
        taken = (time.perf_counter() - began) / len(bench.clean) / 2 * 1e3
        taken = port if name.startswith("published") else taken
        row = {
            "projection": name,
            "R × L": f"{settings['restarts']} × {settings['steps']}" if settings else "none",
            "ms per image": taken,
            "times less": port / taken,
            "PSD, GAN only %": 100 * bench.psd(attacked),
            "clean %": 100 * bench.psd(clean),
        }
        rows.append(row)
    title = "Against the published procedure: its time is that of restarts in sequence, its images are ours in bfloat16"
    paper.table("published", title, rows)


def purifying(bench: Bench, settings: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """A projection by these settings; without any, the reduction to two grey levels."""
    if not settings:
        return partial(squeezed, levels=2)
    projector = bench.projector(**settings)
    return lambda images: projector.project(images).images


def share_and_profile(bench: Bench, paper: Paper, threads: int) -> None:
    """How much of the processor is used, and by what."""
    paper.table("operations", "Operations of one forward and backward", operations_table(bench.generator))
    for count in sorted({1, threads}, reverse=True):
        torch.set_num_threads(count)
        title = f"Share of the measured matrix-product rate, {count} thread(s)"
        paper.table(f"share_{count}", title, share_rows(bench.generator))
    torch.set_num_threads(1)  # a profile adds up what threads do side by side
    for precision in ("float32", "bfloat16"):
        rows = profile_rows(bench.projector(**{**PUBLISHED, "steps": 10}, precision=precision), bench.attacked[:64])
        paper.table(f"profile_{precision}", f"Where the time goes in {precision}, 1 thread", rows)
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
