"""Counts a report's test scores again from the saved defense and the data; defense and attack are all it shares.

    python docs/recompute.py results/quickstart [--data-dir DIR] [--off IMAGES]

Not those of the attacker who knows the defense, which `python -m tune evaluate` measures again. It knows FGSM alone and
classifiers by name: a report of another attack, or of a plug-in's classifier, is refused with exit status 2, as is a
folder without a report.
First the scores of the saved defense, which is the first seed; then whether the mean, the standard
deviation and the 95 % interval of every score follow from its seeds. Exit status 1 where something does not agree.
On another machine than the search ran on, rounding may move an image or two: --off says how many may differ.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from components.attacks.fgsm import fgsm
from components.datasets.dataset import load_dataset
from components.datasets.idx import DataError
from components.defense import Defense
from components.files import read_json
from components.saved_defense import DefenseError

SEARCHED = ("robust", "adaptive")  # found by attacks of many steps: python -m tune evaluate makes them again


def recomputed(folder: Path, report: dict[str, Any], data_dir: str | None = None) -> dict[str, int]:
    """How many test images each share of the report counts, and `images`, of how many."""
    defense = Defense.load(folder / "best")
    test = load_dataset(report["dataset"], data_dir).test
    counts: dict[str, int] = {"images": len(test.labels)}
    began, done = time.monotonic(), 0
    for clean, true in zip(test.images.split(250), test.labels.split(250), strict=True):
        for name, right in _batch(defense, clean, true, report["attack"]).items():
            counts[name] = counts.get(name, 0) + int(right.sum())
        done += len(true)
        left = (time.monotonic() - began) / done * (counts["images"] - done)
        print(f"{done} of {counts['images']} images, about {left:.0f} s left", file=sys.stderr, flush=True)
    return counts


def _report(folder: Path) -> dict[str, Any]:
    """The report of a search. Raises DataError, naming the file, where there is none."""
    path = folder / "report.json"
    try:
        report = read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: expected the report of a search, found no such file") from error
    except ValueError as error:
        raise DataError(str(error)) from error
    if not isinstance(report, dict) or "attack" not in report:
        raise DataError(f"{path}: expected the report of a search, found other JSON")
    return report


def _batch(
    defense: Defense, clean: torch.Tensor, true: torch.Tensor, attack: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Which images of a batch count for which score: booleans (N,)."""

    def label(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return defense.classifier(images).argmax(1)

    originals = label(clean)
    attacked = fgsm(defense.classifier, clean, true if attack["labels"] == "true" else originals, attack["epsilon"])
    generated = defense.projector.project(attacked).images
    denoised = label(defense.denoise(generated, attacked))
    noisy = label(attacked)
    return {
        "pso": originals == true,
        "noisy": noisy == true,
        "threshold": label((attacked > 0.5).float()) == true,
        "psd_gan": label(generated) == true,
        "psd_unet": label(defense.denoise(attacked, attacked)) == true,
        "psd": denoised == true,
        "pco": denoised == originals,
        "clean_gan": label(defense.projector.project(clean).images) == true,
        "clean_purified": label(defense.purify(clean)) == true,
        "attacked_label": denoised == noisy,
    }


def disagreements(report: dict[str, Any], counts: dict[str, int], off: int = 0) -> Iterator[str]:
    """A line for each figure of the report that does not follow from the defense, the data and the seeds."""
    images, saved = counts["images"], report["seeds"].index(report["saved_seed"])
    if report["test_images"] != images:
        yield f"test images: reported {report['test_images']}, found {images}"
    counted = {name: score for name, score in report["test"].items() if name not in SEARCHED}
    for name in sorted(counted.keys() ^ (counts.keys() - {"images"})):
        yield f"{name}: not in both the report and what is computed here"
    for name, score in counted.items():
        values = score["seeds"]
        if abs(values[saved] * images - counts.get(name, 0)) > off + 1e-6:
            yield f"{name}: reported {values[saved]}, found {counts.get(name, 0) / images}"
        for figure, expected in _over_seeds(values, images).items():
            if not all(map(math.isclose, _list(score[figure]), expected)):
                yield f"{name}.{figure}: reported {score[figure]}, expected {expected}"


def _over_seeds(values: list[float], images: int) -> dict[str, list[float]]:
    """Mean, standard deviation and interval as the report defines them."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        low, high = stats.binomtest(round(mean * images), images).proportion_ci(method="wilson")
        return {"mean": [mean], "std": [0.0], "ci95": [low, high]}
    std = statistics.stdev(values)
    half = stats.t.ppf(0.975, len(values) - 1) * std / len(values) ** 0.5
    return {"mean": [mean], "std": [std], "ci95": [max(0.0, mean - half), min(1.0, mean + half)]}


def _list(figure: Any) -> list[float]:
    return figure if isinstance(figure, list) else [figure]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="the experiment, with report.json and best/")
    words.add_argument("--data-dir", help="where a named data set lies, or is downloaded to")
    words.add_argument("--off", type=int, default=0, help="images by which a score may differ (default: 0)")
    given = words.parse_args()
    try:
        return _recompute(given.folder, given.data_dir, given.off)
    except (OSError, DataError, DefenseError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _recompute(folder: Path, data_dir: str | None, off: int) -> int:
    """Prints every score of the report in `folder` beside that found here; the exit status."""
    report = _report(folder)
    if report["attack"]["name"] != "fgsm":
        print(f"error: counts FGSM reports alone, found {report['attack']['name']}", file=sys.stderr)
        return 2
    counts = recomputed(folder, report, data_dir)
    report.setdefault("saved_seed", report.get("median_seed"))  # reports of before chose the median one
    if report["saved_seed"] is None:
        print("error: expected a report with a retrained seed, found none", file=sys.stderr)
        return 2
    saved = report["seeds"].index(report["saved_seed"])
    print(f"seed {report['saved_seed']}, {counts['images']:,} test images\n{'score':16}{'report':>10}{'here':>10}")
    for name, score in report["test"].items():
        if name not in SEARCHED:
            print(f"{name:16}{score['seeds'][saved]:10.2%}{counts.get(name, 0) / counts['images']:10.2%}")
    print("Not computed here: the attacker who knows the defense, see python -m tune evaluate.")
    found = list(disagreements(report, counts, off))
    print("\n".join(found) or "All scores agree, and every mean, deviation and interval follows from its seeds.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
