"""A saved defense: weights as safetensors, the rest as JSON, and a manifest with the hash of every file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from components.classifiers.defense_gan import Classifier
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
    folder: Path, projector: Projector, unet: UNet, classifier: Classifier, discriminator: Discriminator
) -> None:
    """Writes the networks and their description; the manifest, which makes the folder valid, last."""
    generator: Any = projector.generator
    parts: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
    if projector.config.init == "encoder" and projector.encoder is not None:
        parts["encoder"] = projector.encoder
    parts |= {"unet": unet, "classifier": classifier}
    description = {
        "image_shape": list(classifier.image_shape),
        "classifier": {"architecture": classifier.architecture, "classes": classifier.classes},
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


def read_parts(folder: Path) -> Described:
    """The networks by name, the projector's settings and its seed; nothing is unpickled.

    Raises:
        DefenseError: a file is missing, damaged or of another architecture, and which.
    """
    hashes = _hashes(folder)
    _verify(folder, "defense.json", hashes)
    parts, config, seed = _described(folder / "defense.json")
    for name, part in parts.items():
        _verify(folder, f"{name}.safetensors", hashes)
        load_weights(part, folder / f"{name}.safetensors")
    return parts, config, seed


def _described(path: Path) -> Described:
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
            "classifier": Classifier(**described["classifier"], image_shape=shape),
        }
        if config.init == "encoder":
            latent_dim = described["generator"]["latent_dim"]
            parts["encoder"] = Encoder(latent_dim, described["encoder"]["width"], shape)
        return parts, config, seed
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
