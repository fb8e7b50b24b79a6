"""Image files that people have: each read as a viewer shows it, or refused with what to do."""

import random
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from components.datasets import DataError
from components.datasets.images import border, image_files, left_out_note, printable, read_image

RNG = np.random.default_rng(0)
INK = np.zeros((6, 5), np.uint8)  # a stroke, light on dark
INK[1:5, 2] = 255
INK[1, 3] = 160
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
LIGHT_ON_DARK = INK / np.float32(255)


def rgba(colour: int, alpha: np.ndarray) -> Image.Image:
    """One colour, drawn with an opacity on a transparent ground."""
    return Image.fromarray(np.dstack([np.full((6, 5, 3), colour, np.uint8), alpha]), "RGBA")


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def read(image: Image.Image, path: Path, channels: int | None = 1, **options: object) -> np.ndarray:
    image.save(path, **options)
    return read_image(path, channels)


# --- transparency ---


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_light_ink_on_a_transparent_ground_is_laid_on_black(tmp_path: Path, mode: str, channels: int) -> None:
    image, path = rgba(255, INK), tmp_path / "a.png"
    if mode == "webp":
        path = tmp_path / "a.webp"
        image.save(path, lossless=True)
    elif mode == "P":
        palette = Image.fromarray((INK > 0).astype(np.uint8)).convert("P")
        palette.putpalette([255] * 6)
        palette.save(path, transparency=bytes([0, 255]))
    else:
        image.convert(mode).save(path)
    remarks: Counter[str] = Counter()
    found = read_image(path, channels, remarks=remarks)
    expected = (LIGHT_ON_DARK > 0) if mode == "P" else LIGHT_ON_DARK
    np.testing.assert_allclose(found, np.repeat(expected[None], channels, 0).astype(np.float32), atol=1e-6)
    assert remarks == {"with transparent pixels, laid on black": 1}


def test_dark_ink_on_a_transparent_ground_is_laid_on_white_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    rgba(0, INK).save(path)
    np.testing.assert_allclose(read_image(path, 1, ground=1.0)[0], 1 - LIGHT_ON_DARK, atol=1e-6)
    with pytest.raises(DataError, match=r"a\.png: expected what can be seen on .* ground, black, found .* dark"):
        read_image(path, 1, ground=0.0)
    rgba(250, INK).save(path)
    with pytest.raises(DataError, match=r"ground, white, found transparent pixels around something nearly as light"):
        read_image(path, 1, ground=1.0)


def test_transparency_without_a_known_ground_is_refused(tmp_path: Path) -> None:
    rgba(255, INK).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="expected an opaque image, found transparent pixels; flatten it"):
        read_image(tmp_path / "a.png", 3, ground=None)
    rgba(255, np.zeros_like(INK)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="found transparent pixels around something nearly as dark"):
        read_image(tmp_path / "a.png", 3)


def test_transparent_corners_of_a_whole_image_change_nothing_else(tmp_path: Path) -> None:
    alpha = np.full((6, 5), 255, np.uint8)
    alpha[0, 0] = alpha[5, 4] = 0
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([INK, INK, INK, alpha]), "RGBA").save(path)
    np.testing.assert_allclose(read_image(path, 1)[0], LIGHT_ON_DARK, atol=1e-6)


def test_an_opaque_alpha_channel_needs_no_ground(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).convert("RGBA").save(path)
    remarks: Counter[str] = Counter()
    found = read_image(path, 3, ground=None, remarks=remarks)
    np.testing.assert_allclose(found, COLOUR.transpose(2, 0, 1) / np.float32(255))
    assert not remarks


# --- rotation ---


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_as_the_camera_was_held(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = Image.fromarray(np.kron(INK, np.ones((16, 16), np.uint8)))  # whole JPEG blocks
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpositions that a camera would have made
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    path = tmp_path / f"a.{suffix}"
    options: dict[str, object] = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    stored.save(path, exif=exif_of(orientation), **options)
    np.testing.assert_allclose(read_image(path, 1)[0], np.asarray(upright) / np.float32(255), atol=0.02)


def test_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    deep = (np.arange(30, dtype=np.uint16) * 2000).reshape(6, 5)
    Image.fromarray(deep).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif_of(6))
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[0], deep / np.float32(65535))


def test_an_image_that_would_fill_the_memory_is_refused_by_its_header(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = struct.pack(">II", 12_000, 12_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: .* cannot be read: Image size \(144000000 pixels\) exceeds limit"):
        read_image(tmp_path / "a.png")
    assert not recwarn.list


def test_damaged_exif_leaves_the_image_as_it_is(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    Image.fromarray(INK).save(tmp_path / "a.jpg", quality=100, exif=b"Exif\0\0http://not a TIFF header")
    Image.fromarray(INK).save(tmp_path / "b.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff")
    for name in ("a.jpg", "b.png"):
        np.testing.assert_allclose(read_image(tmp_path / name)[0], LIGHT_ON_DARK, atol=0.05)
    assert not recwarn.list


# --- depth ---


@pytest.mark.parametrize(("bits", "factor"), [(8, 256), (10, 64), (12, 16), (14, 4)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_that_were_never_scaled_to_sixteen_bits_are_refused(
    tmp_path: Path, suffix: str, bits: int, factor: int
) -> None:
    deep = np.where(INK > 0, 2**bits - 1, 0).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    found = f"found none above {2**bits - 1}, as of a camera with {bits} bits; multiply them by {factor}"
    with pytest.raises(DataError, match=found):
        read_image(tmp_path / f"a.{suffix}")
    Image.fromarray(deep * np.uint16(factor)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(read_image(tmp_path / f"a.{suffix}")[0], LIGHT_ON_DARK > 0, atol=0.01)


def write_png(path: Path, samples: np.ndarray, colour_type: int) -> None:
    """A PNG of 16 bits per sample, which Pillow cannot write: samples (H, W, C)."""
    import struct
    import zlib

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    height, width = samples.shape[:2]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(rows))
        PngImagePlugin.putchunk(file, b"IEND", b"")


def test_colour_of_sixteen_bits(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.png", COLOUR.astype(np.uint16) * 257
    write_png(path, whole, 2)
    np.testing.assert_allclose(read_image(path, 3), COLOUR.transpose(2, 0, 1) / np.float32(255))
    write_png(path, whole // 16, 2)
    with pytest.raises(DataError, match="as of a camera with 12 bits"):
        read_image(path, 3)


def test_a_black_image_of_sixteen_bits_is_black(tmp_path: Path) -> None:
    assert not read(Image.fromarray(np.zeros((6, 5), np.uint16)), tmp_path / "a.png").any()


def test_tiff_of_sixteen_bits_may_have_white_as_nought(tmp_path: Path) -> None:
    deep = INK.astype(np.uint16) * 257
    Image.fromarray(65535 - deep).save(tmp_path / "a.tif", tiffinfo={262: 0})
    content = (tmp_path / "a.tif").read_bytes()
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0, content
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0], LIGHT_ON_DARK, atol=1e-4)


def test_values_without_a_known_white_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    np.testing.assert_allclose(read(Image.fromarray(LIGHT_ON_DARK), path)[0], LIGHT_ON_DARK)
    for whole in (INK.astype(np.float32), INK.astype(np.int32), LIGHT_ON_DARK * np.float32(np.nan)):
        Image.fromarray(whole).save(path)
        with pytest.raises(DataError, match=r"a\.tif: expected 32-bit values in \[0, 1\], as no other white is known"):
            read_image(path)


def test_a_pgm_of_twelve_bits_is_scaled_by_its_own_header(tmp_path: Path) -> None:
    values = (INK.astype(np.uint32) * 4095 // 255).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 4095\n" + values.tobytes())
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm")[0], LIGHT_ON_DARK, atol=1e-3)


# --- modes and kinds of file ---


def test_ink_colours_palettes_and_bits_are_read(tmp_path: Path) -> None:
    picture = Image.fromarray(np.kron(COLOUR, np.ones((16, 16, 1), np.uint8)))
    picture.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    found = read_image(tmp_path / "a.jpg", 3)
    np.testing.assert_allclose(found, np.asarray(picture).transpose(2, 0, 1) / np.float32(255), atol=0.1)
    np.testing.assert_allclose(read(Image.fromarray(INK).convert("P"), tmp_path / "b.png")[0], LIGHT_ON_DARK)
    np.testing.assert_allclose(read(Image.fromarray(INK > 9), tmp_path / "c.png")[0], LIGHT_ON_DARK > 0)
    np.testing.assert_allclose(read(Image.fromarray(INK > 9), tmp_path / "c.tif")[0], LIGHT_ON_DARK > 0)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "gif", "pgm", "PNG", "jpe", "jfif"])
def test_what_pillow_reads_well_is_read(tmp_path: Path, suffix: str) -> None:
    kind = {"pgm": "PPM", "jpe": "JPEG", "jfif": "JPEG"}.get(suffix)
    Image.fromarray(INK).save(tmp_path / f"a.{suffix}", kind, lossless=True, quality=100)
    assert image_files(tmp_path)[0] == [tmp_path / f"a.{suffix}"]
    np.testing.assert_allclose(read_image(tmp_path / f"a.{suffix}", 1)[0], LIGHT_ON_DARK, atol=0.02)


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(INK).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg", 1)[0], LIGHT_ON_DARK)


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(INK), Image.fromarray(255 - INK)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="expected a still image, found 2 frames; save the one that you mean"):
        read_image(tmp_path / f"a.{suffix}")


def test_of_a_cameras_several_pictures_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 10)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert float(read_image(tmp_path / "a.jpg", 1).mean()) == pytest.approx(200 / 255, abs=0.01)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "gif"])
def test_cut_and_empty_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<!DOCTYPE html><p>404"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.{suffix}: expected an image .* found one that cannot be read"):
            read_image(path)


@given(seed=st.integers(0, 2**32 - 1), suffix=st.sampled_from(["png", "jpg", "tif", "webp", "gif", "bmp"]))
@settings(max_examples=300, deadline=None)
def test_no_damage_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, seed: int, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{suffix}"
    Image.fromarray(COLOUR).save(path, exif=exif_of(6))
    content, chance = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(chance.randint(1, 9)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    try:
        found = read_image(path, 3)
    except DataError:
        return
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1


# --- folders and names ---


def test_what_is_left_out_of_a_folder_is_counted(tmp_path: Path) -> None:
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "notes.txt", "b.txt", "c.heic", "README", "a.png", "d.webp"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    files, left_out = image_files(tmp_path)
    assert [path.name for path in files] == ["a.png", "d.webp"]
    assert left_out == {"hidden": 3, ".txt": 2, ".heic": 1, "without suffix": 1, "folders": 1}
    note = left_out_note(tmp_path, left_out)
    assert note.startswith(f"{tmp_path}: left out, as no images: hidden (3), .txt (2), ")
    assert ".heic (1)" in note


def test_names_that_a_terminal_would_obey_are_escaped(tmp_path: Path) -> None:
    assert printable("é手[red].png") == "é手[red].png"
    assert printable("a\nb\x1b[31m\u202e\udcff.png") == r"a\nb\x1b[31m\u202e\udcff.png"
    path = tmp_path / "a\n\x1b[31m.png"
    path.write_bytes(b"")
    with pytest.raises(DataError, match="expected an image") as refused:
        read_image(path)
    assert str(refused.value).isprintable()


def test_a_border_is_the_mean_of_the_outermost_pixels() -> None:
    images = np.zeros((2, 1, 4, 5), np.float32)
    images[1] = 1
    images[1, :, 1:3, 1:4] = 0
    assert border(images).tolist() == [0, 1]
