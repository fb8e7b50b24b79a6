"""The checks of data, networks, storage and disk, before anything is started or written."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.classifiers.defense_gan import Classifier
from components.datasets import Dataset, load_dataset
from components.files import read_json
from components.pretrained import shipped_folder
from tune.errors import Refused
from tune.execution.estimate import count, free_bytes, readable
from tune.execution.experiment import Experiment
from tune.pipeline.recipe import bounds_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace
from tune.storage.folder import Storage
from tune.storage.mounts import existing
from tune.storage.record import recorded


@dataclass(frozen=True)
class Plan(Experiment):
    """A search that may start.

    Attributes:
        config: one configuration of its space, for what all have in common.
        dataset: read and checked.
    """

    config: ExperimentConfig
    dataset: Dataset


def prepare(experiment: Experiment, data_dir: str | None) -> Plan:
    """Reads the data and checks that networks, images and disk fit; writes nothing.

    Raises:
        Refused: with one message that says what to change.
    """
    space, place = experiment.space, experiment.storage
    try:
        config = space.config(_any_point(space))
        dataset = load_dataset(config.data.name, data_dir, config.search.seed, config.data.validation_fraction)
    except ValueError as error:
        raise Refused(str(error)) from error
    if experiment.resumed:
        _check_same_data(experiment, dataset)
    _check_networks(space, config, dataset)
    _check_writable(place)
    _check_room(experiment, dataset)
    return Plan(space, place, experiment.name, experiment.resumed, config, dataset)


def _check_same_data(experiment: Experiment, dataset: Dataset) -> None:
    """The trials of one search are compared with each other, so they must have seen the same images, from anywhere."""
    before = recorded(experiment.home).get("data")
    if not isinstance(before, Mapping) or "fingerprint" not in before:
        return  # no record, or a damaged one: it is written again
    known = [before["fingerprint"], before.get("test_fingerprint")]
    seen = [dataset.fingerprint, dataset.test_fingerprint]
    if known != seen:
        expected = f"expected the images that {experiment.home.uri} was begun with, {_named(before.get('name'), known)}"
        found = f"found others, {_named(experiment.space.fixed['data.name'], seen)}"
        raise Refused(
            f"data.name: {expected}, {found}; a resumed search keeps its data (choose another --name for a new one)"
        )


def _named(name: object, fingerprints: Sequence[object]) -> str:
    """`mnist (train 0123456789ab, test ba9876543210)`."""
    train, test = (str(fingerprint)[:12] for fingerprint in fingerprints)
    return f"{name or 'unnamed'} (train {train}, test {test})"


def _any_point(space: SearchSpace) -> dict[str, Any]:
    """Some parameters of the space, to look at what all its configurations share."""
    params: dict[str, Any] = {}
    for key, values in space.ranges.items():
        if space.applies(key, params):
            listed = values.values()
            params[key] = listed[0] if listed else values.high  # type: ignore[union-attr]
    return params


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


def _check_room(experiment: Experiment, dataset: Dataset) -> None:
    """The disk holds what is estimated to be built: a search that ends with a full disk has wasted hours."""
    space, storage = experiment.space, experiment.storage
    free = free_bytes(storage)
    try:
        needed = count(space, dataset, storage, experiment.home, bounds_of(space)).bytes()
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
