"""Any torch module as the classifier to defend."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from components.classifiers.base import ClassifierError
from components.classifiers.catalogue import CLASSIFIERS
from components.classifiers.config import ClassifierConfig
from components.classifiers.layers import HookedLayers, TracedLayers, layers_of
from components.classifiers.training import ClassifierTraining, check_trainable, trainable
from components.classifiers.victim import Victim, as_classifier, probe
from components.classifiers.weights import packed
from components.datasets.dataset import DataSplit
from components.training import drawn_from, freeze
from components.unet.config import UNetConfig
from components.unet.training import UNetTraining
from components.weights import load_weights, save_weights
from tests.ambient import AMBIENT
from tests.tiny_networks import SmallResNet

SHAPE, CLASSES = (3, 8, 8), 5
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))


class Wilful(SmallResNet):
    """Cannot be traced: what it does depends on its images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.detach().sum()) > -1e9 else x


class Wrong(nn.Module):
    """A small network that goes wrong in a way of its own."""

    def __init__(self, does: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.head, self.does = nn.Linear(192, CLASSES), does
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> object:
        return self.does(self, self.head(x.flatten(1)))


def small(kind: type[nn.Module] = SmallResNet) -> nn.Module:
    with drawn_from(0):
        return kind(SHAPE[0], CLASSES)


def counted(module: nn.Module, logits: Tensor) -> Tensor:
    module.calls += 1  # type: ignore[operator]
    return logits


each_kind = pytest.mark.parametrize("kind", [SmallResNet, Wilful])


@each_kind
def test_it_predicts_as_the_module_does_on_normalised_images(kind: type[nn.Module]) -> None:
    module = small(kind)
    victim = freeze(Victim(module, SHAPE, CLASSES, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 0.5)))
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    expected = module.eval()((IMAGES - mean) / std)
    assert torch.equal(victim(IMAGES), expected)
    assert torch.equal(victim.predict(IMAGES, batch_size=6), expected.argmax(1))


@each_kind
def test_penultimate_is_what_the_last_layer_reads(kind: type[nn.Module]) -> None:
    victim = freeze(Victim(small(kind), SHAPE, CLASSES))
    seen, logits = victim.features_and_logits(IMAGES, "penultimate")
    assert seen.shape == (6, 32)
    torch.testing.assert_close(victim.module.head(seen), logits)
    torch.testing.assert_close(logits, victim(IMAGES))
    assert torch.equal(victim.features(IMAGES), seen)


@each_kind
def test_every_layer_can_be_read_alone_and_with_the_logits(kind: type[nn.Module]) -> None:
    victim = freeze(Victim(small(kind), SHAPE, CLASSES))
    assert {"stem", "block1.norm1", "head"} <= set(victim.layer_names)
    for layer in victim.layer_names:
        seen, logits = victim.features_and_logits(IMAGES, layer)
        assert len(seen) == 6
        assert torch.equal(victim.features(IMAGES, layer), seen)
        torch.testing.assert_close(logits, victim(IMAGES))
    assert torch.equal(victim.features(IMAGES, "logits"), victim(IMAGES))


def test_a_network_is_traced_where_it_can_be() -> None:
    images = IMAGES[:2]
    assert isinstance(layers_of(small().eval(), images), TracedLayers)
    assert isinstance(layers_of(small(Wilful).eval(), images), HookedLayers)


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_logits_of_another_precision_are_those_of_the_images(precision: torch.dtype) -> None:
    victim = Victim(Wrong(lambda module, logits: logits.to(precision)), SHAPE, CLASSES)
    assert victim(IMAGES).dtype == torch.float32
    assert victim.features_and_logits(IMAGES, "penultimate")[1].dtype == torch.float32


@each_kind
def test_gradients_pass_through_features(kind: type[nn.Module]) -> None:
    victim, images = freeze(Victim(small(kind), SHAPE, CLASSES)), IMAGES.clone().requires_grad_()
    victim.features(images).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0


@each_kind
def test_the_high_level_loss_works_with_it(kind: type[nn.Module]) -> None:
    victim, labels = freeze(Victim(small(kind), SHAPE, CLASSES)), torch.arange(6) % CLASSES
    config = UNetConfig(width=4, depth=1, epochs=1, high_level_weight=1.0, label_weight=0.5, images=None)
    training = UNetTraining(config, IMAGES, IMAGES, labels, victim, 0)
    assert training.run()["loss"] > 0
    assert not any(parameter.grad is not None for parameter in victim.parameters())


@each_kind
def test_it_moves_and_is_copied_as_one(kind: type[nn.Module]) -> None:
    victim = freeze(Victim(small(kind), SHAPE, CLASSES, mean=(0.5,) * 3))
    before = victim.features(IMAGES)
    clone = copy.deepcopy(victim).double()
    assert clone.features(IMAGES.double()).dtype is torch.float64
    torch.testing.assert_close(clone.features(IMAGES.double()).float(), before)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.zero_()
    assert torch.equal(victim.features(IMAGES), before)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.weight_norm])
def test_a_weight_that_a_hook_derives_can_be_copied_after_a_pass_with_gradients(norm: Callable[..., nn.Module]) -> None:
    module = small()
    norm(module.head)
    victim = Victim(module, SHAPE, CLASSES).eval()
    copy.deepcopy(module)
    check_trainable(victim)
    victim(IMAGES).sum().backward()
    clone, sent = copy.deepcopy(victim), pickle.loads(pickle.dumps(victim))
    assert torch.equal(clone(IMAGES), victim(IMAGES))
    assert torch.equal(sent(IMAGES), victim(IMAGES))
    frozen = freeze(victim.module)  # after a pass whose graph it lets go
    assert torch.equal(copy.deepcopy(frozen)(IMAGES), victim(IMAGES))


class Paused(Wilful):
    """Waits before and after its layers until all threads are there."""

    met = threading.Barrier(1)

    def forward(self, x: Tensor) -> Tensor:
        self.met.wait()
        logits = super().forward(x)
        self.met.wait()
        return logits


@pytest.mark.parametrize("layer", ["stem", "penultimate"])
def test_each_thread_reads_its_own_images(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks hear every pass of a network, whoever makes it."""
    victim = freeze(Victim(small(Paused), SHAPE, CLASSES))
    parts = list(IMAGES.split(2))
    expected = [victim.features(part, layer) for part in parts]
    monkeypatch.setattr(Paused, "met", threading.Barrier(len(parts)))
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(lambda part: victim.features(part, layer), parts))
    assert all(map(torch.equal, found, expected))


def test_it_is_left_in_the_mode_that_it_was_in() -> None:
    module = small()
    module.block1.eval()
    Victim(module, SHAPE, CLASSES).layer_names  # noqa: B018
    assert module.training
    assert not module.block1.norm1.training
    assert module.block2.norm1.training


def test_a_layer_may_stand_for_the_penultimate() -> None:
    victim = freeze(Victim(small(), SHAPE, CLASSES, layer="block1.norm1"))
    assert torch.equal(victim.features(IMAGES), victim.features(IMAGES, "block1.norm1"))


def test_a_grey_image_is_repeated_for_a_network_of_colours() -> None:
    victim = freeze(Victim(small(), (1, 8, 8), CLASSES, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))
    grey = IMAGES[:, :1]
    colours = freeze(Victim(victim.module, SHAPE, CLASSES, mean=(0.1, 0.2, 0.3)))
    assert torch.equal(victim(grey), colours(grey.expand(-1, 3, -1, -1)))


def test_weights_have_the_names_of_the_module() -> None:
    module = small()
    assert Victim(module, SHAPE, CLASSES).network is module


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (lambda module, logits: logits[:, :3], r"expected logits \(N, 5\) of images \(3, 8, 8\), found \(3, 3\)"),
        (lambda module, logits: (logits, logits), r"expected logits \(N, 5\) .*, found tuple"),
        (lambda module, logits: logits[:, 0], r"expected logits \(N, 5\) .*, found \(3,\)"),
        (lambda module, logits: logits.argmax(1, keepdim=True).expand(-1, 5), "found .* of torch.int64"),
        (lambda module, logits: logits * torch.inf, "expected finite logits"),
        (lambda module, logits: functional.dropout(logits, 0.5), "expected the same logits in two calls in evaluation"),
        (lambda module, logits: logits - logits.mean(0), "expected logits of an image that do not depend on its batch"),
        (counted, "expected unchanged weights in evaluation mode, found that a call changes calls"),
        (lambda module, logits: 1 / 0, r"expected a network of images \(3, 8, 8\), found ZeroDivisionError"),
        (lambda module, logits: sys.exit(), r"expected a network of images \(3, 8, 8\), found SystemExit"),
        (lambda module, logits: None, r"expected logits \(N, 5\) .*, found NoneType"),
        (lambda module, logits: {"logits": logits}, r"expected logits \(N, 5\) .*, found dict"),
        (lambda module, logits: logits * torch.nan, "expected finite logits"),
        (lambda module, logits: logits.softmax(1), "expected logits, found probabilities"),
        (lambda module, logits: logits.detach(), "expected logits with a gradient, found none"),
        (lambda module, logits: module.head.bias.expand(len(logits), -1), "with a gradient to the images, found none"),
    ],
)
def test_what_is_no_classifier_is_refused(does: Callable[[nn.Module, Tensor], object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^Wrong: .*{said}"):
        Victim(Wrong(does), SHAPE, CLASSES)


def test_a_network_of_other_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SmallResNet: expected a network of images \(1, 8, 8\), found RuntimeError"):
        Victim(small(), (1, 8, 8), CLASSES)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": (0.5,)}, "mean: expected 3 numbers, one a channel, found 1"),
        ({"std": (1.0, 0.0, 1.0)}, "std: expected numbers > 0"),
        ({"layer": "block9"}, "layer: expected one of .*head.* or penultimate, found 'block9'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Victim(small(), SHAPE, CLASSES, **settings)  # type: ignore[arg-type]


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer: expected one of .*block1.norm1.* or penultimate, found 'conv9'"):
        Victim(small(), SHAPE, CLASSES).features(IMAGES, "conv9")


class Versioned(SmallResNet):
    """Keeps something beside its weights."""

    kept: object = {"version": 3}

    def get_extra_state(self) -> object:
        return self.kept

    def set_extra_state(self, state: object) -> None:
        self.kept = state


def test_a_state_that_is_no_tensor_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """Weights are kept as safetensors, in which there is no place for it."""
    module = Versioned(SHAPE[0], CLASSES)
    said = r"Versioned: expected a state of tensors alone.*found dict in _extra_state"
    for use in (lambda: Victim(module, SHAPE, CLASSES), lambda: packed(module)):
        with pytest.raises(ClassifierError, match=said):
            use()
    module.kept = torch.tensor(3)
    Victim(module, SHAPE, CLASSES)
    save_weights(module, tmp_path / "weights.safetensors")
    load_weights(again := Versioned(SHAPE[0], CLASSES), tmp_path / "weights.safetensors")
    assert again.kept == 3


def test_a_module_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="Flatten: expected a module with weights, found none"):
        Victim(nn.Flatten(), SHAPE, 192)


def test_what_trains_on_another_output_is_refused() -> None:
    check_trainable(Victim(small(), SHAPE, CLASSES))
    two = Victim(Wrong(lambda module, logits: (logits, logits) if module.training else logits), SHAPE, CLASSES)
    with pytest.raises(ValueError, match=r"expected logits \(N, 5\) in training mode too, found tuple"):
        check_trainable(two)
    for does, found in ((lambda logits: logits * torch.nan, "NaN or infinity"), (lambda logits: 1 / 0, "ZeroDivision")):
        wrong = Wrong(lambda module, logits, does=does: does(logits) if module.training else logits)
        with pytest.raises(ValueError, match=rf"expected logits \(N, 5\) in training mode too, found {found}"):
            check_trainable(Victim(wrong, SHAPE, CLASSES))


def test_what_cannot_be_trained_or_read_is_refused() -> None:
    with pytest.raises(ValueError, match="SmallResNet: expected weights that can be trained, found all of them frozen"):
        check_trainable(Victim(small().requires_grad_(False), SHAPE, CLASSES))
    scripted = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)))
    with pytest.raises(ValueError, match="expected a module whose layers can be read, found RuntimeError"):
        Victim(scripted, SHAPE, CLASSES).layer_names  # noqa: B018
    with pytest.raises(ValueError, match=r"expected a network of images .*, found RuntimeError"):
        Victim(small().half(), SHAPE, CLASSES)  # which takes no float32 images


class HalfFrozen(SmallResNet):
    """With a part that its author froze, and two layers that share their weights."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes)
        self.stem.requires_grad_(False)
        self.block2.second.weight = self.block1.second.weight


def test_what_its_author_froze_or_shared_stays_so(tmp_path: Path) -> None:
    split = DataSplit(IMAGES, torch.arange(len(IMAGES)) % CLASSES)
    with CLASSIFIERS.scope():
        CLASSIFIERS.register("half_frozen")(lambda shape, classes: HalfFrozen(shape[0], classes))
        training = ClassifierTraining(ClassifierConfig(architecture="half_frozen", epochs=2), split, CLASSES, seed=0)
    module = training.classifier.network
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training.run()
    changed = {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in module.named_parameters() if value.requires_grad}
    save_weights(module, tmp_path / "weights.safetensors")
    load_weights(again := HalfFrozen(SHAPE[0], CLASSES), tmp_path / "weights.safetensors")
    assert again.block2.second.weight is again.block1.second.weight
    torch.testing.assert_close(again.eval()(IMAGES), module(IMAGES))


def test_what_learns_again_is_what_its_author_let_learn() -> None:
    victim = freeze(Victim(HalfFrozen(SHAPE[0], CLASSES), SHAPE, CLASSES))
    learning = {name for name, value in trainable(victim).named_parameters() if value.requires_grad}
    everything = {name for name, _ in victim.named_parameters()}
    assert everything - learning == {"module.stem.weight", "module.stem.bias"}
    assert not any(value.requires_grad for value in victim.parameters())
    trained_before = Victim(freeze(small()), SHAPE, CLASSES)
    assert all(value.requires_grad for value in trainable(trained_before).parameters())


@each_kind
def test_a_look_changes_neither_weights_nor_what_is_drawn_next(kind: type[nn.Module]) -> None:
    module = small(kind).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    victim = Victim(module, SHAPE, CLASSES)
    check_trainable(victim)
    victim.features(IMAGES)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("ambient", AMBIENT)
def test_the_images_of_the_look_are_the_same_whatever_torch_makes_by_default(ambient: str) -> None:
    expected = probe(SHAPE)
    with AMBIENT[ambient]():
        assert torch.equal(probe(SHAPE), expected)


def test_another_shape_or_number_of_classes_is_refused() -> None:
    victim = Victim(small(), SHAPE, CLASSES)
    assert as_classifier(victim, SHAPE, CLASSES) is victim
    with pytest.raises(ValueError, match=r"expected images \(3, 8, 8\) of 7 classes, found \(3, 8, 8\) of 5"):
        as_classifier(victim, SHAPE, 7)
    with pytest.raises(ValueError, match=r"expected a torch\.nn\.Module, found str"):
        as_classifier("resnet", SHAPE, CLASSES)


