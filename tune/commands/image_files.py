"""Image files as a defense takes them: found, checked against its shape, and read one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from components.datasets.idx import read_idx
from components.datasets.raw import channels_first

Pixels = NDArray[np.float32]
Shape = tuple[int, int, int]

SUFFIXES = (".png", ".jpg", ".jpeg")
_IDX = re.compile(r"(?P<stem>.+?)(?:[-.]idx[34](?:-ubyte)?|\.idx)(?:\.gz)?")
_MODES = {1: "L", 3: "RGB"}  # Pillow's names, by channels


@dataclass(frozen=True)
class Picture:
    """One image to read.

    Attributes:
        name: what messages and tables call it: its file, and its number where the file holds several.
        stem: the name, without suffix, of what is made from it.
        read: gives its pixels, float32 (C, H, W) in [0, 1]; ValueError, naming the file, where it cannot.
    """

    name: str
    stem: str
    read: Callable[[], Pixels]


def find_pictures(words: Sequence[str], shape: Shape) -> list[Picture]:
    """The pictures that files and folders hold, each read once to see that it can be.

    Args:
        words: PNG, JPEG or idx files (`.gz` too), or folders of PNG and JPEG files.
        shape: (C, H, W) that each must have; grey and colour are converted, sizes are not.

    Raises:
        ValueError: nothing found, a file that is missing, damaged or of another size, or two of one name.
    """
    pictures = [picture for word in words for picture in _pictures(Path(word).expanduser(), shape)]
    if not pictures:
        raise ValueError("IMAGES: expected at least one file or folder, found none")
    seen: dict[str, str] = {}
    for picture in pictures:
        if picture.stem in seen:
            both = f"{seen[picture.stem]} and {picture.name}, both for {picture.stem}.png"
            raise ValueError(f"IMAGES: expected names that differ, found {both}")
        seen[picture.stem] = picture.name
        _check(picture, shape)
    return pictures


def batch_of(pictures: Sequence[Picture]) -> Tensor:
    """Images float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack([picture.read() for picture in pictures]))


def png_of(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [0, 1], C 1 or 3, to be saved."""
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def _pictures(path: Path, shape: Shape) -> Iterator[Picture]:
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix.lower() in SUFFIXES and child.is_file())
        if not found:
            raise ValueError(f"{path}: expected a folder with PNG or JPEG files, found none in it")
        for child in found:
            yield Picture(str(child), child.stem, partial(_read, child, shape[0]))
    elif not path.is_file():
        raise ValueError(f"{path}: expected an image file or a folder of them, found no such file")
    elif path.suffix.lower() in SUFFIXES:
        yield Picture(str(path), path.stem, partial(_read, path, shape[0]))
    elif match := _IDX.fullmatch(path.name):
        yield from _rows(path, match["stem"], shape)
    else:
        raise ValueError(f"{path}: expected a PNG, JPEG or idx file, found {path.suffix or 'no suffix'}")


def _rows(path: Path, stem: str, shape: Shape) -> Iterator[Picture]:
    images = channels_first(path, read_idx(path))
    for number, image in enumerate(images):
        pixels = partial(_converted, image, shape[0])
        yield Picture(f"{path}#{number}", f"{stem}-{number:05d}", pixels)


def _converted(image: NDArray[np.uint8], channels: int) -> Pixels:
    """Bytes (C, H, W) with the channels asked for, in [0, 1]."""
    if len(image) == channels:
        return np.divide(image, 255, dtype=np.float32)
    whole = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    return _array(whole, channels)


def _read(path: Path, channels: int) -> Pixels:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return _array(image, channels)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow makes of damage
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected a PNG or JPEG image, found one that cannot be read: {reason}") from error


def _array(image: Image.Image, channels: int) -> Pixels:
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip to 8
        grey = np.divide(np.asarray(image), 65535, dtype=np.float32)
        return np.repeat(grey[None], channels, axis=0)
    pixels = np.divide(np.asarray(image.convert(_MODES[channels])), 255, dtype=np.float32)
    return np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1))


def _check(picture: Picture, shape: Shape) -> None:
    _, height, width = picture.read().shape
    if (height, width) != shape[1:]:
        expected = f"{shape[2]} × {shape[1]} pixels (width × height), as the defense was trained on"
        raise ValueError(f"{picture.name}: expected {expected}, found {width} × {height}")
