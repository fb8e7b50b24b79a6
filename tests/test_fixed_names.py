"""The names that programs outside the project rely on, used as they use them."""

from pathlib import Path

import torch

from components.attacks import fgsm
from components.datasets import DataSplit, load_dataset
from components.defense import Defense
from components.pretrained import shipped_defense, shipped_folder
from components.projector import Projection, ProjectionTrace, Projector, ProjectorConfig
from tests.tiny import tiny_split, write_folder


def test_a_shipped_defense_and_its_parts() -> None:
    defense = Defense.load(shipped_defense("mnist_robust"), device="cpu")
    images = torch.rand(2, 1, 28, 28)
    assert defense.purify(images).shape == images.shape
    assert defense(images).shape == (2, 10)
    attacked = fgsm(defense.classifier, images, torch.tensor([3, 5]), 0.3)
    assert (attacked - images).abs().max() <= 0.3 + 1e-6
    assert isinstance(defense.unet, torch.nn.Module)
    assert isinstance(defense.discriminator, torch.nn.Module)
    assert (shipped_folder("mnist") / "generator.safetensors").is_file()


def test_a_projector_of_a_shipped_generator() -> None:
    projector = Defense.load(shipped_defense("mnist_robust")).projector
    config = ProjectorConfig(restarts=2, steps=3)
    images = torch.rand(2, 1, 28, 28)
    found = Projector(projector.generator, config).project(images)
    assert isinstance(found, Projection)
    assert found.images.shape == images.shape
    assert found.errors.shape == (2,)
    assert len(found.latents) == 2
    assert isinstance(Projector(projector.generator, config).trace(images), ProjectionTrace)
    assert projector.encoder is not None
    assert projector.config.levels


def test_a_data_set(tmp_path: Path) -> None:
    data = load_dataset(write_folder(tmp_path / "data", tiny_split(), tiny_split(seed=1)), data_dir=None, seed=0)
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, DataSplit)
        assert len(split.images) == len(split.labels) > 0
