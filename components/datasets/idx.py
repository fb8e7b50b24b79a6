"""The idx format, in which MNIST and its relatives are published: http://yann.lecun.com/exdb/mnist/

A file is `00 00 TYPE RANK`, RANK big-endian uint32 sizes, then the values in C order. Only TYPE 08 (uint8) is
read, as all image sets of this family use it.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.files import plain

Bytes = NDArray[np.uint8]

_UINT8 = 0x08
_OTHER_TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_GZIP = b"\x1f\x8b"
_PAGE = "a server's answer in place of the file; download it again, from another mirror"
# What a file begins with, in lower case → what it is, for those who meant an idx file.
_OTHER_CONTENT = {
    b"<!doctype html": f"an HTML page: {_PAGE}",
    b"<html": f"an HTML page: {_PAGE}",
    b"<?xml": f"an XML page: {_PAGE}",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull` in its repository",
    b"pk\x03\x04": "a zip archive; unpack it",
}


class DataError(ValueError):
    """Data that cannot be used. The message names file and field, what was expected and what was found."""


def read_idx(path: Path) -> Bytes:
    """The array in an idx file, gunzipped first if it is compressed, whatever its name.

    Raises:
        DataError: the file cannot be read, is no whole gzip file, no idx file of uint8, or not of its length.
    """
    content = _content(path)
    shape = _shape(path, content)
    start = 4 + 4 * len(shape)
    expected, found = start + math.prod(shape), len(content)
    if found != expected:
        state = "truncated" if found < expected else "too long"
        sizes = "×".join(map(str, shape))
        raise DataError(f"{path}: data: {state}: expected {expected} bytes for {sizes} values, found {found}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def to_idx(array: Bytes) -> bytes:
    """The idx file that holds `array`."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, _UINT8, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


def _content(path: Path) -> bytes:
    """The bytes of an idx file, unpacked if they are gzip's: names and content disagree in many a download."""
    try:
        content = plain(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: file: expected a readable file, found: {error.strerror}") from error
    if not content:
        raise DataError(f"{path}: file: expected an idx file, found 0 bytes")
    _refuse_other(path, content)
    if content.startswith(_GZIP) or (path.suffix == ".gz" and not content.startswith(b"\0\0")):
        content = _gunzip(path, content)
        _refuse_other(path, content)
    return content


def _refuse_other(path: Path, content: bytes) -> None:
    head = content[:64].lstrip().lower()
    for begin, found in _OTHER_CONTENT.items():
        if head.startswith(begin):
            raise DataError(f"{path}: magic: expected an idx file, found {found}")


def _gunzip(path: Path, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: gzip: expected a whole gzip file, found a corrupt one: {error}") from error


def _shape(path: Path, content: bytes) -> tuple[int, ...]:
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in {_UINT8, *_OTHER_TYPES} or magic[3] == 0:
        found = magic.hex(" ")
        raise DataError(f"{path}: magic: expected 00 00 08 and the number of dimensions, found {found}")
    if magic[2] != _UINT8:
        raise DataError(f"{path}: magic: expected values of type uint8 (08), found {_OTHER_TYPES[magic[2]]}")
    rank = magic[3]
    if len(content) < 4 + 4 * rank:
        raise DataError(f"{path}: header: truncated: expected {4 + 4 * rank} bytes, found {len(content)}")
    return struct.unpack_from(f">{rank}I", content, 4)
