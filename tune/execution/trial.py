"""One trial: get or build each stage of its path, report, and record what became of it."""

from __future__ import annotations

import logging
import os
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from components.datasets.dataset import DataSplit
from components.hardware import keep_memory
from tune.execution.gpu_errors import (
    GpuErrorCount,
    GpuLost,
    broken,
    end_process,
    free_memory,
    lacking_gpu,
    out_of_memory,
)
from tune.monitor.heatmap import map_png
from tune.monitor.progress import ProgressChannel, ProgressReporter, tell_tune
from tune.monitor.tensorboard import TensorBoardRun
from tune.pipeline.executor import Executor, Path
from tune.pipeline.purifier import cost
from tune.pipeline.recipe import Bounds, Development, bounds_for, bounds_of
from tune.pipeline.stages import path_of
from tune.planning.user_code import UserCode
from tune.space.config import ExperimentConfig, rungs
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.leases import Leases, file_leases
from tune.storage.ledger import Ledger, Outcome
from tune.storage.outage import outage
from tune.storage.patience import PATIENCE
from tune.storage.store import Store
from tune.storage.uses import Kind, uses_of

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Setting:
    """Settings that all trials of a search share; small enough to be sent with each.

    Attributes:
        space: what is searched.
        storage: address of the storage that holds experiment and store.
        experiment: its name there.
        seed: of the search.
        cpus: per trial, and so its threads.
        gpus: per trial.
        classes: of the data.
        fingerprint: of the data.
        reuse: whether trials share what they build.
        user_code: plug-in, classifier and weights of the user.
        identity: tells the search from any other, also from an earlier one of its name.
    """

    space: SearchSpace
    storage: str
    experiment: str
    seed: int
    cpus: float
    gpus: float
    classes: int
    fingerprint: str
    reuse: bool = True
    user_code: UserCode = field(default_factory=UserCode)
    identity: str = ""

    @property
    def home(self) -> Storage:
        """The experiment's folder."""
        return Storage(self.storage, PATIENCE).child(self.experiment)

    @property
    def store(self) -> Store:
        """The store that all searches of this storage share."""
        return Store(Storage(self.storage, PATIENCE).child("store"))

    def trial_executor(self, data: Development, config: ExperimentConfig, number: int) -> Executor:
        """The executor of one trial: with the shared store, or with `--no-reuse` a store of its own."""
        owner = f"trial {number}"
        if self.reuse:
            return self.executor(data, bounds_of(self.space), self.seed, owner, uses="trials")
        return self.executor(data, bounds_for(config), self.seed, owner, self.unshared.child(f"{number:03d}"))

    @property
    def unshared(self) -> Storage:
        """The folder of the stores of trials that share nothing; the driver removes each once its trial is over."""
        return self.home.child("unshared")

    def executor(
        self,
        data: Development,
        bounds: Bounds,
        seed: int,
        owner: str,
        storage: Storage | None = None,
        uses: Kind = "trainings",
    ) -> Executor:
        """The executor of a trial or a training, `owner`, for this search's store, noting what it uses, or for the
        store in `storage`.
        """
        keep_memory()
        threads = max(1, int(self.cpus))
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        store = Store(storage) if storage else self.store
        device = torch.device("cuda" if self.gpus and torch.cuda.is_available() else "cpu")
        notes = None if storage else uses_of(self.home, uses)
        return Executor(store, leases_of(store), data, bounds, seed, device, notes, f"{self.identity} {owner}")


def run_trial(config: dict[str, Any], *, setting: Setting, arrays: Arrays, channel: ProgressChannel) -> None:
    """Ray Tune's trainable: runs trial `config["trial"]` with `config["params"]` and records its outcome.

    A failure of its own is an outcome like any other. What kills the process leaves none, and the trial runs again.
    A storage that fails ends the search, and not the trial, which is told to the driver. After an error in a GPU's
    kernel the process ends itself, as nothing more can be computed in it.
    """
    # for what a trial that is stopped or paused still writes; after them Tune fails the next one in its process
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    try:
        _run_trial(config, setting, arrays, channel)
    except GpuLost as error:
        end_process(error)
    except Exception as error:
        if reason := outage(error):
            tell_tune({"trial": int(config["trial"]), "outage": reason})
        raise


def _run_trial(config: Mapping[str, Any], setting: Setting, arrays: Arrays, channel: ProgressChannel) -> None:
    setting.user_code.install(setting.home)  # in this process nobody has run the plug-in yet
    number, params = int(config["trial"]), dict(config["params"])
    ledger = Ledger(setting.home)
    tell_tune({"trial": number})  # the driver learns the number even of a trial that dies at once
    promotions = int(config.get("promotions", 0))
    if ledger.outcome(number, promotions) is not None:
        return  # it had ended just before its worker was lost
    earlier = ledger.outcome(number) if promotions else None
    with TensorBoardRun(setting.home, setting.space, number, params) as run:
        reporter = ProgressReporter(number, channel, run, True, config.get("before", 0.0), earlier)
        outcome, path = attempt(setting, development(setting, arrays), number, params, reporter)
        run.metrics({**outcome.metrics, **reporter.speed})
        if path is not None:
            _show(path, setting.space.config(params), run)
        run.close(outcome.status)
        outcome = ledger.record(outcome)  # last: who has a record never runs again, so TensorBoard must have all of it
    channel.tell(number, None)
    if setting.home.local is None:
        tell_tune({"trial": number, "outcome": outcome.model_dump_json()})  # so that the driver need not ask for it
    if broken(outcome.error or ""):
        raise GpuLost(outcome.error)


def attempt(
    setting: Setting, data: Development, number: int, params: Mapping[str, Any], reporter: ProgressReporter
) -> tuple[Outcome, Path | None]:
    """The outcome of one trial, finished or failed by its own error, and its artifacts where it has them all.

    Raises:
        Exception: the storage's, where that has failed and the trial has not.
        GpuLost: an error in a GPU's kernel, the first of this trial, which is to run again in another process.
    """
    path = None
    known: dict[str, Any] = {"trial": number, "params": dict(params), "seed": setting.seed}
    try:
        if reason := lacking_gpu(setting.gpus):
            raise RuntimeError(reason)
        space = setting.space
        config = space.config(params)
        reporter.cost = cost(config)
        reporter.rungs = rungs(config.search.warmup_epochs, config.unet.epochs)
        executor = setting.trial_executor(data, config, number)
        path = executor.get(config, path_of(config), reporter)
        (score,) = path.artifacts[path_of(config)[-1]]
        known |= {"metrics": dict(score.metrics), "stages": path.signatures}
        status, error = "finished", None
    except Exception as caught:  # any error of a trial's own is recorded, and the search goes on
        if outage(caught):
            raise
        if broken(str(caught)) and GpuErrorCount(setting.home).first(number, caught):
            raise GpuLost(f"{type(caught).__name__}: {caught}") from caught
        logging.getLogger(__name__).debug("trial %d", number, exc_info=True)
        status, error = "failed", last_line(caught, setting.gpus)
    if error:
        free_memory()
    known |= {"intermediate": reporter.intermediate, "right": reporter.right, "work": reporter.work()}
    known |= {"seconds": reporter.seconds, "ended": round(time.time(), 3), "earlier": reporter.earlier}
    return Outcome(status=status, error=error, **known).settled(), path  # type: ignore[arg-type]


def last_line(error: Exception, gpus: float) -> str:
    """The end of an error's traceback, in one line; of a card's lack of memory, what to change."""
    said = out_of_memory(error, gpus) or traceback.format_exception_only(error)[-1]
    return " ".join(said.split())


def _show(path: Path, config: ExperimentConfig, run: TensorBoardRun) -> None:
    """The pictures of a trial: its images by stage, the map over R and L, and how the projection error falls."""
    for score in path.artifacts.get("score_unet", ()):
        run.images("images/validation", load_file(score.folder / "examples.safetensors")["examples"])
    for found in path.artifacts.get("map", ()):
        for step, error in zip(found.metrics["steps"], found.metrics["error"], strict=True):
            run.scalars(step, {"projection/error": error})
        run.figure("projection/R × L map", map_png(found.metrics, config.projector.restarts, config.projector.steps))


def arrays_of(**splits: DataSplit) -> dict[str, NDArray[Any]]:
    """Splits as arrays, which Ray shares between the workers of a node without copying."""
    return {
        f"{name}_{kind}": getattr(split, kind).numpy()
        for name, split in splits.items()
        for kind in ("images", "labels")
    }


def split_of(arrays: Arrays, name: str) -> DataSplit:
    """One split from `arrays_of`, on the shared memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")  # and nothing here writes to it
        return DataSplit(
            torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_labels"])
        )


def development(setting: Setting, arrays: Arrays) -> Development:
    """The images that the stages of a trial may use: training and validation."""
    return Development(
        split_of(arrays, "train"), split_of(arrays, "validation"), setting.classes, setting.fingerprint
    )


def leases_of(store: Store) -> Leases:
    """Leases by file locks where the store has them, else by the cluster's coordinator."""
    from tune.cluster.leases import ClusterLeases

    return file_leases(store.storage) or ClusterLeases()


@contextmanager
def prepared(setting: Setting) -> Iterator[None]:
    """Within the block a task of Ray's that is no trial has what it needs, and its GPU's errors in words.

    Raises:
        RuntimeError: there is no GPU where one was asked for, or it is out of memory.
    """
    if reason := lacking_gpu(setting.gpus):
        raise RuntimeError(reason)
    setting.user_code.install(setting.home)  # in this process nobody may have run the plug-in yet
    try:
        yield
    except RuntimeError as error:
        if broken(str(error)):
            end_process(error)  # Ray runs it again in another process
        if reason := out_of_memory(error, setting.gpus):
            raise RuntimeError(reason) from error
        raise
