"""Image files of many kinds, each read as what a viewer would show of it, or refused with what to do.

Reading follows Pillow, save where Pillow loses something without a word: transparency, the camera's rotation,
16 bits per pixel, the frames of an animation.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from components.datasets.idx import DataError

Pixels = NDArray[np.float32]

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"),
    *(".webp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm"),
)
KINDS = "PNG, JPEG, TIFF, BMP, WebP, GIF or PNM"
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_MODES = {1: "L", 3: "RGB"}  # Pillow's names, by channels
_ORIENTATION, _PHOTOMETRIC = 0x0112, 262  # tags of EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of 16-bit values: where not even a quarter of the range is used, the file has 8 to 14 bits that were never scaled.
_QUARTER = 2**14
_LOST_CONTRAST = 0.5  # of a transparent image on its ground
DARK, LIGHT = 0.4, 0.6  # mean brightness of a border, below or above which an image's ground is that
_FLATTEN = "flatten it onto the ground that the training images have"


def image_files(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The image files of a folder in order, and the number of each kind of entry that is left out."""
    files, left_out = [], Counter[str]()
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            left_out["hidden"] += 1
        elif path.is_dir():
            left_out["folders"] += 1
        elif path.exists() and not path.is_file():  # such as a pipe, which would be waited for; not a broken link
            left_out["no files"] += 1
        elif path.suffix.lower() in SUFFIXES:
            files.append(path)
        else:
            left_out[path.suffix or "without suffix"] += 1
    return files, left_out


def is_hidden(path: Path) -> bool:
    """Tells what systems leave in folders (._x.png, .DS_Store, Thumbs.db, __MACOSX) from what their users put there."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def left_out_note(folder: Path, left_out: Counter[str]) -> str:
    """A sentence that counts what was left out of a folder."""
    kinds = ", ".join(f"{printable(kind)} ({number})" for kind, number in left_out.most_common(8))
    rest = left_out.total() - sum(number for _, number in left_out.most_common(8))
    others = f" and {rest} more" if rest else ""
    return f"{printable(folder)}: left out, as no images: {kinds}{others}"


def in_words(remarks: Counter[str]) -> list[str]:
    """Sentences of `read_image`'s remarks, with their numbers."""
    return [f"{number} {'image' if number == 1 else 'images'} {text}" for text, number in sorted(remarks.items())]


def read_image(
    path: Path, channels: int | None = None, ground: float | None = 0.0, remarks: Counter[str] | None = None
) -> Pixels:
    """The pixels of an image file, float32 (C, H, W) in [0, 1].

    Args:
        path: the file; its content decides what it is, not its suffix.
        channels: 1 or 3, to which grey and colour are converted; None for what the file has.
        ground: brightness on which transparent pixels are laid; None to refuse them.
        remarks: counts what had to be done to images, in words.

    Raises:
        DataError: the file is damaged, animated, or its values cannot be told apart from others.
    """
    remarks = Counter() if remarks is None else remarks
    try:
        # From memory: Pillow maps uncompressed TIFF files, and then forgets to turn them.
        with _no_bombs(), Image.open(io.BytesIO(path.read_bytes()), formats=_FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # of a camera's several pictures, the first is the photograph
                raise DataError(
                    f"{printable(path)}: expected a still image, found {frames} frames; save the one that you mean"
                )
            return _pixels(path, image, channels, ground, remarks)
    except DataError:
        raise
    except Exception as error:  # Pillow raises almost any kind on damaged bytes
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "its content is of no such kind" if unknown else printable(" ".join(str(error).split()))
        raise DataError(
            f"{printable(path)}: expected an image ({KINDS}), found one that cannot be read: {reason}"
        ) from error


@contextmanager
def _no_bombs() -> Iterator[None]:
    """Within the block an image of which Pillow warns that it would take a GiB and more is an error, before it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what else Pillow warns, such as torn EXIF, it names no file
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def printable(text: str | Path) -> str:
    """The text with what a terminal would obey (line ends, escapes) or cannot show written as `\\n`, `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def border(images: Pixels) -> Pixels:
    """Mean brightness of each image's outermost pixels: (N, C, H, W) → (N,)."""
    grey = images.mean(1)
    edges = (grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1])
    means: Pixels = np.concatenate(edges, axis=1).mean(1)
    return means


def _pixels(
    path: Path, image: Image.Image, channels: int | None, ground: float | None, remarks: Counter[str]
) -> Pixels:
    sixteen = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))  # known only before loading
    inverse = image.mode == "I;16" and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0  # which Pillow overlooks
    wide = image.mode == "I" and image.format not in ("PNG", "PPM")
    image.load()
    image, turned = _upright(image)
    if turned:
        remarks["turned upright, by EXIF"] += 1
    if image.mode == "F" or wide:
        return with_channels(_unit(path, np.asarray(image, np.float32))[None], channels)
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32)
        _check_depth(path, int(grey.max()))
        if "transparency" in image.info:
            raise DataError(f"{printable(path)}: expected an opaque 16-bit image, found transparent pixels; {_FLATTEN}")
        grey = np.divide(grey, 65535, dtype=np.float32)
        return with_channels((1 - grey if inverse else grey)[None], channels)
    if sixteen:
        _check_depth(path, 257 * int(np.asarray(image.convert("RGB")).max()))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            laid = _on_ground(path, image, ground)
            remarks[f"with transparent pixels, laid on {'black' if ground == 0 else 'white'}"] += 1
            return with_channels(laid, channels)
        image = image.convert("RGB")
    mode = _MODES[channels or (1 if image.mode in ("1", "L") else 3)]
    pixels = np.divide(np.asarray(image.convert(mode)), 255, dtype=np.float32)
    return _channels_first(pixels)


def _upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """The image as the camera was held, and whether it had to be turned; unreadable EXIF is passed over."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, KeyError, TypeError, OSError, EOFError, OverflowError):
        turn = None
    return (image, False) if turn is None else (image.transpose(turn), True)


def _unit(path: Path, grey: Pixels) -> Pixels:
    """Values of no known white, which must be in [0, 1] already."""
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 1):  # nor NaN, which is neither
        raise DataError(
            f"{printable(path)}: expected 32-bit values in [0, 1], as no other white is known, "
            f"found {low:g} … {high:g}; save the image with 8 or 16 bits"
        )
    return grey


def _check_depth(path: Path, high: int) -> None:
    """Refuse values that were never scaled to their 16 bits: they would be read as black."""
    if 0 < high < _QUARTER:
        bits = max(8, high.bit_length())
        raise DataError(
            f"{printable(path)}: expected 16-bit values up to 65535, found none above {high}, as of a camera with "
            f"{bits} bits; multiply them by {2 ** (16 - bits)}"
        )


def _on_ground(path: Path, image: Image.Image, ground: float | None) -> Pixels:
    """An RGBA image over the ground, as long as what it shows can be seen there."""
    if ground is None:
        raise DataError(f"{printable(path)}: expected an opaque image, found transparent pixels; {_FLATTEN}")
    whole = _channels_first(np.divide(np.asarray(image), 255, dtype=np.float32))
    colour, alpha = whole[:3], whole[3:]
    here, there = (colour * alpha + level * (1 - alpha) for level in (ground, 1 - ground))
    contrast, other = (float(np.ptp(laid.mean(0))) for laid in (here, there))
    if contrast < _LOST_CONTRAST and contrast <= other:
        name, tone = ("black", "dark") if ground == 0 else ("white", "light")
        raise DataError(
            f"{printable(path)}: expected what can be seen on the images' ground, {name}, found transparent pixels "
            f"around something nearly as {tone}; {_FLATTEN}, and invert it if need be"
        )
    return here


def _channels_first(pixels: Pixels) -> Pixels:
    """(H, W) or (H, W, C) → (C, H, W)."""
    return np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))


def with_channels(image: Pixels, channels: int | None) -> Pixels:
    """(1, H, W) or (3, H, W) → the channels asked for; colour becomes grey by ITU-R 601, as in Pillow."""
    if channels is None or len(image) == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=0)
    grey: Pixels = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), image, axes=1)[None]
    return grey
