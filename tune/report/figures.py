"""Charts of the test result: each stage's part, the course over ε, the confusion, the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tune.metrics import title_of
from tune.report.data import ROWS, Experiment, Pictures, SeedScore
from tune.report.scores import PARTS, Score, percent
from tune.report.style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    PINK,
    RED,
    WIDTH,
    WRONG,
    blank,
)

HUES = {"pso": GRID, "noisy": GREY, "threshold": ORANGE, "psd_gan": BLUE, "psd_unet": PINK, "psd": GREEN}

# The courses over ε: colour, line, marker, so that they are never told apart by colour alone.
COURSES = {
    "psd": (GREEN, "-", "o"),
    "pco": (RED, "--", "s"),
    "psd_gan": (BLUE, "-", "^"),
    "threshold": (ORANGE, "-.", "D"),
    "noisy": (GREY, ":", "v"),
}

PITCH = 1.5  # from one row of images to the next, in image widths: room for the labels
ROW_NAMES = {"original": "a  original", "attacked": "b  attacked", "gan": "c  GAN", "denoised": "d  denoised"}


def parts(experiment: Experiment, test: Mapping[str, Score]) -> Figure:
    """Each stage's part: accuracy on attacked images, below that on originals, with widest intervals."""
    bars = {"pso": "originals", **{name: f"attacked, {experiment.part(name)}" for name in PARTS}}
    names = [name for name in bars if name in test]
    figure, axes = blank(height=0.62 + 0.36 * len(names))
    for place, name in enumerate(names):
        score = test[name]
        low, high = score.widest
        axes.barh(place, score.mean, color=HUES[name], height=0.58)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=7)
        axes.text(max(high, score.mean) + 0.015, place, f"{percent(score.mean)} %", va="center")
    axes.set_yticks(range(len(names)), [bars[name] for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("correctly classified test images")
    return figure


def dots(named: Mapping[str, Score], label: str) -> Figure:
    """A score per name, with its widest 95 % interval, on an axis as long as they need."""
    figure, axes = blank(height=0.75 + 0.4 * max(len(named), 1))
    for place, score in enumerate(named.values()):
        axes.plot(score.widest, [place, place], color=GREEN, linewidth=1.6, marker="|", markersize=8)
        axes.plot(score.mean, place, "o", color=GREEN, markersize=7)
    axes.set_yticks(range(len(named)), list(named))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(named) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
    axes.set_xlabel(label)
    return figure


def over_epsilon(experiment: Experiment) -> Figure | None:
    """Means over the seeds against ε, each in a band from the lowest to the highest seed."""
    seeds, attacked_with = experiment.seeds, experiment.setting("attack.epsilon")
    found = courses(seeds)
    if not found:
        return None
    figure, axes = blank(height=3.5)
    x = np.array(seeds[0].epsilon["values"], dtype=float)
    if attacked_with is not None:
        axes.axvline(attacked_with, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        place = (attacked_with, 1.01)  # above the frame, where no course passes
        axes.annotate(f"ε = {attacked_with:g}", place, xycoords=("data", "axes fraction"), ha="center", color=MUTED)
    for name, values in found.items():
        hue, line, marker = COURSES[name]
        label = experiment.part(name) or title_of(name)
        axes.fill_between(x, values.min(0), values.max(0), color=hue, alpha=0.18, linewidth=0)
        axes.plot(x, values.mean(0), line, color=hue, marker=marker, label=label)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("ε of the attack (images in [0, 1])")
    axes.set_ylabel("share of test images")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def course(label: str, points: Sequence[tuple[float, float]]) -> Figure:
    """The share of images that stay right against a strength of the attack."""
    figure, axes = blank(height=2.6)
    x, y = zip(*points, strict=True)
    axes.plot(x, y, "-", color=GREEN, marker="o")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(label)
    axes.set_ylabel("images that stay right")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure


def courses(seeds: Sequence[SeedScore]) -> dict[str, np.ndarray]:
    """Per metric the values (seeds, ε), of the metrics that every seed has at the same values of ε."""
    if not seeds or not seeds[0].epsilon.get("values"):
        return {}
    grid = list(seeds[0].epsilon["values"])
    if any(list(score.epsilon.get("values", [])) != grid for score in seeds):
        return {}
    whole = [name for name in COURSES if all(len(score.epsilon.get(name, [])) == len(grid) for score in seeds)]
    return {name: np.array([score.epsilon[name] for score in seeds], dtype=float) for name in whole}


def confusion(counts: np.ndarray) -> Figure:
    """Image counts, true label by row, denoised label by column; shaded by the share of the row."""
    size = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = blank(width=min(WIDTH, 1.4 + 0.42 * size), height=min(WIDTH - 0.6, 1.0 + 0.38 * size))
    # The square root lifts the errors, a few images each, out of the paper's colour.
    cells(axes, np.sqrt(share), [[str(n) if n else "" for n in row] for row in counts])
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.set_xlabel("label of the denoised image")
    axes.set_ylabel("true label")
    return figure


def cells(axes: Axes, depth: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """A table of shaded cells: one hue on the page's own paper, so that it reads in light and in dark."""
    rows, columns = depth.shape
    for row in range(rows):
        for column in range(columns):
            value = float(depth[row, column])
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=BLUE, alpha=0.04 + 0.9 * value, linewidth=0))
            ink = PAPER if value > 0.8 else INK  # by contrast with the blend below it, in both themes
            axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, fontsize=8)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(labelcolor=INK)


def pictures(images: Pictures, most: int = 10) -> Figure:
    """The published figure, rows a to d; under each image the predicted label, red when wrong."""
    count = min(len(images), most)
    figure, axes = blank(width=max(0.75 + 0.5 * count, 2.6), height=2.9)
    for row, name in enumerate(ROWS):
        axes.text(-0.7, row * PITCH, ROW_NAMES[name], ha="right", va="center", fontsize=8)
        for column in range(count):
            _picture(axes, images.rows[name][column], (column, row * PITCH))
            label, true = int(images.labels[row][column]), int(images.true[column])
            ink, weight = (INK, "normal") if label == true else (WRONG, "bold")
            place = (column, row * PITCH + 0.52)
            axes.text(*place, str(label), ha="center", va="top", fontsize=8, color=ink, weight=weight)
    for column in range(count):
        caption = f"true {int(images.true[column])}"
        axes.text(column, -0.55, caption, ha="center", va="bottom", fontsize=7, color=MUTED)
    axes.set_xlim(-2.0, count - 0.45)
    axes.set_ylim(PITCH * len(ROWS) - 0.6, -0.8)
    axes.set_axis_off()
    return figure


def _picture(axes: Axes, image: np.ndarray, middle: tuple[float, float]) -> None:
    """One image (C, H, W), uint8, pixels as squares, in a frame: black would drown in a dark page."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    x, y = middle
    extent = (x - 0.46, x + 0.46, y + 0.46, y - 0.46)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="equal", extent=extent)
    axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=GRID, linewidth=0.8))
