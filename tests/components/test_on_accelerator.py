"""A defense on a device that is not the processor: the same results, and no operation between devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from components.attacks import AttackConfig, attack
from components.defense import Defense
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from tests.pretend_accelerator import PRETEND, pretending
from tests.tiny_networks import DESCENTS, defense_of, encoder_of, generator_of


@pytest.fixture(autouse=True)
def _pretending() -> Iterator[None]:
    with pretending():
        yield


def images_of(n: int = 7) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of a defense."""
    folder = tmp_path / "defense"
    defense_of(**getattr(request, "param", {})).save(folder)
    return folder


@pytest.mark.parametrize("saved", DESCENTS.values(), ids=DESCENTS, indirect=True)
def test_a_defense_does_there_what_it_does_here(saved: Path, tmp_path: Path) -> None:
    here, there = Defense.load(saved), Defense.load(saved, PRETEND)
    images = images_of()
    torch.testing.assert_close(there.purify(images), here.purify(images))
    torch.testing.assert_close(there(images), here(images))
    one, other = here.inspect(images), there.inspect(images)
    for name in vars(one):
        torch.testing.assert_close(getattr(other, name), getattr(one, name))
    there.save(tmp_path / "again")
    for file in saved.glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_images_may_be_there_already(saved: Path) -> None:
    defense, images = Defense.load(saved, PRETEND), images_of()
    purified = defense.purify(images.to(PRETEND))
    assert purified.device == PRETEND
    torch.testing.assert_close(purified.cpu(), defense.purify(images))
    seen = defense.inspect(images.to(PRETEND))
    assert {part.device for part in vars(seen).values()} == {PRETEND}


def test_an_attack_leaves_images_where_they_were(saved: Path) -> None:
    classifier, images = Defense.load(saved, PRETEND).classifier, images_of()
    labels = torch.arange(len(images)) % 4
    for config in (AttackConfig(), AttackConfig(labels="predicted")):
        attacked = attack(config, classifier, images, labels)
        assert attacked.device.type == "cpu"
        assert float((attacked - images).abs().max()) <= config.epsilon + 1e-6


@pytest.mark.parametrize("settings", DESCENTS.values(), ids=DESCENTS)
def test_a_projection_goes_on_there_from_where_it_stood_here(settings: dict[str, Any]) -> None:
    def projector(device: torch.device | str, restarts: int) -> Projector:
        config = ProjectorConfig.model_validate({"steps": 4, "bank_size": 16, "restarts": restarts, **settings})
        generator, encoder = generator_of().float(), encoder_of().float()
        discriminator = defense_of().discriminator.to(device)
        return Projector(generator, config, discriminator=discriminator, encoder=encoder, device=device)

    images = images_of()
    begun = projector("cpu", 2).trace(images, [2])
    extended = projector(PRETEND, 3).extend(begun, images, [2, 4])
    whole = projector("cpu", 3).trace(images, [2, 4])
    torch.testing.assert_close(extended.select(3, 4).errors, whole.select(3, 4).errors, rtol=1e-3, atol=1e-4)
    assert extended.latents.device.type == "cpu"


def test_a_card_gets_more_images_at_once_than_a_processor(saved: Path) -> None:
    classifier, images = Defense.load(saved, PRETEND).classifier, images_of(1300)
    sizes: list[int] = []
    classifier.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    classifier.predict(images)
    attack(AttackConfig(), classifier, images, torch.arange(len(images)) % 4)
    assert sizes == [1024, 276] * 2
