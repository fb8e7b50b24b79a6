"""The whole defense: projector, then U-Net, in front of the classifier. Read this file first.

    x_adv ── projector ──▶ x_g ── U-Net ──▶ U(x_g) ── classifier ──▶ label
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from components.classifiers.defense_gan import Classifier
from components.config import current, explain
from components.files import read_json, sha256_file, write_atomic, write_json
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.training import freeze
from components.unet.network import UNet, join

FORMAT = 2  # of the saved folder; raised when an older reader would misread it


class DefenseError(ValueError):
    """A saved defense that cannot be used: missing, damaged, or of another architecture."""


@dataclass(frozen=True)
class Purification:
    """What became of each image.

    Attributes:
        generated: x_g, (N, C, H, W) in [0, 1].
        images: U(x_g), likewise.
        label_before: the classifier's label of x_g, int64 (N,).
        label: its label of U(x_g).
        realism: the discriminator's score of x_g, (N,); higher is more like a training image.
        errors: distance between x_g and the image, (N,).
    """

    generated: Tensor
    images: Tensor
    label_before: Tensor
    label: Tensor
    realism: Tensor
    errors: Tensor


class Defense(nn.Module):
    """Purifies images in front of a classifier.

        defense = Defense.load("results/quickstart/best")
        clean = defense.purify(images)      # (N, C, H, W) in [0, 1] → the same
        labels = defense(images).argmax(1)  # logits of the purified images

    Args:
        projector: image → nearest generated image.
        unet: generated image → denoised image.
        classifier: the network to defend.
        discriminator: scores how real a generated image looks.
    """

    def __init__(
        self, projector: Projector, unet: UNet, classifier: Classifier, discriminator: Discriminator
    ) -> None:
        super().__init__()
        self.projector = projector
        self.unet = freeze(unet).to(projector.device)
        self.classifier = freeze(classifier).to(projector.device)
        self.discriminator = freeze(discriminator).to(projector.device)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of the purified images."""
        return in_batches(self.classifier, self.purify(images), self.projector.device)

    def purify(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1], attacked or not → purified images of the same shape and range.

        Raises:
            ValueError: the images have another shape than those the defense was trained on, or leave [0, 1].
        """
        images = self._checked(images)
        return self.denoise(self.projector.project(images).images, images)

    def denoise(self, generated: Tensor, images: Tensor) -> Tensor:
        """U(x_g), the second half of `purify`; see `unet.join` for what a U-Net may read."""
        return in_batches(self.unet, join(self.unet.input, generated, images), self.projector.device)

    def inspect(self, images: Tensor) -> Purification:
        """Purifies as the published method runs: classify x_g, score its realism, denoise, classify again.

        Raises:
            ValueError: as `purify`.
        """
        images = self._checked(images)
        projection = self.projector.project(images)
        denoised = self.denoise(projection.images, images)
        return Purification(
            projection.images,
            denoised,
            self.classifier.predict(projection.images),
            self.classifier.predict(denoised),
            in_batches(self.discriminator, projection.images, self.projector.device),
            projection.errors,
        )

    def _checked(self, images: Tensor) -> Tensor:
        """The images in the networks' own precision."""
        shape = ", ".join(map(str, self.classifier.image_shape))
        if images.ndim != 4 or tuple(images.shape[1:]) != self.classifier.image_shape:
            raise ValueError(f"images: expected shape (N, {shape}), found {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"images: expected floating-point values in [0, 1], found {images.dtype}")
        low, high = (float(images.min()), float(images.max())) if len(images) else (0.0, 1.0)
        if not (low >= 0 and high <= 1):  # nor NaN, which is neither
            raise ValueError(f"images: expected values in [0, 1], found {low:g} … {high:g}")
        return images.to(next(self.unet.parameters()).dtype)

    def save(self, folder: Path | str) -> None:
        """Writes weights as safetensors and the rest as JSON; the manifest, which makes it valid, last."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)  # until the new one stands, this is no defense
        write_json(folder / "defense.json", self._description())
        for name, part in self._parts().items():
            tensors = {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}
            write_atomic(folder / f"{name}.safetensors", save(tensors))
        files = ["defense.json", *(f"{name}.safetensors" for name in self._parts())]
        hashes = {name: sha256_file(folder / name) for name in files}
        write_json(folder / "manifest.json", {"format": FORMAT, "sha256": hashes})

    def _parts(self) -> dict[str, nn.Module]:
        parts: dict[str, Any] = {"generator": self.projector.generator, "discriminator": self.discriminator}
        if self.projector.config.init == "encoder":
            parts["encoder"] = self.projector.encoder
        return {**parts, "unet": self.unet, "classifier": self.classifier}

    def _description(self) -> dict[str, Any]:
        generator: Any = self.projector.generator
        unet = self.unet
        return {
            "image_shape": list(self.classifier.image_shape),
            "classifier": {"architecture": self.classifier.architecture, "classes": self.classifier.classes},
            "generator": {"latent_dim": generator.latent_dim, "width": generator.width},
            "discriminator": {"width": self.discriminator.width},
            "encoder": {"width": getattr(self.projector.encoder, "width", 0)},
            "unet": {"width": unet.width, "depth": unet.depth, "input": unet.input},
            "projector": {**self.projector.config.model_dump(), "seed": self.projector.seed},
        }

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Defense:
        """Reads a saved defense; nothing is unpickled.

        Raises:
            DefenseError: a file is missing, damaged or of another architecture, and which.
        """
        folder = Path(folder)
        hashes = _hashes(folder)
        _verify(folder, "defense.json", hashes)
        parts, config, seed = _described(folder / "defense.json")
        for name, part in parts.items():
            _verify(folder, f"{name}.safetensors", hashes)
            load_weights(part, folder / f"{name}.safetensors")
            freeze(part).to(device)
        projector = Projector(
            parts["generator"],
            config,
            discriminator=parts["discriminator"],
            encoder=parts.get("encoder"),
            seed=seed,
            device=device,
        )
        return cls(projector, parts["unet"], parts["classifier"], parts["discriminator"])


_Described = tuple[dict[str, Any], ProjectorConfig, int]


def _described(path: Path) -> _Described:
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


@torch.no_grad()
def in_batches(module: nn.Module, images: Tensor, device: torch.device, size: int = 250) -> Tensor:
    """`module` over `images` (N, …) in groups that fit the memory, with the result on the images' device."""
    return torch.cat([module(part.to(device)).to(images.device) for part in images.split(size)])


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
