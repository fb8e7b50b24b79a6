"""Networks of a saved defense by name: how each is described, and made again from its description.

A purifier with a network of its own adds it to `NETWORKS`; the class has a property `settings`, the values of its
constructor but for the images' shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from components.gan.encoder import Encoder
from components.gan.networks import Discriminator, Generator
from components.registry import Registry
from components.unet.network import UNet


@runtime_checkable
class Described(Protocol):
    """A network that can be saved."""

    @property
    def settings(self) -> dict[str, Any]:
        """The values of its constructor but for the images' shape, as JSON has them."""
        ...


# name → a network without weights, from the description of all networks by name and the images' shape (C, H, W)
Factory = Callable[[Mapping[str, Any], Sequence[int]], nn.Module]
NETWORKS: Registry[Factory] = Registry("network")


@NETWORKS.register("generator")
def _generator(described: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    return Generator(**described["generator"], image_shape=image_shape)


@NETWORKS.register("discriminator")
def _discriminator(described: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    return Discriminator(**described["discriminator"], image_shape=image_shape)


@NETWORKS.register("encoder")
def _encoder(described: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    channels, height, width = image_shape
    return Encoder(described["generator"]["latent_dim"], described["encoder"]["width"], (channels, height, width))


@NETWORKS.register("unet")
def _unet(described: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    return UNet(image_shape[0], **described["unet"])
