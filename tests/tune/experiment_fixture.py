"""A synthetic but complete experiment's folder: plausible values, nothing trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.tune.digits import images
from tune.report.writer import write_report
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

RESTARTS, STEPS = (1, 2, 4, 8), (10, 20, 30, 40, 50, 60, 70, 80)
EPSILONS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
IMAGES = 2000
CLASSES = 10
FAILED, PRUNED = (5, 17), (9, 14, 21)

SPACE = """\
# what the tests search
data.name: mnist_mini  # the images
classifier.architecture: A
attack.name: fgsm
attack.epsilon: 0.3
attack.labels: 'true'
gan.loss: nonsaturating
gan.latent_dim: 64
projector.restarts: {choice: [1, 2, 4, 8]}
projector.steps: {low: 10, high: 80, step: 10}
projector.distance: {choice: [l2, insensitive]}
projector.tolerance: {low: 0.1, high: 0.4, when: {projector.distance: insensitive}}
unet.high_level_weight: {low: 0.01, high: 10.0, log: true}
unet.width: 16
search.trials: 24
search.seed: 0
search.max_cost: null
"""

RECORD = {
    "command": ["python", "-m", "tune.search", "--space", "quickstart", "--trials", "24", "--seed", "0"],
    "seed": 0,
    "wall_s": 587.3,
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
    "packages": {"torch": "2.14.0", "ray": "2.60.0", "optuna": "5.0.0"},
    "machine": {"system": "Linux", "processors": 2},
    "data": {"name": "mnist_mini", "fingerprint": "9f" * 32, "train": 9000, "validation": 1000, "test": 2000},
}

OBJECTIVES = {
    "defense": {"psd": "max", "cost": "min"},
    "projection": {"psd_gan": "max", "cost": "min"},
    "unet": {"psd": "max"},
    "gan": {"clean_gan": "max"},
}


def write_experiment(folder: Path, target: str = "defense", trials: int = 24, seeds: int = 3) -> Path:
    """Writes everything that a search leaves; targets other than the defense have no test scores."""
    storage = Storage(folder)
    storage.write("space.yaml", f"{SPACE}search.target: {target}\n".encode())
    write_json(storage, "record.json", RECORD)
    ledger = Ledger(storage)
    for number in range(trials):
        ledger.record(outcome(number, target))
    if target != "gan":
        write_json(storage, "validation_map.json", projection_map())
    if target == "defense" and seeds:
        write_best(storage, seeds)
    return folder


def write_json(storage: Storage, name: str, value: Any) -> None:
    storage.write(name, json.dumps(value).encode())


def params_of(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    params: dict[str, Any] = {
        "projector.restarts": int(rng.choice(RESTARTS)),
        "projector.steps": int(rng.integers(1, 9)) * 10,
        "projector.distance": str(rng.choice(["l2", "insensitive"])),
        "unet.high_level_weight": float(10 ** rng.uniform(-2, 1)),
    }
    if params["projector.distance"] == "insensitive":
        params["projector.tolerance"] = round(float(rng.uniform(0.1, 0.4)), 3)
    return params


def outcome(number: int, target: str = "defense") -> Outcome:
    params = params_of(number)
    first = number == 0
    work = {
        "classifier": {"built": int(first), "reused": int(not first), "seconds": 41.2 if first else 0.0},
        "gan": {"built": int(first), "reused": int(not first), "seconds": 263.0 if first else 0.0},
        "projection": {
            "built": int(number < 3),
            "reused": int(number >= 3),
            "seconds": 37.0 if number < 3 else 0.0,
        },
        "unet": {"built": 1, "reused": 0, "seconds": 11.5 + number % 4},
    }
    common = {"trial": number, "params": params, "seed": 0, "seconds": 14.0 + number % 7, "work": work}
    if number in FAILED:
        reason = "RuntimeError: loss is not finite (nan) in epoch 3 | lower unet.learning_rate"
        return Outcome(**common, status="failed", error=f"Traceback …\n  <module>\n{reason}")
    if number in PRUNED:
        return Outcome(**common, status="pruned", intermediate={"1": 0.61, "2": 0.66 + number / 1000})
    return Outcome(**common, status="finished", metrics=_metrics(number, params), intermediate={"1": 0.7, "2": 0.8})


def _metrics(number: int, params: dict[str, Any]) -> dict[str, int | float]:
    """A landscape with a best place: many restarts, some 50 steps, a tolerance near 0.25, a weight near 1."""
    restarts, steps = params["projector.restarts"], params["projector.steps"]
    gan = 0.71 + 0.02 * np.log2(restarts) - 0.00002 * (steps - 50) ** 2
    gan += 0.08 - abs(params["projector.tolerance"] - 0.25) / 3 if "projector.tolerance" in params else 0.0
    psd = gan + 0.06 - 0.012 * np.log10(params["unet.high_level_weight"]) ** 2
    noise = np.random.default_rng(1000 + number).normal(0, 0.004)
    return {
        "psd": round(float(psd + noise), 4),
        "psd_gan": round(float(gan), 4),
        "clean_gan": round(float(gan + 0.14), 4),
        "pco": round(float(psd + noise + 0.01), 4),
        "cost": restarts * steps,
        "validation_loss": 0.2,
    }


def projection_map() -> dict[str, Any]:
    values = [[0.70 + 0.025 * np.log2(r) - 0.00003 * (s - 45) ** 2 for s in STEPS] for r in RESTARTS]
    return {
        "restarts": list(RESTARTS),
        "steps": list(STEPS),
        "psd_gan": np.round(values, 4).tolist(),
        "params": {},
    }


def write_best(storage: Storage, seeds: int) -> None:
    best = storage.child("best")
    choice = {
        "trial": 13,
        "params": params_of(13),
        "rule": "highest validation PSD, ties to the cheaper, then to the earlier trial",
        "objectives": OBJECTIVES["defense"],
        "max_cost": None,
    }
    write_json(best, "choice.json", choice)
    for seed in range(seeds):
        write_json(best.child("seeds"), f"{seed}.json", seed_score(seed))
        best.child("seeds").write(f"{seed}.npz", images(seed))


def seed_score(seed: int) -> dict[str, Any]:
    shift = (0, 13, -9, 4)[seed % 4]  # correctly classified images more than the first seed has
    counts = {
        "pso": 1958,
        "noisy": 187,
        "threshold": 1391 + shift // 3,
        "psd_gan": 1602 + shift,
        "psd_unet": 1288 - shift,
        "psd": 1743 + shift,
        "pco": 1752 + shift,
        "clean_purified": 1878 + shift // 2,
        "clean_gan": 1871 + shift // 2,
        "attacked_label": 211 - shift,
    }
    return {
        "seed": seed,
        "n": IMAGES,
        "metrics": {name: count / IMAGES for name, count in counts.items()},
        "epsilon_images": 1000,
        "epsilon": _over_epsilon(shift / IMAGES),
        "confusion": _confusion(seed, right=counts["psd"]).tolist(),
        "seconds": {"gan": 270.0, "projection": 66.0, "unet": 25.0 + seed},
        "stages": {"gan": "ab" * 32},
        "images_per_second": 143.0 + seed,
    }


def _over_epsilon(shift: float) -> dict[str, list[float]]:
    return {
        "values": EPSILONS,
        "noisy": [0.979, 0.72, 0.31, 0.0935, 0.05, 0.03],
        "threshold": [0.96, 0.93, 0.86, 0.695, 0.41, 0.12],
        "psd_gan": [0.936 + shift, 0.92 + shift, 0.88 + shift, 0.801 + shift, 0.64 + shift, 0.42 + shift],
        "psd": [
            0.939 + shift,
            0.93 + shift,
            0.91 + shift,
            0.8715 + shift,
            0.73 + 2 * shift,
            0.50 + 2 * shift,
        ],
        "pco": [0.945 + shift, 0.936 + shift, 0.915 + shift, 0.876 + shift, 0.735 + shift, 0.505 + shift],
    }


def _confusion(seed: int, right: int) -> np.ndarray:
    """Counts that agree with PSD: `right` on the diagonal, the rest spread, 4 and 9 confused most."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((CLASSES, CLASSES), dtype=int)
    share = np.ones((CLASSES, CLASSES)) - np.eye(CLASSES)
    share[4, 9] = share[9, 4] = share[3, 5] = share[7, 9] = 9
    counts.flat = rng.multinomial(IMAGES - right, (share / share.sum()).ravel())
    per_class = IMAGES // CLASSES
    np.fill_diagonal(counts, per_class - counts.sum(axis=1))
    return counts


def rebuilt(folder: Path) -> dict[str, Any]:
    write_report(folder)
    return json.loads((folder / "report.json").read_text())


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def seed_file(folder: Path, seed: int = 0) -> Path:
    return folder / "best" / "seeds" / f"{seed}.json"


def do_not_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are made, but not drawn, which takes seconds."""

    def blank(figure: Figure, file: IO[Any], format: str, **kwargs: Any) -> None:
        file.write(b"" if format == "png" else '<svg viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr(Figure, "savefig", blank)
