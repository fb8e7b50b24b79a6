"""Building a path: each artifact once, whoever needs it, and again where it is damaged."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PATH, executor_on, path_to, tiny_config
from tune.pipeline.executor import Executor
from tune.pipeline.executor import Path as Built
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Bounds
from tune.storage.signature import signature_of

ROOT = Path(__file__).parents[3]
SLOW = """
import sys, time
from pathlib import Path
from components.datasets.dataset import load_dataset
from tests.tune.executor_fixture import PATH, executor_on, path_to, tiny_config
def dawdle(progress):
    if progress.stage == "gan":
        print("at the gan", flush=True)
        time.sleep(60)
executor_on(Path(sys.argv[1]), load_dataset(sys.argv[2], validation_fraction=0.2)).get(tiny_config(), PATH, dawdle)
"""


@pytest.fixture
def built(tmp_path: Path, tiny_dataset: Dataset) -> Built:
    """A whole path, in the store of `tmp_path`."""
    return executor_on(tmp_path, tiny_dataset).get(tiny_config(), PATH)


def scores(path: Built) -> dict[str, float]:
    return dict(path.artifacts["score_unet"][0].metrics)


def test_a_second_trial_builds_nothing(tmp_path: Path, tiny_dataset: Dataset, built: Built) -> None:
    assert all((work.built, work.reused) == (1, 0) for work in built.work.values())
    again = executor_on(tmp_path, tiny_dataset).get(tiny_config(), PATH)
    assert all((work.built, work.reused) == (0, 1) for work in again.work.values())
    assert scores(again) == scores(built)


def test_a_manifest_keeps_what_its_signature_is_the_hash_of(built: Built) -> None:
    for name, (artifact, *_) in built.artifacts.items():
        facts = artifact.manifest["follows_from"]
        assert (facts["stage"], signature_of(facts)) == (name, built.signatures[name])
        assert facts["inputs"].items() <= built.signatures.items()


def test_a_found_unet_tells_its_epochs(tmp_path: Path, tiny_dataset: Dataset, built: Built) -> None:
    # early stopping compares by epoch: a trial that finds its U-Net in the store must look like the one that built it
    told: list[Progress] = []
    executor_on(tmp_path, tiny_dataset).get(tiny_config(), PATH, told.append)
    rows = [progress.row for progress in told if progress.stage == "unet" and progress.row]
    assert rows == json.loads((tmp_path / "store/unet" / built.signatures["unet"] / "history.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2]


def test_what_differs_alone_is_built(tmp_path: Path, tiny_dataset: Dataset, built: Built) -> None:
    other = executor_on(tmp_path, tiny_dataset).get(tiny_config(unet__epochs=1), PATH)
    assert {name for name, work in other.work.items() if work.built} == {"unet", "score_unet"}


@pytest.mark.parametrize(("reads", "images"), [("both", 2), ("attacked", 1)])
def test_a_unet_reads_what_it_was_told_to(
    tmp_path: Path, tiny_dataset: Dataset, built: Built, reads: str, images: int
) -> None:
    other = executor_on(tmp_path, tiny_dataset).get(tiny_config(unet__input=reads), PATH)
    assert {name for name, work in other.work.items() if work.built} == {"unet", "score_unet"}
    weights = load_file(tmp_path / "store/unet" / other.signatures["unet"] / "unet.safetensors")
    assert weights["down.0.0.weight"].shape[1] == images
    assert scores(other)["psd_gan"] == scores(built)["psd_gan"]


def test_another_seed_is_another_artifact(tmp_path: Path, tiny_dataset: Dataset, built: Built) -> None:
    other = executor_on(tmp_path, tiny_dataset, seed=1).signatures(tiny_config(), PATH)
    assert not set(other.values()) & set(built.signatures.values())


@pytest.mark.parametrize("stage", PATH)
def test_a_damaged_artifact_is_built_again_and_named(
    tmp_path: Path, tiny_dataset: Dataset, built: Built, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    folder = tmp_path / "store" / stage / built.signatures[stage]
    files = [path for path in folder.iterdir() if path.name != "manifest.json"] or [folder / "manifest.json"]
    before = {path.name: path.read_bytes() for path in files}
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content[: len(content) - (path.name == "manifest.json") * 9])
    with caplog.at_level(logging.WARNING):
        again = executor_on(tmp_path, tiny_dataset).get(tiny_config(), PATH)
    assert {name for name, work in again.work.items() if work.built} == {stage}
    assert str(folder) in caplog.text
    assert scores(again) == scores(built)
    weights = [name for name in before if name.endswith(".safetensors")]
    assert all((folder / name).read_bytes() == before[name] for name in weights)


def test_a_store_of_an_unrelated_seed_is_left_alone(tmp_path: Path, tiny_dataset: Dataset, built: Built) -> None:
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    executor_on(tmp_path, tiny_dataset, seed=1).get(tiny_config(), PATH[:3])
    assert {path: path.read_bytes() for path in files} == files


def test_a_projection_in_parts_is_the_whole_one(
    tmp_path: Path, tiny_dataset: Dataset, built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.pipeline.stage.Stage.part_images", 5)
    parts = executor_on(tmp_path / "other", tiny_dataset).get(tiny_config(), PATH)
    assert len(parts.artifacts["projection"]) == 2
    assert len(parts.artifacts["projection_train"]) == 7
    assert scores(parts) == scores(built)


def test_a_builder_that_is_killed_is_replaced(tmp_path: Path, tiny_dataset: Dataset, tiny_folder: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path), str(tiny_folder)]
    builder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    waited: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.stage == "waiting for gan" and not waited:
            assert len(progress.waits_for) == 1
            builder.kill()
            builder.wait()
            waited.append(time.monotonic())

    try:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "at the gan\n"
        path = executor_on(tmp_path, tiny_dataset).get(tiny_config(), PATH, watch)
    finally:
        builder.kill()
        builder.wait()
    assert time.monotonic() - waited[0] < 20
    assert path.work["classifier"].reused == 1  # the killed one had finished that
    assert path.work["gan"].built == 1


def executor_with(tmp_path: Path, dataset: Dataset, restarts: list[int], steps: list[int]) -> Executor:
    return replace(executor_on(tmp_path, dataset), bounds=Bounds(restarts, steps))


def traces_equal(one: Built, other: Built, stage: str) -> None:
    for mine, theirs in zip(one.artifacts[stage], other.artifacts[stage], strict=True):
        for name in ("trace.safetensors", "standing.safetensors"):
            torch.testing.assert_close(load_file(mine.folder / name), load_file(theirs.folder / name))


PROJECTION = path_to("projection")


def test_a_grown_search_computes_the_difference(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.pipeline.stage.Stage.part_images", 5)
    config = tiny_config()
    executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4]).get(config, PROJECTION)
    grown = executor_with(tmp_path, tiny_dataset, [1, 2, 3], [2, 4, 6]).get(config, PROJECTION)
    fresh = executor_with(tmp_path / "other", tiny_dataset, [1, 2, 3], [2, 4, 6]).get(config, PROJECTION)
    assert grown.signatures == fresh.signatures
    for stage in ("projection", "projection_clean"):
        traces_equal(grown, fresh, stage)
        for part in range(2):
            whole, rest = (path.artifacts[stage][part].metrics for path in (fresh, grown))
            assert whole["evaluations"] == whole["images"] * 3 * 6
            assert rest["evaluations"] == rest["images"] * (3 * 6 - 2 * 4)
    assert {name for name, work in grown.work.items() if work.reused} == {"classifier", "gan", "attack"}
    assert grown.artifacts["score_projection"][0].metrics == fresh.artifacts["score_projection"][0].metrics


@pytest.mark.parametrize(
    ("restarts", "steps"),
    [([1], [2, 4, 6]), ([1, 2, 3], [2, 3]), ([1, 2, 3], [1, 4, 6])],
    ids=["fewer restarts", "fewer steps", "a step that was not kept"],
)
def test_a_search_that_did_not_grow_starts_over(
    tmp_path: Path, tiny_dataset: Dataset, restarts: list[int], steps: list[int]
) -> None:
    executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4]).get(tiny_config(), PROJECTION[:4])
    other = executor_with(tmp_path, tiny_dataset, restarts, steps).get(tiny_config(), PROJECTION[:4])
    metrics = other.artifacts["projection"][0].metrics
    assert metrics["evaluations"] == metrics["images"] * max(restarts) * max(steps)


@pytest.mark.parametrize("change", [{"projector__learning_rate": 0.3}, {"projector__levels": 3}])
def test_another_projection_is_not_gone_on_from(
    tmp_path: Path, tiny_dataset: Dataset, change: dict[str, object]
) -> None:
    executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4]).get(tiny_config(), PROJECTION[:4])
    executor = executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4, 6])
    metrics = executor.get(tiny_config(**change), PROJECTION[:4]).artifacts["projection"][0].metrics
    assert metrics["evaluations"] == metrics["images"] * 2 * 6


def test_a_damaged_smaller_projection_is_done_without(tmp_path: Path, tiny_dataset: Dataset) -> None:
    small = executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4]).get(tiny_config(), PROJECTION[:4])
    standing = small.artifacts["projection"][0].folder / "standing.safetensors"
    standing.write_bytes(standing.read_bytes()[:-3])
    grown = executor_with(tmp_path, tiny_dataset, [1, 2], [2, 4, 6]).get(tiny_config(), PROJECTION[:4])
    metrics = grown.artifacts["projection"][0].metrics
    assert metrics["evaluations"] == metrics["images"] * 2 * 6
    (note,) = (tmp_path / "store/.relatives/projection").rglob(f"{small.signatures['projection']}.json")
    note.write_text("{torn")
    executor_with(tmp_path, tiny_dataset, [1, 2, 3], [2, 4, 6]).get(tiny_config(), PROJECTION[:4])
