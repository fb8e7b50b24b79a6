"""A real search in a real TensorBoard server in a real browser: HPARAMS lists and draws every one of its trials."""

from __future__ import annotations

import json
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

from tests.tune.tiny_search import outcomes, run, words, write_space
from tune.monitor.runs import run_name, tensorboard_command
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome

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
    "cost": "cost",
    "images/s": "images_per_second",
    "validation loss": "validation_loss",
}
PARALLEL = "tf-hparams-parallel-coords-view"
SCATTER = "tf-hparams-scatter-plot-matrix-view"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason=f"no browser at {CHROMIUM}"),
]


# A search with all that can become of a trial, and a parameter that some of them lack. The U-Net reads the attacked
# image, as tiny generators make nothing that a classifier could tell apart, and no early stopping could compare.
MIXED = {
    "search__trials": 9,
    "search__startup_trials": 9,
    "search__early_stopping": True,
    "search__warmup_epochs": 1,
    "search__points": "[{unet.learning_rate: 1.0e-6, projector.distance: l2, unet.high_level_weight: 0.5}, "
    "{unet.high_level_weight: 1.0e300}, "
    "{unet.learning_rate: 0.3, projector.distance: insensitive, unet.high_level_weight: 0.5}]",
    "classifier__epochs": 12,
    "attack__epsilon": 0.4,
    "unet__input": "attacked",
    "unet__epochs": 4,
    "unet__learning_rate": "{choice: [1.0e-6, 0.3]}",  # learns nothing, or loses much at first
    "unet__high_level_weight": "{choice: [0.5, 5.0, 1.0e300]}",  # the largest makes the loss overflow
    "projector__distance": "{choice: [l2, insensitive]}",
    "projector__tolerance": "{low: 0.1, high: 0.4, when: {projector.distance: insensitive}}",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the search, in which trials finished, failed and were pruned."""
    folder = tmp_path_factory.mktemp("my search")
    space = write_space(folder, images=200, **MIXED)
    status, output = run(words(space, folder), folder / "log", 200)
    assert status == 0, output
    home = folder / "one"
    trials = outcomes(home).values()
    assert {outcome.status for outcome in trials} == {"finished", "failed", "pruned"}, output
    assert {"projector.tolerance" in outcome.params for outcome in trials} == {True, False}
    return home


@pytest.fixture(scope="module")
def trials(home: Path) -> dict[int, Outcome]:
    """What the ledger says of each, which is what TensorBoard must show."""
    return outcomes(home)


@pytest.fixture(scope="module")
def address(home: Path, trials: dict[int, Outcome]) -> Iterator[str]:
    """The printed command, as printed, on a free port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*shlex.split(tensorboard_command(Storage(home))), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield wait_for(f"http://localhost:{port}/", server, len(trials) + 1)
    finally:
        server.terminate()
        server.wait(20)


def wait_for(address: str, server: subprocess.Popen[bytes], runs: int) -> str:
    """Until the server has read all runs."""
    for _ in range(120):
        assert server.poll() is None, "TensorBoard ended at once"
        try:
            with urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer:
                if answer.read().count(b"R") >= runs:
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


def measured(trials: dict[int, Outcome]) -> list[Outcome]:
    """The trials that were measured, to their end or not."""
    return [outcome for outcome in trials.values() if outcome.status != "failed"]


def speed_of(outcome: Outcome) -> float | None:
    """How fast a trial's images were projected, where it came that far."""
    return outcome.work.get("projection", {}).get("images_per_second")


def values(outcome: Outcome) -> dict[str, float | None]:
    """What the row of a trial must show, by the titles of its columns; of a pruned one, what its record has."""
    if outcome.status == "failed":  # after its projection, whose speed is known
        return {**dict.fromkeys(TITLES), "images/s": speed_of(outcome)}
    cost = outcome.params["projector.restarts"] * outcome.params["projector.steps"]
    if outcome.status == "pruned":
        return {"PSD": outcome.intermediate[max(outcome.intermediate, key=int)], "cost": cost}
    known = {**outcome.metrics, "images_per_second": speed_of(outcome)}
    assert known["cost"] == cost
    return {title: known[key] for title, key in TITLES.items()}


def test_table_lists_every_trial_with_its_values(
    page: Any, home: Path, trials: dict[int, Outcome], screenshots: Path
) -> None:
    tick(page, "projector.tolerance")
    page.locator("vaadin-grid-cell-content", has_text="projector.tolerance").first.wait_for()
    page.screenshot(path=screenshots / "table.png")
    for outcome in trials.values():
        params = outcome.params
        found = row(page, run_name(outcome.trial, params))
        assert number(found["projector.restarts"]) == params["projector.restarts"]
        assert number(found["projector.steps"]) == params["projector.steps"]
        assert number(found["unet.high_level_weight"]) == pytest.approx(params["unet.high_level_weight"])
        assert found["projector.distance"] == params["projector.distance"]
        tolerance = params.get("projector.tolerance")
        assert number(found["projector.tolerance"]) == (tolerance and pytest.approx(tolerance, rel=1e-4))
        for title, value in values(outcome).items():
            assert number(found[title]) == (None if value is None else pytest.approx(value, rel=1e-4)), title
    chosen = json.loads((home / "best/choice.json").read_text())
    seed = row(page, run_name(chosen["trial"], chosen["params"], seed=0))
    assert number(seed["projector.restarts"]) == chosen["params"]["projector.restarts"]


def test_parallel_coordinates_draw_every_trial_that_was_measured(
    page: Any, trials: dict[int, Outcome], screenshots: Path
) -> None:
    """Both sides of the condition, as the page opens, with no column to untick."""
    page.get_by_text("Parallel Coordinates View").click()
    assert drawn(page) == len(measured(trials))
    page.screenshot(path=screenshots / "parallel.png")


def test_parallel_coordinates_draw_every_trial_without_the_metrics(
    page: Any, home: Path, trials: dict[int, Outcome], screenshots: Path
) -> None:
    """Failed trials have none; their parameters are drawn once the metrics are unticked."""
    page.get_by_text("Parallel Coordinates View").click()
    for metric in TITLES:
        tick(page, metric)
    assert drawn(page) == len(trials) + 1  # and the retrained seed
    page.screenshot(path=screenshots / "parallel-all.png")
    tick(page, "projector.tolerance")
    chosen = json.loads((home / "best/choice.json").read_text())["params"]
    everything = [chosen, *(outcome.params for outcome in trials.values())]
    assert drawn(page) == sum("projector.tolerance" in params for params in everything)


def test_scatter_matrix_has_a_point_for_each_measured_trial(
    page: Any, trials: dict[int, Outcome], screenshots: Path
) -> None:
    page.get_by_text("Scatter Plot Matrix View").click()
    page.wait_for_timeout(1500)
    page.screenshot(path=screenshots / "scatter.png")
    cells = page.locator(f"{SCATTER} g.cell").count()
    assert cells == (5 + 5) * 5  # five parameters and five metrics against five metrics
    # of a failed trial there are its five parameters and its speed, each against its speed
    failed = [outcome for outcome in trials.values() if outcome.status == "failed" and speed_of(outcome)]
    assert page.locator(f"{SCATTER} circle.data-marker").count() == cells * len(measured(trials)) + 6 * len(failed)


def test_status_separates_failures(page: Any, trials: dict[int, Outcome]) -> None:
    tick(page, "Success")
    page.wait_for_timeout(1500)
    names = page.locator("tf-hparams-query-pane").evaluate("(pane) => pane.sessionGroups.map((g) => g.name)")
    failed = [run_name(o.trial, o.params) for o in trials.values() if o.status == "failed"]
    assert sorted(names) == sorted(failed)


def test_charts_and_images_open(
    page: Any, address: str, trials: dict[int, Outcome], screenshots: Path
) -> None:
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
    finished = [outcome for outcome in trials.values() if outcome.status == "finished"]
    assert page.locator("tf-image-loader").count() == 2 * len(finished)  # a grid and a map for each
    assert not errors
