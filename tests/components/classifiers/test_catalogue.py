"""Classifiers by name: torchvision's networks, their settings and signatures, and files of weights."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save, save_file
from torch import Tensor

from components.classifiers import torchvision_models
from components.classifiers.base import ClassifierError
from components.classifiers.catalogue import CLASSIFIERS, known, network_of
from components.classifiers.config import ClassifierConfig
from components.classifiers.training import ClassifierTraining
from components.classifiers.weights import WeightsFile, file_of, packed, provide, providing, put_weights
from components.datasets.dataset import DataSplit
from components.files import sha256_file
from components.registry import raised
from components.training import drawn_from, freeze
from tests.tiny import tiny_split


def test_the_names_are_those_of_torchvision() -> None:
    assert list(torchvision_models.names()) == sorted(torchvision.models.list_models(module=torchvision.models))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 10)])
def test_a_network_of_torchvision_takes_small_and_grey_images(shape: tuple[int, ...]) -> None:
    with drawn_from(0):
        classifier = freeze(network_of("resnet18", shape, 7))
    images = torch.rand(2, *shape)
    assert classifier.architecture == "resnet18"
    seen, logits = classifier.features_and_logits(images, "penultimate")
    assert (seen.shape, logits.shape) == ((2, 512), (2, 7))
    assert "layer1.0.bn1" in classifier.layer_names
    assert torch.equal(logits, classifier(images))


def test_a_network_that_small_images_do_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"AlexNet: expected a network of images \(3, 8, 8\), found RuntimeError"):
        network_of("alexnet", (3, 8, 8), 4)


def test_it_learns() -> None:
    raw = tiny_split(64)
    train = DataSplit(torch.from_numpy(raw.images) / 255, torch.from_numpy(raw.labels).long())
    config = ClassifierConfig(architecture="resnet18", epochs=3, batch_size=16)
    training = ClassifierTraining(config, train, 4, 0)
    losses = [metrics["loss"] for metrics in training]
    assert losses[-1] < losses[0] / 1.5


@pytest.mark.parametrize(
    ("name", "near"), [("resnt18", "resnet18"), ("mobilenet_v3_smal", "mobilenet_v3_small"), ("Z", "")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    said = f"expected A, B, C, D, E, F, a torchvision model, or one that --plugin defines, found '{name}'.*{near}"
    with pytest.raises(ValueError, match=said):
        known(name)
    with pytest.raises(ValidationError):
        ClassifierConfig(architecture=name)


def test_signatures_of_before_stay() -> None:
    expected = {"architecture": "A", "epochs": 6, "batch_size": 128, "learning_rate": 1e-3, "precision": "float32"}
    assert ClassifierConfig().identity() == expected


def test_weights_count_by_their_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, one)
    other.write_bytes(one.read_bytes())
    found = ClassifierConfig(architecture="E", weights=str(one)).identity()
    assert found == {"architecture": "E", "weights": sha256_file(one)}
    assert ClassifierConfig(architecture="E", weights=str(other), epochs=9).identity() == found
    save_file({"x": torch.ones(2)}, other)
    assert ClassifierConfig(architecture="E", weights=str(other)).identity() != found


def test_missing_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a safetensors file, found no\.safetensors: No such"):
        file_of("no.safetensors")


def test_provided_weights_stand_for_their_name_and_must_be_the_same() -> None:
    with providing():
        provide(WeightsFile("given", "0" * 64, lambda: b"other"))
        with pytest.raises(ValueError, match=r"given: expected sha256 000000000000…"):
            file_of("given").read()
    with pytest.raises(ValueError, match="found given"):
        file_of("given")


def test_weights_go_there_and_back() -> None:
    one, other = (network_of("E", (1, 8, 8), 4) for _ in range(2))
    put_weights(other.network, packed(one.network), "here")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert packed(one.network) == packed(other.network)


@pytest.mark.parametrize(
    ("architecture", "classes", "said"),
    [
        ("E", 5, r"here: expected the weights of Classifier, found layers\.logits.* where \(4,.* and 1 more"),
        ("A", 4, r"here: expected the weights of Classifier, found no layers\.dense1.* and \d+ more"),
    ],
)
def test_weights_of_another_network_are_refused(architecture: str, classes: int, said: str) -> None:
    network = network_of("E", (1, 8, 8), 4).network
    before = packed(network)
    with pytest.raises(ValueError, match=said):
        put_weights(network, packed(network_of(architecture, (1, 8, 8), classes).network), "here")
    assert packed(network) == before
    with pytest.raises(ValueError, match="here: expected safetensors, found"):
        put_weights(network, b"no", "here")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda tensor: tensor * float("nan"), "layers.logits.0.1.bias with NaN or infinity"),
        (lambda tensor: tensor.to(torch.int8), "layers.logits.0.1.bias of int8 where float32 belongs"),
        (lambda tensor: tensor[None], r"layers.logits.0.1.bias of \(1, 4\) where \(4,\) belongs"),
    ],
)
def test_weights_that_are_no_finite_numbers_are_refused(change: Callable[[Tensor], Tensor], found: str) -> None:
    network = network_of("E", (1, 8, 8), 4).network
    before = packed(network)
    changed = {**network.state_dict(), "layers.logits.0.1.bias": change(network.state_dict()["layers.logits.0.1.bias"])}
    with pytest.raises(ValueError, match=f"here: expected the weights of Classifier, found {found}"):
        put_weights(network, save(changed), "here")
    assert packed(network) == before


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(kind: torch.dtype) -> None:
    network = network_of("E", (1, 8, 8), 4).network
    content = save({name: value.to(kind) for name, value in network.state_dict().items()})
    put_weights(network, content, "here")
    assert next(network.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("end", "found"), [(4, "header too small"), (40, "invalid header length"), (-1, "incomplete metadata")]
)
def test_torn_weights_are_refused(end: int, found: str) -> None:
    network = network_of("E", (1, 8, 8), 4).network
    with pytest.raises(ValueError, match=f"here: expected safetensors, found .*{found}"):
        put_weights(network, packed(network)[:end], "here")
    with pytest.raises(ValueError, match=r"here: expected safetensors, found .*header too large"):
        put_weights(network, (1 << 60).to_bytes(8, "little") + packed(network)[8:], "here")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda weights: save({f"module.{name}": value for name, value in weights.items()}), "'module.': leave it out"),
        (lambda weights: _by_torch(weights), r"found a file of torch\.save; write it again by safetensors"),
        (lambda weights: save({name: value.to(torch.float8_e4m3fn) for name, value in weights.items()}), ""),
    ],
)
def test_weights_of_other_tools_are_told_from_others(
    change: Callable[[dict[str, Tensor]], bytes], found: str
) -> None:
    network = network_of("E", (1, 8, 8), 4).network
    if not found:
        return put_weights(network, change(network.state_dict()), "here")
    with pytest.raises(ValueError, match=f"^here: expected .*{found}"):
        put_weights(network, change(network.state_dict()), "here")


def _by_torch(weights: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def _raise(error: BaseException) -> NoReturn:
    raise error


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("not for these"), SystemExit(0)])
def test_a_builder_that_raises_is_refused_with_its_file(error: BaseException) -> None:
    with CLASSIFIERS.scope():
        CLASSIFIERS.register("broken")(lambda image_shape, classes: _raise(error))
        CLASSIFIERS.files["broken"] = "mine.py"
        said = rf"^broken of mine\.py: expected a network of images \(1, 8, 8\) and 4 classes, found {raised(error)}$"
        with pytest.raises(ClassifierError, match=said):
            network_of("broken", (1, 8, 8), 4)
    assert "broken" not in CLASSIFIERS


def test_a_builder_of_what_is_no_classifier_is_refused_with_its_file() -> None:
    with CLASSIFIERS.scope():
        CLASSIFIERS.register("broken")(lambda image_shape, classes: None)
        CLASSIFIERS.files["broken"] = "mine.py"
        with pytest.raises(ClassifierError, match=r"^broken of mine\.py: expected a torch\.nn\.Module, found NoneType"):
            network_of("broken", (1, 8, 8), 4)
