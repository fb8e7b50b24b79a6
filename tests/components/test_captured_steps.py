"""Every step that a card takes as a CUDA graph, replayed on the pretended device: the same weights and latents."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.adversarial_training import AdversarialConfig, AdversarialTraining
from components.classifiers.config import ClassifierConfig
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import DataSplit
from components.gan.config import GanConfig
from components.gan.encoder_training import EncoderTraining
from components.gan.training import GanTraining
from components.hardware import Captured
from components.projector.config import ProjectorConfig
from components.projector.projector import Projector
from components.static_reference import StaticTraining
from components.training import Training
from components.unet.config import UNetConfig
from components.unet.training import UNetTraining
from tests.pretend_accelerator import PRETEND, PretendTensor, pretending, taped
from tests.pretend_graph import graphs
from tests.tiny import tiny_split
from tests.tiny_networks import DESCENTS, defense_of, encoder_of, generator_of


@pytest.fixture(autouse=True)
def _pretending() -> Iterator[None]:
    with pretending():
        yield


def split() -> DataSplit:
    raw = tiny_split(40)
    return DataSplit(torch.from_numpy(raw.images).float() / 255, torch.from_numpy(raw.labels).long())


def classifier(**settings: Any) -> Training:
    config = ClassifierConfig.model_validate({"epochs": 3, "batch_size": 16, **settings})
    return ClassifierTraining(config, split(), 4, 0, PRETEND)


def gan(**settings: Any) -> Training:
    sizes = {"latent_dim": 3, "width": 4, "discriminator_width": 4, "steps": 36, "steps_per_epoch": 18, "batch_size": 4}
    return GanTraining(GanConfig.model_validate({**sizes, **settings}), split().images, 0, PRETEND)


def encoder(**settings: Any) -> Training:
    generator = generator_of().float()
    return EncoderTraining(
        generator, split().images, width=4, steps=16, steps_per_epoch=8, batch_size=4, device=PRETEND, **settings
    )


def unet(**settings: Any) -> Training:
    config = UNetConfig.model_validate({"width": 4, "depth": 1, "epochs": 4, "batch_size": 8, **settings})
    images, labels = split().images, split().labels
    judge = defense_of().classifier.to(PRETEND)
    return UNetTraining(config, images, images, labels, judge, 0, PRETEND)


def adversarial(**settings: Any) -> Training:
    fields = {"epochs": 3, "batch_size": 16, "steps": 4, "first_steps": 2, "augment": 0.5, **settings}
    defense: Any = defense_of(init="encoder", levels=2)
    networks = (defense.generator, defense.encoder, defense.unet, defense.classifier)
    return AdversarialTraining(
        AdversarialConfig.model_validate(fields), *networks, split().images, split().labels, 0, PRETEND
    )


def static() -> Training:
    config = AdversarialConfig(epochs=2, batch_size=16, steps=3)
    judge = defense_of().classifier.requires_grad_(True)
    return StaticTraining(config, judge, split().images, split().labels, 0, PRETEND)


TRAININGS: dict[str, Callable[[], Training]] = {
    "classifier with dropout": lambda: classifier(architecture="D"),
    "classifier with normalisation": lambda: classifier(architecture="resnet18", epochs=1, batch_size=10),
    "classifier in bfloat16": lambda: classifier(architecture="E", precision="bfloat16"),
    "GAN": gan,
    "GAN as published": lambda: gan(loss="wgan_gp", steps=4, steps_per_epoch=2),
    "encoder": encoder,
    "encoder behind grey levels": lambda: encoder(levels=2, precision="bfloat16"),
    "U-Net": unet,
    "U-Net on ever more images": lambda: unet(first_images=10, label_weight=1.0, layer="penultimate"),
    "U-Net by labels alone": lambda: unet(high_level_weight=0.0, label_weight=1.0),
    "U-Net by pixels alone": lambda: unet(high_level_weight=0.0, label_weight=0.0),
    "adversarial": adversarial,
    "adversarial of all": lambda: adversarial(learning="all"),
    "static reference": static,
}


@pytest.mark.parametrize("make", TRAININGS.values(), ids=TRAININGS)
def test_a_replayed_training_ends_in_the_same_weights(make: Callable[[], Training]) -> None:
    launched, replayed = make(), make()
    launched.run()
    with graphs() as made:
        replayed.run()
    assert made
    assert any(one.replays for one in made)  # a last, smaller batch has a step of its own each time
    for part, other in zip(weights(launched), weights(replayed), strict=True):
        assert torch.equal(part, other)


def weights(training: Training) -> list[Tensor]:
    networks = [part for part in training.parts().values() if isinstance(part, nn.Module)]
    return [value.cpu() for network in networks for value in network.state_dict().values()]


@pytest.mark.parametrize("settings", DESCENTS.values(), ids=DESCENTS)
def test_replayed_descents_find_the_same_latents(settings: dict[str, Any]) -> None:
    fields = {"restarts": 2, "steps": 6, "bank_size": 16, "chunk": 4, **settings}
    networks = {"discriminator": defense_of().discriminator, "encoder": encoder_of().float()}
    networks = {name: copy.deepcopy(network).to(PRETEND) for name, network in networks.items() if network is not None}
    config = ProjectorConfig.model_validate(fields)
    projector = Projector(generator_of().float(), config, device=PRETEND, **networks)  # type: ignore[arg-type]
    launched = projector.trace(split().images[:5], [2, 6])
    with graphs() as made:
        replayed = projector.trace(split().images[:5], [2, 6])
    assert made
    assert torch.equal(replayed.latents, launched.latents)
    assert torch.equal(replayed.errors, launched.errors)
    assert torch.equal(replayed.leads, launched.leads)


def test_a_step_of_an_adversarial_training_does_not_wait() -> None:
    training: Any = adversarial()
    images, labels = training.images[:8], training.labels[:8]
    training._step(images, labels)
    with taped(waits=False):
        training._step(images, labels)


def test_a_projection_leaves_nothing_on_the_device() -> None:
    """No cleaning up by Python is needed: of a loop's graph the memory would stay until then."""
    projector = Projector(generator_of().float(), ProjectorConfig(restarts=2, steps=3, bank_size=16), device=PRETEND)
    projector.warm_up()
    gc.collect()
    gc.disable()
    try:
        before = there()
        projector.trace(split().images[:5], [3])
        assert there() == before
    finally:
        gc.enable()


def there() -> int:
    """The tensors that are on the device."""
    return sum(type(value) is PretendTensor for value in gc.get_objects())


class TestGraphs:
    """What a graph gets wrong is wrong here, too."""

    def test_numbers_of_pythons_are_those_of_the_recording(self) -> None:
        total, called = torch.zeros((), device=PRETEND), []

        def step() -> None:
            called.append(1)
            total.add_(len(called))

        with graphs():
            captured = Captured(step, PRETEND, 100)
            for _ in range(4):
                captured()
        assert float(total) == 1 + 2 + 2 + 2
        assert len(called) == 2

    def test_a_tensor_that_is_replaced_is_not_read(self) -> None:
        held = {"factor": torch.ones((), device=PRETEND)}
        total = torch.zeros((), device=PRETEND)
        with graphs():
            captured = Captured(lambda: total.add_(held["factor"]), PRETEND, 100)  # type: ignore[arg-type,return-value]
            for factor in (1.0, 1.0, 5.0):
                held["factor"] = torch.full((), factor, device=PRETEND)
                captured()
        assert float(total) == 3

    @pytest.mark.parametrize(
        "step",
        [
            lambda there: there.sum().item(),
            lambda there: there[there > 0.5],
            lambda there: there.nonzero(),
            lambda there: there.cpu(),
            lambda there: there + torch.tensor(3.0, device=PRETEND),
            lambda there: there + torch.ones(3).to(PRETEND),
        ],
    )
    def test_what_waits_is_refused(self, step: Callable[[Tensor], object]) -> None:
        there = torch.rand(3).to(PRETEND)
        with graphs():
            captured = Captured(lambda: step(there), PRETEND, 100)  # type: ignore[arg-type,return-value]
            captured()
            with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
                captured()
