"""A stage's training: saved after each epoch, and continued to the same result."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from components.datasets.dataset import Dataset
from components.saves import sealed, unsealed
from components.training import Training
from tests.tune.executor_fixture import tiny_config
from tune.pipeline.job import SAVE, Job, Progress
from tune.pipeline.recipe import Bounds, Development, Recipe
from tune.storage.folder import Storage
from tune.storage.store import Draft


class Walk(Training):
    """Adds random numbers to a weight: cheap, and any lost or repeated epoch shows."""

    def __init__(self, epochs: int = 4, width: int = 3) -> None:
        super().__init__(epochs, seed=5)
        self.layer = nn.Linear(width, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def run_epoch(self) -> dict[str, float]:
        with torch.no_grad():
            self.layer.weight += torch.rand_like(self.layer.weight)
        return {"loss": float(self.layer.weight.sum())}

    def parts(self) -> Mapping[str, Any]:
        return {"layer": self.layer}


class Stopped(Exception):
    """The process ends here."""


@pytest.fixture
def make(tmp_path: Path, tiny_dataset: Dataset) -> Iterator[Any]:
    """Makes jobs that share a place for their saves."""
    (tmp_path / "draft").mkdir()

    def job(report: Any = lambda progress: None) -> Job:
        draft, saves = Draft(tmp_path / "draft"), Storage(tmp_path / "saves")
        recipe = Recipe(tiny_config(), Bounds([1], [1]), Development.for_search(tiny_dataset), 0)
        return Job(recipe, torch.device("cpu"), {}, "unet", 0, draft, saves, report)

    return job


def stop_after(epochs: int) -> Any:
    """A report that ends the process when that many epochs are done and saved."""

    def report(progress: Progress) -> None:
        if progress.done == epochs:
            raise Stopped

    return report


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_an_interrupted_training_ends_as_an_undisturbed_one(make: Any, epochs: int) -> None:
    undisturbed = make().train(Walk())
    make().saves.remove_tree()
    with pytest.raises(Stopped):
        make(stop_after(epochs)).train(Walk())
    seen: list[Progress] = []
    training = Walk()
    assert make(seen.append).train(training) == undisturbed
    assert [progress.done for progress in seen] == [1, 2, 3, 4]  # who compares by epoch sees all of them
    assert training.epoch == 4


@pytest.mark.parametrize("length", [0, 1, 31, 32, 40, 500, -1])
def test_a_torn_save_is_named_and_not_used(make: Any, caplog: pytest.LogCaptureFixture, length: int) -> None:
    undisturbed = make().train(Walk())
    job = make()
    job.saves.write(SAVE, job.saves.read(SAVE)[:length])
    with caplog.at_level(logging.WARNING):
        assert make().train(Walk()) == undisturbed
    assert SAVE in caplog.text
    assert "starting over" in caplog.text


@pytest.mark.parametrize("position", [0, 33, 200, -1])
def test_a_flipped_bit_in_a_save_is_noticed(make: Any, caplog: pytest.LogCaptureFixture, position: int) -> None:
    undisturbed = make().train(Walk())
    job = make()
    content = bytearray(job.saves.read(SAVE))
    content[position] ^= 4
    job.saves.write(SAVE, bytes(content))
    assert make().train(Walk()) == undisturbed
    assert "starting over" in caplog.text


class Stroll(Walk):
    """A walk with a second layer, of which a save may have another width than the first's."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.second = nn.Linear(width, 1)
        nn.init.zeros_(self.second.weight)

    def parts(self) -> Mapping[str, Any]:
        return {"layer": self.layer, "second": self.second}


@pytest.mark.parametrize("of_another", [Walk(width=7), Stroll(width=7), Walk()], ids=["first", "second", "fewer"])
def test_a_save_of_another_architecture_leaves_no_weights_behind(
    make: Any, caplog: pytest.LogCaptureFixture, of_another: Walk
) -> None:
    undisturbed = make().train(Stroll())
    make().saves.remove_tree()
    make().train(of_another)
    training = Stroll()
    assert make().train(training) == undisturbed
    assert [row["epoch"] for row in undisturbed] == [1, 2, 3, 4]
    assert "starting over" in caplog.text


@pytest.mark.parametrize("missing", ["training", "history", "seconds"])
def test_a_save_without_one_of_its_fields_is_not_used(
    make: Any, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    undisturbed = make().train(Walk())
    saves = make().saves
    state = torch.load(io.BytesIO(unsealed(saves.read(SAVE))), weights_only=True)
    del state[missing]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    saves.write(SAVE, sealed(buffer.getvalue()))
    assert make().train(Walk()) == undisturbed
    assert "starting over" in caplog.text


def test_a_pickled_object_is_not_loaded(make: Any, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"training": Bomb(), "history": [], "seconds": 0}, tmp_path / "bomb")
    make().saves.write(SAVE, sealed((tmp_path / "bomb").read_bytes()))
    assert len(make().train(Walk())) == 4
    assert not (tmp_path / "exploded").exists()


def test_seconds_before_an_interruption_count(make: Any) -> None:
    with pytest.raises(Stopped):
        make(stop_after(2)).train(Walk())
    job = make()
    job.train(Walk())
    assert job.draft.seconds_before > 0


class Timed(Walk):
    """A walk of which each epoch takes so many seconds of a clock."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def run_epoch(self) -> dict[str, float]:
        self.clock[0] += self.seconds
        return super().run_epoch()


@pytest.mark.parametrize("stops", [[2], [5], [7], [3, 6], [5, 6, 7], [1, 2, 5, 7]])
def test_seconds_of_several_trainings_add_up_over_all_sessions(
    make: Any, monkeypatch: pytest.MonkeyPatch, stops: list[int]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def build(stop: int) -> Job:
        """Builds as the GAN's stage does, up to the epoch `stop` of both trainings, counted on."""
        done = []

        def report(progress: Progress) -> None:
            done.append(progress)
            if len(done) == stop:
                raise Stopped

        job: Job = make(report)
        job.train(Timed(clock, 10))
        job.train(Timed(clock, 1), name="encoder")
        return job

    for stop in stops:
        with pytest.raises(Stopped):
            build(stop)
        clock[0] += 1000  # between two sessions
    assert build(0).draft.seconds == 44


def test_no_stage_sees_the_test_split(tiny_dataset: Dataset) -> None:
    for data in (Development.for_search(tiny_dataset), Development.for_retraining(tiny_dataset)):
        assert {"train", "validation", "classes", "fingerprint"} == set(vars(data))
    assert len(Development.for_retraining(tiny_dataset).train) == len(tiny_dataset.merged())
    with pytest.raises(AssertionError, match="validation"):
        _ = Development.for_retraining(tiny_dataset).held
