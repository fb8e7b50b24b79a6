"""TensorBoard's event-file format: records, scalars and pictures as bytes. No TensorFlow, no thread.

A record is length, masked CRC of it, payload, masked CRC of that; the payload is an `Event` protobuf. The
usual header with the file version is left out on purpose: without it readers let a repeated step replace the
older value of the *same tag*, which is what a resumed trial needs.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

CELL = 56  # pixels: the least height of one image of a grid; MNIST's 28 are too small to judge in a browser
GAP = 2  # pixels of white between the images of a grid
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def record(summary: Summary, step: int = 0) -> bytes:
    """One event, framed as it stands in the file."""
    buffer = io.BytesIO()
    event = Event(wall_time=time.time(), step=step, summary=summary)
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """All scalars of one step in one record; NaN and infinity are kept, charts mark them."""
    pairs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return record(Summary(value=pairs), step)


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers.

    A NaN metric reaches the HPARAMS page as the text "NaN", which breaks its sorting and its axes.
    """
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float | np.number)}
    return {key: float(value) for key, value in numbers.items() if math.isfinite(value)}


def picture(tag: str, png: bytes, step: int = 0, description: str = "") -> bytes:
    """One PNG as a record of the Images page. `description` is Markdown shown beside the tag.

    Raises:
        ValueError: `png` is not a PNG file.
    """
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError(f"{tag}: expected the bytes of a PNG file, found {png[:8]!r}")
    width, height = (str(int.from_bytes(png[at : at + 4], "big")).encode() for at in (16, 20))
    metadata = create_summary_metadata(display_name=tag, description=description)
    tensor = make_tensor_proto([width, height, png])
    return record(Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]), step)


def grid(images: Any, captions: Sequence[str] = ()) -> bytes:
    """A PNG with one row of images per entry of the first axis.

    Args:
        images: (rows, N, C, H, W), C 1 or 3; a tensor or array, float in [0, 1] or uint8.
        captions: one per row, written to its left; none = no captions.

    Raises:
        ValueError: another shape, or not one caption per row.
    """
    pixels = _pixels(images)
    if captions and len(captions) != len(pixels):
        raise ValueError(f"captions: expected one for each of {len(pixels)} rows, found {list(captions)}")
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in pixels])
    picture_ = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    if captions:
        picture_ = _captioned(picture_, captions)
    buffer = io.BytesIO()
    picture_.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _pixels(images: Any) -> npt.NDArray[np.uint8]:
    """(rows, N, H', W', C) uint8, enlarged to at least `CELL` pixels and framed in white."""
    if hasattr(images, "detach"):  # a torch tensor, perhaps on a GPU
        images = images.detach().float().cpu().numpy() if images.is_floating_point() else images.cpu().numpy()
    array = np.asarray(images)
    if array.ndim != 5 or array.shape[2] not in (1, 3) or array.size == 0:
        raise ValueError(f"images: expected shape (rows, N, 1 or 3, H, W), found {array.shape}")
    if array.dtype != np.uint8:
        array = np.rint(np.nan_to_num(array).clip(0, 1) * 255).astype(np.uint8)
    scale = -(-CELL // array.shape[3])
    array = array.transpose(0, 1, 3, 4, 2).repeat(scale, axis=2).repeat(scale, axis=3)
    return np.pad(array, ((0, 0), (0, 0), (GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def _captioned(sheet: Image.Image, captions: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(20)  # TensorBoard shrinks without smoothing; smaller letters fall apart
    margin = 12 + max(int(font.getlength(caption)) for caption in captions)
    page = Image.new(sheet.mode, (sheet.width + margin, sheet.height), "white")
    page.paste(sheet, (margin, 0))
    draw = ImageDraw.Draw(page)
    row = sheet.height / len(captions)
    for index, caption in enumerate(captions):
        draw.text((6, row * (index + 0.5)), caption, fill="black", font=font, anchor="lm")
    return page
