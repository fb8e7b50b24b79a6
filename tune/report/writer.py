"""Writes an experiment's report from its files alone: no torch, no Ray, nothing trained, nothing looked up.

<experiment>/report.json   every figure, as raw fractions
<experiment>/report.html   the whole report in one file that loads nothing from outside
<experiment>/report.md     the same words and tables, with the charts of figures/*.png
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tune.metrics import TARGETS
from tune.report import adaptive, blocks, cost, detail, head, parameters, result, search
from tune.report.blocks import Drawing, Section
from tune.report.data import Experiment
from tune.report.effects import Effects, effects
from tune.report.head import Test
from tune.report.reading import read_experiment
from tune.report.scores import scores
from tune.report.style import Chart, drawing
from tune.report.summary import summary
from tune.storage.folder import Storage


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
    read = read_experiment(storage)
    test = scores(read)
    found = effects(read)
    with drawing():
        pages = _pages(read, test, found)
    report = json.dumps(summary(read, test, found), indent=2, ensure_ascii=False, allow_nan=False)
    storage.write("report.json", f"{report}\n".encode())
    write_pages(storage, "report", pages)
    return f"{storage.uri.rstrip('/')}/report.html"


def write_pages(storage: Storage, name: str, pages: Mapping[str, Any]) -> None:
    """Writes `name`.html, `name`.md and the charts that the latter shows."""
    for chart in _charts(pages["sections"]):
        storage.child("figures").write(f"{chart.name}.png", chart.png)
    for kind in ("md", "html"):
        storage.write(f"{name}.{kind}", render(f"report.{kind}.j2", pages).encode())


def _pages(experiment: Experiment, test: Test, found: Effects | None) -> dict[str, Any]:
    """The values that both templates are filled with."""
    return {
        "title": experiment.name,
        "subtitle": f"Search of {TARGETS[experiment.target].title}",
        "head": head.head(experiment, test),
        "sections": list(_sections(experiment, test, found)),
        "rebuild": cost.rebuild(experiment),
        "more": "The same figures, in full precision: report.json.",
    }


def _sections(experiment: Experiment, test: Test, found: Effects | None) -> Iterator[Section]:
    yield result.asked(experiment)
    yield result.threat(experiment)
    if test:
        yield from _test_sections(experiment, test)
    yield search.choice(experiment)
    yield search.history(experiment)
    yield parameters.parameters(experiment, found)
    if experiment.target != "gan":
        yield parameters.projection_map(experiment)
    yield cost.cost(experiment)
    yield cost.failures(experiment)
    yield cost.reproduce(experiment)


def _test_sections(experiment: Experiment, test: Test) -> Iterator[Section]:
    median = experiment.median
    yield result.table(experiment, test)
    yield result.stages(test, experiment)
    yield adaptive.adaptive(experiment, test)
    yield detail.examples(median.examples if median else None)
    yield detail.over_epsilon(experiment)
    yield detail.classes(experiment)
    yield detail.worst(median.worst if median else None)


def _charts(sections: Sequence[Section]) -> Iterator[Chart]:
    for section in sections:
        yield from (block.chart for block in section.blocks if isinstance(block, Drawing))


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
