"""TensorBoard's files, read back by TensorBoard's own readers: the accumulator and the HPARAMS backend."""

from __future__ import annotations

import io
import math
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

from tests.tune.tensorboard_fixture import (
    TRIALS,
    digits,
    metrics,
    mixed_space,
    params,
    write_mixed_search,
)
from tune.monitor import events
from tune.monitor.tensorboard import (
    TensorBoardRun,
    close_run,
    run_name,
    tensorboard_command,
    write_experiment,
)
from tune.space.ranges import Choice
from tune.space.space import SearchSpace, parse_space
from tune.storage.folder import Storage

PARAMS = params(4, 60, 0.3)
STEPS = {"projector.steps": 60, "projector.restarts": 4}


class Page:
    """The HPARAMS page's own backend over an experiment's files."""

    def __init__(self, experiment: Storage) -> None:
        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(experiment.child("tensorboard").local))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, "logdir")
        self._context = backend_context.Context(base_plugin.TBContext(data_provider=provider))

    def experiment(self) -> api_pb2.Experiment:
        request = api_pb2.GetExperimentRequest()
        return get_experiment.Handler(RequestContext(), self._context, "", request).run()

    def rows(self, *columns: api_pb2.ColParams) -> dict[str, api_pb2.SessionGroup]:
        request = api_pb2.ListSessionGroupsRequest(
            col_params=columns, allowed_statuses=[0, 1, 2, 3], start_index=0, slice_size=100
        )
        answer = list_session_groups.Handler(RequestContext(), self._context, "", request).run()
        return {group.name: group for group in answer.session_groups}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return write_mixed_search(tmp_path_factory.mktemp("mixed"))


def values_of(row: api_pb2.SessionGroup) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in row.hparams.items()}


def metrics_of(row: api_pb2.SessionGroup) -> dict[str, float]:
    return {value.name.tag: value.value for value in row.metric_values}


def scalars(folder: Storage, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder.local))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


# --- the page ---------------------------------------------------------------------------------------------


def test_page_declares_every_searched_parameter_with_its_domain(mixed: Storage) -> None:
    infos = {info.name: info for info in Page(mixed).experiment().hparam_infos}
    assert set(mixed_space().ranges) | {"trial"} == set(infos)
    assert [v.number_value for v in infos["projector.restarts"].domain_discrete.values] == [1, 2, 4]
    distances = infos["projector.distance"].domain_discrete.values
    assert [value.string_value for value in distances] == ["l2", "insensitive"]
    steps = infos["projector.steps"].domain_interval
    assert (steps.min_value, steps.max_value) == (10, 60)
    assert "logarithmic" in infos["unet.high_level_weight"].description
    assert "projector.distance is insensitive" in infos["projector.tolerance"].description


def test_page_declares_metrics_with_display_names(mixed: Storage) -> None:
    names = {info.name.tag: info.display_name for info in Page(mixed).experiment().metric_infos}
    assert names == {
        "result/psd": "PSD",
        "result/pco": "PCO",
        "result/cost": "cost",
        "result/images_per_second": "images/s",
        "result/validation_loss": "validation loss",
        "test/psd": "test PSD",
        "test/pco": "test PCO",
        "test/robust": "test robust accuracy",
    }


def test_page_lists_every_trial_with_its_values(mixed: Storage) -> None:
    rows = Page(mixed).rows()
    assert set(rows) == {run_name(t, p) for t, (_, p) in TRIALS.items()} | {run_name(1, TRIALS[1][1], seed=0)}
    for trial, (_, values) in TRIALS.items():
        assert values_of(rows[run_name(trial, values)]) == {"trial": trial, **values}


def test_page_has_metrics_of_trials_that_measured_some(mixed: Storage) -> None:
    rows = Page(mixed).rows()
    for trial, (status, values) in TRIALS.items():
        expected = metrics(trial) if status in ("finished", "pruned") else {}
        found = metrics_of(rows[run_name(trial, values)])
        assert found == pytest.approx({f"result/{key}": value for key, value in expected.items()})
    seed = metrics_of(rows[run_name(1, TRIALS[1][1], seed=0)])
    assert seed == pytest.approx({"test/psd": 0.875, "test/pco": 0.95})


def test_page_knows_how_each_trial_ended(mixed: Storage) -> None:
    rows = Page(mixed).rows()
    for trial, (status, values) in TRIALS.items():
        (session,) = rows[run_name(trial, values)].sessions
        expected = api_pb2.STATUS_FAILURE if status in ("failed", "killed") else api_pb2.STATUS_SUCCESS
        assert session.status == expected
        assert session.end_time_secs >= session.start_time_secs > 0


def test_page_filters_by_a_declared_value_and_keeps_trials_without_it(mixed: Storage) -> None:
    column = api_pb2.ColParams(hparam="projector.tolerance")
    column.filter_interval.min_value, column.filter_interval.max_value = 0.2, 0.3
    names = {name.split()[0] for name in Page(mixed).rows(column)}
    assert names == {"000", "001", "002", "005", "seed"}


def test_parameters_that_every_trial_has_are_shown_first(mixed: Storage) -> None:
    """Parallel coordinates drop a trial without the value of a shown column; five are shown when it opens."""
    shown = [info.name for info in Page(mixed).experiment().hparam_infos if info.differs]
    assert len(shown) == 5
    for _, values in TRIALS.values():
        assert set(shown) <= {*values, "trial"}


def test_a_small_space_with_a_condition_is_filled_up_with_settings(tmp_path: Path) -> None:
    text = """
    gan.loss: {choice: [wgan_gp, nonsaturating]}
    gan.width: {choice: [8, 16], when: {gan.loss: wgan_gp}}
    """
    space, experiment = parse_space(text, "small", "small.yaml"), Storage(tmp_path)
    write_experiment(experiment, space, "gan")
    TensorBoardRun(experiment, space, 0, {"gan.loss": "nonsaturating"}).__enter__().close("finished")
    page = Page(experiment)
    shown = {info.name for info in page.experiment().hparam_infos if info.differs}
    assert len(shown) == 5
    assert shown == set(values_of(page.rows()["000 nonsaturating"]))


def test_switches_and_mixed_values_keep_their_types_on_both_sides(tmp_path: Path) -> None:
    ranges = {"search.early_stopping": Choice((True, False)), "search.max_cost": Choice((None, 60))}
    space, experiment = SearchSpace("types", "types.yaml", {"search.objective": "psd"}, ranges), Storage(tmp_path)
    write_experiment(experiment, space, "defense")
    with TensorBoardRun(experiment, space, 0, {"search.early_stopping": True, "search.max_cost": None}):
        pass
    page = Page(experiment)
    infos = {info.name: info for info in page.experiment().hparam_infos}
    assert infos["search.early_stopping"].type == api_pb2.DATA_TYPE_BOOL
    assert infos["search.max_cost"].type == api_pb2.DATA_TYPE_STRING
    (row,) = page.rows().values()
    assert row.hparams["search.max_cost"] == infos["search.max_cost"].domain_discrete.values[0]
    assert row.hparams["search.early_stopping"].bool_value is True


# --- one run ----------------------------------------------------------------------------------------------


def test_a_trial_has_its_row_from_its_start(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    write_experiment(experiment, space, "defense")
    with TensorBoardRun(experiment, space, 7, PARAMS):
        (row,) = Page(experiment).rows().values()
        assert values_of(row)["projector.steps"] == 60
        assert row.sessions[0].end_time_secs == 0


def test_an_exception_is_a_failure_and_passes_on(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    with pytest.raises(RuntimeError, match="broken"), TensorBoardRun(experiment, space, 0, PARAMS):
        raise RuntimeError("broken")
    assert next(iter(Page(experiment).rows().values())).sessions[0].status == api_pb2.STATUS_FAILURE


def interrupted(run: TensorBoardRun) -> None:
    for epoch, loss in enumerate((5.0, 4.0, 3.0), 1):
        run.scalars(epoch, {"unet/loss": loss})
    run.scalars(1, {"projection/error": 0.5})
    raise KeyboardInterrupt


def test_an_interrupted_trial_is_taken_up_without_a_second_start(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    with pytest.raises(KeyboardInterrupt), TensorBoardRun(experiment, space, 0, PARAMS) as run:
        interrupted(run)
    with TensorBoardRun(experiment, space, 0, PARAMS) as run:
        run.scalars(1, {"unet/loss": 2.0})
        run.scalars(2, {"unet/loss": 1.0})
    contents = b"".join(run.folder.read(name) for name in run.folder.names())
    assert contents.count(b"session_start_info") == 1
    assert contents.count(b"session_end_info") == 1
    assert scalars(run.folder, "unet/loss") == [(1, 2.0), (2, 1.0)]
    assert scalars(run.folder, "projection/error") == [(1, 0.5)]


def test_a_trial_that_is_tried_again_gets_its_new_end(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    for status in ("failed", "finished"):
        with TensorBoardRun(experiment, space, 0, PARAMS) as run:
            run.close(status)  # type: ignore[arg-type]
    (row,) = Page(experiment).rows().values()
    assert row.sessions[0].status == api_pb2.STATUS_SUCCESS


def test_a_file_cut_short_by_a_kill_loses_only_its_last_record(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    write_experiment(experiment, space, "defense")
    run = TensorBoardRun(experiment, space, 0, PARAMS).__enter__()
    run.scalars(1, {"unet/loss": 2.0})
    run.scalars(2, {"unet/loss": 1.0})
    run.flush()
    (name,) = run.folder.names()
    run.folder.write(name, run.folder.read(name)[:-5])
    close_run(experiment, space, 0, PARAMS, "failed", {"psd": 0.5})
    (row,) = Page(experiment).rows().values()
    assert row.sessions[0].status == api_pb2.STATUS_FAILURE
    assert metrics_of(row) == {"result/psd": 0.5}
    assert scalars(run.folder, "unet/loss") == [(1, 2.0)]


def test_the_driver_leaves_an_end_as_it_is(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    with TensorBoardRun(experiment, space, 0, PARAMS) as run:
        pass
    before = {name: run.folder.read(name) for name in run.folder.names()}
    close_run(experiment, space, 0, PARAMS, "failed")
    assert {name: run.folder.read(name) for name in run.folder.names()} == before


def test_nan_is_kept_in_charts_and_left_out_of_the_page(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    write_experiment(experiment, space, "defense")
    with TensorBoardRun(experiment, space, 0, PARAMS) as run:
        run.scalars(1, {"unet/loss": math.nan})
        run.metrics({"psd": math.nan, "pco": 0.5, "confusion": [[1]], "cost": np.int64(60)})
    (row,) = Page(experiment).rows().values()
    assert metrics_of(row) == {"result/pco": 0.5, "result/cost": 60}
    assert math.isnan(scalars(run.folder, "unet/loss")[0][1])


def test_running_metrics_give_way_to_final_ones(tmp_path: Path) -> None:
    experiment, space = Storage(tmp_path), mixed_space()
    write_experiment(experiment, space, "defense")
    with TensorBoardRun(experiment, space, 0, PARAMS) as run:
        run.metrics({"psd": 0.25}, step=1)
        run.metrics({"psd": 0.5}, step=2)
        run.metrics({"psd": 0.75})
    (row,) = Page(experiment).rows().values()
    assert metrics_of(row) == {"result/psd": 0.75}


def test_writing_to_a_closed_run_is_refused(tmp_path: Path) -> None:
    with TensorBoardRun(Storage(tmp_path), mixed_space(), 0, PARAMS) as run:
        pass
    with pytest.raises(RuntimeError, match=r"000 R4 L60 λ0\.3 l2: the run is not open"):
        run.scalars(1, {"unet/loss": 1.0})


def test_files_stay_small(mixed: Storage) -> None:
    sizes = {}
    for name in mixed.child("tensorboard").folders():
        folder = mixed.child("tensorboard").child(name)
        sizes[name] = sum(len(folder.read(file)) for file in folder.names())
    assert max(sizes.values()) < 30_000  # 60 steps of projection error, 6 epochs, a grid of 32 images


# --- an object store --------------------------------------------------------------------------------------


class Remote(Storage):
    """A local folder that behaves as one in an object store: only uploads arrive."""

    local = None  # type: ignore[assignment]
    broken = False

    def child(self, name: str) -> Storage:
        inner = Remote(Path(self._path) / name)
        inner._uri, inner.broken = f"s3://bucket/{name}", self.broken
        return inner

    def upload(self, path: Path, name: str) -> None:
        if self.broken:
            raise OSError("no route to host")
        Path(self._path).mkdir(parents=True, exist_ok=True)
        Path(self._path, name).write_bytes(path.read_bytes())

    def read(self, name: str) -> bytes:
        return Path(self._path, name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        if self.broken:
            raise OSError("no route to host")
        Path(self._path, name).write_bytes(data)

    def names(self) -> list[str]:
        return sorted(entry.name for entry in Path(self._path).glob("*tfevents*"))


def test_a_run_in_an_object_store_is_uploaded(tmp_path: Path) -> None:
    experiment = Remote(tmp_path)
    with TensorBoardRun(experiment, mixed_space(), 0, PARAMS) as run:
        assert len(run.folder.names()) == 1  # the start is there at once
        run.scalars(1, {"unet/loss": 2.0})
        run.flush()
        assert b"unet/loss" in run.folder.read(run.folder.names()[0])
    with TensorBoardRun(experiment, mixed_space(), 0, PARAMS) as run:
        run.scalars(2, {"unet/loss": 1.0})
    local = Storage(tmp_path)
    assert scalars(local.child("tensorboard").child(run.name), "unet/loss") == [(1, 2.0), (2, 1.0)]
    (row,) = Page(local).rows().values()
    assert row.sessions[0].status == api_pb2.STATUS_SUCCESS


def test_a_store_out_of_reach_costs_the_charts_and_not_the_trial(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = Remote(tmp_path)
    experiment.broken = True
    with TensorBoardRun(experiment, mixed_space(), 0, PARAMS) as run:
        run.scalars(1, {"unet/loss": 2.0})
    assert "no route to host" in caplog.text


# --- names, pictures, the command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trial", "values", "seed", "expected"),
    [
        (12, {"unet.high_level_weight": 0.3, **STEPS}, None, "012 R4 L60 λ0.3"),
        (12, STEPS, 1, "seed 1 of 012 R4 L60"),
        (1234, {}, None, "1234"),
        (0, {"unet.learning_rate": 0.0012345}, None, "000 ulr0.0012"),
        (0, {"unet.high_level_weight": 0.1 + 0.2}, None, "000 λ0.3"),
        (0, {"gan.steps": 2_000_000, "unet.pixel_weight": 250.0}, None, "000 gs2000000 upw250"),
        (0, {"projector.distance": "l2", "gan.ema": False}, None, "000 ge-off l2"),
        (0, {"a.b": "../x y/z", "c.d": None, "e.f": ""}, None, "000 ..-x-y-z cd-none ef-none"),
    ],
)
def test_run_name(trial: int, values: dict[str, Any], seed: int | None, expected: str) -> None:
    assert run_name(trial, values, seed) == expected


def test_a_run_name_stays_a_short_single_folder() -> None:
    name = run_name(3, {f"unet.parameter_{index}": "long/value" * 3 for index in range(20)})
    assert name.startswith("003 ")
    assert len(name) <= 80
    assert "/" not in name


def test_grid_has_a_captioned_row_for_each_kind() -> None:
    sheet = Image.open(io.BytesIO(events.grid(digits(), ("original", "attacked", "GAN", "denoised"))))
    plain = Image.open(io.BytesIO(events.grid(digits())))
    assert plain.size == (8 * 60, 4 * 60)
    assert sheet.height == plain.height
    assert sheet.width > plain.width


@pytest.mark.parametrize("kind", ["float", "uint8", "tensor"])
def test_grid_takes_tensors_and_arrays_alike(kind: str) -> None:
    images: Any = digits()
    expected = events.grid(np.rint(images * 255).astype(np.uint8))
    if kind == "tensor":
        images = pytest.importorskip("torch").from_numpy(images).requires_grad_()
    elif kind == "uint8":
        images = np.rint(images * 255).astype(np.uint8)
    assert events.grid(images) == expected


def test_grid_refuses_what_is_not_rows_of_images() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(rows, N, 1 or 3, H, W\), found \(4, 28, 28\)"):
        events.grid(np.zeros((4, 28, 28)))
    with pytest.raises(ValueError, match=r"expected one for each of 4 rows, found \['a'\]"):
        events.grid(digits(), ["a"])


def test_the_rows_of_images_are_named_by_the_purifier(tmp_path: Path) -> None:
    images = digits()
    for name, title in (("projector", "GAN"), ("smoothing", "median smoothing")):
        space = parse_space(f"unet.high_level_weight: {{low: 1, high: 2}}\ndefense.purifier: {name}", "one", "one.yaml")
        with TensorBoardRun(Storage(tmp_path / name), space, 0, {"unet.high_level_weight": 1.0}) as run:
            run.images("images/validation", images)
        png = events.grid(images, ("original", "attacked", title, "denoised"))
        assert b"".join(map(run.folder.read, run.folder.names())).count(png) == 1


def test_a_figure_is_a_png(tmp_path: Path) -> None:
    png = events.grid(digits())
    with TensorBoardRun(Storage(tmp_path), mixed_space(), 0, PARAMS) as run:
        run.figure("projection/R × L map", png)
        with pytest.raises(ValueError, match="map: expected the bytes of a PNG file"):
            run.figure("map", b"JFIF")
    assert b"".join(map(run.folder.read, run.folder.names())).count(png) == 1


def test_the_command_is_quoted_and_starts_this_interpreters_tensorboard(tmp_path: Path) -> None:
    command = shlex.split(tensorboard_command(Storage(tmp_path / "my results" / "λ")))
    assert command[command.index("--logdir") + 1] == str(tmp_path / "my results" / "λ" / "tensorboard")
    assert command[-2:] == ["--host", "localhost"]
    version = subprocess.check_output([*command[:3], "--version"], text=True, timeout=60)
    assert re.match(r"\d+\.\d+", version)


def test_the_command_names_the_server_of_an_s3_compatible_store() -> None:
    storage = Storage("s3://bucket/my%20search?endpoint_override=localhost:9000&scheme=http&region=us-east-1")
    command = shlex.split(tensorboard_command(storage))
    assert command[:2] == ["env", "S3_ENDPOINT=http://localhost:9000"]
    assert command[command.index("--logdir") + 1] == "s3://bucket/my search/tensorboard"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    run = TensorBoardRun(Storage(tmp_path), mixed_space(), 0, PARAMS).__enter__()
    assert run._file is not None
    run._file.close()
    run._file = Path("/dev/full").open("ab")  # noqa: SIM115
    for write in (lambda: run.scalars(1, {"unet/loss": 0.5}), lambda: run.close("finished")):
        with pytest.raises(OSError, match="No space left on device") as caught:
            write()
        assert str(caught.value.filename).startswith(str(tmp_path))
