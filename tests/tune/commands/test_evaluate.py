"""`tune evaluate`: a saved defense, its table, its file, and what it refuses."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.attacks.campaign import Campaign, Planned
from components.attacks.kept import Begun
from components.attacks.presets import PRESETS
from components.classifiers.catalogue import network_of
from components.defense import Defense
from components.plugins import plugged
from components.static_reference import StaticTraining
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
    quick = PRESETS["quick"]
    for course, places in (("over ε", quick.epsilons), ("over steps", quick.step_counts)):
        assert f"whole defense: robust accuracy {course}, 1 of {len(places)}: {places[0]:g}, 6 images" in shown.err
    adaptive = json.loads(out.read_text())["adaptive"]
    assert adaptive["images"] == 6
    assert adaptive["over_epsilon"]
    assert {"name", "knows", "steps", "restarts", "eot", "right"} <= set().union(*adaptive["attacks"], {"name"}) or (
        adaptive["clean"] == 0
    )
    assert 0 <= adaptive["worst"] <= adaptive["clean"] <= 1
    assert set(adaptive["beside"]) == {"classifier", "threshold", "gan", "defense", "static"}
    assert "classifier trained on attacks: epoch 1 of 1" in shown.err
    assert "threshold, classifier trained on attacks" in shown.out


def test_the_curves_may_be_left_out(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    out = tmp_path / "adaptive.json"
    words = ["evaluate", str(tmp_path / "saved"), "--data", str(tiny_folder), "--images", "2", "--out", str(out)]
    assert entry.main([*words, "--no-curves"]) == 0
    assert "robust accuracy over" not in capsys.readouterr().err
    adaptive = json.loads(out.read_text())["adaptive"]
    assert (adaptive["over_epsilon"], adaptive["over_steps"]) == ([], [])


def test_an_experiments_defense_is_attacked_on_its_own_data_with_its_own_strength(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "mine"
    defense_of(init="encoder", levels=2, restarts=1).save(home / "best")
    (home / "space.yaml").write_text(f"data.name: {tiny_folder}\nattack.epsilon: {{choice: [0.1, 0.2]}}\n")
    (home / "best" / "choice.json").write_text(json.dumps({"trial": 0, "params": {"attack.epsilon": 0.2}}))
    for words, epsilon in (([str(home)], "0.2"), ([str(home / "best"), "--epsilon", "0.05"], "0.05")):
        assert entry.main(["evaluate", *words, "--images", "2"]) == 0
        assert f"2 test images of tiny, ε = {epsilon}" in capsys.readouterr().out


def test_images_of_other_classes_are_refused(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defense_of(classes=5).save(tmp_path / "saved")
    assert entry.main(["evaluate", str(tmp_path / "saved"), "--data", str(tiny_folder)]) == 2
    assert "--data: expected 5 classes, found 4 in tiny" in capsys.readouterr().err


def test_a_reference_of_less_than_no_epochs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--reference", "-1"]) == 2
    assert "--reference: expected an integer ≥ 0, found -1" in capsys.readouterr().err


def saved_with(folder: Path, in_training: str) -> list[str]:
    """Saves a defense of a classifier that gives something else in training mode; the words that evaluate it."""
    plugin = folder / "own.py"
    plugin.write_text(
        "from torch import nn\n"
        "from components.plugins import classifier\n"
        "class Own(nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        logits = super().forward(images)\n"
        f"        return ({in_training}) if self.training else logits\n"
        "@classifier('own')\n"
        "def own(shape, classes):\n"
        "    return Own(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    whole = defense_of(init="encoder", levels=2, restarts=1)
    with plugged(str(plugin)):
        Defense(whole.projector, whole.unet, network_of("own", (1, 8, 8), 4)).save(folder / "saved")
    return ["evaluate", str(folder / "saved"), "--plugin", str(plugin), "--images", "4", "--reference", "1"]


def test_a_plug_in_that_was_changed_in_between_is_attacked_anew(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*saved_with(tmp_path, "logits")[:-2], "--data", str(tiny_folder), "--no-curves", "--out"]
    make = Campaign.make

    def interrupted(campaign: Campaign, planned: Planned, keep: Callable[[Begun], None] | None) -> None:
        make(campaign, planned, keep)
        if planned.name == "Square" and list(tmp_path.glob("x.json.*")):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Campaign, "make", interrupted)
        assert entry.main([*words, str(tmp_path / "x.json")]) == 130
    plugin = tmp_path / "own.py"
    plugin.write_text(plugin.read_text().replace("else logits", "else -logits"))
    capsys.readouterr()
    assert entry.main([*words, str(tmp_path / "x.json")]) == 0
    assert "going on" not in capsys.readouterr().err


@pytest.mark.parametrize("epsilon", ["null", "[0.1]", "abc", "true", "1.5", ".nan"])
def test_an_experiments_epsilon_that_is_none_is_refused(
    tmp_path: Path, epsilon: str, capsys: pytest.CaptureFixture[str]
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "best")
    (tmp_path / "space.yaml").write_text(f"attack.epsilon: {epsilon}\n")
    assert entry.main(["evaluate", str(tmp_path)]) == 2
    assert f"{tmp_path}: attack.epsilon: expected a number in 0 … 1, found " in capsys.readouterr().err


def test_a_reference_of_too_many_epochs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--reference", "1000000"]) == 2
    assert "--reference: epochs: expected an integer" in capsys.readouterr().err


def test_a_reference_of_a_classifier_that_cannot_be_trained_is_refused_before_an_attack(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = saved_with(tmp_path, "logits, images")
    assert entry.main([*words, "--data", str(tiny_folder)]) == 2
    shown = capsys.readouterr()
    assert "--reference: expected a classifier that can be trained further: " in shown.err
    assert "expected logits (N, 4) in training mode too, found tuple" in shown.err
    assert "attack" not in shown.out + shown.err.replace("attacked", "")


def test_what_was_found_is_written_before_the_reference_is_trained_and_shown_where_that_fails(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = saved_with(tmp_path, "logits if len(images) == 3 else 1 // 0")  # the look beforehand takes three
    out = tmp_path / "adaptive.json"
    with pytest.raises(ZeroDivisionError):
        entry.main([*words, "--data", str(tiny_folder), "--out", str(out)])
    assert set(json.loads(out.read_text())["adaptive"]["beside"]) == {"classifier", "threshold", "gan", "defense"}
    assert "whole defense" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_before_an_attack(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    words = ["evaluate", str(tmp_path / "saved"), "--data", str(tiny_folder), "--images", "2", "--out"]
    for out, message in ((tmp_path, f"found the folder {tmp_path}"), ("/proc/x.json", "found /proc: ")):
        assert entry.main([*words, str(out)]) == 2
        shown = capsys.readouterr()
        assert "error: --out: expected a f" in shown.err
        assert message in shown.err
        assert "attack" not in shown.err
        assert shown.out == ""


def test_what_was_found_is_shown_where_the_disk_became_full(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    words = ["evaluate", str(tmp_path / "saved"), "--data", str(tiny_folder), "--images", "2"]
    assert entry.main([*words, "--out", str(tmp_path / "x.json")]) == 1
    shown = capsys.readouterr()
    assert f"error: --out: expected a file that can be written, found {tmp_path}/x.json: No space left" in shown.err
    assert "whole defense" in shown.out


@pytest.mark.parametrize("end", ["2>&1 | head -1", "2>/dev/null | true"])
def test_output_that_is_closed_is_no_success_where_a_file_was_to_be_written(
    tmp_path: Path, tiny_folder: Path, end: str
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    out = tmp_path / "x.json"
    words = f"-m tune evaluate {tmp_path}/saved --data {tiny_folder} --images 2 --no-curves --out {out}"
    line = f"(sleep 0.5; exec {sys.executable} {words}) {end}; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", line], check=False).returncode == 130
    assert not out.exists()


def test_a_table_that_is_not_read_to_its_end_is_no_failure(tmp_path: Path, tiny_folder: Path) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    words = f"-m tune evaluate {tmp_path}/saved --data {tiny_folder} --images 2 --no-curves --out {tmp_path}/x.json"
    line = f"{sys.executable} {words} 2>/dev/null | head -1; exit ${{PIPESTATUS[0]}}"
    assert subprocess.run(["bash", "-c", line], check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert (tmp_path / "x.json").exists()


def test_after_an_interruption_the_same_command_goes_on(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    out = tmp_path / "x.json"
    words = ["evaluate", f"{tmp_path}/saved", "--data", str(tiny_folder), "--images", "8", "--no-curves", "--out"]
    assert entry.main([*words, str(tmp_path / "undisturbed.json")]) == 0
    make = Campaign.make

    def interrupted(campaign: Campaign, planned: Planned, keep: Callable[[Begun], None] | None) -> None:
        make(campaign, planned, keep)
        if planned.name == "APGD cross-entropy" and len(campaign.rows) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Campaign, "make", interrupted)
        assert entry.main([*words, str(out)]) == 130
    (kept,) = tmp_path.glob("x.json.*")
    assert f"goes on after what is kept in {kept}" in capsys.readouterr().err
    (tmp_path / "x.json.unfinished").write_text("a user's own")
    assert entry.main([*words, str(out), "--seed", "1"]) == 0  # which neither goes on with it nor removes it
    assert "going on" not in capsys.readouterr().err
    assert entry.main([*words, str(out)]) == 0
    assert "going on after 3 of" in capsys.readouterr().err
    one, other = (json.loads(path.read_text())["adaptive"] for path in (out, tmp_path / "undisturbed.json"))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}
    left = ["undisturbed.json", "x.json", "x.json.unfinished"]
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == left


def test_a_reference_that_was_interrupted_goes_on_and_no_attack_is_made_again(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defense_of(init="encoder", levels=2, restarts=1).save(tmp_path / "saved")
    out = tmp_path / "x.json"
    words = ["evaluate", f"{tmp_path}/saved", "--data", str(tiny_folder), "--images", "8", "--no-curves"]
    words += ["--reference", "3", "--out"]
    assert entry.main([*words, str(tmp_path / "undisturbed.json")]) == 0
    trained, made, make, run_epoch = list[int](), list[str](), Campaign.make, StaticTraining.run_epoch

    def interrupted(training: StaticTraining) -> dict[str, float]:
        trained.append(training.epoch)
        metrics = run_epoch(training)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        return metrics

    def interrupted_later(campaign: Campaign, planned: Planned, keep: Callable[[Begun], None] | None) -> None:
        if len(trained) == 4:  # the reference is trained, and its attacks begin
            made.append(planned.title)
            if len(made) == 2:
                raise KeyboardInterrupt
        make(campaign, planned, keep)

    monkeypatch.setattr(StaticTraining, "run_epoch", interrupted)
    monkeypatch.setattr(Campaign, "make", interrupted_later)
    for kept, status in (("training", 130), ("reference", 130), (None, 0)):
        capsys.readouterr()
        assert entry.main([*words, str(out)]) == status
        shown = capsys.readouterr()
        assert "whole defense" in shown.out
        assert kept is None or re.search(rf"goes on after what is kept in .*{out}\.\w{{8}}\.{kept}\n", shown.err)
    assert trained == [0, 1, 1, 2]
    assert "going on after 1 of" in shown.err
    assert "going on after epoch 3 of 3" in shown.err
    one, other = (json.loads(path.read_text())["adaptive"] for path in (out, tmp_path / "undisturbed.json"))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["undisturbed.json", "x.json"]


def test_images_of_another_shape_are_refused(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["evaluate", "mnist", "--data", str(tiny_folder)]) == 2
    assert "--data: expected images of shape (1, 28, 28), found (1, 8, 8)" in capsys.readouterr().err


def test_data_that_are_not_there_are_blamed_on_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--data", "mnst"]) == 2
    assert capsys.readouterr().err.startswith("error: --data: expected ")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["evaluate", "mnist", "--device", device]) == 2
    assert f"--device: expected one that torch can use here, such as cpu, found '{device}'" in capsys.readouterr().err
