"""Sections on the search: how it went, and why this trial."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from tune.metrics import title_of
from tune.optimizer.choice import has_objectives, pareto_front, rule
from tune.optimizer.finalists import UNSEEN
from tune.report.blocks import Block, Drawing, Section, Table, Text, percent, seconds, value
from tune.report.effects import spaced, stride
from tune.report.facts import Facts
from tune.report.reading import Finalist
from tune.report.style import BLUE, GREEN, GREY, MUTED, ORANGE, RED, blank, render
from tune.storage.ledger import Outcome, in_words

SHOWN, FRONT = 10, 30  # trials in the tables
DRAWN = 500  # trials in a chart beside the best: more cover each other, and make the page slow

ELIMINATION = (
    "One that can be told from the best gets no further seed; after the first, of which nobody knows what another "
    f"would show, {100 * UNSEEN:g} points are part of the error."
)


def choice(facts: Facts) -> Section:
    best = facts.best
    if best is None:
        return Section("How best was chosen", (Text("No trial qualifies as best."),))
    words = (facts.choice and facts.choice.rule) or rule(facts.objectives, finalists=bool(facts.finalists))
    limit = "no limit" if facts.max_cost is None else f"at most {facts.max_cost:g}"
    by = "By it, and the comparison of finalists below," if facts.finalists else "By it"
    blocks: list[Block] = [
        Text(
            f"Rule: {words}; cost: {limit}. {by} trial {best.trial} is best of {len(facts.finished)} "
            "finished. The choice saw validation images alone, and the best of many trials is a bit lucky: "
            "its validation score promises more than test images will hold."
        )
    ]
    metric = title_of(facts.objective)
    blocks += _finalists(facts, metric)
    if len(facts.objectives) > 1:
        blocks += _fronts(facts, metric)
    return Section("How best was chosen", blocks)


def _fronts(facts: Facts, metric: str) -> list[Block]:
    """The first objective against cost, and the trials that no other beats in all objectives."""
    blocks: list[Block] = []
    if figure := _pareto(facts):
        caption = f"Validation {metric} against projection cost. No trial beats one on the front in both."
        caption += _thinned(facts.finished)
        blocks.append(Drawing(render("pareto", figure), caption, "The table below lists the trials."))
    elif "cost" in facts.objectives:
        blocks.append(Text("Pareto front left out: fewer than two finished trials that differ in cost."))
    front = facts.front
    if figure or len(front) > 1:
        *others, last = map(title_of, facts.objectives)
        first = "cheapest" if "cost" in facts.objectives else f"best in {last}"
        some = f", of which the last {FRONT} are listed" if len(front) > FRONT else ""
        beaten = f"{'all of ' if others[1:] else 'both '}{', '.join(others)} and {last}"
        note = f"The Pareto front, {first} first{some}: no trial beats one of it in {beaten}."
        blocks.append(_trials(facts, front[-FRONT:], note))
    return blocks


def _pareto(facts: Facts) -> Figure | None:
    """First objective against cost, where that is an objective too; the front is what no other trial beats in both."""
    finished, metric = facts.finished, facts.objective
    if "cost" not in facts.objectives or len({o.metrics["cost"] for o in finished}) < 2:
        return None
    front = pareto_front(finished, {key: facts.objectives[key] for key in (metric, "cost")})
    figure, axes = blank(height=3.3)
    axes.plot(*_points(spaced(finished, DRAWN), metric), "o", color=GREY, alpha=0.75, label="finished trial")
    axes.step(*_points(front, metric), where="post", color=BLUE, linewidth=1.2)
    axes.plot(*_points(front, metric), "o", color=BLUE, label="Pareto front")
    for outcome in _apart(front):
        point = (outcome.metrics["cost"], outcome.metrics[metric])
        axes.annotate(f"{outcome.trial:03d}", point, (-3, 6), textcoords="offset points", ha="right", fontsize=7.5)
    if (best := facts.best) and has_objectives(best, facts.objectives):
        axes.plot(*_points([best], metric), "o", color=RED, ms=11, mfc="none", mew=1.6, label="chosen")
    if facts.max_cost is not None:
        axes.axvline(facts.max_cost, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="largest cost allowed")
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


def _finalists(facts: Facts, metric: str) -> list[Block]:
    """The comparison of the best few, with further seeds, and how far the chosen one's score in the search was off."""
    if not facts.finalists:
        return []
    rows, chosen, leader = facts.finalists.finalists, facts.finalists.chosen, facts.finalists.best
    own = next(row for row in rows if row.trial == chosen)
    fresh, most = len(own.scores) - 1, max(len(row.scores) for row in rows)
    over_seeds = ("seeds", "mean of them %", "range") if most > 1 else ()
    table = [
        (
            f"{row.trial:03d}",
            percent(row.searched),
            *_over_seeds(row)[: len(over_seeds)],
            f"{percent(row.behind)} ± {percent(row.error)}" if row.trial != leader else "–",
            "no" if row.equal else "yes",
        )
        for row in rows
    ]
    columns = ("trial", f"{metric} in the search %", *over_seeds, "below the best", "by more than one error")
    how = f"trained with up to {most} seeds and" if most > 1 else "as the search trained them,"
    note = (
        f"The best {len(rows)} of the search, {how} compared on the same validation images and seeds; ± one standard "
        f"error of the difference{'' if most > 1 else ' by the choice of images alone'}. "
        + (f"{ELIMINATION} " if most > 1 else "")
        + "Of those that are not further below the best than one standard error, the cheapest is chosen: one that is "
        "further below may still be as good, which chance makes so for one in six."
    )
    for trial, reason in facts.finalists.left_out.items():
        note += f" Trial {trial} was left out, as a training of it failed: {reason}."
    marked = next(place for place, row in enumerate(rows) if row.trial == chosen)
    others = f"{fresh} seeds" if fresh > 1 else "seed"
    again = Text(
        f"The search had found {percent(own.searched)} % for trial {chosen}; with the {others} that it was not ranked "
        f"by, it has {percent(own.fresh)} %. They differ by {100 * abs(own.searched - own.fresh):.2f} points. The "
        f"choice among the finalists used {'these seeds' if fresh > 1 else 'this seed'} too, so that the second score "
        "may be a bit lucky as well."
    )
    compared = Table(columns, table, numbers=len(columns) - 1, marked=marked, note=note)
    return [compared, again] if fresh else [compared]


def _over_seeds(row: Finalist) -> tuple[str, str, str]:
    low, high = min(row.scores.values()), max(row.scores.values())
    return str(len(row.scores)), percent(row.mean), f"{percent(low)}–{percent(high)}"


def _trials(facts: Facts, outcomes: Sequence[Outcome], note: str) -> Table:
    """Trials as rows: number, objectives, parameters, seconds."""
    keys = [key for key in facts.ranges if any(key in outcome.params for outcome in outcomes)]
    metrics = list(facts.objectives)
    rows = [
        (
            f"{o.trial:03d}",
            *(value(o.metrics[m]) if m == "cost" else percent(o.metrics[m]) for m in metrics),
            *(value(o.params[key]) if key in o.params else "–" for key in keys),
            seconds(o.seconds),
        )
        for o in outcomes
    ]
    heads = [m if m == "cost" else f"{title_of(m)} %" for m in metrics]
    chosen = facts.best.trial if facts.best else None
    marked = next((place for place, o in enumerate(outcomes) if o.trial == chosen), None)
    columns = ("trial", *heads, *(f"`{key}`" for key in keys), "time")
    return Table(columns, rows, numbers=len(columns) - 1, marked=marked, note=note)


def history(facts: Facts) -> Section:
    counts = [f"{len(facts.with_status(status))} {in_words(status)}" for status in ("finished", "pruned", "failed")]
    ended = facts.record.get("stopped")
    why = f" No further one was begun: {ended}." if isinstance(ended, str) else ""
    blocks: list[Block] = [Text(f"{len(facts.outcomes)} trials: {', '.join(counts)}.{_promoted(facts)}{why}")]
    if figure := _history(facts):
        metric = title_of(facts.objective)
        caption = f"Validation {metric} in the order in which the trials were proposed."
        caption += _thinned(facts.outcomes)
        blocks.append(Drawing(render("history", figure), caption, "One mark per trial; the table has the best."))
    else:
        blocks.append(Text("Optimisation history left out: fewer than two trials finished."))
    if best := facts.ranked[:SHOWN]:
        note = f"The {len(best)} best finished trials, on validation images; trials.csv, which is written when trials "
        note += "have ended, has them all."
        blocks.append(_trials(facts, best, note))
    return Section("The search", blocks)


def _promoted(facts: Facts) -> str:
    """Says how many of the trials that were set aside went on later, where they may."""
    if not facts.setting("search.promotion"):
        return ""
    promoted = [o for o in facts.outcomes if o.promotions]
    aside = [o for o in facts.outcomes if o.promotions or o.status == "pruned"]
    end = Counter(o.status for o in promoted)
    became = f": {', '.join(f'{n} {in_words(status)}' for status, n in end.items())}" if promoted else ""
    return f" Promoted were {len(promoted)} of {len(aside)} that had been set aside{became}."


def _history(facts: Facts) -> Figure | None:
    """The first objective by trial number, the best so far as steps, and the trials that did not finish."""
    finished = facts.finished
    if len(finished) < 2:
        return None
    metric, direction = next(iter(facts.objectives.items()))
    figure, axes = blank(height=3.0)
    step = stride(len(facts.outcomes), DRAWN)
    x, y = np.array([o.trial for o in finished]), np.array([o.metrics[metric] for o in finished])
    best = np.maximum.accumulate(y) if direction == "max" else np.minimum.accumulate(y)
    turns = [0, *np.flatnonzero(np.diff(best)) + 1]
    axes.step([*x[turns], x[-1]], [*best[turns], best[-1]], where="post", color=GREEN, label="best so far")
    axes.plot(x[::step], y[::step], "o", color=BLUE, label="finished")
    pruned = [o for o in facts.with_status("pruned")[::step] if o.intermediate]
    if seen := [(o.trial, o.intermediate[max(o.intermediate, key=int)]) for o in pruned]:
        axes.plot(*zip(*seen, strict=True), "v", color=ORANGE, mfc="none", label=f"{in_words('pruned')}, last value")
    if failed := [o.trial for o in facts.with_status("failed")[::step]]:
        axes.plot(failed, [0.02] * len(failed), "x", color=RED, label="failed", transform=axes.get_xaxis_transform())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {title_of(metric)}")
    _shares(axes)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8)
    return figure


def _thinned(trials: Sequence[Outcome]) -> str:
    """Says of how many trials one is drawn, where not all are."""
    step = stride(len(trials), DRAWN)
    return f" One of {step} trials is drawn." if step > 1 else ""


def _shares(axes: Axes) -> None:
    """Percent on the upright axis, at round steps and with the digits that these need."""
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ticks = axes.get_yticks()
    step = 100 * float(ticks[1] - ticks[0])
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=digits, symbol=" %"))
