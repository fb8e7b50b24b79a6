"""A mixed search in TensorBoard's files: finished, failed, pruned and killed trials, and a condition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune.monitor.tensorboard import TensorBoardRun, close_run, write_experiment
from tune.space.space import SearchSpace, parse_space
from tune.storage.folder import Storage

SPACE = """
projector.restarts: {choice: [1, 2, 4]}
projector.steps: {low: 10, high: 60, step: 10}
unet.high_level_weight: {low: 0.01, high: 10.0, log: true}
projector.distance: {choice: [l2, insensitive]}
projector.tolerance: {low: 0.1, high: 0.4, when: {projector.distance: insensitive}}
"""


def mixed_space() -> SearchSpace:
    return parse_space(SPACE, "mixed", "mixed.yaml")


def params(restarts: int, steps: int, weight: float, tolerance: float | None = None) -> dict[str, Any]:
    """Parameters of one trial; with a tolerance the condition holds, without one it does not."""
    values = {
        "projector.restarts": restarts,
        "projector.steps": steps,
        "unet.high_level_weight": weight,
        "projector.distance": "l2" if tolerance is None else "insensitive",
    }
    return values if tolerance is None else {**values, "projector.tolerance": tolerance}


TRIALS: dict[int, tuple[str, dict[str, Any]]] = {
    0: ("finished", params(4, 60, 0.3)),
    1: ("finished", params(2, 30, 1.5, 0.25)),
    2: ("failed", params(1, 10, 0.02)),
    3: ("pruned", params(4, 20, 10.0, 0.1)),
    4: ("killed", params(1, 40, 0.5, 0.4)),
    5: ("finished", params(1, 50, 4.0)),
}


def metrics(trial: int) -> dict[str, float]:
    """What a trial that gets so far has measured."""
    values = TRIALS[trial][1]
    return {
        "psd": 0.8 + trial / 100,
        "pco": 0.9 + trial / 200,
        "cost": values["projector.restarts"] * values["projector.steps"],
        "images_per_second": 250.0 + trial,
        "validation_loss": 0.5 - trial / 50,
    }


def digits() -> npt.NDArray[np.float32]:
    """A four-row grid (4, 8, 1, 28, 28) of rings: clean, attacked, projected, denoised."""
    y, x = np.mgrid[:28, :28] - 13.5
    radii = np.arange(5, 13)[:, None, None]
    rings = np.exp(-(((x * x + y * y) - radii**2) ** 2) / 900)
    noise = 0.3 * np.sign(np.random.default_rng(0).standard_normal(rings.shape))
    rows = [rings, (rings + noise).clip(0, 1), 0.8 * rings, 0.95 * rings]
    return np.stack(rows)[:, :, None].astype(np.float32)


def write_mixed_search(folder: Path) -> Storage:
    """The whole search, as trials and the driver would write it."""
    experiment, space = Storage(folder), mixed_space()
    write_experiment(experiment, space, "defense")
    for trial, (status, values) in TRIALS.items():
        if status == "killed":
            close_run(experiment, space, trial, values, "failed")
            continue
        with TensorBoardRun(experiment, space, trial, values) as run:
            for step in range(0, values["projector.steps"] + 1, 10):
                run.scalars(step, {"projection/error": 0.01 + 0.05 * 0.95**step})
            if status == "failed":
                run.scalars(1, {"unet/loss": math.nan})
                run.metrics({"psd": math.nan, "pco": math.inf})
                run.close("failed")
                continue
            for epoch in range(1, 3 if status == "pruned" else 7):
                run.scalars(epoch, {"unet/loss": 1 / epoch, "unet/validation_loss": 1.1 / epoch})
            run.metrics(metrics(trial))
            if status == "pruned":
                run.close("pruned")
            else:
                run.images("images/validation", digits())
    with TensorBoardRun(experiment, space, 1, TRIALS[1][1], seed=0) as run:
        run.metrics({"psd": 0.875, "pco": 0.95})
    return experiment
