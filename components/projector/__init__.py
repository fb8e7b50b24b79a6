"""The latent projector: image → nearest image of the generator."""

from typing import TYPE_CHECKING

from components.lazy import lazily

if TYPE_CHECKING:
    from components.projector.config import ProjectorConfig
    from components.projector.projector import Projector
    from components.projector.trace import Projection, ProjectionTrace

__all__ = ["Projection", "ProjectionTrace", "Projector", "ProjectorConfig"]

_HOMES = {"Projection": "trace", "ProjectionTrace": "trace", "Projector": "projector", "ProjectorConfig": "config"}

__getattr__ = lazily(__name__, _HOMES)
