"""Sections on what the parameters did: importance, the score over one and over two of them, restarts and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from tune.metrics import title_of
from tune.optimizer.surrogate import place
from tune.report.blocks import Block, Drawing, Section, Text
from tune.report.effects import FEWEST, Effects
from tune.report.facts import Facts
from tune.report.reading import ProjectionMap
from tune.report.style import BLUE, GREY, INK, ORANGE, RED, WIDTH, blank, cells, render

PLACES = 25  # values along a range that is drawn as a line


def parameters(facts: Facts) -> Section:
    """Section on the parameters: importance, the course over the one or two most important, the surface over both."""
    title, metric, found = "What the parameters did", title_of(facts.objective), facts.effects
    if found is None:
        return Section(title, (Text(f"Left out: it takes {FEWEST} trials that differ and showed a score."),))
    stopped = sum(not trial.finished for trial in found.trials)
    counted = f"{len(found.trials)} trials" + (f", of which {stopped} were stopped early" if stopped else "")
    caption = (
        f"Importance of each parameter for reaching the best trials by validation {metric} (PED-ANOVA by Optuna), from "
        f"{counted}: a hint, not a proof. Grey: its values could not be told apart."
    )
    alt = ", ".join(f"{key} {100 * share:.0f} %" for key, share in found.shares.items())
    scales = [_Scale(facts, found, key) for key in list(found.shares)[:2]]
    named = " and ".join(f"`{scale.key}`" for scale in scales)
    blocks: list[Block] = [
        Drawing(render("importance", _importances(found)), caption, alt),
        Text(_told_apart(facts, found)),
        Drawing(
            render("courses", _courses(found, scales, metric)),
            f"Validation {metric} over {named}. Line and band: the mean over the other parameters and its standard "
            f"deviation, by a Gaussian process. Points: {_drawn(found)}, with one standard error of their images; "
            "orange ones were stopped early and are carried on by what others gained after that epoch.",
            "Lines over one parameter each; the table above has the best trials.",
        ),
    ]
    if len(scales) == 2 and all(len(scale.values) > 1 for scale in scales):
        caption = f"Mean validation {metric} by {named}, by the same process; crosses are those trials."
        figure = _surface(found, *scales)
        blocks.append(Drawing(render("surface", figure), caption, "A contour over two parameters."))
    return Section(title, blocks)


def _drawn(found: Effects) -> str:
    """Names the trials that the process was fitted to."""
    if len(found.modelled) == len(found.trials):
        return "trials"
    return f"the {len(found.modelled)} trials that it was fitted to, the best and others at even distances"


def _told_apart(facts: Facts, found: Effects) -> str:
    """Names the parameters with an effect that chance does not explain, and those without."""
    clear = ", ".join(f"`{key}`" for key in found.shares if key in found.clear)
    rest = ", ".join(f"`{key}`" for key in facts.ranges if key not in found.clear)
    test = "by chance alone, some parameter would show as much in more than 5 % of searches"
    if not clear:
        return f"The search could not tell apart the values of any parameter: {test}."
    words = f"The search could tell the values of {clear} apart. "
    return words + (f"It could not tell apart those of {rest}: {test}." if rest else "")


def _importances(found: Effects) -> Figure:
    """A bar for each parameter; grey where the search could not tell its values apart."""
    figure, axes = blank(height=0.7 + 0.34 * len(found.shares))
    for row, (key, share) in enumerate(found.shares.items()):
        axes.barh(row, share, color=BLUE if key in found.clear else GREY, height=0.55)
        axes.text(share + 0.012, row, f"{100 * share:.0f} %", va="center")
    axes.set_yticks(range(len(found.shares)), list(found.shares))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, min(1.12, max(found.shares.values()) * 1.25))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("importance for reaching the best trials")
    return figure


def _courses(found: Effects, scales: Sequence[_Scale], metric: str) -> Figure:
    """For each parameter the trials, with the noise of their scores, and the mean over the other parameters."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    plots = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for axes, scale in zip(plots, scales, strict=True):
        _course(axes, found, scale)
    plots[0].set_ylabel(f"validation {metric}")
    plots[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
    return figure


def _surface(found: Effects, across: _Scale, up: _Scale) -> Figure:
    """Mean score by the values of two parameters, each of two or more; crosses are trials."""
    one, other = across.key, up.key
    heights = found.surface(one, other, (across.values, up.values))
    figure, axes = blank(height=3.3)
    image = axes.contourf(across.at(across.values), up.at(up.values), 100 * heights, levels=8, cmap="viridis")
    figure.colorbar(image, ax=axes, label="%")
    both = [trial for trial in found.modelled if one in trial.params and other in trial.params]
    axes.plot(
        across.at([t.params[one] for t in both]), up.at([t.params[other] for t in both]), "x", color=ORANGE, ms=4
    )
    across.name(axes.xaxis)
    up.name(axes.yaxis)
    axes.grid(visible=False)
    return figure


class _Scale:
    """The positions of a parameter's values on an axis, and the values that are drawn."""

    def __init__(self, facts: Facts, found: Effects, key: str) -> None:
        self.key, self.written = key, facts.ranges[key]
        tried = [trial.params[key] for trial in found.trials if key in trial.params]
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)
        self.line = numbers and "choice" not in self.written
        self.values: list[Any] = self._along() if self.line else self._listed(tried, numbers)

    def _along(self) -> list[Any]:
        low, high = self.written["low"], self.written["high"]
        spaced = np.geomspace if self.written.get("log") else np.linspace
        return [float(value) for value in spaced(low, high, PLACES)]

    def _listed(self, tried: Sequence[Any], numbers: bool) -> list[Any]:
        values = dict.fromkeys([*self.written.get("choice", ()), *tried])
        return sorted(values) if numbers and all(value is not None for value in values) else list(values)

    def at(self, values: Sequence[Any]) -> list[float]:
        return [place(v, self.written) if self.line else float(self.values.index(v)) for v in values]

    def name(self, axis: Any) -> None:
        """Labels an axis of matplotlib."""
        ends = [self.written["low"], self.written["high"]] if self.line else self.values
        axis.set_ticks(self.at(ends), [f"{v:.3g}" if isinstance(v, float) else str(v) for v in ends])
        axis.set_label_text(self.key, color=INK)


def _course(axes: Axes, found: Effects, scale: _Scale) -> None:
    key = scale.key
    middle, deviation = found.course(key, scale.values)
    x = np.array(scale.at(scale.values))
    axes.fill_between(x, middle - deviation, middle + deviation, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=BLUE)
    for finished, colour in ((True, BLUE), (False, ORANGE)):
        some = [trial for trial in found.modelled if key in trial.params and trial.finished == finished]
        if some:
            places = scale.at([trial.params[key] for trial in some])
            axes.errorbar(
                places, [t.score for t in some], found.noise, fmt="o", ms=3, color=colour, alpha=0.6, linewidth=0.8
            )
    scale.name(axes.xaxis)


def projection_map(facts: Facts) -> Section:
    title = "Restarts and steps"
    if facts.projection is None:
        return Section(title, (Text("Left out: the folder holds no map over restarts and steps."),))
    chosen = tuple(facts.setting(f"projector.{key}") for key in ("restarts", "steps"))
    figure = _map(facts.projection, (chosen[0], chosen[1]))
    caption = (
        "Validation accuracy in percent of the GAN's images alone, for every number of restarts R and "
        "gradient steps L, all from one projection. More is not always better: late steps can fit the "
        "attack's noise."
    )
    if chosen[0] in facts.projection.restarts and chosen[1] in facts.projection.steps:
        caption += " Framed: the chosen pair."
    alt = "{} × {} shaded cells with their values.".format(*facts.projection.psd_gan.shape)
    return Section(title, (Drawing(render("restarts_steps", figure), caption, alt),))


def _map(projection: ProjectionMap, chosen: tuple[Any, Any]) -> Figure:
    """Validation accuracy of the GAN's images by restarts and steps; the chosen cell is framed."""
    values = projection.psd_gan
    spread = float(np.nanmax(values) - np.nanmin(values)) or 1.0
    rows, columns = values.shape
    figure, axes = blank(width=max(WIDTH, 1.2 + 0.46 * columns), height=1.0 + 0.36 * rows)
    texts = [["–" if math.isnan(v) else f"{100 * v:.1f}" for v in row] for row in values]
    cells(axes, np.nan_to_num((values - np.nanmin(values)) / spread), texts)
    axes.set_xticks(range(columns), [str(step) for step in projection.steps])
    axes.set_yticks(range(rows), [str(restarts) for restarts in projection.restarts])
    axes.set_xlabel("gradient steps L")
    axes.set_ylabel("restarts R")
    restarts, steps = chosen
    if restarts in projection.restarts and steps in projection.steps:
        corner = (projection.steps.index(steps) - 0.5, projection.restarts.index(restarts) - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=RED, linewidth=2.2, clip_on=False, zorder=3))
    return figure
