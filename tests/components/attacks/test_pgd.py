"""PGD, and the contract that every registered attack keeps."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from components.attacks import ATTACKS, FGSM, PGD, Attack, attack, fgsm
from components.classifiers.defense_gan import Classifier
from components.training import drawn_from, freeze
from tests.ambient import AMBIENT

with drawn_from(0):
    CLASSIFIER = freeze(Classifier("A", (1, 8, 8), 4).double())
    IMAGES = torch.rand(9, 1, 8, 8).double()
LABELS = torch.arange(9) % 4
SMALL = {
    "pgd": {"steps": 3, "step_size": 0.1, "restarts": 2},
    "apgd": {"steps": 5, "restarts": 2},
    "square": {"queries": 20},
}
each_attack = pytest.mark.parametrize("name", list(ATTACKS))


def small(name: str, **fields: object) -> Attack:
    return ATTACKS[name].model_validate({**SMALL.get(name, {}), **fields})


@each_attack
@settings(max_examples=8, deadline=None)
@given(epsilon=st.floats(0, 1), n=st.integers(1, 9))
def test_an_attack_stays_in_its_ball_and_in_range(name: str, epsilon: float, n: int) -> None:
    attacked = attack(small(name, epsilon=epsilon), CLASSIFIER, IMAGES[:n], LABELS[:n])
    assert attacked.shape == IMAGES[:n].shape
    assert float((attacked - IMAGES[:n]).abs().max()) <= epsilon + 1e-9
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    assert not attacked.requires_grad


@each_attack
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_is_attacked_as_if_it_were_alone(name: str, batch_size: int) -> None:
    alone = attack(small(name), CLASSIFIER, IMAGES, LABELS, batch_size)
    torch.testing.assert_close(alone, attack(small(name), CLASSIFIER, IMAGES, LABELS))


@each_attack
@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_the_caller_set_for_all_of_torch_changes_nothing(name: str, ambient: str) -> None:
    expected = attack(small(name), CLASSIFIER, IMAGES, LABELS)
    with AMBIENT[ambient]():
        assert torch.equal(attack(small(name), CLASSIFIER, IMAGES, LABELS), expected)


@each_attack
def test_an_attack_raises_the_loss_and_leaves_the_network(name: str) -> None:
    before = [parameter.clone() for parameter in CLASSIFIER.parameters()]
    attacked = attack(small(name), CLASSIFIER, IMAGES, LABELS)
    losses = [functional.cross_entropy(CLASSIFIER(x), LABELS) for x in (IMAGES, attacked)]
    assert losses[1] > losses[0]
    assert all(map(torch.equal, before, CLASSIFIER.parameters()))
    assert not CLASSIFIER.training


def test_one_step_of_pgd_as_long_as_the_ball_is_wide_is_fgsm() -> None:
    config = PGD(steps=1, step_size=0.3, random_start=False)
    torch.testing.assert_close(config.perturb(CLASSIFIER, IMAGES, LABELS), fgsm(CLASSIFIER, IMAGES, LABELS, 0.3))


def test_more_restarts_never_lower_the_loss() -> None:
    losses = []
    for restarts in (1, 2, 4):
        attacked = PGD(steps=2, step_size=0.1, restarts=restarts).perturb(CLASSIFIER, IMAGES, LABELS)
        losses.append(functional.cross_entropy(CLASSIFIER(attacked), LABELS, reduction="none"))
    assert bool((losses[0] <= losses[1]).all())
    assert bool((losses[1] <= losses[2]).all())


def test_what_stands_in_signatures_stays() -> None:
    assert list(FGSM().model_dump().items()) == [("name", "fgsm"), ("epsilon", 0.3), ("labels", "true")]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"step_size": 0.0}, {"restarts": 0}, {"epsilon": 1.1}, {"stepsize": 1}]
)
def test_settings_of_pgd_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PGD.model_validate(wrong)


def test_settings_are_read_without_torch() -> None:
    code = "import sys, components.attacks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
