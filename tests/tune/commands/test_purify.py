"""`python -m tune purify`: what it writes, prints and refuses."""

import csv
import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.datasets.idx import to_idx
from components.defense import Defense, DefenseError
from tests.tiny_networks import defense_of
from tune.commands import purify as module
from tune.commands.catalogue import purify
from tune.commands.purify import ground_of, load_defense
from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment with a saved defense of grey images of 8×8."""
    folder = tmp_path / "experiment"
    defense_of().save(folder / "best")
    (folder / "space.yaml").write_text("data.name: tiny\n")
    return folder


@pytest.fixture
def attacked(tmp_path: Path) -> Path:
    """Five images."""
    folder = tmp_path / "attacked"
    folder.mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image{number}.png")
    return folder


def images_in(folder: Path) -> torch.Tensor:
    arrays = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(arrays)).unsqueeze(1) / 255


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("batch", [2, 100])
def test_images_and_table_are_those_of_the_defense(
    experiment: Path, attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(module, "BATCH", batch)
    out = tmp_path / "new" / "out"
    assert purify(str(experiment), str(attacked), out=str(out)) == 0
    defense, images = Defense.load(experiment / "best"), images_in(attacked)
    seen = defense.inspect(images)
    assert float((images_in(out) - seen.images).abs().max()) <= 0.5 / 255 + 1e-6
    rows = rows_of(out)
    assert list(rows[0]) == ["file", "label_before", "label_generated", "label", "realism", "error"]
    assert [row["file"] for row in rows] == [str(attacked / f"image{n}.png") for n in range(5)]
    for name, expected in (
        ("label_before", defense.classifier.predict(images)),
        ("label_generated", seen.label_before),
        ("label", seen.label),
        ("realism", seen.realism),
        ("error", seen.errors),
    ):
        torch.testing.assert_close(torch.tensor([float(row[name]) for row in rows]), expected.float())
    assert len(list(out.iterdir())) == 6


def test_a_table_is_printed(
    experiment: Path,
    attacked: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SHOWN", 3)
    monkeypatch.setenv("COLUMNS", "200")
    purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "image2.png" in printed
    assert "image3.png" not in printed
    assert "2 more in labels.csv" in printed
    assert "5 images purified" in printed


def test_classes_are_called_by_their_names(
    attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    defense = defense_of()
    defense.class_names = tuple(f"[{label}]name" for label in range(defense.classifier.classes))
    defense.save(tmp_path / "saved")
    for _ in range(2):  # the table of the first time is known to be ours
        assert purify(str(tmp_path / "saved"), str(attacked), out=str(tmp_path / "out")) == 0
    printed = capsys.readouterr().out
    for row in rows_of(tmp_path / "out"):
        assert row["class_name"] == f"[{row['label']}]name"
        assert f"{row['label_before']} [{row['label_before']}]name" in printed


def test_a_defense_by_itself_and_idx_images_serve_too(experiment: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(to_idx(pixels))
    out = tmp_path / "out"
    purify(str(experiment / "best"), str(tmp_path / "t10k-images-idx3-ubyte"), out=str(out))
    assert sorted(path.name for path in out.glob("*.png")) == [f"t10k-images-0000{n}.png" for n in range(3)]
    assert len(rows_of(out)) == 3


def test_colour_images(tmp_path: Path) -> None:
    defense_of((3, 12, 10), 7).save(tmp_path / "defense")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    purify(str(tmp_path / "defense"), str(tmp_path / "a.jpg"), out=str(tmp_path / "out"))
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).shape == (12, 10, 3)


def test_running_again_replaces(experiment: Path, attacked: Path, tmp_path: Path) -> None:
    for _ in range(2):
        purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    assert len(rows_of(tmp_path / "out")) == 5


def test_inputs_are_never_overwritten(experiment: Path, attacked: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in attacked.iterdir()}
    (tmp_path / "link").symlink_to(attacked)
    for out in (attacked, tmp_path / "link", attacked / ".." / "attacked"):
        with pytest.raises(ValueError, match="--out: expected a folder without the images themselves"):
            purify(str(experiment), str(attacked / "image3.png"), out=str(out))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "image1.png").symlink_to(attacked / "image1.png")
    with pytest.raises(ValueError, match="--out: expected a folder without the images themselves"):
        purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    assert {path: path.read_bytes() for path in attacked.iterdir()} == before


def test_another_table_is_not_overwritten(experiment: Path, attacked: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels.csv").write_text("image,truth\n1,2\n")
    with pytest.raises(ValueError, match=r"found .*labels\.csv, which is another table"):
        purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out: expected a folder, found the file"):
        purify(str(experiment), str(attacked), out=str(tmp_path / "file"))
    with pytest.raises(ValueError, match="--out: expected a folder that can be written, found /proc: "):
        purify(str(experiment), str(attacked), out="/proc/x")


def test_the_other_images_are_purified_and_what_was_refused_is_named(
    experiment: Path, attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(attacked / "wide.png")
    (attacked / "image1.png").write_bytes((attacked / "image1.png").read_bytes()[:40])
    (attacked / "page.png").write_text("<html>404</html>")
    (tmp_path / "torn.idx").write_bytes(to_idx(np.zeros((2, 8, 8), np.uint8))[:-1])
    words = (str(attacked), str(tmp_path / "torn.idx"))
    assert purify(str(experiment), *words, out=str(tmp_path / "out")) == 2
    said = capsys.readouterr()
    assert "4 images purified" in said.out
    assert {row["file"] for row in rows_of(tmp_path / "out")} == {str(attacked / f"image{n}.png") for n in (0, 2, 3, 4)}
    errors = said.err.splitlines()
    assert len(errors) == 4
    assert f"error: not purified: {attacked}/image1.png: expected an image" in errors[0]
    assert f"error: not purified: {attacked}/page.png: expected an image" in errors[1]
    assert "wide.png: expected 8 × 8 pixels (width × height), as the defense was trained on, found 9 × 8" in errors[2]
    assert "torn.idx: data: truncated" in errors[3]


def test_no_image_that_can_be_taken_and_nothing_is_written(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(tmp_path / f"{name}.png")
    assert purify(str(experiment), str(tmp_path / "a.png"), str(tmp_path / "b.png"), out=str(tmp_path / "out")) == 2
    said = capsys.readouterr()
    errors = said.err.splitlines()
    assert len(errors) == 2
    for name, error in zip(("a", "b"), errors, strict=True):
        assert f"error: not purified: {tmp_path}/{name}.png: expected 8 × 8 pixels (width × height)" in error
    assert said.out == ""
    with pytest.raises(ValueError, match=r"nothing\.png: expected an image file or a folder of them, found no such"):
        purify(str(experiment), str(tmp_path / "nothing.png"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_images_of_an_earlier_run_are_replaced_and_counted(
    experiment: Path, attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    assert "earlier run" not in capsys.readouterr().out
    (attacked / "image0.png").unlink()
    purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    note = f"note: {tmp_path}/out: 4 images of an earlier run were replaced; 1 others stay, which labels.csv no longer"
    assert note in capsys.readouterr().out


def test_pictures_of_others_are_never_replaced(experiment: Path, attacked: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "image3.png").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"--out: expected a new folder or one of an earlier run, .*image3\.png"):
        purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"precious"]


def test_what_an_interrupted_run_left_may_be_replaced(
    experiment: Path, attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    real, seen = module.batch_of, []

    def interrupted(batch: list[module.Picture]) -> torch.Tensor:
        seen.append(batch)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(batch)

    monkeypatch.setattr(module, "batch_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
    assert len(rows_of(tmp_path / "out")) == 2
    assert purify(str(experiment), str(attacked), out=str(tmp_path / "out")) == 0
    assert len(rows_of(tmp_path / "out")) == 5


def test_folders_without_a_defense_are_refused(experiment: Path, attacked: Path, tmp_path: Path) -> None:
    (experiment / "best" / "manifest.json").unlink()
    for folder, found in ((experiment / "best", r"no manifest\.json"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DefenseError, match=f"expected a saved defense, found {found}"):
            purify(str(folder), str(attacked), out=str(tmp_path / "out"))
    defense_of((2, 8, 8)).save(tmp_path / "two")
    with pytest.raises(ValueError, match="expected a defense of images with 1 or 3 channels, found 2"):
        purify(str(tmp_path / "two"), str(attacked), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_experiment_that_has_not_finished_says_how_to_go_on(
    experiment: Path, attacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal() -> str:
        with pytest.raises(DefenseError, match="expected a saved defense, found a search ") as refused:
            purify(str(experiment), str(attacked), out=str(tmp_path / "out"))
        return str(refused.value)

    monkeypatch.setattr("tune.planning.call.interpreter", lambda: "python")
    (experiment / "best" / "manifest.json").unlink()
    sessions = [{"command": f"python -m tune.search --trials {trials}"} for trials in (3, 5)]
    (experiment / "record.json").write_text(json.dumps({**sessions[0], "sessions": sessions}))
    assert refusal().endswith("that has not finished. To go on with it:\n  python -m tune.search --trials 5 --resume")
    with ExperimentLock(Storage(experiment)):
        assert refusal().endswith(f"not finished yet: it runs on {socket.gethostname()} with process id {os.getpid()}")
    (experiment / "space.yaml").write_text("search.target: projection\n")
    assert refusal().endswith("with the target projection, which saves none (those that do: unet, defense)")


def test_a_defense_is_found_by_address(experiment: Path) -> None:
    images = torch.rand(2, 1, 8, 8)
    expected = Defense.load(experiment / "best")(images)
    for folder in (str(experiment), f"{experiment}/best", f"file://{experiment}"):
        assert torch.equal(load_defense(folder)(images), expected)


def test_names_of_any_kind_are_shown_and_tabulated(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "in"
    folder.mkdir()
    long = "x" * 251
    names = ("[red]a[bold]", "b\nc\x1b[31m", 'd,"e"', "数字é", long, "\udcff")
    for number, name in enumerate(names):
        content = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        with (folder / f"{name}.png").open("wb") as file:
            Image.fromarray(content).save(file, "PNG")
    assert purify(str(experiment), str(folder), out=str(tmp_path / "[out]")) == 0
    printed = capsys.readouterr().out
    for shown in ("[red]a[bold].png", r"b\nc\x1b[31m.png", 'd,"e".png', "数字é.png", r"\udcff.png", "[out]/labels.csv"):
        assert shown in printed
    assert "\x1b" not in printed
    written = {row["file"] for row in rows_of(tmp_path / "[out]")}
    assert written == {str(folder / f"{name}.png") for name in names[:-1]} | {str(folder / r"\udcff.png")}
    assert {path.stem for path in (tmp_path / "[out]").glob("*.png")} == set(names)


def test_what_was_left_out_is_said(experiment: Path, attacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (attacked / "more.heic").write_bytes(b"x")
    purify(str(experiment), str(attacked), out=str(attacked.parent / "out"))
    printed = capsys.readouterr().out
    assert f"note: {attacked}: left out, as no images: .heic (1)" in printed
    assert "5 images purified" in printed


@pytest.mark.parametrize(("bias", "expected"), [(-9.0, 0.0), (0.0, None), (9.0, 1.0)])
def test_the_ground_is_read_off_the_generator(bias: float, expected: float | None) -> None:
    defense = defense_of()
    torch.nn.init.constant_(defense.projector.generator.out.bias, bias)
    assert ground_of(defense) == expected


def test_the_shipped_defense_knows_its_ground() -> None:
    assert ground_of(load_defense("mnist")) == 0
