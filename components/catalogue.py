"""The purifiers that come with the project: a line each, by which their names and sections are known."""

from components import smoothing
from components.projector import config as projector

__all__ = ["projector", "smoothing"]
