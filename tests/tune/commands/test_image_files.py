"""Image files: found, checked, and read as what they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.datasets.idx import to_idx
from tune.commands.image_files import Picture, Reading, Shape, batch_of, png_of
from tune.commands.image_files import find_pictures as find

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def find_pictures(words: list[str], shape: Shape) -> list[Picture]:
    return taken(words, Reading(shape))


def taken(words: list[str], reading: Reading) -> list[Picture]:
    """The pictures; ValueError where one is refused."""
    found = find(words, reading)
    if reading.refused:
        raise ValueError(reading.refused[-1])
    return found


def save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def test_grey_and_colour_are_converted(tmp_path: Path) -> None:
    words = [save(tmp_path / "grey.png", GREY), save(tmp_path / "colour.PNG", COLOUR)]
    grey = batch_of(find_pictures(words, (1, 6, 5)))
    colour = batch_of(find_pictures(words, (3, 6, 5)))
    assert (grey.shape, grey.dtype, colour.shape) == ((2, 1, 6, 5), torch.float32, (2, 3, 6, 5))
    torch.testing.assert_close(grey[0, 0], torch.from_numpy(GREY) / 255)
    torch.testing.assert_close(colour[0], grey[0].expand(3, -1, -1))
    torch.testing.assert_close(colour[1], torch.from_numpy(COLOUR).movedim(2, 0) / 255)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R 601, as Pillow has it
    assert float((grey[1, 0] - (colour[1] * weights).sum(0)).abs().max()) < 0.005


def test_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    deep = (np.arange(30, dtype=np.uint16) * 2000).reshape(6, 5)
    path = save(tmp_path / "deep.png", deep)
    for channels in (1, 3):
        (image,) = batch_of(find_pictures([path], (channels, 6, 5)))
        torch.testing.assert_close(image[channels - 1], torch.from_numpy(deep.astype(np.float32)) / 65535)


def test_transparent_and_indexed_images_are_read(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "a.png")
    Image.fromarray(GREY).convert("P").save(tmp_path / "b.png")
    Image.fromarray(GREY > 99).save(tmp_path / "c.png")
    images = batch_of(find_pictures([str(tmp_path)], (3, 6, 5)))
    torch.testing.assert_close(images[0], torch.from_numpy(COLOUR).movedim(2, 0) / 255)
    torch.testing.assert_close(images[1, 0], torch.from_numpy(GREY) / 255)
    assert set(images[2].unique().tolist()) == {0.0, 1.0}


def test_folders_give_their_images_in_order(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.jpeg"):
        save(tmp_path / name, GREY)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    found = find_pictures([str(tmp_path)], (1, 6, 5))
    assert [picture.stem for picture in found] == ["a", "b", "c"]
    assert [Path(picture.name).name for picture in found] == ["a.jpg", "b.png", "c.jpeg"]


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images.idx", "t10k-images.idx3-ubyte.gz"])
def test_idx_files_hold_many(tmp_path: Path, name: str) -> None:
    import gzip

    content = to_idx(np.stack([GREY, 255 - GREY]))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    found = find_pictures([str(tmp_path / name)], (1, 6, 5))
    assert [picture.stem for picture in found] == ["t10k-images-00000", "t10k-images-00001"]
    assert found[1].name == f"{tmp_path / name}#1"
    torch.testing.assert_close(batch_of(found)[1, 0], 1 - torch.from_numpy(GREY) / 255)
    assert batch_of(find_pictures([str(tmp_path / name)], (3, 6, 5))).shape == (2, 3, 6, 5)


def test_colour_idx_files_become_grey(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx4-ubyte").write_bytes(to_idx(COLOUR[None]))
    assert batch_of(find_pictures([str(tmp_path / "train-images-idx4-ubyte")], (1, 6, 5))).shape == (1, 1, 6, 5)


def test_what_is_saved_is_what_was_read(tmp_path: Path) -> None:
    for shape, pixels in (((1, 6, 5), GREY), ((3, 6, 5), COLOUR)):
        (image,) = batch_of(find_pictures([save(tmp_path / f"{shape[0]}.png", pixels)], shape))
        assert np.array_equal(np.asarray(png_of(image)), pixels)
    assert np.asarray(png_of(torch.tensor([[[-1.0, 2.0]]]))).tolist() == [[0, 255]]


def test_refusals(tmp_path: Path) -> None:
    whole = Path(save(tmp_path / "whole.png", GREY)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.png").write_bytes(b"")
    (tmp_path / "gif.png").write_bytes(b"GIF89a")
    (tmp_path / "cut-idx3-ubyte").write_bytes(to_idx(GREY[None])[:-3])
    (tmp_path / "none-idx3-ubyte").write_bytes(to_idx(GREY[None][:0]))
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    save(tmp_path / "other" / "whole.jpg", GREY)
    for words, message in [
        ([], "IMAGES: expected at least one file or folder, found none"),
        (["missing.png"], "missing.png: expected an image file or a folder of them, found no such file"),
        (["empty"], "empty: expected a folder with image files .*, found none in it"),
        (["text.txt"], "text.txt: expected an image .* or an idx file, found .txt"),
        (["half.png"], "half.png: expected an image .*, found one that cannot be read"),
        (["none.png"], "none.png: expected an image"),
        (["gif.png"], "gif.png: expected an image"),
        (["none-idx3-ubyte"], "none-idx3-ubyte: expected at least one image, found none"),
        (["cut-idx3-ubyte"], "cut-idx3-ubyte: data: truncated"),
        (["whole.png", "other"], "IMAGES: expected names that differ"),
        (["whole.png", "whole.png"], "IMAGES: expected names that differ"),
    ]:
        with pytest.raises(ValueError, match=message):
            find_pictures([str(tmp_path / word) for word in words], (1, 6, 5))


def test_another_size_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GREY)
    with pytest.raises(ValueError, match=r"a\.png: expected 6 × 6 pixels .*, found 5 × 6"):
        find_pictures([path], (1, 6, 6))


def test_the_ground_of_the_training_images_is_asked_of_every_image(tmp_path: Path) -> None:
    dark = np.zeros((6, 5), np.uint8)
    dark[2:4, 2] = 255
    light = 255 - dark
    paths = {"dark": save(tmp_path / "dark.png", dark), "light": save(tmp_path / "light.png", light)}
    (tmp_path / "light-idx3-ubyte").write_bytes(to_idx(light[None]))
    paths["idx"] = str(tmp_path / "light-idx3-ubyte")
    for name, ground, invert, shown in (
        ("dark", 0.0, False, dark),
        ("light", 0.0, True, dark),
        ("idx", 0.0, True, dark),
        ("light", 1.0, False, light),
        ("dark", 1.0, True, light),
        ("light", None, False, light),
    ):
        (image,) = batch_of(find([paths[name]], Reading((1, 6, 5), ground, invert)))
        torch.testing.assert_close(image[0], torch.from_numpy(shown) / 255)
    for name, ground, invert, message in (
        ("light", 0.0, False, r"light\.png: expected .* dark border \(light on dark\).* 1\.00; if it .* add --invert"),
        ("idx", 0.0, False, r"light-idx3-ubyte#0: expected .* dark border"),
        ("dark", 0.0, True, r"dark\.png: expected .* dark border .*; leave out --invert"),
        ("dark", 1.0, False, r"dark\.png: expected .* light border \(dark on light\).* 0\.00; if it .* add --invert"),
    ):
        with pytest.raises(ValueError, match=message):
            taken([paths[name]], Reading((1, 6, 5), ground, invert))


def test_dark_ink_on_a_transparent_ground_is_read_inverted(tmp_path: Path) -> None:
    ink = np.zeros((6, 5, 4), np.uint8)
    ink[2:4, 2, 3] = 255
    path = save(tmp_path / "a.png", ink)
    reading = Reading((1, 6, 5), 0.0, invert=True)
    (image,) = batch_of(find([path], reading))
    torch.testing.assert_close(image[0], torch.from_numpy(ink[..., 3]) / 255)
    assert reading.notes == ["1 image with transparent pixels, laid on white"]
    with pytest.raises(ValueError, match="expected what can be seen on the images' ground, black"):
        taken([path], Reading((1, 6, 5), 0.0))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp", "c.tif", "d.webp"):
        save(tmp_path / name, GREY)
    for name in ("._a.png", "Thumbs.db", "e.heic", "f.svg", "g.svg"):
        (tmp_path / name).write_bytes(b"x")
    reading = Reading((1, 6, 5))
    assert len(find([str(tmp_path)], reading)) == 4
    assert reading.notes == [f"{tmp_path}: left out, as no images: hidden (2), .svg (2), .heic (1)"]
    for path in tmp_path.iterdir():
        if path.suffix not in (".heic", ".svg"):
            path.unlink()
    with pytest.raises(ValueError, match=r"found none in it: .* left out, as no images: \.svg \(2\), \.heic \(1\)"):
        find([str(tmp_path)], Reading((1, 6, 5)))


def test_emnists_files_are_read_upright(tmp_path: Path) -> None:
    (tmp_path / "emnist-digits-test-images-idx3-ubyte").write_bytes(to_idx(GREY.T[None]))
    found = find_pictures([str(tmp_path / "emnist-digits-test-images-idx3-ubyte")], (1, 6, 5))
    torch.testing.assert_close(batch_of(found)[0, 0], torch.from_numpy(GREY) / 255)
