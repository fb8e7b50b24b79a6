"""The test result in detail: the images, the worst of them, the course over ε, the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from tune.metrics import title_of
from tune.report.blocks import Drawing, Section, Table, Text, interval, percent
from tune.report.facts import Facts
from tune.report.reading import ROWS, Pictures, SeedScore
from tune.report.scores import ClassScore
from tune.report.style import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    RED,
    WIDTH,
    WRONG,
    blank,
    cells,
    render,
    shades,
)

# The courses over ε: colour, line, marker, so that they are never told apart by colour alone.
COURSES = {
    "psd": (GREEN, "-", "o"),
    "pco": (RED, "--", "s"),
    "psd_gan": (BLUE, "-", "^"),
    "threshold": (ORANGE, "-.", "D"),
    "noisy": (GREY, ":", "v"),
}

MOST_CLASSES = 20  # of which each has its row and its cells; of more, numbers in cells cannot be read
LISTED = 10  # classes and confusions where there are more
PITCH = 1.5  # from one row of images to the next, in image widths: room for the labels
ROW_NAMES = {"original": "a  original", "attacked": "b  attacked", "gan": "c  {purifier}", "denoised": "d  denoised"}


def examples(facts: Facts) -> Section:
    pictures = facts.saved and facts.saved.examples
    if not pictures:
        return Section("Images", (Text("Left out: the folder holds no images of the test run."),))
    caption = (
        f"a original, b attacked, c the {facts.purifier}'s image, d denoised by the U-Net; under each image the "
        "label that the classifier gives it, red and bold where wrong. Drawn by a fixed seed, not picked."
    )
    return Section("Images", (_drawing("examples", pictures, caption, facts.purifier),))


def worst(facts: Facts) -> Section:
    pictures = facts.saved and facts.saved.worst
    if not pictures:
        return Section("Worst cases", (Text("Left out: the folder holds no misclassified images."),))
    caption = "The test images that the defense gets wrong with the highest confidence; rows and labels as above. "
    lost_anyway = int((pictures.labels[0] != pictures.true).sum())
    caption += f"The classifier gets {lost_anyway} of them wrong without an attack."
    return Section("Worst cases", (_drawing("worst", pictures, caption, facts.purifier),))


def _drawing(name: str, pictures: Pictures, caption: str, purifier: str) -> Drawing:
    return Drawing(render(name, _grid(pictures, purifier)), caption, _reading(pictures, purifier))


def _reading(pictures: Pictures, purifier: str) -> str:
    right = (pictures.labels == pictures.true).sum(axis=1)
    rows = ("original", "attacked", purifier, "denoised")
    return f"Of {len(pictures)} images right: " + ", ".join(f"{r} {n}" for r, n in zip(rows, right, strict=True))


def _grid(images: Pictures, purifier: str, most: int = 10) -> Figure:
    """The published figure, rows a to d; under each image the predicted label, red when wrong."""
    count = min(len(images), most)
    names = [ROW_NAMES[name].format(purifier=purifier) for name in ROWS]
    room = 0.118 * max(map(len, names))  # for the longest name, in image widths
    figure, axes = blank(width=max(0.1 + 0.5 * (room + count), 2.6), height=2.9)
    for row, name in enumerate(ROWS):
        axes.text(-0.7, row * PITCH, names[row], ha="right", va="center", fontsize=8)
        for column in range(count):
            _picture(axes, images.rows[name][column], (column, row * PITCH))
            label, true = int(images.labels[row][column]), int(images.true[column])
            ink, weight = (INK, "normal") if label == true else (WRONG, "bold")
            place = (column, row * PITCH + 0.52)
            axes.text(*place, str(label), ha="center", va="top", fontsize=8, color=ink, weight=weight)
    for column in range(count):
        caption = f"true {int(images.true[column])}"
        axes.text(column, -0.55, caption, ha="center", va="bottom", fontsize=7, color=MUTED)
    axes.set_xlim(-0.7 - room, count - 0.45)
    axes.set_ylim(PITCH * len(ROWS) - 0.6, -0.8)
    axes.set_axis_off()
    return figure


def _picture(axes: Axes, image: np.ndarray, middle: tuple[float, float]) -> None:
    """One image (C, H, W), uint8, pixels as squares, in a frame: black would drown in a dark page."""
    pixels = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
    x, y = middle
    height, width = (0.92 * size / max(image.shape[1:]) for size in image.shape[1:])
    left, top = x - width / 2, y - height / 2
    extent = (left, left + width, top + height, top)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="equal", extent=extent)
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=GRID, linewidth=0.8))


def over_epsilon(facts: Facts) -> Section:
    courses = _courses(facts.seeds)
    if not courses:
        return Section("Strength of the attack", (Text("Left out: the seeds hold no scores over ε."),))
    grid = facts.seeds[0].epsilon["values"]
    means = {name: values.mean(axis=0) for name, values in courses.items()}
    rows = [(f"{e:g}", *(percent(course[i]) for course in means.values())) for i, e in enumerate(grid)]
    caption = f"{_sampled(facts.seeds[0])} Not tuned again for each ε. "
    caption += "Mean over seeds; bands from the lowest seed to the highest."
    columns = ("% of test images, at ε", *(_named(facts, name) for name in means))
    table = Table(columns, rows, numbers=len(means), note=facts.switched_on)
    chart = Drawing(render("epsilon", _lines(facts, courses)), caption, "Lines over ε; the table below has the values.")
    return Section("Strength of the attack", (chart, table))


def _sampled(score: SeedScore) -> str:
    """Names the images of the course over ε: on fewer than all, its values differ from the result's."""
    if score.epsilon_images is None:
        return "May be on a sample of the test images, and then differ a little from the result above."
    if score.epsilon_images >= score.images:
        return "On all test images."
    sample = f"{score.epsilon_images:,} of the {score.images:,} test images, drawn by a fixed seed"
    return f"On {sample}: the values differ a little from the result above."


def _lines(facts: Facts, courses: Mapping[str, np.ndarray]) -> Figure:
    """Means over the seeds against ε, each in a band from the lowest to the highest seed."""
    figure, axes = blank(height=3.5)
    x = np.array(facts.seeds[0].epsilon["values"], dtype=float)
    if (attacked_with := facts.setting("attack.epsilon")) is not None:
        axes.axvline(attacked_with, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        place = (attacked_with, 1.01)  # above the frame, where no course passes
        axes.annotate(f"ε = {attacked_with:g}", place, xycoords=("data", "axes fraction"), ha="center", color=MUTED)
    for name, values in courses.items():
        hue, line, marker = COURSES[name]
        axes.fill_between(x, values.min(0), values.max(0), color=hue, alpha=0.18, linewidth=0)
        axes.plot(x, values.mean(0), line, color=hue, marker=marker, label=_named(facts, name))
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("ε of the attack (images in [0, 1])")
    axes.set_ylabel("share of test images")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def _named(facts: Facts, metric: str) -> str:
    """The name of a course: the part of the defense that it is of, else its metric."""
    return facts.part(metric) or title_of(metric)


def _courses(seeds: Sequence[SeedScore]) -> dict[str, np.ndarray]:
    """Per metric the values (seeds, ε), of the metrics that every seed has at the same values of ε."""
    if not seeds or not seeds[0].epsilon.get("values"):
        return {}
    grid = list(seeds[0].epsilon["values"])
    if any(list(score.epsilon.get("values", [])) != grid for score in seeds):
        return {}
    whole = [name for name in COURSES if all(len(score.epsilon.get(name, [])) == len(grid) for score in seeds)]
    return {name: np.array([score.epsilon[name] for score in seeds], dtype=float) for name in whole}


def classes(facts: Facts) -> Section:
    counts = facts.saved.confusion if facts.saved else None
    if facts.saved is None or counts is None:
        return Section("Classes", (Text("Left out: the saved seed holds no confusion matrix."),))
    many = len(counts) > MOST_CLASSES
    rows = []
    for row in _worst(facts.classes) if many else facts.classes:
        error, times = row.commonest_error, row.commonest_error_images
        often = "–" if error is None else f"{facts.class_called(error)} ({times} ×)"
        rows.append((facts.class_called(row.label), str(row.images), percent(row.psd), interval(row.wilson95), often))
    note = f"The {LISTED} worst of {len(counts)} classes; report.json has them all. " if many else ""
    note += f"The saved defense (seed {facts.saved.seed}); Wilson intervals on each class's images. "
    columns = ("class", "images", "PSD %", "95 % images", "commonest error")
    table = Table(columns, rows, numbers=4, note=note + facts.switched_on)
    what = "the square root of the share of the row" if many else "image counts, shaded by their share of the row"
    caption = f"True label by row, denoised image's label by column; {what}."
    chart = Drawing(render("confusion", _confusion(counts)), caption, "Confusion matrix; see the table.")
    return Section("Classes", (table, *([_confused(facts, counts)] if many else []), chart))


def _worst(rows: Sequence[ClassScore]) -> list[ClassScore]:
    known = [row for row in rows if row.psd is not None]
    return sorted(known, key=lambda row: (row.psd, -row.images, row.label))[:LISTED]


def _confused(facts: Facts, counts: np.ndarray) -> Table:
    """The pairs of true and given label that the most images have."""
    wrong, images = counts * (1 - np.eye(len(counts), dtype=counts.dtype)), counts.sum(axis=1)
    pairs = [divmod(int(place), len(counts)) for place in np.argsort(-wrong, axis=None, kind="stable")[:LISTED]]
    called = facts.class_called
    rows = [(called(a), called(b), str(wrong[a, b]), percent(wrong[a, b] / images[a])) for a, b in pairs if wrong[a, b]]
    columns = ("true label", "taken for", "images", "% of the class")
    return Table(columns, rows, numbers=4, note="The commonest confusions of the saved defense.")


def _confusion(counts: np.ndarray) -> Figure:
    """Image counts, true label by row, denoised label by column; shaded by the share of the row."""
    size = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = blank(width=min(WIDTH, 1.4 + 0.42 * size), height=min(WIDTH - 0.6, 1.0 + 0.38 * size))
    # The square root lifts the errors, a few images each, out of the paper's colour.
    if size > MOST_CLASSES:
        shades(axes, np.sqrt(share))
    else:
        cells(axes, np.sqrt(share), [[str(n) if n else "" for n in row] for row in counts])
        axes.set_xticks(range(size))
        axes.set_yticks(range(size))
    axes.set_xlabel("label of the denoised image")
    axes.set_ylabel("true label")
    return figure
