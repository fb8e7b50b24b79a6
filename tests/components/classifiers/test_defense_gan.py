"""The classifiers of Defense-GAN's experiments, and their training."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.classifiers.config import ClassifierConfig
from components.classifiers.defense_gan import ARCHITECTURES, Classifier, Flatten
from components.classifiers.training import ClassifierTraining
from components.datasets.dataset import DataSplit
from components.training import freeze
from tests.tiny import tiny_split

MNIST = (1, 28, 28)
# name → output shape without N, from Defense-GAN's appendix, table 5
LAYERS = {
    "A": {"conv1": (64, 28, 28), "conv2": (64, 12, 12), "dense1": (128,), "logits": (10,)},
    "B": {"conv1": (64, 14, 14), "conv2": (128, 5, 5), "conv3": (128, 1, 1), "logits": (10,)},
    "C": {"conv1": (128, 28, 28), "conv2": (64, 12, 12), "dense1": (128,), "logits": (10,)},
    "D": {"dense1": (200,), "dense2": (200,), "logits": (10,)},
    "E": {"dense1": (200,), "dense2": (200,), "logits": (10,)},
    "F": {"conv1": (64, 14, 14), "conv2": (128, 5, 5), "conv3": (128, 1, 1), "logits": (10,)},
}
# layer → share of its input that is dropped in training; E is D and F is B without dropout
DROPOUT = {
    "A": {"dense1": 0.25, "logits": 0.5},
    "B": {"conv1": 0.2, "logits": 0.5},
    "C": {"dense1": 0.25, "logits": 0.5},
    "D": {"dense2": 0.5},
    "E": {},
    "F": {},
}
each = pytest.mark.parametrize("architecture", ARCHITECTURES)


@each
def test_layers_are_those_published(architecture: str) -> None:
    classifier = freeze(Classifier(architecture, MNIST, 10))
    images = torch.rand(2, *MNIST)
    assert classifier.layer_names == list(LAYERS[architecture])
    for name, shape in LAYERS[architecture].items():
        features = classifier.features(images, name)
        assert features.shape == (2, *shape)
        assert name == "logits" or float(features.min()) >= 0
    dropped = {
        name: part.p
        for name, layer in classifier.layers.items()
        for part in layer.modules()
        if isinstance(part, nn.Dropout)
    }
    assert dropped == DROPOUT[architecture]


@each
@pytest.mark.parametrize(("shape", "classes"), [((3, 29, 31), 3), ((1, 28, 28), 26)])
def test_images_and_classes_may_be_others(architecture: str, shape: tuple[int, ...], classes: int) -> None:
    classifier = Classifier(architecture, shape, classes).eval()
    images = torch.rand(2, *shape)
    assert classifier(images).shape == (2, classes)
    torch.testing.assert_close(classifier.features(images, "logits"), classifier(images))
    last = classifier.layer_names[-2]
    torch.testing.assert_close(classifier.features(images), classifier.features(images, last))


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected maps of at least 5 × 5, found 4 × 5"):
        Classifier("B", (1, 27, 28), 10)
    with pytest.raises(ValueError, match=r"^expected maps of at least 8 × 8, found 1 × 9"):
        Classifier("B", (1, 1, 9), 10)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="layer: expected one of dense1, dense2, logits or penultimate, found 'x'"):
        Classifier("D", (1, 8, 8), 4).features(torch.zeros(1, 1, 8, 8), "x")


def test_predictions_do_not_depend_on_batches() -> None:
    classifier = freeze(Classifier("A", (1, 8, 8), 4))
    images = torch.rand(7, 1, 8, 8)
    expected = classifier(images).argmax(1)
    assert torch.equal(classifier.predict(images, batch_size=2), expected)
    assert classifier.predict(images[:0]).shape == (0,)


@each
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns(architecture: str, precision: str) -> None:
    shape = (1, 28, 28) if architecture in "BF" else (1, 8, 8)
    train, test = (DataSplit.of(tiny_split(n, shape=shape, seed=seed)) for n, seed in ((80, 0), (20, 1)))
    settings = {"architecture": architecture, "precision": precision, "epochs": 6, "batch_size": 8}
    config = ClassifierConfig.model_validate(settings)
    training = ClassifierTraining(config, train, 4, 0)
    losses = [row["loss"] for row in training]
    assert losses[-1] < losses[0]
    assert not training.classifier.training
    assert float((training.classifier.predict(test.images) == test.labels).double().mean()) > 0.9


@pytest.mark.parametrize(
    "wrong", [{"architecture": "G"}, {"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0}, {"epochs": 2.0}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClassifierConfig.model_validate(wrong)


def test_flattening_gives_its_gradient_in_the_layout_of_the_maps() -> None:
    wanted, weights = [], torch.rand(3, 4 * 5 * 6)
    for flatten in (nn.Flatten(), Flatten()):
        maps = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
        maps = maps.to(memory_format=torch.channels_last).requires_grad_()
        flat = flatten(maps)
        (gradient,) = torch.autograd.grad((flat * weights).sum(), maps)
        wanted.append((flat, gradient))
    torch.testing.assert_close(wanted[1], wanted[0], rtol=0, atol=0)
    assert wanted[1][1].is_contiguous(memory_format=torch.channels_last)
