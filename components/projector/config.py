"""The projector's configuration: its settings, and how it is built of them; importing it imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.projector.settings import ProjectorSettings
from components.purifiers import PURIFIERS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from components.projector.projector import Projector


@PURIFIERS.register("projector")
class ProjectorConfig(ProjectorSettings):
    """The search for the latent of each image."""

    def component(self, networks: Mapping[str, nn.Module], seed: int, device: torch.device | str) -> Projector:
        from components.projector.projector import Projector

        generator: Any = networks["generator"]  # a mapping cannot say which of its networks are generators
        others = {name: networks.get(name) for name in ("encoder", "discriminator")}
        return Projector(generator, self, seed=seed, device=device, **others)
