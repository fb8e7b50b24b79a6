"""The U-Net for any image size, its loss and its training."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from components.classifiers.defense_gan import Classifier
from components.datasets.dataset import DataSplit
from components.training import drawn_from, freeze
from components.unet.config import Input, UNetConfig
from components.unet.network import UNet, join
from components.unet.training import UNetTraining, evenly_ordered
from tests.tiny import tiny_split

SPLIT = DataSplit.of(tiny_split(24))
with drawn_from(0):
    JUDGE = freeze(Classifier("A", (1, 8, 8), 4))


INPUTS = st.sampled_from(["generated", "both", "attacked"])


def blurred(images: Tensor) -> Tensor:
    """What a weak generator might make of them."""
    return functional.avg_pool2d(images, 3, 1, 1)


def training_of(**settings: object) -> UNetTraining:
    config = UNetConfig.model_validate({"width": 4, "depth": 1, "epochs": 4, "batch_size": 8, **settings})
    inputs = join(config.input, blurred(SPLIT.images), 1 - SPLIT.images)
    return UNetTraining(config, inputs, SPLIT.images, SPLIT.labels, JUDGE, seed=0)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    depth=st.integers(1, 3),
    reads=INPUTS,
    seed=st.integers(0, 9),
)
def test_any_image_size(channels: int, height: int, width: int, depth: int, reads: Input, seed: int) -> None:
    with drawn_from(seed):
        unet = UNet(channels, 2, depth, reads).eval()
        images = join(reads, *torch.rand(2, 3, channels, height, width))
        assert torch.equal(unet(images), images[:, :channels])  # before training it changes nothing
        torch.nn.init.normal_(unet.out.weight, std=5)
        denoised = unet(images).detach()
    assert denoised.shape == (3, channels, height, width)
    assert 0 <= float(denoised.min()) <= float(denoised.max()) <= 1


def test_join_names_what_is_read() -> None:
    generated, images = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert join("generated", generated, images) is not images
    assert join("generated", generated, images).mean() == 0
    assert join("attacked", generated, images).mean() == 1
    both = join("both", generated, images)
    assert both.shape == (2, 6, 4, 4)
    assert both[:, :3].mean() == 0
    assert both[:, 3:].mean() == 1


@pytest.mark.parametrize("reads", ["generated", "both", "attacked"])
def test_every_input_is_learned_from(reads: str) -> None:
    training = training_of(input=reads, epochs=8)
    losses = [metrics["loss"] for metrics in training]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("layer", ["logits", "conv1"])
def test_features_kept_or_made_again_give_one_loss(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = training_of(layer=layer).run()
    monkeypatch.setattr("components.unet.training._KEPT", 0)
    assert training_of(layer=layer).run() == pytest.approx(kept, rel=1e-5)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    unet = UNet(1, 4, 2).double().eval()
    torch.nn.init.normal_(unet.out.weight)
    images = torch.rand(5, 1, 5, 7).double()
    torch.testing.assert_close(unet(images)[2:3], unet(images[2:3]))


@pytest.mark.parametrize("layer", ["logits", "penultimate", "conv2"])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_loss_is_equation_3(layer: str, norm: str) -> None:
    weights = {"pixel_weight": 0.5, "high_level_weight": 0.25, "label_weight": 2.0}
    training = training_of(layer=layer, norm=norm, **weights)
    generated = blurred(SPLIT.images)
    denoised = training.unet.eval()(generated).detach()
    seen = JUDGE.features(denoised, layer) - JUDGE.features(SPLIT.images, layer)
    expected = (
        0.5 * (denoised - SPLIT.images).abs().mean()
        + 0.25 * (seen.abs() if norm == "l1" else seen.square()).mean()
        + 2.0 * functional.cross_entropy(JUDGE(denoised), SPLIT.labels)
    )
    torch.testing.assert_close(training.loss(generated, SPLIT.images, SPLIT.labels), expected)
    whole = training.validation_loss(generated, SPLIT.images, SPLIT.labels)
    in_parts = training.validation_loss(generated, SPLIT.images, SPLIT.labels, batch_size=7)
    assert whole == pytest.approx(float(expected), rel=1e-5)
    assert in_parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("only", ["pixel_weight", "high_level_weight", "label_weight"])
def test_every_term_trains_by_itself_and_leaves_the_classifier_alone(only: str) -> None:
    before = {name: value.clone() for name, value in JUDGE.state_dict().items()}
    settings = {"pixel_weight": 0.0, "high_level_weight": 0.0, "label_weight": 0.0, only: 1.0, "epochs": 8}
    losses = [row["loss"] for row in training_of(**settings)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in JUDGE.state_dict().items())
    assert not JUDGE.training


def test_training_denoises() -> None:
    training = training_of(epochs=40, learning_rate=1e-2)
    generated = blurred(SPLIT.images)
    before = training.validation_loss(generated, SPLIT.images, SPLIT.labels)
    training.run()
    assert not training.unet.training
    assert training.validation_loss(generated, SPLIT.images, SPLIT.labels) < 0.7 * before


@settings(max_examples=50, deadline=None)
@given(images=st.integers(2, 5000), first=st.integers(2, 5000), epochs=st.integers(2, 12))
def test_images_grow_by_equal_factors(images: int, first: int, epochs: int) -> None:
    counts = UNetConfig(first_images=first, epochs=epochs).images_of_epochs(images)
    assert (counts[0], counts[-1], len(counts)) == (min(first, images), images, epochs)
    factor = (images / counts[0]) ** (1 / (epochs - 1))
    assert all(abs(count - counts[0] * factor**epoch) <= 0.5 + 1e-6 for epoch, count in enumerate(counts))


@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=80), seed=st.integers(0, 5))
def test_any_first_part_has_each_class_in_its_proportion(labels: list[int], seed: int) -> None:
    told = torch.tensor(labels)
    order = evenly_ordered(told, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for size in range(1, len(labels) + 1):
        part = told[order[:size]].bincount(minlength=5)
        assert ((part - told.bincount(minlength=5) * size / len(labels)).abs() < 1.5).all()


def test_each_epoch_trains_on_the_images_before_and_on_more(monkeypatch: pytest.MonkeyPatch) -> None:
    training = training_of(first_images=6)
    seen: list[set[bytes]] = [set()]
    loss = training.loss

    def noted(inputs: Tensor, originals: Tensor, labels: Tensor, wanted: Tensor | None) -> Tensor:
        for read, original, label in zip(inputs, originals, labels, strict=True):
            (place,) = torch.where((SPLIT.images == original).all((1, 2, 3)))
            assert torch.equal(blurred(SPLIT.images)[place[0]], read)
            assert label in SPLIT.labels[place]
            seen[-1].add(original.numpy().tobytes())
        return loss(inputs, originals, labels, wanted)

    monkeypatch.setattr(training, "loss", noted)
    for _ in training:
        seen.append(set())
    assert [len(part) for part in seen[:-1]] == [6, 10, 15, 24]
    assert all(before < after for before, after in pairwise(seen[:-1]))


def test_bfloat16_trains_float32_weights() -> None:
    training = training_of(precision="bfloat16", epochs=1)
    assert training.run()["loss"] > 0
    assert all(parameter.dtype == torch.float32 for parameter in training.unet.parameters())


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="layer: expected one of"):
        training_of(layer="conv9").run()


@pytest.mark.parametrize(
    "wrong", [{"depth": 0}, {"pixel_weight": -1}, {"norm": "l3"}, {"images": 1}, {"precision": "float16"}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UNetConfig.model_validate(wrong)
