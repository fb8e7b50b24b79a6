"""One session of a search: what it keeps of its choice, and what it says when it ends early."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import ray

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, tiny_space
from tune.errors import FAILED
from tune.execution.selection import Selection
from tune.execution.session import Session
from tune.monitor.tensorboard import TensorBoardRun
from tune.planning.experiment import Options
from tune.planning.preflight import Plan
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome


@pytest.fixture
def session(tmp_path: Path, tiny_dataset: Dataset) -> Session:
    space = tiny_space()
    plan = Plan(space, Storage(tmp_path), "one", False, space.config(PARAMS), tiny_dataset)
    return Session(plan, mock.Mock(address=None, cpus=1.0, gpus=0.0), Options(quiet=True), mock.Mock())


def selection_of(session: Session) -> Selection:
    return Selection(session.plan, session.setting, session.options, session.lock.check)


def test_the_map_of_an_earlier_choice_is_not_kept_for_one_without(session: Session) -> None:
    store, home = session.plan.storage.child("store"), session.plan.home
    store.child("map").child("m1").write("manifest.json", b'{"metrics": {"restarts": [1]}}')
    best = Outcome(trial=0, status="finished", params=PARAMS, stages={"map": "m1"})
    selection = selection_of(session)
    selection.keep(best)
    assert home.exists("validation_map.json")
    selection.keep(best.model_copy(update={"trial": 1, "stages": {}}))
    assert not home.exists("validation_map.json")


def test_an_error_that_ray_tells_of_is_said_in_one_line(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/faults.md quotes it, and whichever training it came from."""

    def full(*_: object) -> None:
        raise ray.exceptions.RayError("Traceback\nOSError: [Errno 28] No space left on device: 'x'")

    monkeypatch.setattr(Session, "_search", full)
    assert session.run([]) == FAILED
    assert "error: a training failed: OSError: [Errno 28] No space left" in capsys.readouterr().err


def test_runs_of_an_earlier_choices_seeds_go(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    home = session.plan.home
    for trial in (4, 17):
        with TensorBoardRun(home, session.plan.space, trial, PARAMS, seed=0) as run:
            last = run.name
    for name in ("run_seeds", "save_defense"):
        monkeypatch.setattr(f"tune.execution.selection.{name}", lambda *_: None)
    best = Outcome(trial=17, status="finished", params=PARAMS)
    selection = selection_of(session)
    selection.keep(best)
    selection.retrain(best)
    assert home.child("tensorboard").folders() == [last]
