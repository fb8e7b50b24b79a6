"""The latent projector: image → nearest image of the generator."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.projector.config import ProjectorConfig
    from components.projector.projector import Projector
    from components.projector.trace import Projection, ProjectionTrace

__all__ = ["Projection", "ProjectionTrace", "Projector", "ProjectorConfig"]

_HOMES = {"Projection": "trace", "ProjectionTrace": "trace", "Projector": "projector", "ProjectorConfig": "config"}


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, so that settings and help need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
