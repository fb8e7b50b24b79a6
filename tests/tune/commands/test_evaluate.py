"""`tune evaluate`: a saved defense, its table, its file, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

from tests.tiny_networks import defense_of
from tune import __main__ as entry


def test_a_saved_defense_is_attacked_and_written_down(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    out = tmp_path / "adaptive.json"
    words = ["evaluate", str(tmp_path / "saved"), "--data", str(tiny_folder), "--images", "6", "--out", str(out)]
    words += ["--reference", "1"]
    assert entry.main(words) == 0
    shown = capsys.readouterr()
    for stage in ("classifier alone", "threshold alone", "GAN only", "whole defense"):
        assert stage in shown.out
        assert stage in shown.err
    assert re.search(r"whole defense: attack 1 of \d+, .*, on \d images", shown.err)
    assert re.search(r"whole defense: attack 3 of \d+, .*, about \d+ s left", shown.err) or "0 stand" in shown.err
    adaptive = json.loads(out.read_text())["adaptive"]
    assert adaptive["images"] == 6
    assert {"name", "knows", "steps", "restarts", "eot", "right"} <= set().union(*adaptive["attacks"], {"name"}) or (
        adaptive["clean"] == 0
    )
    assert 0 <= adaptive["worst"] <= adaptive["clean"] <= 1
    assert set(adaptive["beside"]) == {"classifier", "threshold", "gan", "defense", "static"}
    assert "classifier trained on attacks: epoch 1 of 1" in shown.err
    assert "threshold, classifier trained on attacks" in shown.out


def test_a_reference_of_less_than_no_epochs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--reference", "-1"]) == 2
    assert "--reference: expected an integer ≥ 0, found -1" in capsys.readouterr().err


def test_images_of_another_shape_are_refused(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["evaluate", "mnist", "--data", str(tiny_folder)]) == 2
    assert "--data: expected images of shape (1, 28, 28), found (1, 8, 8)" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--device", device]) == 2
    assert f"--device: expected one that torch can use here, such as cpu, found '{device}'" in capsys.readouterr().err
