"""A saved defense: weights as safetensors, the rest as JSON, and a manifest with the hash of every file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from components import catalog  # noqa: F401  (its purifiers can be read)
from components.classifiers.defense_gan import Classifier
from components.config import current, explain
from components.files import read_json, sha256_file, write_json
from components.networks import NETWORKS, Described
from components.purifiers import PURIFIERS, Purifier, PurifierConfig
from components.weights import WeightsError, load_weights, save_weights

FORMAT = 2  # of the saved folder; raised when an older reader would misread it


class DefenseError(ValueError):
    """A saved defense that cannot be used: missing, damaged, or of another architecture."""


@dataclass(frozen=True)
class Parts:
    """What a saved defense consists of.

    Attributes:
        networks: by name: unet, classifier, discriminator where there is one, and those of the purifier.
        config: settings of the purifier.
        seed: of the purifier.
    """

    networks: dict[str, Any]
    config: PurifierConfig
    seed: int


def write_parts(folder: Path, purifier: Purifier, others: Mapping[str, nn.Module], classifier: Classifier) -> None:
    """Writes the networks and their description; the manifest, which makes the folder valid, last."""
    networks: dict[str, nn.Module] = {**purifier.networks, **others}
    section = next(name for name, model in PURIFIERS.items() if isinstance(purifier.config, model))
    description: dict[str, Any] = {
        "image_shape": list(classifier.image_shape),
        "classifier": {"architecture": classifier.architecture, "classes": classifier.classes},
        **{name: network.settings for name, network in networks.items() if isinstance(network, Described)},
        section: {**purifier.config.model_dump(), "seed": purifier.seed},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)  # until the new one stands, this is no defense
    write_json(folder / "defense.json", description)
    for name, network in {**networks, "classifier": classifier}.items():
        save_weights(network, folder / f"{name}.safetensors")
    files = ["defense.json", *(f"{name}.safetensors" for name in (*networks, "classifier"))]
    hashes = {name: sha256_file(folder / name) for name in files}
    write_json(folder / "manifest.json", {"format": FORMAT, "sha256": hashes})


def read_parts(folder: Path) -> Parts:
    """The networks with their weights, and the purifier's settings.

    Raises:
        DefenseError: a file is missing, damaged or of another architecture, and which.
    """
    hashes = _hashes(folder)
    _verify(folder, "defense.json", hashes)
    parts = _described(folder / "defense.json")
    for name, network in parts.networks.items():
        _verify(folder, f"{name}.safetensors", hashes)
        try:
            load_weights(network, folder / f"{name}.safetensors")
        except WeightsError as error:
            raise DefenseError(str(error)) from error
    return parts


def _described(path: Path) -> Parts:
    """The networks without their weights, and the purifier's settings."""
    try:
        described = read_json(path)
        shape = tuple(described["image_shape"])
        config, seed = _purifier(described, path)
        needed = ("unet", *(["discriminator"] if "discriminator" in described else []), *config.needs)
        networks: dict[str, Any] = {name: NETWORKS[name](described, shape) for name in needed}
        networks["classifier"] = Classifier(**described["classifier"], image_shape=shape)
        return Parts(networks, config, seed)
    except DefenseError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DefenseError(f"{path}: expected the description of a defense, found {error!r}") from error


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
        raise DefenseError(f"{folder}: expected a saved defense, found no manifest.json") from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DefenseError(f"{path}: expected a manifest, found {error!r}") from error
    if version != FORMAT:
        raise DefenseError(f"{path}: expected format {FORMAT}, found {version!r}")
    return hashes
