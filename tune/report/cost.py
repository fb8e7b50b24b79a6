"""Sections on the search's cost, its failures, and the commands that repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from tune.report.blocks import Block, Code, Section, Table, Text, seconds, value
from tune.report.facts import Facts
from tune.storage.ledger import Outcome
from tune.storage.record import versions_of


def failures(facts: Facts) -> Section:
    failed, pruned = facts.with_status("failed"), facts.with_status("pruned")
    if not failed:
        blocks: list[Block] = [Text("No trial failed.")]
    else:
        rows = [(f"{o.trial:03d}", _reason(o), seconds(o.seconds)) for o in failed]
        blocks = [Table(("trial", "reason", "time"), rows, numbers=1)]
    if pruned:
        numbers = ", ".join(f"{outcome.trial:03d}" for outcome in pruned)
        how = "Set aside for good" if facts.setting("search.promotion") else "Stopped early"
        blocks.append(Text(f"{how}, because others were better after as many epochs: {numbers}."))
    return Section("Failures", blocks)


def _reason(outcome: Outcome) -> str:
    """The last line that says something: of a traceback, the error itself."""
    lines = [line.strip() for line in (outcome.error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason recorded"


def cost(facts: Facts) -> Section:
    work, rows, saved = facts.work, [], 0.0
    further = facts.finalists.seconds if facts.finalists else {}
    after = {"finalists": further} if further else {}
    after["retraining"] = _total(score.seconds for score in facts.seeds)
    for stage in dict.fromkeys(chain(work, *after.values())):
        built, reused, spent = (work.get(stage, {}).get(key, 0) for key in ("built", "reused", "seconds"))
        spared = reused * spent / built if built else 0.0
        saved += spared
        again = [seconds(training.get(stage)) for training in after.values()]
        rows.append((stage, f"{built:g}", f"{reused:g}", seconds(spent), seconds(spared) if spared else "–", *again))
    if not rows:
        return Section("Cost", (Text("Left out: no trial recorded its work."),))
    again = [seconds(sum(training.values()) if training else None) for training in after.values()]
    built, reused, spent = map(facts.worked, ("built", "reused", "seconds"))
    rows.append(("all", f"{built:g}", f"{reused:g}", seconds(spent), seconds(saved) if saved else "–", *again))
    note = "Saved: what the reused results would have cost at the mean time of those built."
    note += _by_the_clock(facts)
    if (seed := facts.saved) and seed.images_per_second:
        note += f" The saved defense purifies {seed.images_per_second:.3g} images per second."
    columns = ("stage", "built", "reused", "computing time", "saved, about", *after)
    return Section("Cost", (Table(columns, rows, numbers=len(columns) - 1, marked=len(rows) - 1, note=note),))


def _by_the_clock(facts: Facts) -> str:
    if not facts.wall_s:
        return ""
    if not facts.untimed:
        return f" By the clock: {seconds(facts.wall_s)}."
    least = f"at least {seconds(facts.wall_s)}"
    return f" By the clock: {least}, as a session that was killed, or runs still, has not recorded its time."


def _total(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for stage, amount in part.items():
            total[stage] = total.get(stage, 0.0) + amount
    return total


def reproduce(facts: Facts) -> Section:
    record = facts.record
    command = record.get("command")
    blocks: list[Block] = []
    if command:
        line = command if isinstance(command, str) else shlex.join(map(str, command))
        blocks += [Text("The search, from a checkout of the commit below:"), Code(line)]
    blocks += [Text("This report, from the experiment's files alone:"), Code(rebuild(facts))]
    aside = ("command", "notes", "wall_s", "sessions", "identity")
    rows = [(key, _line(item)) for key, item in record.items() if key not in aside]
    if rows:
        blocks.append(Table(("recorded", "when the search began"), rows))
    if sessions := _sessions(record.get("sessions")):
        blocks.append(Text("The search was resumed with other versions; its trials are compared all the same:"))
        blocks.append(Table(("session", "trials", "versions"), sessions))
    if settings := _fixed(facts):
        blocks.append(Table(("component", "fixed settings (space.yaml)"), settings))
    return Section("How to reproduce it", blocks)


def _sessions(noted: Any) -> list[tuple[str, str, str]]:
    """Trials and versions by session, a row for each that ran any; empty where all had the same versions."""
    try:
        rows = [(str(s["began"] or "the first"), s["trials"], versions_of(s)) for s in noted or () if s["trials"]]
        differing = {name for *_, had in rows for name in had if len({repr(r[2].get(name)) for r in rows}) > 1}
        return [
            (began, _numbers(trials), ", ".join(f"{name} {had.get(name)}" for name in had if name in differing))
            for began, trials, had in rows
            if differing
        ]
    except (AttributeError, KeyError, TypeError):  # a record that was edited by hand
        return []


def _numbers(trials: Sequence[int]) -> str:
    """`0–4, 7`."""
    runs: list[list[int]] = []
    for trial in sorted(trials):
        if runs and trial == runs[-1][-1] + 1:
            runs[-1].append(trial)
        else:
            runs.append([trial])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _fixed(facts: Facts) -> list[tuple[str, str]]:
    """The settings that were not searched, one row per component."""
    rows: dict[str, list[str]] = {}
    for key, item in facts.space.items():
        section, _, name = key.partition(".")
        if key not in facts.ranges:
            rows.setdefault(section, []).append(f"{name}: {value(item)}")
    return [(section, ", ".join(items)) for section, items in rows.items()]


def rebuild(facts: Facts) -> str:
    return f"python -m tune report {shlex.quote(facts.place)}"


def _line(item: Any) -> str:
    """A value of the record on one line; of a mapping its entries, of a hash its head."""
    if isinstance(item, str) and re.fullmatch(r"[0-9a-f]{64}", item):
        return f"{item[:12]}…"
    if isinstance(item, Mapping):
        return ", ".join(f"{key} {_line(inner)}" for key, inner in item.items())
    return ", ".join(map(_line, item)) if isinstance(item, list) else value(item)
