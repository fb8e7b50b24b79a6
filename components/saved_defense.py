"""A saved defense: weights as safetensors, the rest as JSON, and a manifest with the hash of every file."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from components import catalogue  # noqa: F401  (its purifiers can be read)
from components.classifiers.base import ImageClassifier
from components.classifiers.catalogue import CLASSIFIERS, known, network_of
from components.classifiers.victim import Victim, as_classifier
from components.classifiers.weights import packed
from components.config import current, explain, nearest
from components.files import read_json, sha256_file, write_json
from components.networks import NETWORKS, Described
from components.pretrained import shipped_defense, shipped_defenses
from components.purifiers import PURIFIERS, Purifier, PurifierConfig
from components.weights import WeightsError, load_weights, save_weights

_PRECISIONS = torch.float64, torch.float32, torch.bfloat16, torch.float16
FORMAT = 2  # of the saved folder; raised when an older reader would misread it


class DefenseError(ValueError):
    """A saved defense that cannot be used: missing, damaged, or of another architecture."""


@dataclass(frozen=True)
class Parts:
    """The contents of a saved defense.

    Attributes:
        networks: by name: unet, classifier, discriminator where there is one, and those of the purifier.
        config: settings of the purifier.
        seed: of the purifier.
        class_names: of the classifier's labels; empty where there are none.
    """

    networks: dict[str, Any]
    config: PurifierConfig
    seed: int
    class_names: tuple[str, ...] = ()


def write_parts(
    folder: Path,
    purifier: Purifier,
    others: Mapping[str, nn.Module],
    classifier: ImageClassifier,
    class_names: Sequence[str] = (),
) -> None:
    """Writes the networks and their description; the manifest, which makes the folder valid, last.

    Raises:
        DefenseError: a network cannot be described, and so not be built again; nothing was written.
    """
    networks: dict[str, nn.Module] = {**purifier.networks, **others}
    for name in (*purifier.config.needs, *networks):
        if not isinstance(networks.get(name), Described):
            found = type(networks[name]).__name__ if name in networks else "no torch module"
            raise DefenseError(f"{name}: expected a network with `settings`, to build it again from, found {found}")
    section = next(name for name, model in PURIFIERS.items() if isinstance(purifier.config, model))
    description: dict[str, Any] = {
        "image_shape": list(classifier.image_shape),
        "classifier": _needs(classifier),
        **{name: network.settings for name, network in networks.items()},
        section: {**purifier.config.model_dump(), "seed": purifier.seed},
    }
    if class_names:
        description["class_names"] = list(class_names)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # until the new one stands, this is no defense
    write_json(folder / "defense.json", description)
    for name, network in {**networks, "classifier": classifier.network}.items():
        save_weights(network, folder / f"{name}.safetensors")
    files = ["defense.json", *(f"{name}.safetensors" for name in (*networks, "classifier"))]
    hashes = {name: sha256_file(folder / name) for name in files}
    write_json(folder / "manifest.json", {"format": FORMAT, "sha256": hashes})


def read_parts(folder: Path, classifier: nn.Module | None = None) -> Parts:
    """The networks with their weights, and the purifier's settings.

    Args:
        folder: the saved defense.
        classifier: the module that it defends, where no name says how to build that.

    Raises:
        DefenseError: a file is missing, damaged or of another architecture, and which; or it defends another
            classifier.
    """
    hashes = _hashes(folder)
    _verify(folder, "defense.json", hashes)
    parts = _described(folder / "defense.json", classifier)
    for name, network in parts.networks.items():
        _verify(folder, f"{name}.safetensors", hashes)
        try:
            load_weights(network.network if name == "classifier" else network, folder / f"{name}.safetensors")
        except WeightsError as error:
            raise DefenseError(str(error)) from error
    if classifier is not None:
        _check_weights(classifier, parts.networks["classifier"], folder / "classifier.safetensors")
    return parts


def _needs(classifier: ImageClassifier) -> dict[str, Any]:
    """The classifier that a defense is for, and for a user's own all by which another is told from it."""
    facts: dict[str, Any] = {"architecture": classifier.architecture, "classes": classifier.classes}
    if isinstance(classifier, Victim):
        facts |= {"weights": hashlib.sha256(packed(classifier.network)).hexdigest(), **classifier.normalisation}
    return facts


def _classifier(described: Mapping[str, Any], shape: tuple[int, ...], given: nn.Module | None, path: Path) -> Any:
    """The classifier that a defense is for, by name or as given.

    Raises:
        DefenseError: there is none of that name, or the one given is another.
    """
    architecture, classes = described["architecture"], described["classes"]
    if given is None and "weights" in described and not _is_known(architecture):
        needed = f"its classifier {architecture}, for images {shape} of {classes} classes"
        needed += f" with weights of sha256 {described['weights'][:12]}…"
        remedy = "give it by --plugin FILE.py or Defense.load(folder, classifier=module)"
        raise DefenseError(f"{path}: expected {needed}, found none of that name; {remedy}")
    if given is None:
        named = network_of(architecture, shape, classes)
        _check_normalisation(described, named, f"classifier {CLASSIFIERS.described(architecture)}", path)
        return named
    try:
        own = isinstance(given, ImageClassifier)
        means = {name: described[name] for name in ("mean", "std") if name in described}
        found = given if own else Victim(given, shape, classes, **means)
        classifier = as_classifier(found, shape, classes, architecture)
    except ValueError as error:
        raise DefenseError(f"classifier: {error} ({path})") from error
    _check_normalisation(described, classifier, "classifier", path)
    wanted, has = described.get("weights"), _needs(classifier).get("weights")
    if wanted not in (None, has):
        raise DefenseError(f"classifier: expected weights {wanted[:12]}…, found {str(has)[:12]}… ({path})")
    return copy.deepcopy(classifier)


def _check_normalisation(described: Mapping[str, Any], classifier: ImageClassifier, called: str, path: Path) -> None:
    """Refuses a classifier that shifts or scales its images otherwise than the one that was saved."""
    own = classifier.normalisation if isinstance(classifier, Victim) else {}
    for name, neutral in (("mean", 0.0), ("std", 1.0)):
        expected, found = described.get(name, [neutral]), own.get(name, [neutral])
        if not _alike(expected, found) and {*expected, *found} != {neutral}:
            raise DefenseError(f"{called}: expected {name} {expected}, found {found} ({path})")


def _alike(saved: list[float], found: list[float]) -> bool:
    """True for the same numbers, though the defense may have been saved in another precision."""
    exact = torch.tensor(found, dtype=torch.float64)
    return any(exact.to(kind).tolist() == saved for kind in _PRECISIONS)


def _check_weights(given: nn.Module, loaded: ImageClassifier, path: Path) -> None:
    """Refuses a given classifier of other weights than those saved, which a copy of it has by now."""
    own = given.network if isinstance(given, ImageClassifier) else given
    weights = own.state_dict()
    for name, value in loaded.network.state_dict().items():
        if not torch.equal(value, weights[name]):
            raise DefenseError(f"classifier: expected the weights of {path}, found another {name}")


def _is_known(architecture: str) -> bool:
    try:
        return bool(known(architecture))
    except ValueError:
        return False


def _described(path: Path, classifier: nn.Module | None = None) -> Parts:
    """The networks without their weights, and the purifier's settings."""
    try:
        described = read_json(path)
        shape = tuple(described["image_shape"])
        config, seed = _purifier(described, path)
        needed = ("unet", *(["discriminator"] if "discriminator" in described else []), *config.needs)
        networks: dict[str, Any] = {name: NETWORKS[name](described, shape) for name in needed}
        networks["classifier"] = _classifier(described["classifier"], shape, classifier, path)
        return Parts(networks, config, seed, _class_names(described, path))
    except DefenseError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DefenseError(f"{path}: expected the description of a defense, found {error!r}") from error


def _class_names(described: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names, classes = tuple(map(str, described.get("class_names", ()))), described["classifier"]["classes"]
    if names and len(names) != classes:
        raise DefenseError(f"{path}: class_names: expected {classes}, found {len(names)}")
    return names


def _purifier(described: Mapping[str, Any], path: Path) -> tuple[PurifierConfig, int]:
    section = next((name for name in PURIFIERS if name in described), None)
    if section is None:
        known = ", ".join(PURIFIERS)
        raise DefenseError(f"{path}: expected the description of a defense, found settings of none of {known}")
    model, settings = PURIFIERS[section], dict(described[section])
    seed = int(settings.pop("seed"))
    try:
        return model.model_validate(current(model, settings)), seed
    except ValidationError as error:
        raise DefenseError(explain(error, model, str(path))) from error


def _verify(folder: Path, name: str, hashes: Mapping[str, str]) -> None:
    """Checks one file against the manifest's hashes."""
    if name not in hashes or not (folder / name).is_file():
        raise DefenseError(f"{folder / name}: expected a file of the saved defense, found none")
    if sha256_file(folder / name) != hashes[name]:
        found = "found another; the file is damaged"
        raise DefenseError(f"{folder / name}: expected sha256 {hashes[name][:12]}…, {found}")


def _hashes(folder: Path) -> dict[str, str]:
    """The manifest's sha256 of each file, by name."""
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
        version, hashes = manifest["format"], {str(name): str(sha) for name, sha in manifest["sha256"].items()}
    except (FileNotFoundError, NotADirectoryError) as error:
        shipped = f"; the shipped one is in {shipped_defense(folder.name)}" if folder.name in shipped_defenses() else ""
        shipped = shipped or nearest(folder.name, shipped_defenses())
        if (folder / "best" / "manifest.json").exists():
            shipped = f"; the one of this search is in {folder / 'best'}"
        found = "no manifest.json" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise DefenseError(f"{folder}: expected a saved defense, found {found}{shipped}") from error
    except OSError as error:  # such as a folder, or a pipe, in its place
        raise DefenseError(f"{path}: expected a manifest, found {error.strerror}") from error
    except ValueError as error:  # which names the file
        raise DefenseError(f"{error}; it is damaged") from error
    except (AttributeError, LookupError, TypeError) as error:
        raise DefenseError(f"{path}: expected a manifest, found {error!r}") from error
    if version != FORMAT:
        raise DefenseError(f"{path}: expected format {FORMAT}, found {version!r}")
    return hashes
