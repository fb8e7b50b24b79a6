"""Charts of the search: history, Pareto front, R × L map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from tune.metrics import title_of
from tune.optimizer.choice import pareto_front
from tune.report.data import Experiment, ProjectionMap
from tune.report.figures import cells
from tune.report.style import BLUE, GREEN, GREY, MUTED, ORANGE, RED, WIDTH, blank
from tune.storage.ledger import Outcome


def history(experiment: Experiment) -> Figure | None:
    """The first objective by trial number, the best so far as steps, and the trials that did not finish."""
    finished = experiment.finished
    if len(finished) < 2:
        return None
    metric, direction = next(iter(experiment.objectives.items()))
    figure, axes = blank(height=3.0)
    x, y = [o.trial for o in finished], np.array([o.metrics[metric] for o in finished])
    best = np.maximum.accumulate(y) if direction == "max" else np.minimum.accumulate(y)
    axes.step(x, best, where="post", color=GREEN, label="best so far")
    axes.plot(x, y, "o", color=BLUE, label="finished")
    pruned = [(o.trial, _last(o)) for o in experiment.with_status("pruned")]
    if seen := [(n, value) for n, value in pruned if value is not None]:
        axes.plot(*zip(*seen, strict=True), "v", color=ORANGE, mfc="none", label="pruned, last value")
    if failed := [o.trial for o in experiment.with_status("failed")]:
        axes.plot(failed, [0.02] * len(failed), "x", color=RED, label="failed", transform=axes.get_xaxis_transform())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {title_of(metric)}")
    _shares(axes)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _last(outcome: Outcome) -> float | None:
    """The last value a pruned trial reported."""
    known = {int(epoch): value for epoch, value in (outcome.intermediate or {}).items()}
    return known[max(known)] if known else None


def _shares(axes: Axes) -> None:
    """Percent on the upright axis, at round steps and with the digits that these need."""
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ticks = axes.get_yticks()
    step = 100 * float(ticks[1] - ticks[0])
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=digits, symbol=" %"))


def pareto(experiment: Experiment) -> Figure | None:
    """First objective against cost; the front is what no other trial beats in both."""
    finished = experiment.finished
    if len(experiment.objectives) < 2 or len({o.metrics["cost"] for o in finished}) < 2:
        return None
    metric = next(iter(experiment.objectives))
    front = pareto_front(finished, experiment.objectives)
    figure, axes = blank(height=3.3)
    axes.plot(*_points(finished, metric), "o", color=GREY, alpha=0.75, label="finished trial")
    axes.step(*_points(front, metric), where="post", color=BLUE, linewidth=1.2)
    axes.plot(*_points(front, metric), "o", color=BLUE, label="Pareto front")
    for outcome in _apart(front):
        point = (outcome.metrics["cost"], outcome.metrics[metric])
        axes.annotate(f"{outcome.trial:03d}", point, (-3, 6), textcoords="offset points", ha="right", fontsize=7.5)
    if best := experiment.best:
        axes.plot(*_points([best], metric), "o", color=RED, ms=11, mfc="none", mew=1.6, label="chosen")
    if experiment.max_cost is not None:
        axes.axvline(experiment.max_cost, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="largest cost allowed")
    _cost_axis(axes)
    axes.set_ylabel(f"validation {title_of(metric)}")
    _shares(axes)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _points(outcomes: Sequence[Outcome], metric: str) -> tuple[list[float], list[float]]:
    return [o.metrics["cost"] for o in outcomes], [o.metrics[metric] for o in outcomes]


def _apart(front: Sequence[Outcome]) -> list[Outcome]:
    """The front without those whose name would cover the next one's."""
    costs = [math.log(max(o.metrics["cost"], 1)) for o in front]
    room = 0.09 * (costs[-1] - costs[0])
    return [o for place, o in enumerate(front) if place + 1 == len(front) or costs[place + 1] - costs[place] > room]


def _cost_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.09, y=0.09)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("projection cost: gradient evaluations per image (restarts × steps)")


def projection_map(projection: ProjectionMap, chosen: tuple[Any, Any]) -> Figure:
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
