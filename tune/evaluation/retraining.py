"""The chosen configuration, trained on train + validation once per seed, and the one look at the test images."""

from __future__ import annotations

import io
import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from components.datasets.dataset import DataSplit
from components.defense import Defense
from tune.evaluation.scores import evaluate
from tune.pipeline.attack import split_of
from tune.pipeline.classifier import classifier_of
from tune.pipeline.executor import Executor, Path
from tune.pipeline.gan import gan_of
from tune.pipeline.job import Progress
from tune.pipeline.purifier import purifier_of
from tune.pipeline.stages import final_path_of
from tune.pipeline.unet import QUICK_LIST, read_unet
from tune.space.config import ExperimentConfig
from tune.storage.folder import Storage
from tune.storage.scratch import scratch
from tune.storage.signature import signature_of

log = logging.getLogger(__name__)


def retrain_seed(
    executor: Executor,
    config: ExperimentConfig,
    test: DataSplit,
    home: Storage,
    report: Callable[[Progress], None],
) -> dict[str, Any]:
    """Trains the configuration with the executor's seed, measures it on the test images and keeps both.

    A seed that was measured before is read, not repeated.

    Returns:
        What stands in `best/seeds/<seed>.json`.
    """
    if (known := measured(executor, config, home)) is not None:
        return known
    path = executor.get(config, final_path_of(config), report)
    defense = assemble(executor, path)

    def tell(what: str) -> None:
        report(Progress(f"measuring {what}", 0, 0))

    train, saved = split_of(path.recipe, "train"), executor.seed == config.search.seed  # the first seed's is saved
    scores, pictures = evaluate(defense, config, train, test, tell, saved=saved)
    work = {stage: asdict(done) for stage, done in path.work.items()}
    seconds = {stage: done.seconds for stage, done in path.work.items()}
    stages, settings = path.signatures, settings_hash(config)
    scores |= {"seed": executor.seed, "stages": stages, "settings": settings, "seconds": seconds, "work": work}
    seeds = home.child("best").child("seeds")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pictures)  # type: ignore[arg-type]
    seeds.write(f"{executor.seed}.npz", buffer.getvalue())
    seeds.write(f"{executor.seed}.json", json.dumps(scores, indent=2, allow_nan=False).encode())
    return scores


def measured(executor: Executor, config: ExperimentConfig, home: Storage) -> dict[str, Any] | None:
    """Reads what was measured before with the executor's seed, of the same networks and settings; None = nothing.

    Of an adaptive training, networks are the same for every R and L.
    """
    known = _measured(home.child("best").child("seeds"), f"{executor.seed}.json")
    same = known is not None and known["stages"] == executor.signatures(config, final_path_of(config))
    return known if known is not None and same and _of(known, settings_hash(config)) else None


def settings_hash(config: ExperimentConfig) -> str:
    """A hash of all that the defense and its attacks follow from, without data and search.

    With the list of adaptive attacks: seeds that were measured by an earlier one are not averaged with others.
    """
    names = [name for name in type(config).model_fields if name not in ("data", "search", "others")]
    sections = {name: config.section(name).identity() for name in (*names, *config.others)}
    return signature_of({**sections, "attacks": QUICK_LIST})


def forget_others(home: Storage, seeds: Sequence[int], settings: str) -> None:
    """Removes what was measured with other seeds, or of another configuration than the one chosen now."""
    place = home.child("best").child("seeds")
    for name in place.names():
        known = _measured(place, name) if name.endswith(".json") else None
        if known is not None and not (known.get("seed") in seeds and _of(known, settings)):
            place.delete(name)
            place.delete(name.replace(".json", ".npz"))


def _of(known: Mapping[str, Any], settings: str) -> bool:
    """False where results are known to be of other settings; files written before say nothing."""
    return bool(known.get("settings", settings) == settings)


def _measured(seeds: Storage, name: str) -> dict[str, Any] | None:
    """Results of an earlier run; None where there are none, or where they or their images are damaged."""
    file = name
    try:
        known = json.loads(seeds.read(name))
        file = name.replace(".json", ".npz")
        with np.load(io.BytesIO(seeds.read(file)), allow_pickle=False) as pictures:
            list(pictures.values())
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        log.warning("%s/%s: not readable, damaged; the seed is measured again", seeds.uri, file)
        return None
    return known if isinstance(known, dict) and "stages" in known else None


def assemble(executor: Executor, path: Path) -> Defense:
    """The defense from the artifacts of a final path."""
    inputs = executor.inputs(path)
    discriminator = gan_of(inputs).discriminator if "gan" in inputs.artifacts else None
    network = read_unet(inputs.folder("unet"), inputs.recipe)
    return Defense(purifier_of(inputs.config).component(inputs), network, classifier_of(inputs), discriminator)


def save_defense(
    executor: Executor, config: ExperimentConfig, home: Storage, class_names: Sequence[str] = ()
) -> None:
    """Saves the defense of the executor's seed to `best/`, with the names of its classes where they have any."""
    defense = assemble(executor, executor.get(config, final_path_of(config)))
    defense.class_names = tuple(class_names)
    best = home.child("best")
    if best.local is not None:
        defense.save(best.local)
        return
    with scratch("best") as folder:
        defense.save(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "manifest.json"):  # the manifest last
            best.upload(path, path.name)
