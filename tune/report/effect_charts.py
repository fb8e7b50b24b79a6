"""Charts of what the parameters did: importance, the course over one of them, the surface over two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tune.optimizer.surrogate import place
from tune.report.data import Experiment
from tune.report.effects import Effects
from tune.report.style import BLUE, GREY, INK, ORANGE, WIDTH, blank

PLACES = 25  # values along a range that is drawn as a line


def importances(found: Effects) -> Figure:
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


def courses(experiment: Experiment, found: Effects, keys: Sequence[str], metric: str) -> Figure:
    """For each parameter the trials, with the noise of their scores, and the mean over the other parameters."""
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    plots = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(plots, keys, strict=True):
        _course(axes, found, key, _Scale(experiment, found, key))
    plots[0].set_ylabel(f"validation {metric}")
    plots[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1, symbol=" %"))
    return figure


def surface(experiment: Experiment, found: Effects, one: str, other: str) -> Figure:
    """Mean score by the values of two parameters; crosses are trials."""
    across, up = _Scale(experiment, found, one), _Scale(experiment, found, other)
    heights = found.surface(one, other, (across.values, up.values))
    figure, axes = blank(height=3.3)
    image = axes.contourf(across.at(across.values), up.at(up.values), 100 * heights, levels=8, cmap="viridis")
    figure.colorbar(image, ax=axes, label="%")
    both = [trial for trial in found.trials if one in trial.params and other in trial.params]
    axes.plot(
        across.at([t.params[one] for t in both]), up.at([t.params[other] for t in both]), "x", color=ORANGE, ms=4
    )
    across.name(axes.xaxis)
    up.name(axes.yaxis)
    axes.grid(visible=False)
    return figure


class _Scale:
    """The positions of a parameter's values on an axis, and the values that are drawn."""

    def __init__(self, experiment: Experiment, found: Effects, key: str) -> None:
        self.key, self.written = key, experiment.ranges[key]
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


def _course(axes: Axes, found: Effects, key: str, scale: _Scale) -> None:
    middle, deviation = found.course(key, scale.values)
    x = np.array(scale.at(scale.values))
    axes.fill_between(x, middle - deviation, middle + deviation, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=BLUE)
    for finished, colour in ((True, BLUE), (False, ORANGE)):
        some = [trial for trial in found.trials if key in trial.params and trial.finished == finished]
        if some:
            places = scale.at([trial.params[key] for trial in some])
            axes.errorbar(
                places, [t.score for t in some], found.noise, fmt="o", ms=3, color=colour, alpha=0.6, linewidth=0.8
            )
    scale.name(axes.xaxis)
