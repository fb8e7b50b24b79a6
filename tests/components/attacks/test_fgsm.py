"""FGSM: in the ball, in the range, one image at a time, on a network that is left as it was."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from components.attacks import AttackConfig, attack, fgsm
from components.classifiers.defense_gan import Classifier
from components.training import drawn_from

with drawn_from(0):
    CLASSIFIER = Classifier("A", (1, 8, 8), 4).double()
    IMAGES = torch.rand(9, 1, 8, 8).double()
LABELS = torch.arange(9) % 4


def reference(images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """The formula, one image at a time."""
    CLASSIFIER.eval()
    attacked = []
    for image, label in zip(images, labels, strict=True):
        x = image.clone().requires_grad_()
        functional.cross_entropy(CLASSIFIER(x[None]), label[None]).backward()
        assert x.grad is not None
        attacked.append((image + epsilon * x.grad.sign()).clamp(0, 1))
    CLASSIFIER.zero_grad()
    return torch.stack(attacked)


@settings(max_examples=30, deadline=None)
@given(epsilon=st.floats(0, 1), n=st.integers(1, 9), training=st.booleans())
def test_fgsm_is_its_formula(epsilon: float, n: int, training: bool) -> None:
    expected = reference(IMAGES[:n], LABELS[:n], epsilon)
    CLASSIFIER.train(training)
    attacked = fgsm(CLASSIFIER, IMAGES[:n], LABELS[:n], epsilon)
    torch.testing.assert_close(attacked, expected)
    assert CLASSIFIER.training is training
    assert float((attacked - IMAGES[:n]).abs().max()) <= epsilon + 1e-12
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1


def test_fgsm_raises_the_loss_and_leaves_no_trace() -> None:
    images = IMAGES.clone()
    attacked = fgsm(CLASSIFIER, images, LABELS, 0.05)
    CLASSIFIER.eval()
    with torch.no_grad():
        before, after = (functional.cross_entropy(CLASSIFIER(x), LABELS) for x in (IMAGES, attacked))
    assert after > before
    assert torch.equal(images, IMAGES)
    assert not images.requires_grad
    assert not attacked.requires_grad
    assert all(parameter.grad is None for parameter in CLASSIFIER.parameters())


def test_fgsm_works_where_gradients_are_off_and_on_a_frozen_network() -> None:
    expected = fgsm(CLASSIFIER, IMAGES, LABELS, 0.3)
    CLASSIFIER.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(fgsm(CLASSIFIER, IMAGES, LABELS, 0.3), expected)
    CLASSIFIER.requires_grad_(True)


@pytest.mark.parametrize("labels", ["true", "predicted"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_an_attack_does_not_depend_on_the_batch(labels: str, batch_size: int) -> None:
    CLASSIFIER.train()
    config = AttackConfig(labels=labels)  # type: ignore[arg-type]
    attacked = attack(config, CLASSIFIER, IMAGES, LABELS, batch_size)
    assert CLASSIFIER.training
    CLASSIFIER.eval()
    target = LABELS if labels == "true" else CLASSIFIER.predict(IMAGES)
    torch.testing.assert_close(attacked, reference(IMAGES, target, 0.3))


def test_predicted_labels_do_not_leak_the_true_ones() -> None:
    config = AttackConfig(labels="predicted")
    one, other = (attack(config, CLASSIFIER, IMAGES, labels) for labels in (LABELS, 3 - LABELS))
    assert torch.equal(one, other)


def test_parts_that_were_frozen_apart_stay_so() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4)).double()
    network[1].eval()
    means = network[1].get_buffer("running_mean").clone()
    fgsm(network, IMAGES, LABELS, 0.3)
    assert [part.training for part in network] == [True, False, True]
    assert torch.equal(network[1].get_buffer("running_mean"), means)


@pytest.mark.parametrize("wrong", [{"epsilon": -0.1}, {"epsilon": 1.5}, {"labels": "random"}, {"name": "none"}])
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AttackConfig.model_validate(wrong)


def test_images_of_256_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images: expected values in \[0, 1\], found 0 … 255"):
        fgsm(nn.Identity(), torch.tensor([[0.0, 255.0]]), torch.zeros(1, dtype=torch.int64), 0.3)


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, float("nan")])
def test_a_radius_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"epsilon: expected a number in 0 … 1, found"):
        fgsm(torch.nn.Flatten(), torch.rand(1, 1, 2, 2), torch.tensor([0]), epsilon)
