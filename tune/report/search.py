"""The second half of the report: how the search went, and why this trial."""

from __future__ import annotations

from collections.abc import Sequence

from tune.metrics import title_of
from tune.optimizer.choice import pareto_front, rule
from tune.report import effect_charts, plots
from tune.report.blocks import Block, Drawing, Section, Table, Text, seconds, value
from tune.report.data import Experiment
from tune.report.effects import FEWEST, Effects
from tune.report.scores import percent
from tune.report.style import render
from tune.storage.ledger import Outcome

SHOWN = 10  # trials in the table; trials.csv has all


def choice(experiment: Experiment) -> Section:
    best = experiment.best
    if best is None:
        return Section("How best was chosen", (Text("No trial qualifies as best."),))
    words = experiment.choice.get("rule") or rule(experiment.objectives)
    limit = "no limit" if experiment.max_cost is None else f"at most {experiment.max_cost:g}"
    by = "By it, and the comparison of finalists below," if experiment.finalists else "By it"
    blocks: list[Block] = [
        Text(
            f"Rule: {words}; cost: {limit}. {by} trial {best.trial} is best of {len(experiment.finished)} "
            "finished. The choice saw validation images alone, and the best of many trials is a bit lucky: "
            "its validation score promises more than test images will hold."
        )
    ]
    metric = _first(experiment)
    blocks += _finalists(experiment, metric)
    if figure := plots.pareto(experiment):
        front = pareto_front(experiment.finished, experiment.objectives)
        caption = f"Validation {metric} against projection cost. No trial beats one on the front in both."
        blocks.append(Drawing(render("pareto", figure), caption, "The table below lists the front."))
        blocks.append(_trials(experiment, front, "The Pareto front, cheapest first."))
    elif len(experiment.objectives) > 1:
        blocks.append(Text("Pareto front left out: fewer than two finished trials that differ in cost."))
    return Section("How best was chosen", blocks)


def _finalists(experiment: Experiment, metric: str) -> list[Block]:
    """The comparison of the best few over several seeds, and by how much the search had flattered the chosen one."""
    if not experiment.finalists:
        return []
    rows, chosen, leader = (experiment.finalists[key] for key in ("finalists", "chosen", "best"))
    own = next(row for row in rows if row["trial"] == chosen)
    fresh = len(own["scores"]) - 1
    table = [
        (
            f"{row['trial']:03d}",
            percent(row["searched"]),
            percent(row["mean"]),
            f"{percent(min(row['scores'].values()))}–{percent(max(row['scores'].values()))}",
            f"{percent(row['behind'])} ± {percent(row['error'])}" if row["trial"] != leader else "–",
            "no" if row["equal"] else "yes",
        )
        for row in rows
    ]
    columns = ("trial", f"{metric} in the search %", "mean over seeds %", "seeds", "below the best", "told apart")
    note = (
        f"The best {len(rows)} of the search, each trained with the same {fresh + 1} seeds and compared on the same "
        "validation images; ± one standard error of the difference. Of those that cannot be told from the best, the "
        "cheapest is chosen."
    )
    marked = next(place for place, row in enumerate(rows) if row["trial"] == chosen)
    shrunk = Text(
        f"The search had found {percent(own['searched'])} % for trial {chosen}; with the {fresh} seeds that it was not "
        f"ranked by, it has {percent(own['fresh'])} %: {100 * (own['searched'] - own['fresh']):+.2f} points were luck."
    )
    return [Table(columns, table, numbers=5, marked=marked, note=note), shrunk]


def _first(experiment: Experiment) -> str:
    """Names the deciding objective."""
    metric = next(iter(experiment.objectives))
    return title_of(metric)


def _trials(experiment: Experiment, outcomes: Sequence[Outcome], note: str) -> Table:
    """Trials as rows: number, objectives, parameters, seconds."""
    keys = [key for key in experiment.ranges if any(key in outcome.params for outcome in outcomes)]
    metrics = list(experiment.objectives)
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
    chosen = experiment.best.trial if experiment.best else None
    marked = next((place for place, o in enumerate(outcomes) if o.trial == chosen), None)
    columns = ("trial", *heads, *(f"`{key}`" for key in keys), "time")
    return Table(columns, rows, numbers=len(columns) - 1, marked=marked, note=note)


def history(experiment: Experiment) -> Section:
    counts = [f"{len(experiment.with_status(status))} {status}" for status in ("finished", "pruned", "failed")]
    ended = experiment.record.get("stopped")
    why = f" No further one was begun: {ended}." if isinstance(ended, str) else ""
    blocks: list[Block] = [Text(f"{len(experiment.outcomes)} trials: {', '.join(counts)}.{why}")]
    if figure := plots.history(experiment):
        metric = _first(experiment)
        caption = f"Validation {metric} in the order in which the trials were proposed."
        blocks.append(Drawing(render("history", figure), caption, "One mark per trial; the table has the best."))
    else:
        blocks.append(Text("Optimisation history left out: fewer than two trials finished."))
    if best := _ranked(experiment)[:SHOWN]:
        note = f"The {len(best)} best finished trials, on validation images; trials.csv has them all."
        blocks.append(_trials(experiment, best, note))
    return Section("The search", blocks)


def _ranked(experiment: Experiment) -> list[Outcome]:
    metric, direction = next(iter(experiment.objectives.items()))
    sign = -1 if direction == "max" else 1
    return sorted(experiment.finished, key=lambda o: (sign * o.metrics[metric], o.metrics.get("cost", 0), o.trial))


def parameters(experiment: Experiment, found: Effects | None) -> Section:
    """Section on the parameters: importance, the course over the one or two most important, the surface over both."""
    title, metric = "What the parameters did", _first(experiment)
    if found is None:
        return Section(title, (Text(f"Left out: it takes {FEWEST} trials that differ and showed a score."),))
    stopped = sum(not trial.finished for trial in found.trials)
    counted = f"{len(found.trials)} trials" + (f", of which {stopped} were stopped early" if stopped else "")
    caption = (
        f"Importance of each parameter for reaching the best trials by validation {metric} (PED-ANOVA by Optuna), from "
        f"{counted}: a hint, not a proof. Grey: its values could not be told apart."
    )
    alt = ", ".join(f"{key} {100 * share:.0f} %" for key, share in found.shares.items())
    keys = list(found.shares)[:2]
    named = " and ".join(f"`{key}`" for key in keys)
    blocks: list[Block] = [
        Drawing(render("importance", effect_charts.importances(found)), caption, alt),
        Text(_told_apart(experiment, found)),
        Drawing(
            render("courses", effect_charts.courses(experiment, found, keys, metric)),
            f"Validation {metric} over {named}. Line and band: the mean over the other parameters and its standard "
            "deviation, by a Gaussian process. Points: trials, with one standard error of their images; orange ones "
            "were stopped early and are carried on by what others gained after that epoch.",
            "Lines over one parameter each; the table above has the best trials.",
        ),
    ]
    if len(keys) == 2:
        caption = f"Mean validation {metric} by {named}, by the same process; crosses are trials."
        figure = effect_charts.surface(experiment, found, *keys)
        blocks.append(Drawing(render("surface", figure), caption, "A contour over two parameters."))
    return Section(title, blocks)


def _told_apart(experiment: Experiment, found: Effects) -> str:
    """Names the parameters with an effect that chance does not explain, and those without."""
    clear = ", ".join(f"`{key}`" for key in found.shares if key in found.clear)
    rest = ", ".join(f"`{key}`" for key in experiment.ranges if key not in found.clear)
    test = "by chance alone, some parameter would show as much in more than 5 % of searches"
    words = f"The search could tell the values of {clear} apart. " if clear else ""
    return words + (f"It could not tell apart those of {rest}: {test}." if rest else "")


def projection_map(experiment: Experiment) -> Section:
    title = "Restarts and steps"
    if experiment.projection is None:
        return Section(title, (Text("Left out: the folder holds no map over restarts and steps."),))
    chosen = tuple(experiment.setting(f"projector.{key}") for key in ("restarts", "steps"))
    figure = plots.projection_map(experiment.projection, (chosen[0], chosen[1]))
    caption = (
        "Validation accuracy in percent of the GAN's images alone, for every number of restarts R and "
        "gradient steps L, all from one projection. More is not always better: late steps can fit the "
        "attack's noise."
    )
    if chosen[0] in experiment.projection.restarts and chosen[1] in experiment.projection.steps:
        caption += " Framed: the chosen pair."
    alt = "{} × {} shaded cells with their values.".format(*experiment.projection.psd_gan.shape)
    return Section(title, (Drawing(render("restarts_steps", figure), caption, alt),))
