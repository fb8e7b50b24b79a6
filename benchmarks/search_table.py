"""A table of a real grid, on which benchmarks/search_quality.py replays searches without computing anything again.

    python benchmarks/search_table.py [--device cuda] [--seeds 5] [--reduced] [--minutes 9] [--out FILE]

Every configuration of SPACE is trained with every seed on the embedded images, and the table says, image by image, what
it gets right of the validation set after each epoch. Seeds run side by side; U-Nets of one shape are trained stacked.
What a stage takes on one processor core is measured once, by units of work, and stands in the table too: a stacked
training has no seconds of its own. Each block is kept in a folder beside FILE, so that a build that was stopped, as by
`--minutes`, goes on where it was.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stacked_unets import train_singly, train_stacked
from torch import Tensor

from components.attacks.fgsm import fgsm
from components.classifiers.base import ImageClassifier
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import Dataset, DataSplit, load_dataset
from components.files import write_atomic
from components.gan.encoder import Encoder
from components.gan.encoder_training import EncoderTraining
from components.gan.networks import Discriminator, Generator
from components.gan.training import GanTraining
from components.projector.projector import Projector
from components.training import Training, freeze, seeded
from components.unet.training import UNetTraining
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, parse_space

SPACE = """
search.target: defense
classifier.architecture: A
classifier.epochs: 2
gan.latent_dim: 32
gan.width: 16
gan.discriminator_width: 16
gan.steps: 600
gan.steps_per_epoch: 300
gan.encoder_width: 16
gan.encoder_steps: {choice: [100, 400, 1600]}
projector.init: encoder
projector.learning_rate: 0.03
projector.tolerance: {choice: [0.1, 0.3]}
projector.restarts: {choice: [1, 4]}
projector.steps: {choice: [1, 8, 24]}
unet.width: 8
unet.images: 1200
unet.epochs: 4
unet.batch_size: 50
unet.layer: {choice: [logits, penultimate]}
unet.high_level_weight: {choice: [0.03, 0.1, 0.3, 1.0]}
unet.label_weight: {choice: [0.1, 1.0]}
"""
# What a core builds in a quarter of an hour per seed: a classifier of dense layers, and fewer and smaller U-Nets.
REDUCED = {
    "classifier.architecture": "E", "gan.steps": 300, "gan.encoder_steps": {"choice": [50, 200, 800]},
    "unet.width": 4, "unet.images": 600, "unet.epochs": 3, "unet.high_level_weight": {"choice": [0.03, 0.3, 1.0]},
}  # fmt: skip
STACKED = 48  # U-Nets side by side


def main() -> None:
    """Builds what is missing and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, help="seeds at once; default: as many as there are cores")
    parser.add_argument("--reduced", action="store_true", help="the smaller setting, for processors")
    parser.add_argument("--minutes", type=float, default=60, help="no block begins later than this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "search_table.json")
    asked = parser.parse_args()
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    space, until = space_of(reduced=asked.reduced), time.time() + 60 * asked.minutes
    parts = asked.out.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    processes = min(asked.seeds, asked.processes or os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(build, seed, asked.device, asked.reduced, parts, until) for seed in range(asked.seeds)]
        complete = [seed for seed, task in enumerate(tasks) if task.result()]
    print(f"seeds complete: {complete}", flush=True)
    write(space, asked.reduced, parts, complete, asked.out)


def space_of(*, reduced: bool, more: Mapping[str, Any] | None = None) -> SearchSpace:
    """The searched space, with other settings."""
    return parse_space(SPACE, "table", "search_table.py", {**(REDUCED if reduced else {}), **(more or {})})


def dataset_of(space: SearchSpace) -> Dataset:
    """The images."""
    return load_dataset(space.fixed["data.name"], validation_fraction=space.fixed["data.validation_fraction"])


def grid(space: SearchSpace, prefix: str = "") -> list[dict[str, Any]]:
    """Every combination of the searched parameters whose key begins so, in one order."""
    keys = [key for key in space.ranges if key.startswith(prefix)]
    values = [space.values(key) or () for key in keys]
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*values)]


def build(seed: int, device_name: str, reduced: bool, parts: Path, until: float) -> bool:
    """Builds the blocks of one seed; False where time was up before the last."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    space, device = space_of(reduced=reduced), torch.device(device_name)
    missing = [b for b in blocks(space) if not block_file(parts, seed, b).exists()]
    if not missing:
        return True
    dataset, config = dataset_of(space), config_of(space, {})
    train = dataset.train.sample(config.unet.images or len(dataset.train), seed=0)
    began = time.time()
    training = ClassifierTraining(config.classifier, dataset.train, dataset.classes, seed, device)
    training.run()
    judge = freeze(training.classifier)
    gan = GanTraining(config.gan, dataset.train.images, seed, device)
    gan.run()
    splits = [split.to(device) for split in (train, dataset.validation)]
    attacked = [torch.cat(list(_attacked(judge, split, config))) for split in splits]
    print(f"seed {seed}: classifier and GAN after {time.time() - began:.0f} s", flush=True)
    for steps, group in itertools.groupby(missing, key=lambda block: block["gan.encoder_steps"]):
        if time.time() > until:
            return False
        encoders = encoder_training(config, gan, dataset, seed, device, steps, steps)
        encoders.run()
        for block in group:
            if time.time() > until:
                return False
            pair = freeze(encoders.encoder), freeze(encoders.generator)
            result = build_block(space, block, seed, judge, pair, gan.discriminator, splits, attacked)
            write_atomic(block_file(parts, seed, block), json.dumps(result).encode())
            print(f"seed {seed}: {block} after {time.time() - began:.0f} s", flush=True)
    return True


def blocks(space: SearchSpace) -> list[dict[str, Any]]:
    """What is built in one go: a projection and all that comes of it."""
    keys = ("gan.encoder_steps", "projector.tolerance")
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*map(_values(space), keys))]


def _values(space: SearchSpace) -> Any:
    return lambda key: space.values(key) or ()


def block_file(parts: Path, seed: int, block: Mapping[str, Any]) -> Path:
    """Where a block is kept."""
    return parts / ("-".join(map(str, (seed, *block.values()))) + ".json")


def config_of(space: SearchSpace, params: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with these parameters, and the largest value of all others."""
    largest = {key: values[-1] for key in space.ranges if (values := space.values(key))}
    return space.config({**largest, **params})


def encoder_training(
    config: ExperimentConfig,
    gan: GanTraining,
    dataset: Dataset,
    seed: int,
    device: torch.device,
    steps: int,
    epoch: int,
) -> EncoderTraining:
    """The training of an encoder beside the generator, of `steps` in epochs of `epoch`."""
    return EncoderTraining(
        gan.generator, dataset.train.images, width=config.gan.encoder_width, steps=steps, steps_per_epoch=epoch,
        levels=config.gan.encoder_levels, seed=seed, device=device,
    )  # fmt: skip


def build_block(
    space: SearchSpace,
    block: Mapping[str, Any],
    seed: int,
    judge: ImageClassifier,
    pair: tuple[Encoder, Generator],
    discriminator: Discriminator,
    splits: list[DataSplit],
    attacked: list[Tensor],
) -> dict[str, Any]:
    """Projects, trains the U-Nets, and returns what each configuration gets right."""
    device = attacked[0].device
    config, (encoder, generator) = config_of(space, block), pair
    projector = Projector(
        generator, config.projector, discriminator=discriminator, encoder=encoder, seed=seed, device=device
    )
    record = [int(step) for step in space.values("projector.steps") or ()]
    traces = [projector.trace(images, record) for images in attacked]
    rows, labels = [], splits[1].labels
    train = train_singly if device.type == "cpu" else train_stacked
    todo = [{**point, **losses} for point in _points(space) for losses in grid(space, "unet.")]
    for start in range(0, len(todo), STACKED):
        chosen = todo[start : start + STACKED]
        inputs = [_projected(trace, chosen).to(device) for trace in traces]
        configs = [config_of(space, {**block, **params}).unet for params in chosen]
        right = train(configs, inputs[0], splits[0].images, splits[0].labels, judge, seed, (inputs[1], labels))
        for index, params in enumerate(chosen):
            psd = right[:, index].double().mean(1).tolist()
            rows.append({"params": {**block, **params}, "epochs": psd, "right": packed(right[-1, index])})
    return {"seed": seed, "rows": rows}


def _points(space: SearchSpace) -> list[dict[str, Any]]:
    keys = ("projector.restarts", "projector.steps")
    return [dict(zip(keys, chosen, strict=True)) for chosen in itertools.product(*map(_values(space), keys))]


def _projected(trace: Any, chosen: list[dict[str, Any]]) -> Tensor:
    """x_g of each configuration, (M, N, C, H, W); each pair of R and L is rendered once."""
    wanted = [(params["projector.restarts"], params["projector.steps"]) for params in chosen]
    images = {pair: trace.select(*pair).images for pair in dict.fromkeys(wanted)}
    return torch.stack([images[pair] for pair in wanted])


def _attacked(judge: ImageClassifier, split: DataSplit, config: ExperimentConfig) -> Iterator[Tensor]:
    for images, labels in zip(split.images.split(250), split.labels.split(250), strict=True):
        yield fgsm(judge, images, labels, config.attack.epsilon)


def packed(right: Tensor) -> str:
    """Booleans as text."""
    return base64.b64encode(np.packbits(right.numpy())).decode()


def write(space: SearchSpace, reduced: bool, parts: Path, seeds: list[int], out: Path) -> None:
    """The table of all complete seeds: psd after each epoch, and right or wrong of each image, as compressed bits."""
    order = {json.dumps(params, sort_keys=True): place for place, params in enumerate(grid(space))}
    dataset = dataset_of(space)
    images = len(dataset.validation)
    epochs = np.zeros((len(seeds), len(order), int(space.fixed["unet.epochs"])))
    bits = np.zeros((len(seeds), len(order), -(-images // 8)), dtype=np.uint8)
    for place, seed in enumerate(seeds):
        for block in blocks(space):
            for row in json.loads(block_file(parts, seed, block).read_bytes())["rows"]:
                index = order[json.dumps(row["params"], sort_keys=True)]
                epochs[place, index] = row["epochs"]
                bits[place, index] = np.frombuffer(base64.b64decode(row["right"]), dtype=np.uint8)
    table = {
        "command": "python benchmarks/search_table.py" + " --reduced" * reduced,
        "space": {key: json.loads(json.dumps(values.written())) for key, values in space.ranges.items()},
        "settings": space.changed,
        "seeds": seeds,
        "images": images,
        "seconds": seconds(space, dataset),
        "order": "product of the ranges in this order, the last fastest",
        "epochs": np.round(epochs * images).astype(int).tolist(),  # images right, by seed, configuration, epoch
        "right": base64.b64encode(zlib.compress(bits.tobytes(), 9)).decode(),
    }
    write_atomic(out, (json.dumps(table, separators=(",", ":"), default=list) + "\n").encode())
    print(f"{out}: {len(seeds)} seeds × {len(order)} configurations", flush=True)


def seconds(space: SearchSpace, dataset: Dataset) -> dict[str, Any]:
    """What each stage takes on one core of this machine: measured units of work, times how many it has."""
    torch.set_num_threads(1)
    config = config_of(space, {})
    train, held = int(space.fixed["unet.images"]), len(dataset.validation)
    few = dataset.train.subset(10 * config.classifier.batch_size)
    longer = {"epochs": 10}  # than the two epochs that are measured
    classifier = ClassifierTraining(config.classifier.model_copy(update=longer), few, dataset.classes, 0)
    per_image = _seconds(classifier) / len(few)
    short = config.gan.model_copy(update={"steps": 10**6, "steps_per_epoch": 16})
    gan = GanTraining(short, dataset.train.images, 0)
    per_step = _seconds(gan) / 16
    per_encoder_step = _seconds(encoder_training(config, gan, dataset, 0, torch.device("cpu"), 10**6, 16)) / 16
    some = dataset.train.subset(4 * config.unet.batch_size)
    judge = freeze(classifier.classifier)
    unet = config.unet.model_copy(update=longer)
    per_unet_image = _seconds(UNetTraining(unet, some.images, some.images, some.labels, judge, 0)) / len(some)
    most = max(space.values("projector.restarts") or ()) * max(space.values("projector.steps") or ())
    per_evaluation = _projection_seconds(config, gan, some.images) / (len(some) * most)
    encoders = space.values("gan.encoder_steps") or ()
    return {
        "classifier": config.classifier.epochs * len(dataset.train) * per_image,
        "attack": held * per_image,
        "attack_train": train * per_image,
        "gan": {str(n): config.gan.steps * per_step + n * per_encoder_step for n in encoders},
        "projection": held * most * per_evaluation,
        "projection_train": train * most * per_evaluation,
        "unet": config.unet.epochs * (train + 0.7 * held) * per_unet_image,
    }


def _seconds(training: Training) -> float:
    """Of an epoch, the second of two."""
    for _ in range(2):
        began = time.perf_counter()
        with seeded(0, training.epoch):
            training.run_epoch()
        training.epoch += 1
        took = time.perf_counter() - began
    return took


def _projection_seconds(config: ExperimentConfig, gan: GanTraining, images: Tensor) -> float:
    settings = config.projector.model_copy(update={"init": "random"})
    projector = Projector(freeze(gan.generator), settings, discriminator=freeze(gan.discriminator))
    projector.trace(images[:16], [config.projector.steps])
    began = time.perf_counter()
    projector.trace(images, [config.projector.steps])
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
