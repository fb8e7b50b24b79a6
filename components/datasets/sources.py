"""The registries of data sets: by name, and by the kind of folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from components.datasets.raw import RawData
from components.registry import Registry

ByName: TypeAlias = Callable[[Path], RawData]  # takes the folder of all named sets; DataError where it cannot
ByFolder: TypeAlias = Callable[[Path], RawData | None]  # None where the folder holds nothing of its kind

DATASETS: Registry[ByName] = Registry("data.name")
FOLDERS: Registry[ByFolder] = Registry("data.name")  # each name says what such a folder holds, for messages


@dataclass(frozen=True)
class Embedded:
    """A set that comes with the project: it is not looked for in the folder of all named sets."""

    read: Callable[[], RawData]

    def __call__(self, data_dir: Path) -> RawData:
        return self.read()


def default_data_dir() -> Path:
    """`$XDG_CACHE_HOME/latent-defense/data`, or the same below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latent-defense" / "data"
