"""The test result in detail: the images, the worst of them, the course over ε, the classes."""

from __future__ import annotations

from tune.metrics import title_of
from tune.report import figures
from tune.report.blocks import Drawing, Section, Table, Text
from tune.report.data import Experiment, Pictures, SeedScore
from tune.report.head import switched_on
from tune.report.scores import interval, per_class, percent
from tune.report.style import render


def examples(pictures: Pictures | None) -> Section:
    if pictures is None:
        return Section("Images", (Text("Left out: the folder holds no images of the test run."),))
    caption = (
        "a original, b attacked, c the GAN's nearest image, d denoised by the U-Net; under each image the "
        "label that the classifier gives it, red and bold where wrong. Drawn by a fixed seed, not picked."
    )
    return Section("Images", (Drawing(render("examples", figures.pictures(pictures)), caption, _reading(pictures)),))


def worst(pictures: Pictures | None) -> Section:
    if pictures is None:
        return Section("Worst cases", (Text("Left out: the folder holds no misclassified images."),))
    caption = "The test images that the defense gets wrong with the highest confidence; rows and labels as above."
    return Section("Worst cases", (Drawing(render("worst", figures.pictures(pictures)), caption, _reading(pictures)),))


def _reading(pictures: Pictures) -> str:
    right = (pictures.labels == pictures.true).sum(axis=1)
    rows = ("original", "attacked", "GAN", "denoised")
    return f"Of {len(pictures)} images right: " + ", ".join(f"{r} {n}" for r, n in zip(rows, right, strict=True))


def over_epsilon(experiment: Experiment) -> Section:
    figure = figures.over_epsilon(experiment)
    if figure is None:
        return Section("Strength of the attack", (Text("Left out: the seeds hold no scores over ε."),))
    grid = experiment.seeds[0].epsilon["values"]
    means = {name: values.mean(axis=0) for name, values in figures.courses(experiment.seeds).items()}
    rows = [(f"{e:g}", *(percent(course[i]) for course in means.values())) for i, e in enumerate(grid)]
    caption = f"{_sampled(experiment.seeds[0])} Not tuned again for each ε. "
    caption += "Mean over seeds; bands from the lowest seed to the highest."
    columns = ("ε", *(f"{title_of(name)} %" for name in means))
    table = Table(columns, rows, numbers=len(means), note=switched_on(experiment))
    chart = Drawing(render("epsilon", figure), caption, "Lines over ε; the table below has the values.")
    return Section("Strength of the attack", (chart, table))


def _sampled(score: SeedScore) -> str:
    """Names the images of the course over ε: on fewer than all, its values differ from the result's."""
    if score.epsilon_images is None:
        return "May be on a sample of the test images, and then differ a little from the result above."
    if score.epsilon_images >= score.images:
        return "On all test images."
    sample = f"{score.epsilon_images:,} of the {score.images:,} test images, drawn by a fixed seed"
    return f"On {sample}: the values differ a little from the result above."


def classes(experiment: Experiment) -> Section:
    counts = experiment.median.confusion if experiment.median else None
    if counts is None:
        return Section("Classes", (Text("Left out: the median seed holds no confusion matrix."),))
    rows = []
    for row in per_class(counts):
        error, images = row["commonest_error"], row["commonest_error_images"]
        often = "–" if error is None else f"{error} ({images} ×)"
        ends = interval(tuple(row["wilson95"]) if row["wilson95"] else None)
        rows.append((str(row["label"]), str(row["images"]), percent(row["psd"]), ends, often))
    seed = experiment.median.seed if experiment.median else "–"
    note = f"The saved defense (seed {seed}); Wilson intervals on each class's images. " + switched_on(experiment)
    columns = ("class", "images", "PSD %", "95 % images", "commonest error")
    caption = "True label by row, denoised image's label by column; image counts, shaded by their share of the row."
    chart = Drawing(render("confusion", figures.confusion(counts)), caption, "Confusion matrix; see the table.")
    return Section("Classes", (Table(columns, rows, numbers=4, note=note), chart))
