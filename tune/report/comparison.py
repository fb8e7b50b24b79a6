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

from tune.metrics import METRICS, title_of
from tune.report.blocks import Block, Caution, Drawing, Section, Table, Text, interval, percent, plain, seconds, value
from tune.report.facts import Facts, facts_of
from tune.report.scores import SHARES, Score, clearly_above
from tune.report.style import GREEN, INK, blank, drawing, render
from tune.report.writer import write_pages
from tune.storage.folder import Storage
from tune.storage.ledger import in_words


@dataclass(frozen=True)
class Candidate:
    """One of the searches to compare."""

    label: str  # told apart from the others'
    facts: Facts


Row = Callable[[Facts], str]


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
    candidates = _candidates([facts_of(Storage(folder)) for folder in folders])
    if out is not None:
        write_pages(Storage(out), "compare", _pages(candidates))
    parts = [plain(block, width) for section in _sections(candidates, charts=False) for block in section.blocks]
    if out is not None:
        parts.append(f"{Storage(out).uri.rstrip('/')}/compare.html")
    return "\n\n".join(parts)


def _candidates(searches: Sequence[Facts]) -> list[Candidate]:
    names = [facts.name for facts in searches]
    return [Candidate(facts.name if names.count(facts.name) == 1 else facts.place, facts) for facts in searches]


def _pages(candidates: Sequence[Candidate]) -> dict[str, Any]:
    with drawing():
        sections = list(_sections(candidates, charts=True))
    return {
        "title": " · ".join(candidate.label for candidate in candidates),
        "subtitle": f"{len(candidates)} searches side by side",
        "head": [],
        "sections": sections,
        "rebuild": shlex.join(["python", "-m", "tune", "compare", *(c.facts.place for c in candidates)]),
        "more": "",
    }


def _sections(candidates: Sequence[Candidate], charts: bool) -> Iterator[Section]:
    yield Section("In short", list(_findings(candidates)))
    yield Section("What was asked", [_table(candidates, "setting", _SETTING)])
    yield Section("Result", list(_result(candidates, charts)))
    yield Section("Chosen configuration", list(_configuration(candidates)))
    yield Section("The searches", [_table(candidates, "search", _SEARCH)])


def _findings(candidates: Sequence[Candidate]) -> Iterator[Block]:
    # where the records of all searches identify their test images, the data's name decides nothing
    known = all(_test_fingerprint(candidate.facts) for candidate in candidates)
    for title in ("attack", "target") if known else ("data", "attack", "target"):
        if len({_SETTING[title](candidate.facts) for candidate in candidates}) > 1:
            yield Caution(f"The searches differ in {title}: their scores do not answer the same question.")
    if len({_fingerprint(candidate.facts) for candidate in candidates} - {""}) > 1:
        yield Caution("The searches differ in the data's fingerprint: the test images are not the same.")
    scored = [candidate for candidate in candidates if "psd" in candidate.facts.test]
    if len(scored) < 2:
        yield Text("Fewer than two of the searches have test scores, so there is no PSD to compare.")
        return
    questions: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in sorted(scored, key=lambda c: c.facts.test["psd"].mean, reverse=True):
        questions.setdefault(_question(candidate.facts), []).append(candidate)
    if all(len(group) < 2 for group in questions.values()):
        yield Text("No two of the searches answer the same question, so none is set above another.")
    for group in questions.values():
        yield from (Text(_verdict(better, worse)) for better, worse in pairwise(group))


def _question(facts: Facts) -> tuple[str, ...]:
    """Equal for searches whose scores may be compared: same test images, attack and target."""
    return _fingerprint(facts) or _SETTING["data"](facts), _SETTING["attack"](facts), _SETTING["target"](facts)


def _verdict(better: Candidate, worse: Candidate) -> str:
    one, other = better.facts.test["psd"], worse.facts.test["psd"]
    first = f"{better.label}, PSD {percent(one.mean)} % ({interval(one.widest)}),"
    second = f"{worse.label}, {percent(other.mean)} % ({interval(other.widest)})"
    if clearly_above(one, other):
        return f"{first} is clearly above {second}."
    return f"{first} and {second} cannot be told apart: their 95 % intervals overlap."


def _fingerprint(facts: Facts) -> str:
    """Of the test images, whatever seed and share the others were cut with; older records have one for all."""
    whole = facts.data.get("fingerprint", facts.record.get("data_fingerprint"))
    return _test_fingerprint(facts) or str(whole or "")


def _test_fingerprint(facts: Facts) -> str:
    return str(facts.data.get("test_fingerprint") or "")


def _table(candidates: Sequence[Candidate], head: str, rows: Mapping[str, Row], note: str = "") -> Table:
    filled = [(name, *(row(candidate.facts) for candidate in candidates)) for name, row in rows.items()]
    return Table((head, *(c.label for c in candidates)), filled, numbers=len(candidates), note=note)


def _result(candidates: Sequence[Candidate], charts: bool) -> Iterator[Block]:
    names = [name for name in SHARES if any(name in candidate.facts.test for candidate in candidates)]
    if not names:
        yield Text("None of the searches has test scores.")
        return
    known = {c.label: c.facts.test["psd"] for c in candidates if "psd" in c.facts.test}
    if charts and known:
        yield Drawing(
            render("compare", _dots(known, "PSD, test images")),
            "PSD with both 95 % intervals, from the lowest end to the highest.",
            "; ".join(f"{label} {percent(score.mean)} %" for label, score in known.items()),
        )
    purifiers = {candidate.facts.purifier for candidate in candidates}
    one = purifiers.pop() if len(purifiers) == 1 else "purifier"
    rows = {METRICS[name].row.format(purifier=one): _share(name) for name in names}
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
    def row(facts: Facts) -> str:
        score = facts.test.get(name)
        return "–" if score is None else f"{percent(score.mean)} ({interval(score.widest)})"

    return row


def _configuration(candidates: Sequence[Candidate]) -> Iterator[Block]:
    """Every key that any of them searched, and every other in which they differ."""
    searches = [candidate.facts for candidate in candidates]
    keys = dict.fromkeys(key for facts in searches for key in facts.space if not key.startswith("search."))
    shown = [
        key
        for key in keys
        if any(key in facts.ranges for facts in searches) or len({repr(facts.setting(key)) for facts in searches}) > 1
    ]
    if not shown:
        yield Text("The chosen configurations do not differ.")
        return
    rows = {f"`{key}`": _setting(key) for key in shown}
    yield _table(candidates, "parameter", rows, "Searched by any of them, or different. *: searched there.")


def _setting(key: str) -> Row:
    def row(facts: Facts) -> str:
        if key in facts.ranges:
            return f"{value(facts.best_params[key])} *" if key in facts.best_params else "– *"
        return value(facts.space[key]) if key in facts.space else "–"

    return row


def _validation(facts: Facts) -> str:
    score = facts.best.metrics.get(facts.objective) if facts.best else None
    return "–" if score is None else f"{title_of(facts.objective)} {percent(score)} %"


def _cost(facts: Facts) -> str:
    return value(facts.best.metrics["cost"]) if facts.best and "cost" in facts.best.metrics else "–"


def _count(status: str) -> Row:
    return lambda facts: str(len(facts.with_status(status)))


_SETTING: Mapping[str, Row] = {
    "target": lambda facts: facts.target,
    "data": lambda facts: str(facts.setting("data.name") or "–"),
    "attack": lambda facts: f"{facts.attack}, gray-box",
    "purifier": lambda facts: facts.purifier,
    "variants": lambda facts: "; ".join(facts.variants) or "none",
    "searched parameters": lambda facts: str(len(facts.ranges)),
    "seed of the search": lambda facts: value(facts.setting("search.seed")),
    "retrained seeds": lambda facts: ", ".join(str(score.seed) for score in facts.seeds) or "–",
}
_SEARCH: Mapping[str, Row] = {
    "chosen trial": lambda facts: f"{facts.best.trial:03d}" if facts.best else "–",
    "its validation score": _validation,
    "its projection cost": _cost,
    "finished": _count("finished"),
    in_words("pruned"): _count("pruned"),
    "failed": _count("failed"),
    "results built": lambda facts: f"{facts.worked('built'):g}",
    "results reused": lambda facts: f"{facts.worked('reused'):g}",
    "computing time": lambda facts: seconds(facts.worked("seconds")),
    "by the clock": lambda facts: seconds(facts.wall_s),
}
