"""Networks that come with the project: trained by its own spaces, beside a record of how."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.config import nearest
from components.files import read_json

_HERE = Path(__file__).parent
_FILES = ("gan.json", "generator.safetensors", "discriminator.safetensors")
_ENCODER = "encoder.safetensors"  # where one was trained
_DEFENSE = "manifest.json"  # of a whole defense


def shipped_names() -> list[str]:
    """The generators that come with the project."""
    return sorted(folder.name for folder in _HERE.iterdir() if (folder / _FILES[0]).is_file())


def shipped_folder(name: str) -> Path:
    """The folder of a shipped generator. Raises ValueError where there is none of that name."""
    names = shipped_names()
    if name not in names:
        known = ", ".join(names) or "(none are shipped)"
        raise ValueError(f"expected one of {known}, found {name!r}{nearest(name, names)}")
    return _HERE / name


def shipped_defenses() -> list[str]:
    """The whole defenses that come with the project."""
    return sorted(folder.name for folder in _HERE.iterdir() if (folder / _DEFENSE).is_file())


def shipped_defense(name: str) -> Path:
    """The folder of a whole defense, as `Defense.load` reads it. Raises ValueError where there is none of that name."""
    names = shipped_defenses()
    if name in shipped_names() and name not in names:
        raise ValueError(f"expected a defense that comes with the project, found a generator alone: {name!r}")
    if name not in names:
        raise ValueError(f"expected one of {', '.join(names)}, found {name!r}{nearest(name, names)}")
    return _HERE / name


def described(name: str) -> str:
    """One sentence that says where a shipped generator comes from, for reports."""
    facts = read_json(shipped_folder(name) / "gan.json")["trained"]
    return (
        f"Generator and discriminator are the pair '{name}' that comes with the project, trained beforehand on "
        f"{facts['images']:,} images of {facts['data']} by: {facts['command']}"
    )


def pair_files(name: str) -> list[Path]:
    """The files of generator, discriminator and, where one was trained, encoder."""
    folder = shipped_folder(name)
    return [folder / file for file in (*_FILES, _ENCODER) if (folder / file).is_file()]


def shipped_identity(name: str) -> str:
    """A hash of its files: what stands for data and seed in the signature of what is made from it."""
    digest = hashlib.sha256()
    for path in pair_files(name):
        digest.update(path.read_bytes())
    return f"{name}:{digest.hexdigest()}"
