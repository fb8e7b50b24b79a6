"""A trained pair of generator and discriminator, with the encoder where there is one, in a folder.

    gan.json                    the networks' sizes
    generator.safetensors       their weights
    discriminator.safetensors
    encoder.safetensors         where one was trained
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from components.files import read_json, write_json
from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.training import freeze
from components.weights import load_weights, save_weights

DESCRIPTION = "gan.json"


@dataclass(frozen=True)
class Pair:
    """Generator, discriminator and, where one was trained, encoder."""

    generator: Generator
    discriminator: Discriminator
    encoder: Encoder | None = None

    def save(self, folder: Path) -> None:
        """Writes the networks; the description, by which a reader knows that they are there, last."""
        save_weights(self.generator, folder / "generator.safetensors")
        save_weights(self.discriminator, folder / "discriminator.safetensors")
        if self.encoder is not None:
            save_weights(self.encoder, folder / "encoder.safetensors")
        description = {
            **self.generator.settings,
            "discriminator_width": self.discriminator.width,
            "encoder_width": self.encoder.width if self.encoder else 0,
            "image_shape": list(self.generator.image_shape),
        }
        write_json(folder / DESCRIPTION, description)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Pair:
        """Reads the networks, frozen, on `device`.

        Raises:
            WeightsError: a file is missing, damaged or of another architecture, and which.
        """
        facts = read_json(folder / DESCRIPTION)
        channels, height, width = facts["image_shape"]
        shape = (channels, height, width)
        generator = Generator(facts["latent_dim"], facts["width"], shape)
        discriminator = Discriminator(facts["discriminator_width"], shape)
        encoder = Encoder(facts["latent_dim"], facts["encoder_width"], shape) if facts["encoder_width"] else None
        for name, network in (("generator", generator), ("discriminator", discriminator), ("encoder", encoder)):
            if network is not None:
                load_weights(network, folder / f"{name}.safetensors")
                freeze(network).to(device)
        return cls(generator, discriminator, encoder)
