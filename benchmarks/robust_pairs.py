"""Attacks saved defenses by one list on the same test images, a few at a time, and compares them image by image.

    python -m benchmarks.robust_pairs --out results/pairs --data-dir DIR --images 1000 mnist mnist_robust

The images are taken in a random order, the same for all, and of another process from `--first` on. Every group of them
is a file in `--out` for each defense, written once all of its attacks are made, and another has what broke the lost
ones: called again, it goes on, and at any time `--images 0` prints what is there. A file of other images, or by another
preset or seed than asked for, is made anew, and a defense whose networks have changed has another folder. Of the groups
that all defenses have it prints each one's share with its interval, how many images only one of two loses, McNemar's
exact test, and of three and more how many images are lost by none of them, by one, and so on up to all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from components.attacks.adaptive import evaluate_defense
from components.attacks.presets import PRESETS
from components.datasets.dataset import DataSplit, load_dataset
from components.files import write_atomic, write_json
from components.hardware import keep_memory
from components.intervals import paired_error, sign_test, wilson
from tune.commands.purify import load_defense, saved_at
from tune.pipeline.unet import QUICK_LIST

ASKED = ("data", "preset", "seed")  # by which groups are compared
ORDER = 0  # seed of the order of the images: chosen before anything was seen


def main() -> None:
    options = read_options()
    if options.images:
        keep_memory()
        test = attacked_images(options)
        for first in range(options.first, min(options.images, len(test)), options.group):
            for name in options.defenses:
                attacked(name, test, first, options)
    print_pairs(options.out, options.defenses, wanted(options))


def attacked_images(options: argparse.Namespace) -> DataSplit:
    """The images in a random order, so that however many are attacked, they stand for all."""
    data = load_dataset(options.data, options.data_dir)
    split = data.train if options.training else data.test
    return split.subset(torch.from_numpy(np.random.default_rng(ORDER).permutation(len(split))))


def wanted(options: argparse.Namespace) -> dict[str, Any]:
    """By what groups are one measurement: data and their order, seed, and the list of attacks as it is now."""
    attacks = PRESETS[options.preset].model_dump_json() + str(QUICK_LIST)
    order = f"{ORDER} of the training images" if options.training else ORDER
    listed = {"order": order, "list": hashlib.sha256(attacks.encode()).hexdigest()[:12]}
    return {**listed, **{name: getattr(options, name) for name in ASKED}}


def attacked(name: str, test: DataSplit, first: int, options: argparse.Namespace) -> None:
    """Attacks one group of images, unless that was done before."""
    path = options.out / label(name) / f"{first:05d}.json"
    last = min(first + options.group, options.images, len(test))
    asked = {**wanted(options), "first": first, "last": last}
    if path.is_file() and asked.items() <= json.loads(path.read_text()).items():
        return
    images, labels = test.images[first:last], test.labels[first:last]
    defense = load_defense(name)
    began = time.process_time()
    found = evaluate_defense(defense, images, labels, preset=options.preset, seed=options.seed, curves=False)
    seconds = time.process_time() - began
    stands = found.stands.tolist()
    clean = (defense(images).argmax(1) == labels).tolist()
    rows = [row.model_dump(mode="json") for row in found.attacks]
    lost = found.candidates[found.stands.logical_not()].contiguous()
    write_atomic(path.with_suffix(".safetensors"), save({"lost": lost}))  # before the file that says it is finished
    write_json(path, {**asked, "seconds": seconds, "clean": clean, "stands": stands, "attacks": rows,
                      "flags": found.flags})  # fmt: skip
    print(f"{name} {first} … {last - 1}: {sum(stands)} of {sum(clean)} stand, {seconds:.0f} s of processor", flush=True)


def label(name: str) -> str:
    """A folder's name for a saved defense: the one it goes by, and the start of its manifest's hash.

    Raises:
        FileNotFoundError: there is no saved defense.
    """
    home = saved_at(name)
    *_, parent, last = home.uri.rstrip("/").split("/")
    manifest = hashlib.sha256(home.read("manifest.json")).hexdigest()
    return f"{parent if last == 'best' else last}-{manifest[:8]}"


def kept_groups(folder: Path, asked: Mapping[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """The attacked groups of a defense, by their first image and the one behind their last."""
    groups = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {(group["first"], group["last"]): group for group in groups if asked.items() <= group.items()}


def disjoint(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that have no image in common, as groups of another size would have that are still there."""
    chosen: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if not chosen or first >= chosen[-1][1]:
            chosen.append((first, last))
    return chosen


def common_groups(out: Path, names: list[str], asked: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """For each defense the groups, attacked as `asked`, that all of them have, in the order of the images."""
    kept = {name: kept_groups(out / label(name), asked) for name in names}
    common = disjoint(set.intersection(*(set(groups) for groups in kept.values())))
    return {name: [groups[place] for place in common] for name, groups in kept.items()}


def print_pairs(out: Path, names: list[str], asked: Mapping[str, Any]) -> None:
    """Prints the comparison of the groups that all defenses have, attacked as `asked`."""
    common = common_groups(out, names, asked)
    if not common[names[0]]:
        print("no group of images is finished for all of them")
        return
    stands = {name: [right for group in groups for right in group["stands"]] for name, groups in common.items()}
    for name, groups in common.items():
        print_one(name, groups, stands[name])
    for one, other in combinations(names, 2):
        first, second = as_bits(stands[one]), as_bits(stands[other])
        only_first, only_second = (first & ~second).bit_count(), (second & ~first).bit_count()
        ahead, error = paired_error(second, first, len(stands[one]))
        chance = sign_test(only_first, only_second)
        print(
            f"{other} above {one}: {100 * ahead:+.2f} points ± {196 * error:.2f} (95 %); only {one} stands "
            f"{only_first} times, only {other} {only_second}; McNemar, exact, two-sided: {chance:.2g}"
        )
    if len(names) > 2:
        losers = Counter(right.count(False) for right in zip(*stands.values(), strict=True))
        print("images by how many lose them: " + ", ".join(f"{count}: {losers[count]}" for count in sorted(losers)))


def as_bits(stands: list[bool]) -> int:
    """Which images stand, as the bits of a number."""
    return sum(1 << place for place, right in enumerate(stands) if right)


def print_one(name: str, groups: list[dict[str, Any]], stands: list[bool]) -> None:
    images, clean = len(stands), sum(sum(group["clean"]) for group in groups)
    low, high = wilson(sum(stands), images)
    seconds = sum(group["seconds"] for group in groups)
    print(
        f"{name}: {sum(stands)} of {images} images stand, {100 * sum(stands) / images:.2f} % "
        f"(95 %: {100 * low:.2f} … {100 * high:.2f}), clean {clean}, {seconds:.0f} s of processor"
    )
    broken: dict[str, int] = {}
    for row in (row for group in groups for row in group["attacks"]):
        title = f"{row['name']} ({row['surrogate']})"
        broken[title] = broken.get(title, 0) + round(row["images"] * (1 - row["right"]))
    print("    broken by: " + ", ".join(f"{title} {count}" for title, count in broken.items() if count))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_asked(parser)
    parser.add_argument("--images", type=int, default=1000, help="so many test images; 0 = only print")
    parser.add_argument("--first", type=int, default=0, help="where to begin, a multiple of --group")
    parser.add_argument("--group", type=int, default=50, help="images attacked at once")
    return parser.parse_args()


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which groups are meant."""
    parser.add_argument("defenses", nargs="+", help="folders of saved defenses, or names of shipped ones")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="mnist", help="data set by name or folder")
    parser.add_argument("--data-dir")
    parser.add_argument("--training", action="store_true", help="the training images in place of the test images")
    parser.add_argument("--preset", choices=list(PRESETS), default="standard")
    parser.add_argument("--seed", type=int, default=0)


if __name__ == "__main__":
    main()
