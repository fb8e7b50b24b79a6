"""Components that rebuild an attacked image before the U-Net: what they have in common, and which one is used.

A purifier is one file with its settings, a frozen `PurifierConfig`, and its class, a `Purifier`. Settings are read
without torch, so such a file imports it where it computes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, TypeAlias

from pydantic import AfterValidator, Field

from components.config import AnythingBut, Config, ReadWhen
from components.registry import Registry, without_methods

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from components.projector.trace import Projection
    from components.squeezing import Surrogate

UNROLLED = 10  # steps of a descent that are unrolled where nothing else is said


class NoGradient(ValueError):
    """No gradient passes through a part of the defense; the message names it, and the stand-ins that exist."""


@dataclass(frozen=True)
class Surrogates:
    """Stand-ins for the parts of a purifier that have no gradient of their own.

    Attributes:
        squeezing: of the grey levels, see `squeezing.squeezed_with_gradient`.
        descent: encoder: the latent moves as the encoder's guess does, and the steps are skipped; unrolled: through the
            last steps of the winning restart, to its start where the encoder made that. None: encoder where the
            projector starts from one, else unrolled.
        steps: the most steps that are unrolled; those before them are taken as they are.
        exact: whether values are the real ones; if not, and the encoder stands in, x_g is G(E(x)), for an attacker to
            whom fewer operations are worth more than the last digit.
    """

    squeezing: Surrogate = "straight_through"
    descent: Literal["encoder", "unrolled"] | None = None
    steps: int = UNROLLED
    exact: bool = True


class Purifier(Protocol):
    """Images (N, C, H, W) in [0, 1] → the images that the U-Net cleans."""

    @property
    def config(self) -> PurifierConfig:
        """Its settings."""
        ...

    @property
    def seed(self) -> int:
        """The seed of all that it draws."""
        ...

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        ...

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """The networks that it computes with, by name; a saved defense keeps their weights."""
        ...

    def project(self, images: Tensor) -> Projection:
        """The purified images, on the images' device."""
        ...

    def through(self, images: Tensor, surrogates: Surrogates) -> Tensor:
        """The purified images, with a gradient to `images`, which are on the purifier's device.

        Raises:
            NoGradient: `surrogates` cannot give one; the message names the part.
        """
        ...


class PurifierConfig(Config):
    """Settings of a purifier, by which it is also built and read again from a saved defense.

    Attributes:
        title: of the purifier, in reports.
    """

    title: ClassVar[str]
    read_when: ClassVar[ReadWhen] = {"threshold": {"levels": AnythingBut((None,))}}

    levels: int | None = Field(default=None, ge=2, le=256)  # grey levels that images are reduced to first; null = all
    threshold: float | None = Field(
        default=None, gt=0, lt=1, json_schema_extra={"neutral": None}
    )  # where the first level ends and, mirrored, the last begins; null = to the nearest level

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the networks that it computes with, as in `components.networks`."""
        return ()

    @abstractmethod
    def component(self, networks: Mapping[str, nn.Module], seed: int, device: torch.device | str) -> Purifier:
        """The purifier with these networks, by name, of which others may be there too."""


def _flaw(name: str, settings: object) -> str | None:
    """Says what keeps a class from being the settings of a purifier."""
    if not (isinstance(settings, type) and issubclass(settings, PurifierConfig)):
        return f"expected a subclass of components.purifiers.PurifierConfig, found {settings!r}"
    if not isinstance(getattr(settings, "title", None), str):
        return f"{settings.__name__}: expected a class variable `title`, its name in reports, found none"
    return without_methods(settings)


PURIFIERS: Registry[type[PurifierConfig]] = Registry("defense.purifier", _flaw)
PurifierName: TypeAlias = Annotated[str, AfterValidator(PURIFIERS.known)]


class DefenseConfig(Config):
    """The parts of the defense."""

    purifier: PurifierName = "projector"  # the component that rebuilds attacked images, by its section
