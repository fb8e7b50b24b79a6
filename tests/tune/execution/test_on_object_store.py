"""Real searches on an object store that fails them for a minute, and without their coordinator."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tune.line_to_server import LineToServer
from tests.tune.tiny_search import PATIENCE, note, results, run, searching, words, write_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 * PATIENCE)]

OUTAGE = 60.0  # seconds
LONG = {"gan__steps": 600, "gan__steps_per_epoch": 20}  # seconds of building, to be interrupted in


@pytest.fixture
def line(bucket: str) -> Iterator[LineToServer]:
    """The way of the searches to the object store."""
    found = LineToServer("127.0.0.1", int(bucket.rpartition(":")[2]))
    yield found
    found.close()


@pytest.fixture
def place(bucket: str, line: LineToServer, request: pytest.FixtureRequest) -> Storage:
    """A storage of each test's own, behind that line."""
    address = bucket.replace(bucket.rpartition(":")[2], f"{line.port}")
    return Storage(address).child(str(request.node.originalname))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A space, and the outcomes of its search in a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    space = write_space(folder, **LONG)
    status, output = run(words(space, folder / "results"), folder / "log", 300)
    assert status == 0, output
    return space, results(folder / "results/one")


def on(space: Path, place: Storage) -> list[str]:
    """The words of a search on an object store."""
    return words(space, place.uri)


def built(place: Storage) -> Counter[str]:
    """How often trials built each stage."""
    found: Counter[str] = Counter()
    for outcome in Ledger(place.child("one")).outcomes():
        found.update({stage: int(work["built"]) for stage, work in outcome.work.items()})
    return found


def check_whole(place: Storage, expected: list[dict[str, Any]]) -> None:
    """The search ended as if nothing had happened, and built nothing twice."""
    assert results(place.child("one")) == expected
    assert built(place)["gan"] == built(place)["classifier"] == 1
    report = json.loads(place.child("one").read("report.json"))
    assert report["search"]["finished"] == len(expected)
    assert len(report["test"]["psd"]["seeds"]) == 1


@pytest.mark.parametrize("moment", ["gan started", "· retraining trial"])
def test_a_minute_without_it(
    place: Storage, line: LineToServer, undisturbed: tuple[Path, Any], tmp_path: Path, moment: str
) -> None:
    space, expected = undisturbed
    place = place.child(moment.partition(" ")[0])
    with searching(on(space, place), tmp_path / "log") as search:
        search.until(lambda: moment in search.output, 200)
        time.sleep(1)
        line.cut()
        time.sleep(OUTAGE)
        assert search.process.poll() is None, search.output
        line.mend()
        assert search.wait(300) == 0, search.output
        assert "Traceback" not in search.output
    check_whole(place, expected)
    note(f"an object store out of reach for {OUTAGE:.0f} s from '{moment}' on", 0, "requests made again", "nothing")


def test_its_coordinator_killed(place: Storage, undisturbed: tuple[Path, Any], tmp_path: Path) -> None:
    space, expected = undisturbed
    with searching(on(space, place), tmp_path / "log") as search:
        for moment in ("gan started", "001 "):
            search.until(lambda moment=moment: moment in search.output, 200)
            (killed,) = coordinators(search.processes())
            os.kill(killed, signal.SIGKILL)
            search.until(lambda killed=killed: set(coordinators(search.processes())) - {killed}, 60)
        assert search.wait(300) == 0, search.output
        assert "Traceback" not in search.output
    check_whole(place, expected)
    note("kill -9 of the coordinator, twice", 0, "nothing", "nothing")


def coordinators(processes: dict[int, str]) -> list[int]:
    return [pid for pid, line in processes.items() if line.startswith("ray::_CoordinatorActor")]
