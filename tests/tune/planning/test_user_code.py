"""A user's own classifier in a search: by a plug-in, by weights and from Python."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from components.classifiers.catalogue import CLASSIFIERS, network_of
from components.classifiers.training import check_trainable
from components.classifiers.victim import Victim
from components.classifiers.weights import file_of, packed, put_weights
from components.datasets import Dataset, load_dataset
from components.defense import Defense, DefenseError
from components.plugins import plugged
from tests.tiny import tiny_split, write_folder
from tests.tiny_networks import SmallResNet, defense_of
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on, try_here
from tests.tune.tiny_search import SETTINGS, outcomes, run, words, write_space
from tune.commands import command_line
from tune.commands.purify import load_defense
from tune.errors import Refused
from tune.evaluation.retraining import assemble
from tune.execution.driver import arrays_of
from tune.execution.finalist_training import run_finalist
from tune.execution.seeds import Retraining, final_executor, run_retraining
from tune.execution.trial import run_trial
from tune.pipeline.recipe import Development, bounds_of
from tune.pipeline.stages import final_path_of, further_path_of, path_of, signatures_of
from tune.planning.experiment import find_experiment
from tune.planning.preflight import Plan, prepare
from tune.planning.user_code import UserCode, user_code_of
from tune.search import search
from tune.space.space import parse_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.record import write_record

RESNET = Path(__file__).parents[2] / "small_resnet.py"
CLASSES = 12


def write_pictures(folder: Path, images: int = 120, size: int = 32) -> Path:
    """A data set like CIFAR-10 and made up: PNG files of 32 × 32 colours in a folder for each of 12 classes."""
    for part, number, seed in (("train", images, 0), ("test", images // 3, 1)):
        split = tiny_split(number, CLASSES, (3, size, size), seed)
        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            home = folder / part / f"class{label:02d}"
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(home / f"{index:04d}.png")
    return folder


def space_of(tmp_path: Path, **changes: Any) -> Path:
    settings = {"classifier__architecture": "small_resnet", "classifier__batch_size": 16, **changes}
    return write_space(tmp_path, **settings)


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    """Plans a search as the command line would, with the plug-in and the classifier registered."""

    def planned(space: Path, user_code: UserCode, *, resume: bool = False) -> Plan:
        found = find_experiment(str(space), {}, str(tmp_path / "results"), "one", resume=resume, user_code=user_code)
        return prepare(found, None)

    return planned


def refused(space: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What a command line that must be refused says."""
    arguments = words(space, folder / "results", *more)
    assert command_line.run(search, arguments, "python -m tune.search") == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert not (folder / "results").exists()
    return said


def test_a_space_names_a_plug_in(tmp_path: Path, plan: Callable[..., Plan]) -> None:
    with user_code_of(str(RESNET), None) as user_code:
        found = plan(space_of(tmp_path), user_code)
        assert found.config.classifier.architecture == "small_resnet"
        assert user_code.record()["plugin"]["defines"] == {"classifier.architecture": ["small_resnet"]}
    assert "small_resnet" not in CLASSIFIERS


def test_without_it_the_name_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(space_of(tmp_path), tmp_path, capsys)
    assert "classifier.architecture: expected A, B, C, D, E, F, a torchvision model, or one that --plugin" in said
    assert "found 'small_resnet'" in said
    assert "space.yaml, line" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("view(x.size(0), -1)", "flatten()"), "expected a network of images (1, 8, 8), found RuntimeError"),
        (("4 * width, classes", "4 * width, 3"), "expected logits (N, 4) of images (1, 8, 8), found"),
        (("self.dropout(", "nn.functional.dropout("), "expected the same logits in two calls in evaluation mode"),
        (("def small_resnet(image_shape", "def small_resnet(images, image_shape"), "found TypeError"),
        (('@classifier("small_resnet")', '@classifier("E")'), "expected a new name, found 'E'"),
        (("import Tensor, nn", "import Tensor, nn, nothing"), "expected a file that runs, found ImportError"),
        (("channels = image_shape[0]", "raise ValueError('too small')"), "found ValueError: too small"),
        (("channels = image_shape[0]", "raise SystemExit(0)"), "found SystemExit: 0"),
        (('@classifier("small_resnet")', '@classifier("small_resnet")\n@cache'), "expected a new network at each call"),
    ],
)
def test_a_plug_in_that_goes_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    text = RESNET.read_text().replace(*change)
    assert text != RESNET.read_text()
    (tmp_path / "mine.py").write_text("from functools import cache\n" + text)
    message = refused(space_of(tmp_path), tmp_path, capsys, "--plugin", str(tmp_path / "mine.py"))
    assert said in message
    assert "mine.py" in message


def test_a_missing_plug_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(space_of(tmp_path), tmp_path, capsys, "--plugin", "nowhere.py")
    assert "--plugin: expected a Python file, found nowhere.py: No such file or directory" in message


ATTACK = """
from typing import Literal
from components.attacks import Attack
from components.plugins import attack

@attack("mine")
class Mine(Attack):
    name: Literal["mine"] = "mine"

    def perturb(self, classifier, images, labels, seed=0):
        return RESULT
"""


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("images * 3", "expected images in [0, 1], found 0 … "),
        ("1 - images", "expected pixels moved by at most 0.3"),
        ("images[:, :, 1:]", "expected images (2, 1, 8, 8), found (2, 1, 7, 8)"),
        ("nothing", "expected attacked images, found NameError"),
    ],
)
def test_an_attack_whose_images_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], result: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text(ATTACK.replace("RESULT", result))
    space = write_space(tmp_path, attack__name="mine")
    message = refused(space, tmp_path, capsys, "--plugin", str(tmp_path / "mine.py"))
    assert f"attack.name: mine of {tmp_path}/mine.py: {said}" in message


def test_an_unknown_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(space_of(tmp_path, unet__layer="block9"), tmp_path, capsys, "--plugin", str(RESNET))
    assert "unet.layer: expected one of" in message
    assert "block1.norm1" in message


def test_weights_of_another_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(packed(network_of("E", (1, 8, 8), 5)))
    space = write_space(tmp_path, classifier__weights=file)
    message = refused(space, tmp_path, capsys)
    assert f"classifier.weights: {file}: expected the weights of Classifier, found layers.logits" in message
    assert "where (4," in message
    file.unlink()
    assert f"classifier.weights: expected a safetensors file, found {file}: No such file" in refused(
        space, tmp_path, capsys
    )


def test_a_plug_in_is_the_same_when_resumed(tmp_path: Path, plan: Callable[..., Plan]) -> None:
    changed = tmp_path / "changed.py"
    changed.write_text(RESNET.read_text() + "# changed\n")
    with user_code_of(str(RESNET), None) as user_code:
        begun = plan(space_of(tmp_path), user_code)
        begun.home.write("space.yaml", begun.space.to_yaml().encode())
        write_record(begun.home, user_code.record())
        assert plan(space_of(tmp_path), user_code, resume=True).resumed
    for plugin, found in ((None, "none"), (str(changed), "changed.py, sha256")):
        said = rf"--plugin: expected .*small_resnet\.py.*{found}"
        with user_code_of(plugin, None) as user_code, pytest.raises(Refused, match=said):
            find_experiment(None, {}, str(tmp_path / "results"), "one", resume=True, user_code=user_code)


def test_weights_are_the_same_when_resumed(tmp_path: Path, plan: Callable[..., Plan]) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(packed(network_of("E", (1, 8, 8), 4)))
    space = write_space(tmp_path, classifier__weights=file)
    with user_code_of(None, None) as user_code:
        begun = plan(space, user_code)
        begun.home.write("space.yaml", begun.space.to_yaml().encode())
        write_record(begun.home, begun.user_code.record())
        begun.user_code.keep(begun.home)
    content = file.read_bytes()
    file.unlink()
    with user_code_of(None, None) as user_code:
        assert plan(space, user_code, resume=True).user_code.weights == begun.user_code.weights
    file.write_bytes(packed(network_of("E", (1, 8, 8), 4)))
    assert file.read_bytes() != content
    said = r"classifier\.weights: .*: expected sha256"
    with user_code_of(None, None) as user_code, pytest.raises(Refused, match=said):
        plan(space, user_code, resume=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The made-up colours, read."""
    folder = tmp_path_factory.mktemp("pictures")
    return load_dataset(str(write_pictures(folder, 72, 8)), validation_fraction=0.4)


def space_text(**changes: Any) -> str:
    settings = {**SETTINGS, "classifier.batch_size": 16, **{k.replace("__", "."): v for k, v in changes.items()}}
    lines = [f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
    return "\n".join(lines)


def signatures(tmp_path: Path, pictures: Dataset, overrides: dict[str, Any]) -> dict[str, str]:
    """Those of the stages of a trial."""
    changes = {key.replace(".", "__"): value for key, value in overrides.items()}
    space = parse_space(space_text(**changes), "mine", "mine.yaml")
    config = space.config(PARAMS)
    executor = setting_on(tmp_path, pictures, space).trial_executor(Development.for_search(pictures), config, 0)
    return signatures_of(executor.recipe(config), path_of(config))


def test_a_plug_in_and_a_module_defend_alike(tmp_path: Path, pictures: Dataset) -> None:
    """In this process: a trial and a retraining with the plug-in, and its saved defense read again."""
    with user_code_of(str(RESNET), None) as user_code:
        space = parse_space(space_text(classifier__architecture="small_resnet"), "mine", "mine.yaml")
        setting = setting_on(tmp_path, pictures, space)
        outcome = try_here(setting, pictures, 0, PARAMS)
        assert outcome.status == "finished", outcome.error
        config = space.config(PARAMS)
        final = Development.for_retraining(pictures)
        executor = final_executor(setting, arrays_of(train=final.train), final.fingerprint, config, 0)
        defense = assemble(executor, executor.get(config, final_path_of(config)))
        defense.save(tmp_path / "best")
        assert user_code.plugin is not None
        loaded = load_defense(str(tmp_path / "best"))
        torch.testing.assert_close(loaded(pictures.test.images), defense(pictures.test.images))
    needed = json.loads((tmp_path / "best/defense.json").read_text())["classifier"]
    assert needed["architecture"] == "small_resnet"
    with pytest.raises(DefenseError, match=r"classifier small_resnet, for images \(3, 8, 8\) of 12 classes"):
        Defense.load(tmp_path / "best")
    module = defense.classifier.network
    again = Defense.load(tmp_path / "best", classifier=module)
    torch.testing.assert_close(again(pictures.test.images), loaded(pictures.test.images))
    others = {
        r"expected weights \w+…, found": SmallResNet(3, CLASSES),
        r"expected logits \(N, 12\)": SmallResNet(3, 5),
        r"expected a network of images \(3, 8, 8\)": SmallResNet(1, CLASSES),
        r"expected mean \[0.5, 0.5, 0.5\], found \[0.0": Victim(module, (3, 8, 8), CLASSES),
    }
    for said, other in others.items():
        with pytest.raises(DefenseError, match=said):
            Defense.load(tmp_path / "best", classifier=other)


def test_a_module_from_python_is_defended_as_it_is(tmp_path: Path, pictures: Dataset) -> None:
    module: nn.Module = Victim(SmallResNet(3, CLASSES), (3, 8, 8), CLASSES, mean=(0.5,) * 3)
    with user_code_of(None, module) as user_code:
        changes = {key.replace(".", "__"): value for key, value in user_code.overrides.items()}
        space = parse_space(space_text(**changes), "mine", "mine.yaml")
        setting = setting_on(tmp_path, pictures, space)
        outcome = try_here(setting, pictures, 0, PARAMS)
        assert outcome.status == "finished", outcome.error
        expected = module.eval().predict(pictures.validation.images)  # type: ignore[operator]
        right = float((expected == pictures.validation.labels).float().mean())
        assert outcome.metrics["pso"] == pytest.approx(right)


def test_a_plug_in_of_another_normalisation_is_refused(tmp_path: Path) -> None:
    """Its weights would fit, and every label could be another."""
    defense = defense_of((3, 8, 8), CLASSES)
    source = RESNET.read_text()
    (tmp_path / "mine.py").write_text(source.replace("mean=[0.5]", "mean=[0.4]"))
    with plugged(str(tmp_path / "mine.py")):
        made = Defense(defense.projector, defense.unet, network_of("small_resnet", (3, 8, 8), CLASSES))
        for name, saved in (("whole", made), ("half", copy.deepcopy(made).bfloat16())):  # which rounds its means
            saved.save(tmp_path / name)
            Defense.load(tmp_path / name)
    with plugged(str(RESNET)):
        for name in ("whole", "half"):
            with pytest.raises(DefenseError, match=r"small_resnet of .*: expected mean \[0\.4.*, found \[0\.5"):
                Defense.load(tmp_path / name)


def test_a_module_of_another_normalisation_or_layer_is_another(tmp_path: Path, pictures: Dataset) -> None:
    """To the store, and to a search that is resumed."""
    network = SmallResNet(3, CLASSES)
    told: list[dict[str, Any]] = [{}, {"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"layer": "pool"}]
    found, records = [], []
    for settings in told:
        with user_code_of(None, Victim(network, (3, 8, 8), CLASSES, **settings)) as user_code:
            found.append(signatures(tmp_path, pictures, user_code.overrides))
            records.append(user_code.record())
            user_code.check_resumed(records[-1])
            for before in records[:-1]:
                with pytest.raises(Refused, match="with its Victim, found another Victim"):
                    user_code.check_resumed(before)
    for stage in ("classifier", "unet"):
        assert len({signatures[stage] for signatures in found}) == len(told)
    assert len({signatures["gan"] for signatures in found}) == 1


def test_a_module_may_call_a_part_of_it_its_network() -> None:
    """All of its weights are kept, not those of that part."""
    module = nn.Sequential()
    module.add_module("network", nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
    module.add_module("head", nn.Linear(8, 4))
    with user_code_of(None, module):
        classifier = network_of("given", (1, 8, 8), 4)
        nn.init.zeros_(classifier.network.get_submodule("head").weight)
        put_weights(classifier.network, file_of("given").read(), "given")
        assert torch.equal(classifier.network.get_submodule("head").weight, module.get_submodule("head").weight)


def test_a_bare_module_keeps_the_name_that_the_store_has_it_by() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with user_code_of(None, module) as user_code:
        assert user_code.record()["classifier"]["sha256"] == hashlib.sha256(f"Sequential {module}".encode()).hexdigest()


def test_a_module_with_a_derived_weight_is_taken(pictures: Dataset) -> None:
    """One that `weight_norm` has just made holds a weight with a graph, of which torch makes no copies."""
    module = SmallResNet(3, CLASSES)
    nn.utils.weight_norm(module.head)
    with user_code_of(None, module):
        network = network_of("given", (3, 8, 8), CLASSES)
        check_trainable(network)
        images = pictures.validation.images
        assert torch.equal(network.eval()(images), module.eval()(images))


def test_a_changed_plug_in_finds_no_old_artifact(tmp_path: Path, pictures: Dataset) -> None:
    found = []
    for more in ("", "# changed\n"):
        (tmp_path / "mine.py").write_text(RESNET.read_text() + more)
        with user_code_of(str(tmp_path / "mine.py"), None):
            found.append(signatures(tmp_path, pictures, {"classifier.architecture": "small_resnet"}))
    assert found[0]["gan"] == found[1]["gan"]
    assert found[0]["classifier"] != found[1]["classifier"]
    assert found[0]["unet"] != found[1]["unet"]


def test_a_worker_runs_the_plug_in_itself() -> None:
    with user_code_of(str(RESNET), None) as user_code:
        pass
    assert "small_resnet" not in CLASSIFIERS
    with CLASSIFIERS.scope():
        user_code.install()
        assert "small_resnet" in CLASSIFIERS
    assert run_trial.__module__ == "tune.execution.trial"


def test_whatever_is_trained_for_the_search_knows_the_plug_in(tmp_path: Path, pictures: Dataset) -> None:
    """Trials, finalists and retrainings, each as a process that is new to the plug-in."""
    with user_code_of(str(RESNET), None) as user_code:
        space = parse_space(space_text(classifier__architecture="small_resnet"), "mine", "mine.yaml")
        setting = replace(setting_on(tmp_path, pictures, space), user_code=user_code)
        path = further_path_of(space.config(PARAMS))
    arrays, channel = arrays_of(train=pictures.train, validation=pictures.validation), SilentChannel()
    with CLASSIFIERS.scope():
        run_trial({"trial": 0, "params": PARAMS}, setting=setting, arrays=arrays, channel=channel)
    assert Ledger(setting.home).outcomes()[0].status == "finished"
    with CLASSIFIERS.scope():
        assert run_finalist(setting, arrays, PARAMS, 1, 0, channel, bounds_of(space), path)["metrics"]
    final = Development.for_retraining(pictures)
    one = Retraining(setting, final.fingerprint, PARAMS, 0, 0, channel)
    with CLASSIFIERS.scope():
        assert run_retraining(one, arrays_of(train=final.train), arrays_of(test=pictures.test))["metrics"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_space_to_report_with_a_plug_in(tmp_path: Path) -> None:
    """The command line on a made-up CIFAR-10 of twelve classes, with a user's own small ResNet."""
    data = write_pictures(tmp_path / "tiny")
    space = space_of(tmp_path, search__trials=2, search__finalists=2, search__finalist_seeds=2, data__name=data)
    results = tmp_path / "results"
    status, output = run(words(space, results, "--plugin", str(RESNET)), tmp_path / "log")
    assert status == 0, output
    home = results / "one"
    assert {outcome.status for outcome in outcomes(home).values()} == {"finished"}
    record = json.loads((home / "record.json").read_text())
    assert record["plugin"]["defines"] == {"classifier.architecture": ["small_resnet"]}
    assert "small_resnet" in (home / "space.yaml").read_text()
    assert {"pso", "psd", "pco"} <= json.loads((home / "report.json").read_text())["test"].keys()
    picture = next((data / "test/class00").iterdir())
    from tune.__main__ import main

    assert main(["report", str(home)]) == 0
    assert main(["compare", str(home), str(home)]) in (0, 2)
    assert main(["purify", str(home), str(picture), "--out", str(tmp_path / "out")]) == 2
    assert main(["purify", str(home), str(picture), "--out", str(tmp_path / "out"), "--plugin", str(RESNET)]) == 0
    status, output = run(
        words(space, results, "--plugin", str(RESNET), "--resume", "--trials", "3"), tmp_path / "log2"
    )
    assert status == 0, output
    assert len(outcomes(home)) == 3


@pytest.mark.slow
def test_from_python_with_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module handed over in Python travels to the workers, and a resumed search must have it again."""
    write_folder(tmp_path / "tiny", tiny_split(60), tiny_split(20, seed=1))
    space = write_space(tmp_path, search__trials=1)
    module = SmallResNet(1, 4)
    storage = str(tmp_path / "results")
    assert search(space=str(space), storage=storage, name="one", concurrent=1, quiet=True, classifier=module) == 0
    home = tmp_path / "results/one"
    assert (home / "report.json").exists()
    assert search(storage=storage, name="one", resume=True, quiet=True) == 2
    assert search(storage=storage, name="one", resume=True, quiet=True, classifier=SmallResNet(1, 4)) == 2
    assert search(storage=storage, name="one", resume=True, quiet=True, concurrent=1, classifier=module) == 0
    loaded = Defense.load(home / "best", classifier=module)
    assert torch.equal(
        loaded.classifier(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
        module.eval()(torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))),
    )
    assert Storage(home).child("given").names()
