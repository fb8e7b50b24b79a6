"""A saved defense: weights as safetensors, the rest as JSON, and a manifest with the hash of every file."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from components.classifiers.base import ImageClassifier
from components.classifiers.catalogue import known, network_of
from components.classifiers.victim import Victim, as_classifier
from components.classifiers.weights import packed
from components.config import current, explain
from components.files import read_json, sha256_file, write_atomic, write_json
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.unet.network import UNet

FORMAT = 2  # of the saved folder; raised when an older reader would misread it

Described = tuple[dict[str, Any], ProjectorConfig, int]


class DefenseError(ValueError):
    """A saved defense that cannot be used: missing, damaged, or of another architecture."""


def write_parts(
    folder: Path, projector: Projector, unet: UNet, classifier: ImageClassifier, discriminator: Discriminator
) -> None:
    """Writes the networks and their description; the manifest, which makes the folder valid, last."""
    generator: Any = projector.generator
    parts: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
    if projector.config.init == "encoder" and projector.encoder is not None:
        parts["encoder"] = projector.encoder
    parts |= {"unet": unet, "classifier": classifier.network}
    description = {
        "image_shape": list(classifier.image_shape),
        "classifier": _needs(classifier),
        "generator": {"latent_dim": generator.latent_dim, "width": generator.width},
        "discriminator": {"width": discriminator.width},
        "encoder": {"width": getattr(projector.encoder, "width", 0)},
        "unet": {"width": unet.width, "depth": unet.depth, "input": unet.input},
        "projector": {**projector.config.model_dump(), "seed": projector.seed},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # until the new one stands, this is no defense
    write_json(folder / "defense.json", description)
    for name, part in parts.items():
        tensors = {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}
        write_atomic(folder / f"{name}.safetensors", save(tensors))
    files = ["defense.json", *(f"{name}.safetensors" for name in parts)]
    hashes = {name: sha256_file(folder / name) for name in files}
    write_json(folder / "manifest.json", {"format": FORMAT, "sha256": hashes})


def read_parts(folder: Path, classifier: nn.Module | None = None) -> Described:
    """The networks by name, the projector's settings and its seed; nothing is unpickled.

    Args:
        folder: the saved defense.
        classifier: the module that it defends, where no name says how to build that.

    Raises:
        DefenseError: a file is missing, damaged or of another architecture, and which; or it defends another
            classifier.
    """
    hashes = _hashes(folder)
    _verify(folder, "defense.json", hashes)
    parts, config, seed = _described(folder / "defense.json", classifier)
    for name, part in parts.items():
        _verify(folder, f"{name}.safetensors", hashes)
        load_weights(part.network if name == "classifier" else part, folder / f"{name}.safetensors")
    return parts, config, seed


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
        return network_of(architecture, shape, classes)
    try:
        own = isinstance(given, ImageClassifier)
        means = {name: described[name] for name in ("mean", "std") if name in described}
        found = given if own else Victim(given, shape, classes, **means)
        classifier = as_classifier(found, shape, classes, architecture)
    except ValueError as error:
        raise DefenseError(f"classifier: {error} ({path})") from error
    facts = _needs(classifier)
    for name in ("weights", "mean", "std"):
        if (expected := described.get(name)) is not None and facts.get(name) != expected:
            short = [str(value)[:12] + "…" if name == "weights" else value for value in (expected, facts.get(name))]
            raise DefenseError(f"classifier: expected {name} {short[0]}, found {short[1]} ({path})")
    return copy.deepcopy(classifier)


def _is_known(architecture: str) -> bool:
    try:
        return bool(known(architecture))
    except ValueError:
        return False


def _described(path: Path, classifier: nn.Module | None = None) -> Described:
    """The networks without their weights, and the projector's settings and seed."""
    try:
        described = read_json(path)
        shape = tuple(described["image_shape"])
        settings = dict(described["projector"])
        seed = int(settings.pop("seed"))
        config = ProjectorConfig.model_validate(current(ProjectorConfig, settings))
        parts: dict[str, Any] = {
            "generator": Generator(**described["generator"], image_shape=shape),
            "discriminator": Discriminator(**described["discriminator"], image_shape=shape),
            "unet": UNet(shape[0], **described["unet"]),
            "classifier": _classifier(described["classifier"], shape, classifier, path),
        }
        if config.init == "encoder":
            latent_dim = described["generator"]["latent_dim"]
            parts["encoder"] = Encoder(latent_dim, described["encoder"]["width"], shape)
        return parts, config, seed
    except DefenseError:
        raise
    except ValidationError as error:
        raise DefenseError(explain(error, ProjectorConfig, str(path))) from error
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DefenseError(f"{path}: expected the description of a defense, found {error!r}") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads safetensors into `module`.

    Raises:
        DefenseError: the file is missing, damaged, or fits another architecture.
    """
    try:
        module.load_state_dict(load(path.read_bytes()))
    except FileNotFoundError as error:
        raise DefenseError(f"{path}: expected safetensors, found no such file") from error
    except SafetensorError as error:
        raise DefenseError(f"{path}: expected safetensors, found {error}") from error
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip()
        name = type(module).__name__
        raise DefenseError(f"{path}: expected the weights of {name} as described, found {problem}") from error


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
        raise DefenseError(f"{folder}: expected a saved defense, found no manifest.json") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DefenseError(f"{path}: expected a manifest, found {error!r}") from error
    if version != FORMAT:
        raise DefenseError(f"{path}: expected format {FORMAT}, found {version!r}")
    return hashes
