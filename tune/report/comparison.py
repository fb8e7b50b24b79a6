"""Several searches side by side, from their files alone: `python -m tune compare FOLDER FOLDER …`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tune.metrics import title_of
from tune.report.blocks import Block, Caution, Drawing, Section, Table, Text, plain, seconds, value
from tune.report.cost import stage_work
from tune.report.data import Experiment
from tune.report.head import Test, attack, variants
from tune.report.reading import read_experiment
from tune.report.scores import SHARES, Score, clearly_above, interval, percent, scores
from tune.report.style import GREEN, INK, blank, drawing, render
from tune.report.writer import write_pages
from tune.storage.folder import Storage


@dataclass(frozen=True)
class Candidate:
    """One of the searches to compare."""

    label: str  # told apart from the others'
    experiment: Experiment
    test: Test


Row = Callable[[Candidate], str]


def compare(
    folders: Sequence[Storage | Path | str], out: Storage | Path | str | None = None, width: int | None = None
) -> str:
    """The searches side by side, as text; written to `out` too as compare.html and compare.md.

    Args:
        folders: the experiments, two or more.
        out: where to write the pages.
        width: characters of a line, at most; None for as many as it takes.

    Raises:
        ValueError: fewer than two folders.
        FileNotFoundError: a folder that holds no experiment.
    """
    if len(folders) < 2:
        raise ValueError(f"FOLDER: expected at least two searches to compare, found {len(folders)}")
    candidates = _candidates([read_experiment(Storage(folder)) for folder in folders])
    if out is not None:
        with drawing():
            pages = _pages(candidates, charts=True)
        write_pages(Storage(out), "compare", pages)
    parts = [plain(block, width) for section in _sections(candidates, charts=False) for block in section.blocks]
    if out is not None:
        parts.append(f"{Storage(out).uri.rstrip('/')}/compare.html")
    return "\n\n".join(parts)


def _candidates(experiments: Sequence[Experiment]) -> list[Candidate]:
    names = [experiment.name for experiment in experiments]
    labels = [e.name if names.count(e.name) == 1 else e.place for e in experiments]
    return [Candidate(label, e, scores(e)) for label, e in zip(labels, experiments, strict=True)]


def _pages(candidates: Sequence[Candidate], charts: bool) -> dict[str, Any]:
    command = shlex.join(["python", "-m", "tune", "compare", *(c.experiment.place for c in candidates)])
    return {
        "title": " · ".join(candidate.label for candidate in candidates),
        "subtitle": f"{len(candidates)} searches side by side",
        "head": [],
        "sections": list(_sections(candidates, charts)),
        "rebuild": command,
        "more": "",
    }


def _sections(candidates: Sequence[Candidate], charts: bool) -> Iterator[Section]:
    yield Section("In short", list(_findings(candidates)))
    yield Section("What was asked", [_table(candidates, "setting", _SETTING)])
    yield Section("Result", list(_result(candidates, charts)))
    yield Section("Chosen configuration", list(_configuration(candidates)))
    yield Section("The searches", [_table(candidates, "search", _SEARCH)])


def _findings(candidates: Sequence[Candidate]) -> Iterator[Block]:
    asked = [name for name in ("data", "attack", "target") if name != "data" or not _known(candidates)]
    for title in asked:
        row = _SETTING[title]
        if len({row(candidate) for candidate in candidates}) > 1:
            yield Caution(f"The searches differ in {title}: their scores do not answer the same question.")
    if len({_fingerprint(candidate) for candidate in candidates} - {""}) > 1:
        yield Caution("The searches differ in the data's fingerprint: the test images are not the same.")
    scored = sorted((c for c in candidates if "psd" in c.test), key=lambda c: c.test["psd"].mean, reverse=True)
    if len(scored) < 2:
        yield Text("Fewer than two of the searches have test scores, so there is no PSD to compare.")
        return
    questions: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in scored:
        questions.setdefault(_question(candidate), []).append(candidate)
    if all(len(group) < 2 for group in questions.values()):
        yield Text("No two of the searches answer the same question, so none is set above another.")
    for group in questions.values():
        yield from (Text(_verdict(better, worse)) for better, worse in pairwise(group))


def _question(candidate: Candidate) -> tuple[str, ...]:
    """Equal for searches whose scores may be compared: same test images, attack and target."""
    images = _fingerprint(candidate) or _SETTING["data"](candidate)
    return images, _SETTING["attack"](candidate), _SETTING["target"](candidate)


def _known(candidates: Sequence[Candidate]) -> bool:
    """True where the records of all searches identify their test images; then the data's name decides nothing."""
    return all(map(_test_fingerprint, candidates))


def _verdict(better: Candidate, worse: Candidate) -> str:
    one, other = better.test["psd"], worse.test["psd"]
    first = f"{better.label}, PSD {percent(one.mean)} % ({interval(one.widest)}),"
    second = f"{worse.label}, {percent(other.mean)} % ({interval(other.widest)})"
    if clearly_above(one, other):
        return f"{first} is clearly above {second}."
    return f"{first} and {second} cannot be told apart: their 95 % intervals overlap."


def _fingerprint(candidate: Candidate) -> str:
    """Of the test images, whatever seed and share the others were cut with; older records have one for all."""
    record = candidate.experiment.record
    data = record.get("data")
    whole = data.get("fingerprint") if isinstance(data, Mapping) else record.get("data_fingerprint")
    return _test_fingerprint(candidate) or str(whole or "")


def _test_fingerprint(candidate: Candidate) -> str:
    data = candidate.experiment.record.get("data")
    return str(data.get("test_fingerprint") or "") if isinstance(data, Mapping) else ""


def _table(candidates: Sequence[Candidate], head: str, rows: Mapping[str, Row], note: str = "") -> Table:
    filled = [(name, *(row(candidate) for candidate in candidates)) for name, row in rows.items()]
    return Table((head, *(c.label for c in candidates)), filled, numbers=len(candidates), note=note)


def _result(candidates: Sequence[Candidate], charts: bool) -> Iterator[Block]:
    names = [name for name in SHARES if any(name in candidate.test for candidate in candidates)]
    if not names:
        yield Text("None of the searches has test scores.")
        return
    if charts:
        known = {c.label: c.test["psd"] for c in candidates if "psd" in c.test}
        figure = _dots(known, "PSD, test images")
        alt = "; ".join(f"{label} {percent(score.mean)} %" for label, score in known.items())
        yield Drawing(
            render("compare", figure),
            "PSD with both 95 % intervals, from the lowest end to the highest.",
            alt,
        )
    rows = {candidates[0].experiment.row(name): _share(name) for name in names}
    note = "In brackets: both 95 % intervals, across seeds and on the images, from lowest end to highest."
    yield _table(candidates, "% of test images", rows, note)


def _dots(named: Mapping[str, Score], label: str) -> Figure:
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


def _share(name: str) -> Row:
    def row(candidate: Candidate) -> str:
        score = candidate.test.get(name)
        return "–" if score is None else f"{percent(score.mean)} ({interval(score.widest)})"

    return row


def _configuration(candidates: Sequence[Candidate]) -> Iterator[Block]:
    """Every key that any of them searched, and every other in which they differ."""
    keys = dict.fromkeys(key for c in candidates for key in c.experiment.space if not key.startswith("search."))
    shown = [
        key
        for key in keys
        if any(key in c.experiment.ranges for c in candidates)
        or len({repr(c.experiment.setting(key)) for c in candidates}) > 1
    ]
    if not shown:
        yield Text("The chosen configurations do not differ.")
        return
    rows = {f"`{key}`": _setting(key) for key in shown}
    yield _table(candidates, "parameter", rows, "Searched by any of them, or different. *: searched there.")


def _setting(key: str) -> Row:
    def row(candidate: Candidate) -> str:
        experiment = candidate.experiment
        if key in experiment.ranges:
            return f"{value(experiment.best_params[key])} *" if key in experiment.best_params else "– *"
        return value(experiment.space[key]) if key in experiment.space else "–"

    return row


def _validation(candidate: Candidate) -> str:
    best, metric = candidate.experiment.best, next(iter(candidate.experiment.objectives))
    return f"{title_of(metric)} {percent(best.metrics[metric])} %" if best else "–"


def _cost(candidate: Candidate) -> str:
    best = candidate.experiment.best
    return value(best.metrics["cost"]) if best and "cost" in best.metrics else "–"


def _work(key: str) -> Callable[[Candidate], float]:
    return lambda candidate: sum(w[key] for w in stage_work(candidate.experiment.outcomes).values())


def _count(status: str) -> Row:
    return lambda candidate: str(len(candidate.experiment.with_status(status)))


_SETTING: Mapping[str, Row] = {
    "target": lambda c: c.experiment.target,
    "data": lambda c: str(c.experiment.setting("data.name") or "–"),
    "attack": lambda c: f"{attack(c.experiment)}, gray-box",
    "variants": lambda c: "; ".join(variants(c.experiment)) or "none",
    "searched parameters": lambda c: str(len(c.experiment.ranges)),
    "seed of the search": lambda c: value(c.experiment.setting("search.seed")),
    "retrained seeds": lambda c: ", ".join(str(score.seed) for score in c.experiment.seeds) or "–",
}
_SEARCH: Mapping[str, Row] = {
    "chosen trial": lambda c: f"{c.experiment.best.trial:03d}" if c.experiment.best else "–",
    "its validation score": _validation,
    "its projection cost": _cost,
    "finished": _count("finished"),
    "pruned": _count("pruned"),
    "failed": _count("failed"),
    "results built": lambda c: f"{_work('built')(c):g}",
    "results reused": lambda c: f"{_work('reused')(c):g}",
    "computing time": lambda c: seconds(_work("seconds")(c)),
    "by the clock": lambda c: seconds(c.experiment.wall_s),
}
