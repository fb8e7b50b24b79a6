"""Trains the shipped networks against an attacker who knows them, on full MNIST, and attacks what comes of it.

    python -m benchmarks.robust --out results/robust --levels 4 --threshold 0.305 --epochs 60
    python -m benchmarks.robust --out results/robust --seeds 3 --epochs 50 --augment 0.3 --all-images \
        --test-images 1000 --quick-images 10000 --beside mnist

It saves after every epoch and goes on where it was stopped; called again after the last one, it only attacks, so that
the full list on more images can have a call of its own. The classifier stays as it is. Several seeds are trained at the
same time, each by a process of its own with its log beside its results; another attacks the saved defenses `--beside`
them with the same lists on the same images.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

from benchmarks.robust_pairs import label
from components.adversarial_training import AdversarialConfig, AdversarialTraining
from components.attacks import attack
from components.attacks.adaptive import evaluate_defense
from components.attacks.fgsm import FGSM
from components.attacks.presets import PRESETS
from components.datasets.dataset import DataSplit, load_dataset
from components.defense import Defense
from components.files import write_json
from components.gan.encoder import Encoder
from components.hardware import keep_memory
from components.intervals import t_interval
from components.pretrained import shipped_defense
from components.projector.projector import Projector
from components.saves import TrainingFile
from components.training import drawn_from
from components.unet.network import UNet
from tune.commands.purify import load_defense


def main() -> None:
    options = read_options()
    if options.seeds > 1:
        several(options)
    else:
        one(options)


def several(options: argparse.Namespace) -> None:
    """Runs this command once for each seed, and for what stands beside them, all at the same time."""
    seeds = {f"seed-{seed}": ["--seed", str(seed)] for seed in range(options.seed, options.seed + options.seeds)}
    beside = {label(name): ["--attack", name] for name in options.beside}
    running = {}
    for name, own in (seeds | beside).items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        # of an option given twice the last one counts
        command = [sys.executable, "-m", "benchmarks.robust", *sys.argv[1:], "--seeds", "1", *own, "--out", str(folder)]
        with (folder / "log.txt").open("a") as log:
            running[folder] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    failed = [str(folder / "log.txt") for folder, process in running.items() if process.wait()]
    if failed:
        raise SystemExit(f"failed, see {', '.join(failed)}; the same command goes on")
    found = {folder.name: json.loads((folder / "robust.json").read_text()) for folder in running}
    write_json(options.out / "seeds.json", together(found, list(seeds)))


def together(found: dict[str, dict[str, Any]], seeds: list[str]) -> dict[str, Any]:
    """Prints and returns every share of all results, with the mean over the seeds and its interval."""
    summary = {}
    for score in ("clean", "psd", *(preset for preset in PRESETS if preset in found[seeds[0]])):
        shares = {name: one[score]["worst"] if score in PRESETS else one[score] for name, one in found.items()}
        values = [shares[name] for name in seeds]
        low, high = t_interval(values)
        summary[score] = {"shares": shares, "mean": mean(values), "ci95": [low, high]}
        each = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
        print(f"{score}: seeds {mean(values):.2%} (95 % of their mean: {low:.2%} … {high:.2%}); {each}", flush=True)
    return summary


def one(options: argparse.Namespace) -> None:
    """Trains with one seed, and attacks what comes of it."""
    keep_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    data = load_dataset(options.data, options.data_dir)
    if options.attack:
        report(load_defense(options.attack).to(device), data.test, options)
        return
    shipped = Defense.load(options.start or shipped_defense("mnist"), device)
    train, validation = (data.merged() if options.all_images else data.train), data.validation
    if options.images:
        train = train.subset(options.images)
    training = training_of(options, shipped, train, device)
    asked = {"config": training.config.model_dump(mode="json"), "start": options.start, "seed": options.seed}
    file = TrainingFile(options.out / "state.pt", {**asked, "images": [data.fingerprint, len(train)]})
    if file.go_on(training):
        print(f"goes on after epoch {training.epoch}", flush=True)
    began = time.perf_counter()
    for metrics in training:
        file.write(training)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"epoch {training.epoch}/{training.epochs}: {shown}, {time.perf_counter() - began:.0f} s", flush=True)
        if training.epoch % options.every == 0 and training.epoch < training.epochs:
            look(defense_of(training, shipped, options), validation.subset(min(1000, len(validation))), options.epsilon)
    defense = defense_of(training, shipped, options)
    defense.save(options.out / "defense")
    report(defense, data.test, options)


def training_of(
    options: argparse.Namespace, shipped: Defense, train: DataSplit, device: str
) -> AdversarialTraining:
    """The training, from the shipped networks, or from new ones where another width is asked for."""
    names = AdversarialConfig.model_fields
    settings = {name: value for name, value in vars(options).items() if name in names and value is not None}
    config = AdversarialConfig.model_validate(settings)
    encoder, unet = shipped.encoder, shipped.unet
    assert isinstance(encoder, Encoder)
    assert isinstance(shipped.generator, nn.Module)
    with drawn_from(options.seed):
        if options.encoder_width and options.encoder_width != encoder.width:
            encoder = Encoder(encoder.latent_dim, options.encoder_width, encoder.image_shape)
        wanted = (options.unet_width or unet.width, options.unet_depth or unet.depth)
        if wanted != (unet.width, unet.depth):
            unet = UNet(unet.channels, *wanted)
    print(config, f"encoder width {encoder.width}, U-Net width {unet.width} depth {unet.depth}", flush=True)
    return AdversarialTraining(
        config,
        shipped.generator,
        encoder,
        unet,
        shipped.classifier,
        train.images,
        train.labels,
        options.seed,
        device,
    )


def defense_of(training: AdversarialTraining, shipped: Defense, options: argparse.Namespace) -> Defense:
    """The defense with the averaged networks. It descends as many steps as are asked for; the training knew of none."""
    config = training.config
    changed = {"levels": config.levels, "threshold": config.threshold, "restarts": 1, "steps": options.descent_steps}
    averaged, device = copy.deepcopy(training.averaged), training.device
    projector = Projector(
        averaged.generator,  # type: ignore[arg-type]
        shipped.projector.config.model_copy(update={**changed, "learning_rate": options.descent_rate}),
        discriminator=shipped.discriminator,
        encoder=averaged.encoder,
        seed=shipped.projector.seed,
        device=device,
    )
    return Defense(projector, averaged.unet, shipped.classifier, shipped.discriminator)  # type: ignore[arg-type]


def look(defense: Defense, split: DataSplit, epsilon: float) -> None:
    """A quick look at validation images."""
    found = evaluate_defense(defense, split.images, split.labels, epsilon=epsilon, preset="quick", curves=False)
    print(f"  validation: clean {found.clean:.4f}, worst of the quick attacks {found.worst:.4f}", flush=True)


def report(defense: Defense, test: DataSplit, options: argparse.Namespace) -> None:
    """Attacks the defense on the test images: those of the gray box on all, the adaptive ones by preset."""
    with torch.no_grad():
        clean = (defense(test.images).argmax(1) == test.labels).float().mean()
    attacked = attack(FGSM(epsilon=options.epsilon), defense.classifier, test.images, test.labels)
    gray = (defense(attacked).argmax(1) == test.labels).float().mean()
    print(f"test: clean {float(clean):.4f}, gray-box FGSM (PSD) {float(gray):.4f}", flush=True)
    summary = {"epsilon": options.epsilon, "clean": float(clean), "psd": float(gray)}
    wanted = {"quick": options.quick_images, "standard": options.test_images, "full": options.full_images}
    for preset, images in wanted.items():
        if images:
            some = test.subset(min(images, len(test)))
            began = time.perf_counter()
            found = evaluate_defense(
                defense, some.images, some.labels, epsilon=options.epsilon, preset=preset, seed=options.seed, tell=tell
            )
            print(found.table(), f"\n{preset}, {images} images: {time.perf_counter() - began:.0f} s", flush=True)
            summary[preset] = {**found.to_json(), "lost": found.stands.logical_not().nonzero().squeeze(1).tolist()}
    write_json(options.out / "robust.json", summary)


def tell(sentence: str) -> None:
    print(" ", sentence, flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="mnist", help="data set by name or folder")
    parser.add_argument("--data-dir")
    parser.add_argument("--start", help="folder of a saved defense to start from; default: the shipped one")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="how many, from --seed on, all at the same time")
    parser.add_argument("--attack", help="saved defense, or a shipped one's name, to attack; nothing is trained")
    parser.add_argument("--beside", nargs="*", default=[], help="saved defenses that are attacked, too")
    parser.add_argument("--images", type=int, help="training images; default: all")
    parser.add_argument("--all-images", action="store_true", help="train on the validation images too")
    parser.add_argument("--every", type=int, default=10, help="epochs between two looks at validation images")
    parser.add_argument("--test-images", type=int, default=2000, help="for the standard attacks; 0 = none")
    parser.add_argument("--quick-images", type=int, default=0, help="for the quick attacks; 0 = none")
    parser.add_argument("--full-images", type=int, default=0, help="for the full list of attacks; 0 = none")
    parser.add_argument("--encoder-width", type=int)
    parser.add_argument("--unet-width", type=int)
    parser.add_argument("--unet-depth", type=int)
    parser.add_argument("--descent-steps", type=int, default=1)
    parser.add_argument("--descent-rate", type=float, default=0.005)
    parser.add_argument("--levels", type=lambda text: None if text == "null" else int(text), default=2)
    for name in ("threshold", "attacked", "step_size", "label_weight", "pixel_weight", "smoothing", "augment"):
        parser.add_argument("--" + name.replace("_", "-"), type=float)
    for name in ("learning_rate", "weight_decay", "average"):
        parser.add_argument("--" + name.replace("_", "-"), type=float)
    for name in ("first_steps", "steps", "epochs", "batch_size"):
        parser.add_argument("--" + name.replace("_", "-"), type=int)
    parser.add_argument("--epsilon", type=float, default=0.3, help="radius of every attack, also on test images")
    parser.add_argument("--learning")
    parser.add_argument("--precision", default="bfloat16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
