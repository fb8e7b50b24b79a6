"""A table of a real grid, on which benchmarks/search_quality.py replays searches without computing anything again.

    python benchmarks/search_table.py [--seeds 3] [--minutes 60] [--out FILE]

Every configuration of SPACE is trained with every seed on the embedded images, and the table says, image by image, what
it gets right of the validation set after each epoch. What a stage took stands in the table too, in
seconds of one processor core. Each block is kept in a folder beside FILE, so that a build that
was stopped, as by `--minutes`, goes on where it was; remove that folder where SPACE has changed. A seed takes about ten
minutes of one core: the networks are small and trained briefly, but a GAN costs more than a projection and that
more than a U-Net, as in a real search.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import multiprocessing
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.attacks.fgsm import fgsm
from components.classifiers.base import ImageClassifier
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import Dataset, DataSplit, load_dataset
from components.defense import in_batches
from components.files import write_atomic
from components.gan.encoder import Encoder
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Discriminator, Generator
from components.gan.training import GanTraining
from components.projector.projector import Projector
from components.training import freeze
from components.unet.training import UNetTraining
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, parse_space

SPACE = """
search.target: defense
classifier.architecture: E
classifier.epochs: 3
gan.latent_dim: 32
gan.width: 16
gan.discriminator_width: 16
gan.steps: 200
gan.steps_per_epoch: 200
gan.encoder_width: 16
gan.encoder_levels: 2
gan.encoder_steps: {choice: [50, 150, 450]}
projector.levels: 2
projector.init: encoder
projector.learning_rate: 0.01
projector.tolerance: {choice: [0.1, 0.3]}
projector.restarts: {choice: [1, 4]}
projector.steps: {choice: [1, 12]}
unet.width: 4
unet.depth: 1
unet.images: 500
unet.epochs: 3
unet.batch_size: 20
unet.learning_rate: 0.01
unet.layer: {choice: [logits, penultimate]}
unet.high_level_weight: {choice: [0.03, 0.3, 3.0]}
unet.label_weight: {choice: [0.1, 1.0]}
"""


def main() -> None:
    """Builds what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, help="seeds at once; default: as many as there are cores")
    parser.add_argument("--minutes", type=float, default=60, help="no block begins later than this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "search_table.json")
    asked = parser.parse_args()
    until = time.time() + 60 * asked.minutes
    parts = asked.out.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    processes = min(asked.seeds, asked.processes or os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(build, seed, parts, until) for seed in range(asked.seeds)]
        complete = [seed for seed, task in enumerate(tasks) if task.result()]
    print(f"seeds complete: {complete}", flush=True)
    write(space_of(), parts, complete, asked.out)


def space_of(more: Mapping[str, Any] | None = None) -> SearchSpace:
    """The searched space, with other settings."""
    return parse_space(SPACE, "table", "search_table.py", more or {})


def dataset_of(space: SearchSpace) -> Dataset:
    """The images."""
    return load_dataset(space.fixed["data.name"], validation_fraction=space.fixed["data.validation_fraction"])


def grid(space: SearchSpace, *prefixes: str) -> list[dict[str, Any]]:
    """Every combination of the searched parameters whose key begins so, in one order; of all where nothing is given."""
    keys = [key for key in space.ranges if key.startswith(prefixes or "")]
    values = [space.values(key) or () for key in keys]
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values)]


def build(seed: int, parts: Path, until: float) -> bool:
    """Builds the blocks of one seed; False where time was up before the last."""
    torch.set_num_threads(1)
    space = space_of()
    missing = [b for b in blocks(space) if not block_file(parts, seed, b).exists()]
    if not missing:
        return True
    dataset, config, watch = dataset_of(space), config_of(space, {}), Stopwatch()
    training = ClassifierTraining(config.classifier, dataset.train, dataset.classes, seed)
    with watch("classifier"):
        training.run()
    judge = freeze(training.classifier)
    gan = GanTraining(config.gan, dataset.train.images, seed)
    with watch("gan"):
        gan.run()
    generator_alone = watch.seconds["gan"]
    splits = {"_train": dataset.train.sample(config.unet.images or len(dataset.train), seed=0), "": dataset.validation}
    attacked = {}
    for name, split in splits.items():
        with watch(f"attack{name}"):
            attacked[name] = torch.cat(list(_attacked(judge, split, config)))
    for steps, group in itertools.groupby(missing, key=lambda block: block["gan.encoder_steps"]):
        if time.time() > until:
            return False
        encoders = encoder_training(config, gan, dataset, seed, steps)
        watch.seconds["gan"] = generator_alone
        with watch("gan"):
            encoders.run()
        for block in group:
            if time.time() > until:
                return False
            pair = freeze(encoders.encoder), freeze(encoders.generator)
            result = build_block(space, block, seed, judge, pair, gan.discriminator, splits, attacked, watch)
            write_atomic(block_file(parts, seed, block), json.dumps(result).encode())
            print(f"seed {seed}: {block} after {time.process_time():.0f} s of computing", flush=True)
    return True


def blocks(space: SearchSpace) -> list[dict[str, Any]]:
    """What is built in one go: a projection and all that comes of it."""
    return grid(space, "gan.encoder_steps", "projector.tolerance")


def block_file(parts: Path, seed: int, block: Mapping[str, Any]) -> Path:
    """Where a block is kept."""
    return parts / ("-".join(map(str, (seed, *block.values()))) + ".json")


def config_of(space: SearchSpace, params: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with these parameters, and the largest value of all others."""
    largest = {key: values[-1] for key in space.ranges if (values := space.values(key))}
    return space.config({**largest, **params})


def encoder_training(
    config: ExperimentConfig, gan: GanTraining, dataset: Dataset, seed: int, steps: int
) -> EncoderTraining:
    """The training of an encoder beside a copy of the generator, in one epoch."""
    return EncoderTraining(
        gan.generator, dataset.train.images, width=config.gan.encoder_width, steps=steps, steps_per_epoch=steps,
        levels=config.gan.encoder_levels, seed=seed,
    )  # fmt: skip


def build_block(
    space: SearchSpace,
    block: Mapping[str, Any],
    seed: int,
    judge: ImageClassifier,
    pair: tuple[Encoder, Generator],
    discriminator: Discriminator,
    splits: Mapping[str, DataSplit],
    attacked: Mapping[str, Tensor],
    watch: Stopwatch,
) -> dict[str, Any]:
    """Projects, trains the U-Nets, and returns what each configuration gets right, and what a stage took."""
    config, (encoder, generator) = config_of(space, block), pair
    projector = Projector(generator, config.projector, discriminator=discriminator, encoder=encoder, seed=seed)
    record = [int(step) for step in space.values("projector.steps") or ()]
    traces, rows, taken = {}, [], dict(watch.seconds)
    own = Stopwatch()
    for name, images in attacked.items():
        with own(f"projection{name}"):
            traces[name] = projector.trace(images, record)
    for point in grid(space, "projector.restarts", "projector.steps"):
        inputs = {name: trace.select(*point.values()).images for name, trace in traces.items()}
        for losses in grid(space, "unet."):
            params = {**block, **point, **losses}
            with own("unet"):
                right = trained(config_of(space, params), inputs, splits, judge, seed)
            rows.append({"params": params, "right": packed(right)})
    own.seconds["unet"] /= len(rows)
    return {"seed": seed, "seconds": {**taken, **own.seconds}, "rows": rows}


def trained(
    config: ExperimentConfig,
    inputs: Mapping[str, Tensor],
    splits: Mapping[str, DataSplit],
    judge: ImageClassifier,
    seed: int,
) -> NDArray[np.bool_]:
    """Trains a U-Net: which validation images are right after each epoch, (E, V)."""
    train, held = splits["_train"], splits[""]
    training = UNetTraining(config.unet, inputs["_train"], train.images, train.labels, judge, seed)
    denoised = (in_batches(training.unet, inputs[""], training.device) for _ in training)
    return torch.stack([judge.predict(images) == held.labels for images in denoised]).numpy()


def _attacked(judge: ImageClassifier, split: DataSplit, config: ExperimentConfig) -> Iterator[Tensor]:
    for images, labels in zip(split.images.split(250), split.labels.split(250), strict=True):
        yield fgsm(judge, images, labels, config.attack.epsilon)


def packed(right: NDArray[np.bool_]) -> str:
    """Booleans as text; what lies side by side along the last axis compresses best where it is alike."""
    return base64.b64encode(zlib.compress(np.packbits(right).tobytes(), 9)).decode()


def unpacked(text: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Booleans of that shape from text."""
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8))
    return bits[: int(np.prod(shape))].reshape(shape).astype(bool)


def write(space: SearchSpace, parts: Path, seeds: list[int], out: Path) -> None:
    """The table of all complete seeds: right or wrong of each image after each epoch, as compressed bits."""
    order = {json.dumps(params, sort_keys=True): place for place, params in enumerate(grid(space))}
    images, epochs = len(dataset_of(space).validation), int(space.fixed["unet.epochs"])
    right = np.zeros((len(seeds), images, len(order), epochs), dtype=bool)
    built = [json.loads(block_file(parts, seed, block).read_bytes()) for seed in seeds for block in blocks(space)]
    for part in built:
        for row in part["rows"]:
            index = order[json.dumps(row["params"], sort_keys=True)]
            right[seeds.index(part["seed"]), :, index] = unpacked(row["right"], (epochs, images)).T
    table = {
        "command": "python benchmarks/search_table.py",
        "space": {key: json.loads(json.dumps(values.written())) for key, values in space.ranges.items()},
        "settings": space.changed,
        "order": "product of the ranges in this order, the last fastest",
        "seeds": seeds,
        "seconds": seconds(built),
        "shape": right.shape,  # seeds, validation images, configurations, epochs
        "right": packed(right),
    }
    write_atomic(out, (json.dumps(table, separators=(",", ":"), default=list) + "\n").encode())
    print(f"{out}: {len(seeds)} seeds × {len(order)} configurations", flush=True)


def seconds(blocks: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What each stage takes on one core, the median of all blocks; of the GAN by its encoder's steps."""

    def median(stage: str, of: list[Mapping[str, Any]]) -> float:
        return round(float(np.median([block["seconds"][stage] for block in of])), 3)

    taken: dict[str, Any] = {stage: median(stage, blocks) for stage in blocks[0]["seconds"] if stage != "gan"}
    kind = [block["rows"][0]["params"]["gan.encoder_steps"] for block in blocks]
    of_kind = {n: [block for block, k in zip(blocks, kind, strict=True) if k == n] for n in sorted(set(kind))}
    return {**taken, "gan": {str(n): median("gan", some) for n, some in of_kind.items()}}


class Stopwatch:
    """Seconds of a processor core that stages take, whoever else uses the machine."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Counts what the block takes as the stage's."""
        began = time.process_time()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.process_time() - began


if __name__ == "__main__":
    main()
