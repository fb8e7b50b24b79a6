"""Bad input: one clear message, exit status 2, nothing started and nothing written."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import IMAGES, LABELS, T10K_IMAGES, T10K_LABELS, tiny_split, write_folder
from tests.tune.tiny_search import words, write_space
from tune.commands import command_line
from tune.errors import Refused
from tune.planning.experiment import find_experiment
from tune.planning.preflight import Plan, prepare
from tune.search import search
from tune.space.fields import leaves
from tune.space.space import load_space

Refuse = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Runs a command line that must be refused, and returns what was said."""

    def started(*arguments: Any, **options: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", started)

    def refuse(*arguments: str) -> str:
        before = everything(tmp_path)
        status = command_line.run(search, list(arguments), "python -m tune.search")
        said = capsys.readouterr().err
        assert status == 2, said
        assert everything(tmp_path) == before
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return refuse


def planned(space: str | None, overrides: dict[str, Any], folder: Path, name: str | None, *, resume: bool) -> Plan:
    """The plan of a search in `folder`/results."""
    return prepare(find_experiment(space, overrides, str(folder / "results"), name, resume=resume), None)


def everything(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trails", "3"], "--trails: expected a known flag, found an unknown one; did you mean --trials?"),
        (["smoke"], "expected flags, found a stray word 'smoke'"),
        (["--trials", "many"], "--trials: expected an integer"),
        (["--trials", "2.5"], "--trials: expected an integer"),
        (["--trials", "0"], "search.trials: expected an integer ≥ 1 and ≤ 100000, found 0"),
        (["--trials", "-3"], "search.trials: expected an integer ≥ 1 and ≤ 100000, found -3"),
        (["--seed", "-1"], "search.seed: expected an integer ≥ 0"),
        (["--max-cost", "0"], "search.max_cost: expected an integer ≥ 1"),
        (["--space", "quickstrat"], "did you mean quickstart?"),
        (["--space", "nowhere/my.yaml"], "nowhere/my.yaml"),
        (["--cpus-per-trial", "4000"], "--cpus-per-trial: expected at most the"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial: expected a number > 0"),
        (["--gpus-per-trial", "64"], "--gpus-per-trial: expected at most the"),
        (["--gpus-per-trial", "1.5"], "--gpus-per-trial: expected a fraction of one, or whole GPUs, found 1.5"),
        (["--concurrent", "0"], "--concurrent: expected a number ≥ 1, found 0"),
        (["--name", "a/b"], "--name: expected letters, digits"),
        (["--name", "store"], "--name: expected letters, digits"),
        (["--storage", "ftp://nowhere/x"], "storage: "),
        (["--warm-start", "nowhere"], "--warm-start: expected the folder of an experiment"),
    ],
)
def test_a_bad_command_line(refused: Refuse, tmp_path: Path, arguments: list[str], said: str) -> None:
    space = ["--space", str(write_space(tmp_path))] if "--space" not in arguments else []
    storage = ["--storage", str(tmp_path / "results")] if "--storage" not in arguments else []
    assert said in refused(*space, *storage, *arguments)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unet__widht": 4}, "unet.widht: expected a field of the experiment, found an unknown key; did you mean"),
        ({"unett__width": 4}, "unett.width"),
        ({"projector__steps": "{low: 6, high: 2}"}, "projector.steps"),
        ({"projector__restarts": "{choice: []}"}, "projector.restarts"),
        ({"projector__steps": "many"}, "projector.steps: expected an integer"),
        ({"unet__high_level_weight": -1.0}, "unet.high_level_weight: expected a number ≥ 0, found -1"),
        ({"unet__high_level_weight": "{low: -1.0, high: 1.0}"}, "unet.high_level_weight"),
        ({"search__trials": 0}, "search.trials: expected an integer ≥ 1 and ≤ 100000, found 0"),
        ({"search__target": "everything"}, "search.target"),
        ({"classifier__architecture": "Z"}, "classifier.architecture"),
        ({"unet__layer": "conv9"}, "unet.layer: expected one of"),
        ({"projector__bank_size": 1}, "bank_size"),
        ({"data__name": "nowhere"}, "nowhere"),
        ({"gan__pretrained": "mnist"}, "gan.pretrained"),
        (
            {"projector__restarts": 1, "projector__steps": 2, "unet__high_level_weight": 1.0},
            "found nothing to search",
        ),
    ],
)
def test_a_bad_space(refused: Refuse, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    space = write_space(tmp_path, **changes)
    message = refused(*words(space, tmp_path / "results"))
    assert said in message
    assert "space.yaml" in message or "data" in next(iter(changes))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def change(path: Path, at: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] = value
    path.write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "missing": (T10K_LABELS, lambda path: path.unlink()),
    "empty": (IMAGES, lambda path: cut(path, 0)),
    "header cut": (IMAGES, lambda path: cut(path, 7)),
    "truncated": (IMAGES, lambda path: cut(path, 1000)),
    "one byte short": (T10K_IMAGES, lambda path: cut(path, path.stat().st_size - 1)),
    "one byte more": (LABELS, lambda path: path.write_bytes(path.read_bytes() + b"0")),
    "wrong magic": (IMAGES, lambda path: change(path, 2, 9)),
    "labels as images": (IMAGES, lambda path: path.write_bytes((path.parent / LABELS).read_bytes())),
    "counts that differ": (LABELS, lambda path: write_folder(path.parent / "x", tiny_split(30), tiny_split(20))
                           and path.write_bytes((path.parent / "x" / LABELS).read_bytes())),
    "labels outside the classes": (T10K_LABELS, lambda path: change(path, 9, 200)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_data(refused: Refuse, tmp_path: Path, damage: str) -> None:
    space = write_space(tmp_path)
    name, harm = DAMAGE[damage]
    harm(tmp_path / "tiny" / name)
    assert name.split("-idx")[0] in refused(*words(space, tmp_path / "results"))


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_a_corrupt_gzip(refused: Refuse, tmp_path: Path, length: int) -> None:
    space = write_space(tmp_path)
    path = tmp_path / "tiny" / IMAGES
    path.with_name(f"{IMAGES}.gz").write_bytes(gzip.compress(path.read_bytes())[:length])
    path.unlink()
    assert f"{IMAGES}.gz" in refused(*words(space, tmp_path / "results"))


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """An experiment's space, whose search was begun; it is in `results/one`."""
    space = write_space(tmp_path)
    plan = planned(str(space), {}, tmp_path, "one", resume=False)
    plan.home.write("space.yaml", plan.space.to_yaml().encode())
    fingerprints = {"fingerprint": plan.dataset.fingerprint, "test_fingerprint": plan.dataset.test_fingerprint}
    plan.home.write("record.json", json.dumps({"data": fingerprints}).encode())
    return space


def test_an_existing_name_is_not_overwritten(refused: Refuse, tmp_path: Path, begun: Path) -> None:
    said = refused(*words(begun, tmp_path / "results"))
    assert "--name: expected a new experiment, found one" in said
    assert "--resume" in said


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_trials_whose_space_is_lost_are_no_new_search(
    refused: Refuse, tmp_path: Path, begun: Path, more: list[str]
) -> None:
    """They would be taken for results of whatever space is named, which may have other settings."""
    home = tmp_path / "results" / "one"
    (home / "space.yaml").unlink()
    (home / "trials").mkdir(exist_ok=True)
    (home / "trials" / "000.json").write_text("{}")
    said = refused(*words(begun, tmp_path / "results"), *more)
    assert "--name: expected a new experiment or one with its space.yaml, found trials without it in" in said


def test_a_resumed_search_keeps_its_space(refused: Refuse, tmp_path: Path, begun: Path) -> None:
    space = write_space(tmp_path, unet__epochs=5)
    assert "unet.epochs: expected what" in refused(*words(space, tmp_path / "results", "--resume"))


def test_a_resumed_search_keeps_its_data(refused: Refuse, tmp_path: Path, begun: Path) -> None:
    write_folder(tmp_path / "tiny", tiny_split(60, seed=9), tiny_split(20, seed=1))
    assert "data.name: expected the images" in refused(*words(begun, tmp_path / "results", "--resume"))


def test_a_resumed_search_says_both_values(refused: Refuse, tmp_path: Path, begun: Path) -> None:
    arguments = words(begun, tmp_path / "results", "--resume", "--set", "projector.steps: 3, projector.restarts: 2")
    said = refused(*arguments)
    assert "projector.restarts: expected what" in said
    assert "{choice: [1, 2]}, found 2;" in said
    write_folder(tmp_path / "tiny", tiny_split(60, seed=9), tiny_split(20, seed=1))
    said = refused(*words(begun, tmp_path / "results", "--resume"))
    assert said.count("(train ") == 2


def test_the_same_images_elsewhere_are_the_same(tmp_path: Path, begun: Path) -> None:
    (tmp_path / "tiny").rename(tmp_path / "moved")
    space = begun.read_text().replace(f"{tmp_path}/tiny", f"{tmp_path}/moved")
    begun.write_text(space)
    plan = planned(str(begun), {}, tmp_path, "one", resume=True)
    assert plan.config.data.name == f"{tmp_path}/moved"


def test_resuming_takes_the_experiments_own_space(tmp_path: Path, begun: Path) -> None:
    home = tmp_path / "results/one"
    own = (home / "space.yaml").read_text().replace("unet.epochs: 2 ", "unet.epochs: 7 ")
    (home / "space.yaml").write_text(own)  # as if by --set when it began
    begun.unlink()
    plan = planned(None, {"search.trials": 30}, tmp_path, "one", resume=True)
    assert plan.resumed
    assert (plan.config.unet.epochs, plan.config.search.trials) == (7, 30)


def test_resuming_what_is_not_there_begins_it(tmp_path: Path) -> None:
    for space, name in ((None, None), ("quickstart", None), ("quickstart", "new")):
        found = find_experiment(space, {}, str(tmp_path / "results"), name, resume=True)
        assert (found.name, found.resumed, found.space.name) == (name or "quickstart", False, "quickstart")


def test_a_mistyped_name_begins_nothing(refused: Refuse, tmp_path: Path, begun: Path) -> None:
    results = str(tmp_path / "results")
    said = refused("--storage", results, "--name", "onne", "--resume")
    assert f"--name: expected an experiment to resume, found no onne in {results}; did you mean one?" in said
    assert "to start one of that name, add --space" in said
    said = refused("--storage", str(begun), "--name", "one", "--resume")
    assert f"--storage: expected a folder, found the file {begun}" in said


def test_data_that_cannot_be_looked_into_are_named(refused: Refuse, tmp_path: Path) -> None:
    name = "x" * 300  # refused by the system like a folder without permission, which root has
    said = refused(*words(write_space(tmp_path, data__name=name), tmp_path / "results"))
    assert f"error: data.name: expected data that can be read, found {name}: File name too long" in said


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_a_torn_space_is_named(refused: Refuse, tmp_path: Path, begun: Path, part: float) -> None:
    path = tmp_path / "results/one/space.yaml"
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert str(path) in refused(*words(begun, tmp_path / "results", "--resume"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"search.target: defense\nprojector.steps: {low: 1, hi", "not valid YAML"),
        ('data.name: "café"\n'.encode("latin-1"), "bytes that are not UTF-8 text"),
        ("data.name: mnist\n".encode("utf-16"), "UTF-16 text"),
    ],
)
def test_a_damaged_space_is_named_with_the_way_on(
    refused: Refuse, tmp_path: Path, begun: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "results/one/space.yaml"
    path.write_bytes(content)
    for more in ([], ["--space", str(begun)]):
        message = refused("--storage", str(tmp_path / "results"), "--name", "one", "--resume", *more)
        assert f"{path}: expected the space of this search, found {said}" in message
        assert "put that file back, or search under another --name" in message


def test_a_lost_space_is_asked_for_with_the_command_that_began_it(
    refused: Refuse, tmp_path: Path, begun: Path
) -> None:
    home = tmp_path / "results/one"
    (home / "space.yaml").unlink()
    (home / "trials").mkdir(exist_ok=True)
    (home / "trials/000.json").write_text("{}")
    (home / "record.json").write_text(json.dumps({"command": "python -m tune.search --space mine.yaml"}))
    for more in ([], ["--space", str(begun)]):
        said = refused("--storage", str(tmp_path / "results"), "--name", "one", "--resume", *more)
        assert "found trials without it" in said
        assert "or search by what began it, python -m tune.search --space mine.yaml, under another --name" in said


@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
@pytest.mark.parametrize("flag", ["--space", "--plugin", "classifier.weights"])
def test_a_pipe_or_a_device_is_refused_at_once(
    refused: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, device: str
) -> None:
    space = str(write_space(tmp_path))
    file = device if device.startswith("/") else str(tmp_path / device)
    if file != device:
        os.mkfifo(file)
    given = ["--set", f"classifier.weights: {file}"] if "." in flag else [flag, file]
    said = refused(*([] if flag == "--space" else ["--space", space]), *given)
    assert file in said
    assert "no plain file" in said or "no such file or name" in said


@pytest.mark.parametrize(
    "setting",
    ["classifier.epochs: 1000000000000", "gan.steps: 1000000000000", "unet.epochs: {low: 1, high: 100000000000}",
     "search.budget: 1000000000h", f"search.budget: 1{'0' * 400}d", "search.retrain_seeds: 1000000"],
)  # fmt: skip
def test_what_nobody_lives_to_see_is_refused(refused: Refuse, tmp_path: Path, setting: str) -> None:
    said = refused(*words(write_space(tmp_path), tmp_path / "results", "--set", setting))
    assert setting.split(":", maxsplit=1)[0] in said
    assert "≤ " in said or "up to 365d" in said


def test_a_resumed_search_may_have_more_trials(tmp_path: Path, begun: Path) -> None:
    plan = planned(str(begun), {"search.trials": 30}, tmp_path, "one", resume=True)
    assert plan.resumed
    assert plan.config.search.trials == 30


def test_a_damaged_record_does_not_stop_a_resume(tmp_path: Path, begun: Path) -> None:
    (tmp_path / "results/one/record.json").write_bytes(b'{"data": ')
    assert planned(str(begun), {}, tmp_path, "one", resume=True).resumed


def test_a_storage_that_is_a_file(refused: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    space = write_space(tmp_path)
    assert "--storage: expected a folder, found the file" in refused(*words(space, tmp_path / "file"))
    assert "--storage: expected a folder, found the file" in refused(*words(space, tmp_path / "file" / "in it"))


def test_a_storage_that_cannot_be_written(refused: Refuse, tmp_path: Path) -> None:
    space = write_space(tmp_path)  # not by permissions, which root does not have to mind
    assert "--storage: expected a folder that can be written, found /proc" in refused(*words(space, Path("/proc/x")))


def test_nothing_is_written_before_a_search(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    before = everything(tmp_path)
    planned(str(space), {}, tmp_path, None, resume=False)
    assert everything(tmp_path) == before


def test_images_too_small_for_the_discriminator(refused: Refuse, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", tiny_split(60, shape=(1, 6, 6)), tiny_split(20, shape=(1, 6, 6)))
    said = refused(*words(write_space(tmp_path), tmp_path / "results"))
    assert "gan: expected images of at least 8 × 8, found 6 × 6" in said


def test_images_too_small_for_the_classifier(tmp_path: Path) -> None:
    write_folder(tmp_path / "tiny", tiny_split(60, shape=(1, 6, 6)), tiny_split(20, shape=(1, 6, 6)))
    space = write_space(tmp_path, classifier__architecture="B")
    with pytest.raises(Refused, match=r"classifier.architecture: B"):
        planned(str(space), {}, tmp_path, None, resume=False)


def test_a_disk_too_small_is_refused(
    refused: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.planning.preflight.free_bytes", lambda storage: 100_000)
    said = refused(*words(write_space(tmp_path), tmp_path / "results"))
    assert "of free disk for the estimated artifacts, found 100.0 kB" in said


def test_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.planning.rates.SECONDS", 0.01)
    space = write_space(tmp_path)
    before = everything(tmp_path)
    assert command_line.run(search, [*words(space, tmp_path / "results"), "--dry-run"], "python -m tune.search") == 0
    assert everything(tmp_path) == before
    printed = capsys.readouterr().out
    assert "would be started; 3 trials, 1 at once" in printed
    assert "projector.restarts: {choice: [1, 2]}" in printed
    assert "unet.precision: float32" in printed  # it has its default
    chosen = load_space(space).fixed  # of the attacks' fields those of the one that the space names
    assert all(f"  {key}: " in printed for key, leaf in leaves().items() if leaf.belongs(chosen))
    for line in ("projection_train", "Retraining", "Estimated:", "evaluations/s", "Disk:"):
        assert line in printed
