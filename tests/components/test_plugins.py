"""Plug-ins: what they define, and how one that cannot be used is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.attacks import ATTACKS
from components.classifiers.catalogue import CLASSIFIERS, network_of
from components.classifiers.config import ClassifierConfig
from components.datasets import DATASETS
from components.datasets.catalogue import read_raw
from components.plugins import PluginError, plugged, read_plugin
from tune.space.fields import leaves
from tune.space.space import SpaceError, parse_space

RESNET = Path(__file__).parents[1] / "small_resnet.py"
ATTACK = '''
from typing import Literal
from pydantic import Field
from components.attacks import Attack
from components.plugins import attack

@attack("grey")
class Grey(Attack):
    """Moves every pixel towards grey."""

    name: Literal["grey"] = "grey"  # the attack
    way: float = Field(default=0.5, ge=0, le=1)  # of the whole way

    def perturb(self, classifier, images, labels, seed=0):
        return images + (self.way * (0.5 - images)).clamp(-self.epsilon, self.epsilon)
'''
DATASET = """
import numpy as np
from components.datasets.raw import RawData, RawSplit
from components.plugins import dataset

@dataset("noise")
def noise(data_dir):
    labels = (np.arange(40) % 4).astype(np.uint8)
    images = np.random.default_rng(0).integers(0, 255, (40, 1, 8, 8), dtype=np.uint8)
    return RawData(RawSplit(images, labels), RawSplit(images[:20], labels[:20]))
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def test_a_classifier_is_known_within_the_block() -> None:
    with plugged(str(RESNET)) as plugin:
        assert plugin is not None
        assert plugin.sha256 == hashlib.sha256(RESNET.read_bytes()).hexdigest()
        assert plugin.defines == {"classifier.architecture": ["small_resnet"]}
        network = network_of("small_resnet", (3, 8, 8), 4).eval()
        assert network.architecture == "small_resnet"
        assert network(torch.rand(2, 3, 8, 8)).shape == (2, 4)
        assert ClassifierConfig(architecture="small_resnet").identity()["plugin"] == plugin.sha256
    assert "small_resnet" not in CLASSIFIERS
    assert CLASSIFIERS.sources == {}


def test_another_file_gives_another_signature(tmp_path: Path) -> None:
    found = []
    for more in ("", "# changed\n"):
        with plugged(write(tmp_path, RESNET.read_text() + more)):
            found.append(ClassifierConfig(architecture="small_resnet").identity())
            assert "plugin" not in ClassifierConfig().identity()
    assert found[0]["plugin"] != found[1]["plugin"]


def test_an_attack_brings_its_fields(tmp_path: Path) -> None:
    ranged = "attack.name: grey\nattack.way: 0.25\nprojector.restarts: {choice: [1, 2]}"
    with plugged(write(tmp_path, ATTACK)) as plugin:
        assert plugin is not None
        assert leaves()["attack.way"].comment == "of the whole way"
        config = parse_space(ranged, "mine", "mine.yaml").config({"projector.restarts": 1})
        assert config.attack.model_dump() == {"name": "grey", "epsilon": 0.3, "labels": "true", "way": 0.25}
        assert config.attack.identity()["plugin"] == plugin.sha256
        moved = config.attack.perturb(torch.nn.Identity(), torch.zeros(1, 1, 2, 2), torch.zeros(1))
        assert torch.equal(moved, torch.full((1, 1, 2, 2), 0.125))
    assert "grey" not in ATTACKS
    with pytest.raises(SpaceError, match=r"attack\.name: expected one of 'fgsm', .*found 'grey'|attack\.way"):
        parse_space(ranged, "mine", "mine.yaml")


def test_a_data_set_has_its_name(tmp_path: Path) -> None:
    with plugged(write(tmp_path, DATASET)):
        assert read_raw("noise").train.images.shape == (40, 1, 8, 8)
    assert "noise" not in DATASETS
    assert DATASETS.files == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("(40, 1, 8, 8), dtype=np.uint8)", "(40, 1, 8, 8)) / 255"), r"train images: expected uint8 \(N, C, H"),
        (("(40, 1, 8, 8)", "(40, 8, 8)"), r"train images: expected uint8 .*, found uint8 \(40, 8, 8\)"),
        (("(40, 1, 8, 8)", "(40, 8, 8, 3)"), "train images: expected 40 images, .* of 1 or 3"),
        (("RawSplit(images[:20], labels[:20])", "RawSplit(images[:20], labels)"), "test images: expected 40 images"),
        ((".astype(np.uint8)", ""), r"train labels: expected uint8 \(N,\), found int64 \(40,\)"),
        (("return RawData(", "return ("), r"expected RawData\(train, test\), found tuple"),
        (("RawSplit(images[:20], labels[:20])", "None"), r"test images: expected RawSplit.*, found NoneType"),
        (("(images, labels),", "(list(images), labels),"), r"train images: expected uint8 .*, found list"),
        (("integers(0, 255", "integers(0, 2"), "train images: expected values up to 255 for white, found none above 1"),
        (("% 4", "* 0"), "train labels: expected at least 2 classes, found only label 0"),
        (("% 4", "% 4 * 2"), "train labels: expected at least 2 images of each class .*, found 0 of class 1"),
        (("labels[:20])", "labels[:20] + 9)"), r"test labels\[0\]: expected a class from 0 to 3, found 9"),
        (("images[:20]", "images[:20, :, 1:]"), "test images: expected 1×8×8 as the training images, found 1×7×8"),
        (("images[:20], labels[:20]", "images[:0], labels[:0]"), "test images: expected at least one pixel"),
        (("labels[:20]))", "labels[:20]), class_names=('a', 'b'))"), r"class_names: expected 4 names.*\('a', 'b'\)"),
        (("labels = (", "raise SystemExit(0)\n    labels = ("), r"expected RawData.*, found SystemExit: 0"),
    ],
)
def test_data_of_another_shape_or_range_are_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = DATASET.replace(*change)
    assert text != DATASET
    with plugged(write(tmp_path, text)), pytest.raises(PluginError, match=f"^data.name: noise of .*mine.py: {said}"):
        read_raw("noise")


def test_a_reader_that_raises_names_its_data_set(tmp_path: Path) -> None:
    text = "from components.plugins import dataset\n@dataset('bad')\ndef read(folder):\n    return 1 / 0\n"
    expected = r"^data\.name: bad of .*mine\.py: expected RawData.*found ZeroDivisionError: division by zero"
    with plugged(write(tmp_path, text)), pytest.raises(PluginError, match=expected):
        read_raw("bad")


def test_a_data_set_of_the_project_is_known_before_a_plugin_runs(tmp_path: Path) -> None:
    file = write(tmp_path, "from components.plugins import dataset\ndataset('mnist')(print)\n")
    code = f"from components.plugins import read_plugin; read_plugin({file!r}).install()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "PluginError: --plugin" in run.stderr
    assert "found 'mnist', which" in run.stderr
    assert "components/datasets/download.py defines" in run.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n1 / 0\n", r"expected a file that runs, found ZeroDivisionError: division by zero \(line 2\)"),
        ("def f(:\n", r"expected a file that runs, found SyntaxError: .* \(line 1\)"),
        ("import nowhere\n", r"found ModuleNotFoundError: No module named 'nowhere' \(line 1\)"),
        ("raise SystemExit(3)\n", r"found SystemExit: 3 \(line 1\)"),
        ("x = 1\n", "expected @classifier, @attack or @dataset, found none"),
        (
            "from components.plugins import classifier\nclassifier('A')(print)\n",
            r"classifier\.architecture: expected a new name, found 'A', .* \(line 2\)",
        ),
        (
            "from components.plugins import classifier\nclassifier('resnet18')(print)\n",
            r"classifier\.architecture: expected a new name, found 'resnet18', which torchvision defines \(line 2\)",
        ),
        ("from components.plugins import dataset\ndataset('mnist')(print)\n", r"data\.name: expected a new name"),
        (ATTACK.replace('"grey"', '"fgsm"'), r"attack\.name: expected a new name, found 'fgsm'"),
        (
            ATTACK.replace('attack("grey")', 'attack("gray")'),
            r"""attack\.name: .*: Grey: expected name: Literal\["gray"\] = "gray", found 'grey'""",
        ),
        (
            ATTACK.replace('    name: Literal["grey"] = "grey"', "    "),
            r'Grey: expected name: Literal\["grey"\] = "grey", found none',
        ),
        (ATTACK.replace("def perturb", "def disturb"), "Grey: expected a method `perturb`, found none"),
        (ATTACK.replace("Grey(Attack)", "Grey"), r"attack\.name: .*: expected a subclass of components\.attacks"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_leaves_nothing(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, text)
    before = dict(CLASSIFIERS), dict(ATTACKS), dict(DATASETS)
    with pytest.raises(PluginError, match=rf"^--plugin {file}: .*{said}"), plugged(file):
        pass
    assert (dict(CLASSIFIERS), dict(ATTACKS), dict(DATASETS)) == before


def test_half_of_a_file_leaves_nothing(tmp_path: Path) -> None:
    text = "from components.plugins import classifier\nclassifier('half')(print)\n1 / 0\n"
    with pytest.raises(PluginError, match="line 3"):
        read_plugin(write(tmp_path, text)).install()
    assert "half" not in CLASSIFIERS


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(PluginError, match=r"--plugin: expected a Python file, found nowhere\.py: No such file"):
        read_plugin("nowhere.py")


def test_a_file_is_run_once_in_a_process(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    text = f"open({str(runs)!r}, 'a').write('x')\n" + RESNET.read_text()
    with plugged(write(tmp_path, text)) as plugin:
        assert plugin is not None
        plugin.install()
    assert runs.read_text() == "x"
