"""Everything that is checked before anything is started or written."""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.classifiers.defense_gan import Classifier
from components.datasets import DataError, Dataset, load_dataset
from components.files import read_json
from components.pretrained import shipped_folder
from tune.execution.estimate import count, free_bytes, readable
from tune.pipeline.recipe import bounds_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, SpaceError, load_space, parse_space
from tune.storage.folder import Storage
from tune.storage.mounts import existing


class Refused(ValueError):
    """The search cannot start as asked; the message says where, what was expected and what was found."""


@dataclass(frozen=True)
class Plan:
    """A search that may start.

    Attributes:
        space: with the command line's overrides.
        config: one configuration of it, for what all have in common.
        dataset: read and checked.
        storage: of experiments and store.
        name: of the experiment.
        resumed: whether it exists already.
    """

    space: SearchSpace
    config: ExperimentConfig
    dataset: Dataset
    storage: Storage
    name: str
    resumed: bool

    @property
    def home(self) -> Storage:
        """The experiment's folder."""
        return self.storage.child(self.name)


def prepare(
    space: str,
    overrides: Mapping[str, Any],
    storage: str,
    name: str | None,
    data_dir: str | None,
    *,
    resume: bool,
) -> Plan:
    """Checks a search and reads its data; writes nothing.

    Raises:
        Refused: with one message that says what to change.
    """
    try:
        loaded = load_space(space, overrides)
        place = Storage(storage)
        name = _name(name or loaded.name)
        existing = place.child(name).exists("space.yaml")
        if existing:
            loaded = _same(loaded, place.child(name), name, resume=resume)
        config = loaded.config(_any_point(loaded))
        dataset = _data(config, data_dir)
        if existing:
            _check_same_data(place.child(name), dataset)
    except (SpaceError, DataError) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Refused(f"storage: {error}") from error
    except ValueError as error:
        raise Refused(str(error)) from error
    _check_networks(loaded, config, dataset)
    _check_writable(place)
    _check_room(loaded, dataset, place, name)
    return Plan(loaded, config, dataset, place, name, existing)


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "store":
        raise Refused(f"--name: expected letters, digits, '.', '_' or '-' (and not 'store'), found {name!r}")
    return name


def _same(space: SearchSpace, home: Storage, name: str, *, resume: bool) -> SearchSpace:
    """The space of a search that is resumed; only its number of trials may have changed."""
    if not resume:
        raise Refused(
            f"--name: expected a new experiment, found {name} in {home.uri}; "
            f"add --resume to continue it, or choose another --name"
        )
    before = parse_space(home.read("space.yaml").decode(), name, f"{home.uri}/space.yaml")
    free = {"search.trials", "search.max_cost", "search.retrain_seeds", "search.retries"}
    differing = [
        key
        for key in sorted({*before.fixed, *before.ranges, *space.fixed, *space.ranges} - free)
        if before.fixed.get(key) != space.fixed.get(key) or before.ranges.get(key) != space.ranges.get(key)
    ]
    if differing:
        raise Refused(
            f"{differing[0]}: expected what {home.uri}/space.yaml says, found another value or range; "
            f"a resumed search keeps its space (choose another --name for a new one)"
        )
    return space


def _check_same_data(home: Storage, dataset: Dataset) -> None:
    """The trials of one search are compared with each other, so they must have seen the same images."""
    try:
        before = json.loads(home.read("record.json"))["data"]
        known = [before["fingerprint"], before["test_fingerprint"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # no record, or a damaged one: it is written again
    if known != [dataset.fingerprint, dataset.test_fingerprint]:
        raise Refused(
            f"data.name: expected the images that {home.uri} was begun with, found others in {dataset.name}; "
            f"a resumed search keeps its data (choose another --name for a new one)"
        )


def _any_point(space: SearchSpace) -> dict[str, Any]:
    """Some parameters of the space, to look at what all its configurations share."""
    params: dict[str, Any] = {}
    for key, values in space.ranges.items():
        if space.applies(key, params):
            listed = values.values()
            params[key] = listed[0] if listed else values.high  # type: ignore[union-attr]
    return params


def _data(config: ExperimentConfig, data_dir: str | None) -> Dataset:
    return load_dataset(config.data.name, data_dir, config.search.seed, config.data.validation_fraction)


def _check_networks(space: SearchSpace, config: ExperimentConfig, dataset: Dataset) -> None:
    """The networks that the space names fit each other and the images."""
    for architecture in space.values("classifier.architecture") or ():
        try:
            network = Classifier(architecture, dataset.image_shape, dataset.classes)
        except ValueError as error:
            raise Refused(f"classifier.architecture: {architecture}: {error} ({space.source})") from error
        for layer in space.values("unet.layer") or ():
            if layer not in (*network.layer_names, "penultimate"):
                known = ", ".join((*network.layer_names, "penultimate"))
                raise Refused(f"unet.layer: expected one of {known}, found {layer!r} ({space.source})")
    encoded = config.gan.encoder_steps > 0
    if config.gan.pretrained:
        facts = read_json(shipped_folder(config.gan.pretrained) / "gan.json")
        shape, encoded = tuple(facts["image_shape"]), bool(facts["encoder_width"])
        if shape != dataset.image_shape:
            raise Refused(
                f"gan.pretrained: expected images of {shape}, found {dataset.image_shape} ({space.source})"
            )
    if "encoder" in (space.values("projector.init") or ()) and not encoded:
        raise Refused(
            f"projector.init: expected random or bank, or gan.encoder_steps above 0, found encoder ({space.source})"
        )


def _check_writable(storage: Storage) -> None:
    """A small file can be written there; it is gone again, and no folder is made for it."""
    if storage.local is None:
        return _check_bucket(storage)
    folder = existing(storage.local)
    if not folder.is_dir():
        raise Refused(f"--storage: expected a folder, found the file {folder}")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # more than os.access knows: also of read-only disks
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        raise Refused(f"--storage: expected a folder that can be written, found {folder}: {error.strerror}") from error


def _check_room(space: SearchSpace, dataset: Dataset, storage: Storage, name: str) -> None:
    """The disk holds what is estimated to be built: a search that ends with a full disk has wasted hours."""
    free = free_bytes(storage)
    try:
        needed = count(space, dataset, storage, storage.child(name), bounds_of(space)).bytes()
    except ValueError as error:  # networks that the images are too small for
        raise Refused(f"{error} ({space.source})") from error
    if free is not None and needed > free:
        raise Refused(
            f"--storage: expected {readable(needed)} of free disk for the estimated artifacts, "
            f"found {readable(free)} in {storage.uri}"
        )


def _check_bucket(storage: Storage) -> None:
    name = f".preflight-{uuid.uuid4().hex}"
    try:
        storage.write(name, b"0")
        storage.delete(name)
    except OSError as error:
        raise Refused(f"--storage: expected an object store that can be written, found {error}") from error
