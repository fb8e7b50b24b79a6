"""Writes an experiment's report from its files alone: no torch, no Ray, nothing trained, nothing looked up.

<experiment>/report.json   every figure, as raw fractions
<experiment>/report.html   the whole report in one file that loads nothing from outside
<experiment>/report.md     the same words and tables, with the charts of figures/*.png
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from components.registry import raised
from tune.report import adaptive, blocks, cost, detail, parameters, result, search
from tune.report.blocks import Drawing, Section, Text
from tune.report.facts import Facts, facts_of
from tune.report.style import drawing
from tune.report.summary import head, summary
from tune.storage.folder import Storage

log = logging.getLogger(__name__)


def write_report(experiment: Storage | Path | str) -> str:
    """Writes report.json, report.html, report.md and figures/ into the experiment's folder.

    What the folder lacks, the report leaves out, and says so. Equal files give an equal report.

    Returns:
        Where report.html now is: a path, or a URI where the storage is remote.

    Raises:
        FileNotFoundError: the folder holds no experiment.
        OSError: the folder cannot be written.
    """
    storage = Storage(experiment)
    facts = facts_of(storage, lambda problem: None)  # the report names them
    pages = {
        "title": facts.name,
        "subtitle": f"Search of {facts.searched}",
        "head": head(facts),
        "sections": _sections(facts),
        "rebuild": cost.rebuild(facts),
        "more": "The same figures, in full precision: report.json.",
    }
    report = json.dumps(summary(facts), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write("report.json", f"{report}\n".encode())
    write_pages(storage, "report", pages)
    return f"{storage.uri.rstrip('/')}/report.html"


def _sections(facts: Facts) -> list[Section]:
    wanted = [result.asked, result.threat]
    if facts.test:
        wanted += [result.table, result.stages, adaptive.adaptive]
        wanted += [detail.examples, detail.over_epsilon, detail.classes, detail.worst]
    wanted += [search.choice, search.history, parameters.parameters]
    if facts.target != "gan":
        wanted.append(parameters.projection_map)
    wanted += [cost.cost, cost.failures, cost.reproduce]
    with drawing():
        return [_guarded(section, facts) for section in wanted]


def _guarded(section: Callable[[Facts], Section], facts: Facts) -> Section:
    """The section; where it fails, one that says so in its place: the others are worth having."""
    try:
        return section(facts)
    except Exception as error:
        name = section.__name__.replace("_", " ").capitalize()
        log.exception("%s: section left out of the report: %s", facts.place, name)
        return Section(name, (Text(f"Left out: could not be drawn: {raised(error)}"),))


def write_pages(storage: Storage, name: str, pages: Mapping[str, Any]) -> None:
    """Writes `name`.html, `name`.md and the charts that the latter shows."""
    drawn = [block for section in pages["sections"] for block in section.blocks if isinstance(block, Drawing)]
    for chart in (block.chart for block in drawn):
        storage.child("figures").write(f"{chart.name}.png", chart.png)
    for kind in ("md", "html"):
        storage.write(f"{name}.{kind}", render(f"report.{kind}.j2", pages).encode())


def render(template: str, context: Mapping[str, Any]) -> str:
    """Fills one of the package's templates; what the context lacks is an error, not an empty place."""
    environment = Environment(
        loader=PackageLoader("tune.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),  # noqa: S701  (Markdown is not HTML)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(words=blocks.html, cell=blocks.cell)
    return environment.get_template(template).render(context)
