"""Generators that come with the project."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components import pretrained
from components.defense import Defense
from components.files import read_json, write_json
from components.gan.config import GanConfig
from components.gan.networks import Discriminator, Generator
from components.pretrained import ship
from components.weights import load_weights
from tests.tiny_networks import defense_of


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped generators with one in it, called tiny."""
    monkeypatch.setattr(pretrained, "_HERE", tmp_path)
    shape = (1, 8, 8)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "__pycache__").mkdir()
    write_json(
        tmp_path / "tiny" / "gan.json",
        {"latent_dim": 3, "width": 4, "discriminator_width": 4, "image_shape": shape},
    )
    save_file(Generator(3, 4, shape).state_dict(), tmp_path / "tiny" / "generator.safetensors")
    save_file(Discriminator(4, shape).state_dict(), tmp_path / "tiny" / "discriminator.safetensors")
    return tmp_path


def test_what_is_shipped_is_found_by_name(shelf: Path) -> None:
    assert pretrained.shipped_names() == ["tiny"]
    assert pretrained.shipped_folder("tiny") == shelf / "tiny"
    assert GanConfig(pretrained="tiny").pretrained == "tiny"


@pytest.mark.parametrize("name", ["tinny", "", "..", "tiny/.", "/tmp"])
def test_other_names_are_refused(shelf: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected one of tiny, found") as caught:
        pretrained.shipped_folder(name)
    assert ("did you mean tiny?" in str(caught.value)) is (name in ("tinny", "tiny/."))


def test_nothing_shipped_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_HERE", tmp_path)
    assert pretrained.shipped_names() == []
    with pytest.raises(ValueError, match=r"expected one of \(none are shipped\), found 'mnist'"):
        pretrained.shipped_folder("mnist")


def test_the_identity_follows_from_every_file(shelf: Path) -> None:
    identities = {pretrained.shipped_identity("tiny")}
    assert pretrained.shipped_identity("tiny") in identities
    for path in sorted((shelf / "tiny").iterdir()):
        path.write_bytes(path.read_bytes() + b" ")
        identities.add(pretrained.shipped_identity("tiny"))
    assert len(identities) == 4
    (shelf / "tiny" / "encoder.safetensors").write_bytes(b"one more")
    assert pretrained.shipped_identity("tiny") not in identities
    assert all(identity.startswith("tiny:") for identity in identities)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """What a finished search leaves of what is shipped."""
    folder = tmp_path / "experiment"
    defense_of(init="encoder").save(folder / "best")
    test = {"psd": {"mean": 0.9, "std": 0.0, "ci95": [0.8, 1.0], "seeds": [0.9]}}
    write_json(folder / "report.json", {"attack": {"name": "fgsm", "epsilon": 0.3}, "best": {}, "test": test})
    data = {"name": "tiny", "train": 40, "fingerprint": "f"}
    git = {"commit": "c0ffee", "dirty": False}
    write_json(folder / "record.json", {"data": data, "packages": {"torch": "2"}, "git": git, "seed": 0})
    return folder


def test_a_shipped_defense_is_the_one_that_was_measured(experiment: Path, shelf: Path) -> None:
    with pytest.raises(ValueError, match="found a generator alone: 'tiny'"):
        pretrained.shipped_defense("tiny")
    for name in ("generator", "discriminator", "encoder"):
        shutil.copy(experiment / "best" / f"{name}.safetensors", shelf / "tiny")
    identity = pretrained.shipped_identity("tiny")
    folder = ship.ship_defense(experiment, "tiny", shelf)
    assert folder == pretrained.shipped_defense("tiny")
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(Defense.load(folder)(images), Defense.load(experiment / "best")(images))
    assert read_json(folder / "card.json")["test"]["psd"]["mean"] == 0.9
    assert pretrained.shipped_identity("tiny") == identity  # the generator's alone: what is made from it stays


def test_a_defense_around_another_generator_is_not_shipped(experiment: Path, shelf: Path) -> None:
    for name in ("discriminator", "encoder"):
        shutil.copy(experiment / "best" / f"{name}.safetensors", shelf / "tiny")
    with pytest.raises(ValueError, match=r"generator\.safetensors that is shipped as tiny, found another"):
        ship.ship_defense(experiment, "tiny", shelf)
    assert not (shelf / "tiny" / "card.json").exists()


def test_what_is_shipped_fits_its_description() -> None:
    for name in pretrained.shipped_names():
        folder = pretrained.shipped_folder(name)
        facts = read_json(folder / "gan.json")
        shape = facts["image_shape"]
        load_weights(Generator(facts["latent_dim"], facts["width"], shape), folder / "generator.safetensors")
        load_weights(Discriminator(facts["discriminator_width"], shape), folder / "discriminator.safetensors")
