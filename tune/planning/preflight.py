"""The checks of data, networks, storage and disk, before anything is started or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.attacks import ATTACKS, AttackError, attack
from components.classifiers.base import PENULTIMATE, ClassifierError, ImageClassifier
from components.classifiers.catalogue import CLASSIFIERS, network_of
from components.classifiers.training import check_trainable
from components.classifiers.weights import file_of, put_weights
from components.datasets import Dataset, load_dataset
from components.files import read_json
from components.pretrained import shipped_folder
from components.registry import raised
from tune.errors import Refused
from tune.pipeline.recipe import bounds_of
from tune.planning.estimate import count
from tune.planning.experiment import Experiment
from tune.planning.user_code import UserCode
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, probe
from tune.storage.folder import Storage
from tune.storage.mounts import free_bytes
from tune.storage.patience import PATIENCE
from tune.storage.record import recorded
from tune.storage.sizes import size_text
from tune.storage.targets import check_storage


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
        config = space.config(probe(space, {}))
        dataset = load_dataset(config.data.name, data_dir, config.search.seed, config.data.validation_fraction)
    except ValueError as error:
        raise Refused(str(error)) from error
    if experiment.resumed:
        _check_same_data(experiment, dataset)
    user_code = _user_code(experiment)
    _check_classifiers(space, dataset)
    _check_networks(space, config, dataset)
    check_storage(place, "--storage")
    _check_room(experiment, dataset)
    place = Storage(place, PATIENCE)  # from now on there is something to lose
    return Plan(space, place, experiment.name, experiment.resumed, config, dataset, user_code=user_code)


def _user_code(experiment: Experiment) -> UserCode:
    """The user's code with its weights; a resumed search reads the weights in its own folder."""
    home, record = experiment.home, recorded(experiment.home) if experiment.resumed else {}
    begun = UserCode(weights=record.get("weights") or {})
    try:
        user_code = experiment.user_code.with_weights(experiment.space)
    except ValueError as error:
        begun.install(home)
        if not begun.weights:
            raise Refused(f"{error} ({experiment.space.where('classifier.weights')})") from error
        user_code = experiment.user_code.with_weights(experiment.space)
    user_code.check_weights(record, home)
    return user_code


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


def _check_classifiers(space: SearchSpace, dataset: Dataset) -> None:
    """Every classifier that the space names is one of these images, with the layers and weights that it names."""
    for key in ("classifier.architecture", "classifier.weights"):
        for value in space.values(key) or ():
            config = space.config(probe(space, {key: value} if key in space.ranges else {}))
            classifier, layers = _classifier(config, dataset, space)
            for layer in space.values("unet.layer") or ():
                if layer not in layers:
                    found = f"found {layer!r} ({space.where('unet.layer')})"
                    raise Refused(f"unet.layer: expected one of {', '.join(layers)}, {found}")
            if config.attack.name in ATTACKS.sources and (problem := _attack_problem(config, classifier, dataset)):
                raise Refused(f"attack.name: {problem} ({space.where('attack.name')})")


def _classifier(
    config: ExperimentConfig, dataset: Dataset, space: SearchSpace
) -> tuple[ImageClassifier, list[str]]:
    """The classifier that a configuration names, with its weights where it names any, and the names of its layers."""
    settings = config.classifier
    try:
        classifier = network_of(settings.architecture, dataset.image_shape, dataset.classes)
        if settings.architecture in CLASSIFIERS.files:
            _check_new(classifier, network_of(settings.architecture, dataset.image_shape, dataset.classes))
        if settings.weights is None:
            check_trainable(classifier)
        layers = classifier.layer_names
    except ValueError as error:
        where = space.where("classifier.architecture")
        raise Refused(f"classifier.architecture: {error} ({where})") from error
    if settings.weights is not None:
        try:
            named = f"classifier.weights: {settings.weights}"
            put_weights(classifier.network, file_of(settings.weights).read(), named)
        except (OSError, ValueError) as error:
            raise Refused(f"{error} ({space.where('classifier.weights')})") from error
    return classifier, [*layers, PENULTIMATE]


def _check_new(one: ImageClassifier, other: ImageClassifier) -> None:
    """Each call of a plug-in's function makes a network of its own: else a second training would go on from a first."""
    if {*map(id, one.parameters())} & {*map(id, other.parameters())}:
        named = CLASSIFIERS.described(one.architecture)
        raise ClassifierError(f"{named}: expected a new network at each call, found the same weights again")


def _attack_problem(config: ExperimentConfig, classifier: ImageClassifier, dataset: Dataset) -> str | None:
    """Describes what was expected and found where a plug-in's attack does not give images as an attack must."""
    some = dataset.train.subset(2)
    try:
        attack(config.attack, classifier, some.images, some.labels)
    except AttackError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # whatever the code of a plug-in raises
        return f"{ATTACKS.described(config.attack.name)}: expected attacked images, found {raised(error)}"
    return None


def _check_networks(space: SearchSpace, config: ExperimentConfig, dataset: Dataset) -> None:
    """The networks that the space names fit each other and the images."""
    encoded = config.gan.encoder_steps > 0
    if config.gan.pretrained:
        facts = read_json(shipped_folder(config.gan.pretrained) / "gan.json")
        shape, encoded = tuple(facts["image_shape"]), bool(facts["encoder_width"])
        if shape != dataset.image_shape:
            raise Refused(
                f"gan.pretrained: expected images of {shape}, found {dataset.image_shape} "
                f"({space.where('gan.pretrained')})"
            )
    if "encoder" in (space.values("projector.init") or ()) and not encoded:
        expected = "expected random or bank, or gan.encoder_steps above 0"
        raise Refused(f"projector.init: {expected}, found encoder ({space.where('projector.init')})")


def _check_room(experiment: Experiment, dataset: Dataset) -> None:
    """The disk holds what is estimated to be built: a search that ends with a full disk has wasted hours."""
    space, storage = experiment.space, experiment.storage
    free = free_bytes(storage)
    try:
        needed = count(space, dataset, storage, experiment.home, bounds_of(space)).bytes()
    except ValueError as error:  # networks that the images are too small for
        raise Refused(f"{error} ({space.where()})") from error
    if free is not None and needed > free:
        raise Refused(
            f"--storage: expected {size_text(needed)} of free disk for the estimated artifacts, "
            f"found {size_text(free)} in {storage.uri}"
        )
