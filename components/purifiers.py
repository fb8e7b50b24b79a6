"""Components that rebuild an attacked image before the U-Net: what they have in common, and which one is used.

A purifier is one file with its settings, a frozen `PurifierConfig`, and its class, which gives for images (N, C, H, W)
in [0, 1] a `Projection` by its method `project`. Settings are read without torch, so such a file imports it where it
computes.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator

from components.config import Config
from components.registry import Registry


class PurifierConfig(Config):
    """Settings of a purifier.

    Attributes:
        title: of the purifier, in reports.
    """

    title: ClassVar[str]


PURIFIERS: Registry[type[PurifierConfig]] = Registry("defense.purifier")


class DefenseConfig(Config):
    """The parts of the defense."""

    purifier: str = Field(default="projector")  # the component that rebuilds attacked images: projector, smoothing

    @field_validator("purifier")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in PURIFIERS:
            raise ValueError(f"expected one of {', '.join(PURIFIERS)}, found {name!r}")
        return name
