"""Parallel coordinates: a line per finished trial across all searched parameters, the objective last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune.metrics import title_of
from tune.report.data import Experiment
from tune.report.style import BLUE, GREY, INK, MUTED, PAPER, RED, WIDTH, blank

FEWEST_TRIALS = 3
ABSENT = -0.14  # height at which a trial passes a parameter that it does not have (a conditional one)


@dataclass(frozen=True)
class _Axis:
    """One upright axis: its name, and where each value stands on it, 0 at the foot and 1 at the head."""

    name: str
    places: Mapping[str, float]  # repr of a value → height
    ticks: Mapping[str, float]  # text → height

    def height(self, value: Any) -> float:
        return self.places.get(repr(value), ABSENT)


def parallel(experiment: Experiment) -> Figure | None:
    """None where fewer than three trials finished or nothing varied."""
    finished = experiment.finished
    metric, direction = next(iter(experiment.objectives.items()))
    keys = [key for key in experiment.ranges if len({repr(o.params.get(key)) for o in finished}) > 1]
    if len(finished) < FEWEST_TRIALS or not keys:
        return None
    axes_of = [_axis(key, [o.params[key] for o in finished if key in o.params], experiment.ranges[key]) for key in keys]
    last = _axis(f"validation.{title_of(metric)}", [o.metrics[metric] for o in finished], {}, share=True)
    figure, axes = blank(width=max(WIDTH, 1.25 * (len(keys) + 1)), height=3.5)
    ranked = sorted(finished, key=lambda o: o.metrics[metric], reverse=direction == "min")
    good = {o.trial for o in ranked[-max(1, len(ranked) // 4) :]}
    for outcome in ranked:
        heights = [axis.height(outcome.params.get(axis.name)) for axis in axes_of]
        chosen = experiment.best is not None and outcome.trial == experiment.best.trial
        hue, width, opacity = (
            (RED, 2.4, 1.0) if chosen else (BLUE, 1.4, 0.9) if outcome.trial in good else (GREY, 1.0, 0.6)
        )
        axes.plot([*heights, last.height(outcome.metrics[metric])], color=hue, linewidth=width, alpha=opacity)
    _draw_axes(axes, [*axes_of, last], [any(key not in o.params for o in finished) for key in keys] + [False])
    return figure


def _axis(name: str, values: Sequence[Any], description: Mapping[str, Any], share: bool = False) -> _Axis:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    distinct = sorted(set(values)) if numbers else sorted(set(values), key=str)
    if not numbers or len(distinct) == 1 or "choice" in description:
        places = {repr(v): _even(place, len(distinct)) for place, v in enumerate(distinct)}
        return _Axis(name, places, {_text(v, share): places[repr(v)] for v in distinct})
    scale = math.log if description.get("log") and distinct[0] > 0 else float
    low, span = scale(distinct[0]), scale(distinct[-1]) - scale(distinct[0])
    places = {repr(v): (scale(v) - low) / span for v in distinct}
    return _Axis(name, places, {_text(distinct[0], share): 0.0, _text(distinct[-1], share): 1.0})


def _even(place: int, count: int) -> float:
    return 0.5 if count == 1 else place / (count - 1)


def _text(value: Any, share: bool) -> str:
    if share:
        return f"{100 * value:.1f} %"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _draw_axes(axes: Axes, uprights: Sequence[_Axis], lacking: Sequence[bool]) -> None:
    for x, (axis, lacks) in enumerate(zip(uprights, lacking, strict=True)):
        axes.plot([x, x], [0, 1], color=MUTED, linewidth=1)
        for text, height in {**axis.ticks, **({"not used": ABSENT} if lacks else {})}.items():
            _label(axes, text, (x, height))
        section, _, field = axis.name.partition(".")
        axes.annotate(f"{section}\n{_folded(field)}", (x, 1.07), ha="center", va="bottom", fontsize=8, color=INK)
    axes.set_axis_off()
    axes.set_xlim(-0.35, len(uprights) - 0.4)
    axes.set_ylim(ABSENT - 0.1 if any(lacking) else -0.06, 1.3)


def _label(axes: Axes, text: str, place: tuple[float, float]) -> None:
    """On paper of its own, so that the lines pass behind it."""
    paper = {"facecolor": PAPER, "alpha": 0.8, "linewidth": 0, "pad": 0.8}
    axes.annotate(text, place, (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK, bbox=paper)


def _folded(name: str) -> str:
    """A long name on two lines, broken at an underscore or a space near its middle."""
    gaps = [place for place, letter in enumerate(name) if letter in "_ "]
    if len(name) <= 14 or not gaps:
        return name
    middle = min(gaps, key=lambda place: abs(place - len(name) / 2))
    return f"{name[: middle + 1].rstrip()}\n{name[middle + 1 :]}"
