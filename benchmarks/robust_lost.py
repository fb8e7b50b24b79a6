"""Asks of the images that attacks broke what holds a defense back: whether others lose them, and what they look like.

    python -m benchmarks.robust_lost --out results/pairs --data-dir DIR --figure lost.png seed-0 seed-1 seed-2 \
        --read-by mnist_robust

It reads what `benchmarks.robust_pairs` has left of the same defenses. An image that is broken behind every one of them
is hard for all that are trained so; one that is broken behind one alone is a matter of that training. A candidate that
was made against one and misleads the others as well shows a pattern that all take for another digit, rather than a
fault of one network; `--read-by` asks defenses that were not attacked, too. The figure has
images that all lose, with what broke the first: the original, the attacked image, its grey levels, what the purifier
makes of them, and the U-Net of that. `--again full` attacks by that list what each defense keeps and another loses:
if more effort breaks more images, then these before others.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.robust_pairs import add_asked, attacked_images, common_groups, label, wanted
from components.attacks.adaptive import evaluate_defense
from components.attacks.presets import PRESETS
from components.datasets.dataset import DataSplit
from components.defense import Defense
from components.hardware import keep_memory
from components.squeezing import squeezed
from tune.commands.purify import load_defense

STAGES = ("original", "attacked", "grey levels", "purifier", "U-Net")


@dataclass(frozen=True)
class Left:
    """What attacks left of some images behind one defense.

    Attributes:
        broken: bool (n,), right without an attack and not after all of them.
        candidates: (n, C, H, W), what broke them; elsewhere the image.
    """

    broken: Tensor
    candidates: Tensor


def main() -> None:
    options = read_options()
    keep_memory()
    common = common_groups(options.out, options.defenses, wanted(options))
    places = [(group["first"], group["last"]) for group in common[options.defenses[0]]]
    if not places:
        raise SystemExit(f"--out: expected groups finished by benchmarks.robust_pairs, found none in {options.out}")
    index = torch.cat([torch.arange(*place) for place in places])
    test = attacked_images(options).subset(index)
    defenses = {name: load_defense(name) for name in (*options.defenses, *options.read_by)}
    found = {name: left_of(groups, options.out / label(name), test.images) for name, groups in common.items()}
    print_overlap(found)
    print_transfer(found, defenses, test.labels)
    if options.again:
        for name in options.defenses:
            kept = ~found[name].broken & torch.stack([one.broken for one in found.values()]).any(0)
            print_again(name, defenses[name], test.subset(kept.nonzero().squeeze(1)), options)
    shown = everywhere(found).nonzero().squeeze(1)[: options.shown]
    if options.figure and len(shown):
        name = options.defenses[0]
        draw(defenses[name], test.images[shown], found[name].candidates[shown], test.labels[shown], options.figure)


def left_of(groups: list[dict[str, Any]], folder: Path, images: Tensor) -> Left:
    """What the groups in a folder say of the images, which are theirs in order."""
    stands = torch.tensor([right for group in groups for right in group["stands"]])
    clean = torch.tensor([right for group in groups for right in group["clean"]])
    lost = [load_file(folder / f"{group['first']:05d}.safetensors")["lost"] for group in groups]
    candidates = images.clone()
    candidates[~stands] = torch.cat(lost).to(images)
    return Left(clean & ~stands, candidates)


def everywhere(found: Mapping[str, Left]) -> Tensor:
    """The images that are broken behind every defense, bool (n,)."""
    return torch.stack([one.broken for one in found.values()]).all(0)


def print_overlap(found: Mapping[str, Left]) -> None:
    """Prints how many images are broken behind all, and how many that would be by chance."""
    shares = [float(one.broken.double().mean()) for one in found.values()]
    images = len(next(iter(found.values())).broken)
    counts = ", ".join(f"{name} {int(one.broken.sum())}" for name, one in found.items())
    print(f"{images} images; broken: {counts}")
    print(f"behind all of them {int(everywhere(found).sum())}; by chance {prod(shares) * images:.2f}")


def print_transfer(found: Mapping[str, Left], defenses: Mapping[str, Defense], labels: Tensor) -> None:
    """Prints how many of the images broken behind one defense the same candidates break behind the others."""
    for name, one in found.items():
        own = one.broken
        misled = {
            other: int((defense(one.candidates[own]).argmax(1) != labels[own]).sum())
            for other, defense in defenses.items()
        }
        print(f"made against {name}: " + ", ".join(f"{count} break {other}" for other, count in misled.items()))


def print_again(name: str, defense: Defense, kept: DataSplit, options: argparse.Namespace) -> None:
    """Attacks the images that a defense keeps and another loses by the list `--again`, and prints what is left."""
    if not len(kept):
        print(f"{name} keeps none that another loses")
        return
    found = evaluate_defense(defense, kept.images, kept.labels, preset=options.again, seed=options.seed, curves=False)
    right, stand = round(found.clean * len(kept)), int(found.stands.sum())
    print(f"{name} keeps {right} that another loses; by {options.again} it keeps {stand} of these", flush=True)


@torch.no_grad()
def draw(defense: Defense, images: Tensor, candidates: Tensor, labels: Tensor, path: Path) -> None:
    """Draws each image on its way through the defense, a column each, and writes what it is read as."""
    config, made = defense.projector.config, defense.inspect(candidates)
    seen = candidates if config.levels is None else squeezed(candidates, config.levels, config.threshold)
    rows = (images, candidates, seen, made.generated, made.images)
    figure = Figure(figsize=(1.05 * len(labels) + 1.1, 1.05 * len(rows) + 0.5), layout="constrained")
    panels = figure.subplots(len(rows), len(labels), squeeze=False)
    for row, (stage, pictures) in enumerate(zip(STAGES, rows, strict=True)):
        for panel, picture in zip(panels[row], pictures.cpu(), strict=True):
            panel.imshow(picture.squeeze(0).numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
        panels[row, 0].set_ylabel(stage)
    for panel, label_, wrong in zip(panels[0], labels.tolist(), made.label.tolist(), strict=True):
        panel.set_title(f"{label_}, read as {wrong}", fontsize="small")
    figure.savefig(path, dpi=120)
    print(f"figure: {path}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_asked(parser)
    parser.add_argument("--read-by", nargs="*", default=[], help="saved defenses that only read what broke the others")
    parser.add_argument("--again", choices=list(PRESETS), help="list by which doubtful images are attacked once more")
    parser.add_argument("--figure", type=Path, help="file for the figure, such as lost.png")
    parser.add_argument("--shown", type=int, default=12, help="most images in it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
