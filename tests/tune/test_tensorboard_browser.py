"""A real TensorBoard server in a real browser: HPARAMS lists and draws every trial of a mixed search."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tune.tensorboard_fixture import TRIALS, digits, metrics, write_mixed_search
from tune import events
from tune.storage import Storage
from tune.tracking import run_name, tensorboard_command, write_figure

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TITLES = {
    "PSD": "psd",
    "PCO": "pco",
    "projection cost": "cost",
    "images/s": "images_per_second",
    "validation loss": "validation_loss",
}
PARALLEL = "tf-hparams-parallel-coords-view"
SCATTER = "tf-hparams-scatter-plot-matrix-view"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no browser at {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    experiment = write_mixed_search(tmp_path_factory.mktemp("browser") / "my search")
    write_figure(experiment, "projection/R × L map", events.grid(digits()))
    return experiment


@pytest.fixture(scope="module")
def address(experiment: Storage) -> Iterator[str]:
    """The printed command, as printed, on a free port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*shlex.split(tensorboard_command(experiment)), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield wait_for(f"http://localhost:{port}/", server)
    finally:
        server.terminate()
        server.wait(20)


def wait_for(address: str, server: subprocess.Popen[bytes]) -> str:
    """Until the server has read all runs."""
    for _ in range(120):
        assert server.poll() is None, "TensorBoard ended at once"
        try:
            with urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer:
                if answer.read().count(b"R") >= len(TRIALS) + 1:
                    return address
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"{address}: no runs within a minute")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The HPARAMS page, wide enough for all columns."""
    page = browser.new_page(viewport={"width": 1900, "height": 1100})
    page.set_default_timeout(60_000)
    page.goto(f"{address}#hparams")
    page.locator("vaadin-grid-cell-content", has_text="000 ").first.wait_for()
    yield page
    page.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pictures of every view, copied to the folder that SCREENSHOTS names, for those who want to look."""
    folder = tmp_path_factory.mktemp("screenshots")
    yield folder
    if kept := os.environ.get("SCREENSHOTS"):
        shutil.copytree(folder, kept, dirs_exist_ok=True)


def row(page: Any, name: str) -> dict[str, str]:
    """One trial's row of the table, by the titles of its columns."""
    table = page.locator("vaadin-grid").first.evaluate(
        """(grid) => {
            const texts = (part) => [...grid.shadowRoot.querySelectorAll(part + ' tr')]
                .filter((line) => !line.hidden)
                .map((line) => [...line.querySelectorAll('th, td')].map((cell) => {
                    const slot = cell.querySelector('slot');
                    return slot ? slot.assignedNodes().map((node) => node.textContent.trim()).join('') : '';
                }));
            return {head: texts('thead'), body: texts('tbody')};
        }"""
    )
    (titles,) = [line for line in table["head"] if "Trial ID" in line]
    (cells,) = [line for line in table["body"] if name in line]
    return dict(zip(titles, cells, strict=False))  # a hidden cell for details follows


def number(text: str) -> float | None:
    return float(text) if text else None


def tick(page: Any, name: str) -> None:
    """Ticks or unticks a column in the sidebar."""
    whole = re.compile(rf"^\s*{name}\s*$")
    page.locator("tf-hparams-query-pane paper-checkbox").filter(has_text=whole).click()


def drawn(page: Any) -> int:
    """Lines in the parallel coordinates, once drawing has settled."""
    page.wait_for_timeout(1500)
    return int(page.locator(f"{PARALLEL} g.foreground path").count())


def test_table_lists_every_trial_with_its_values(page: Any, screenshots: Path) -> None:
    tick(page, "projector.tolerance")
    page.locator("vaadin-grid-cell-content", has_text="projector.tolerance").first.wait_for()
    page.screenshot(path=screenshots / "table.png")
    for trial, (status, values) in TRIALS.items():
        found = row(page, run_name(trial, values))
        assert number(found["projector.restarts"]) == values["projector.restarts"]
        assert number(found["projector.steps"]) == values["projector.steps"]
        assert number(found["unet.high_level_weight"]) == pytest.approx(values["unet.high_level_weight"])
        assert found["projector.distance"] == values["projector.distance"]
        assert number(found["projector.tolerance"]) == values.get("projector.tolerance")
        measured = metrics(trial) if status in ("finished", "pruned") else {}
        for title, key in TITLES.items():
            assert number(found[title]) == (pytest.approx(measured[key], rel=1e-4) if measured else None)
    seed = row(page, run_name(1, TRIALS[1][1], seed=0))
    assert number(seed["projector.restarts"]) == 2


def test_parallel_coordinates_draw_every_trial_that_was_measured(page: Any, screenshots: Path) -> None:
    """Both sides of the condition, as the page opens, with no column to untick."""
    page.get_by_text("Parallel Coordinates View").click()
    measured = [trial for trial, (status, _) in TRIALS.items() if status in ("finished", "pruned")]
    assert drawn(page) == len(measured)
    page.screenshot(path=screenshots / "parallel.png")


def test_parallel_coordinates_draw_every_trial_without_the_metrics(page: Any, screenshots: Path) -> None:
    """Failed trials have none; their parameters are drawn once the metrics are unticked."""
    page.get_by_text("Parallel Coordinates View").click()
    for metric in TITLES:
        tick(page, metric)
    assert drawn(page) == len(TRIALS) + 1  # and the retrained seed
    page.screenshot(path=screenshots / "parallel-all.png")
    tick(page, "projector.tolerance")
    conditional = [values for _, values in TRIALS.values() if "projector.tolerance" in values]
    assert drawn(page) == len(conditional) + 1


def test_scatter_matrix_has_a_point_for_each_measured_trial(page: Any, screenshots: Path) -> None:
    page.get_by_text("Scatter Plot Matrix View").click()
    page.wait_for_timeout(1500)
    page.screenshot(path=screenshots / "scatter.png")
    measured = [trial for trial, (status, _) in TRIALS.items() if status in ("finished", "pruned")]
    cells = page.locator(f"{SCATTER} g.cell").count()
    assert cells == (5 + 5) * 5  # five parameters and five metrics against five metrics
    assert page.locator(f"{SCATTER} circle.data-marker").count() == cells * len(measured)


def test_status_separates_failures(page: Any) -> None:
    tick(page, "Success")
    page.wait_for_timeout(1500)
    names = page.locator("tf-hparams-query-pane").evaluate("(pane) => pane.sessionGroups.map((g) => g.name)")
    failed = [run_name(t, values) for t, (status, values) in TRIALS.items() if status in ("failed", "killed")]
    assert sorted(names) == sorted(failed)


def test_charts_and_images_open(page: Any, address: str, screenshots: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}#timeseries")
    page.locator("card-view").first.wait_for()
    page.wait_for_timeout(2500)
    page.screenshot(path=screenshots / "timeseries.png")
    page.goto(f"{address}?tagFilter=unet%7Cprojection#timeseries")
    page.wait_for_timeout(3500)
    page.screenshot(path=screenshots / "timeseries-scalars.png")
    page.goto(f"{address}#images")
    page.locator("tf-image-loader img").first.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=screenshots / "images.png")
    assert page.locator("tf-image-loader").count() == 3 + 1  # a grid per finished trial, and the map
    assert not errors
