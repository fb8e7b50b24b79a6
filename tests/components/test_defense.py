"""The whole defense: what it promises of its output, its file format, and every damage to that."""

import copy
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from components.classifiers.catalogue import network_of
from components.classifiers.victim import Victim
from components.defense import Defense, DefenseError, in_batches
from components.files import read_json, sha256_file, write_json
from components.gan.networks import Discriminator
from components.projector.projector import Projector
from components.unet.config import Input
from components.unet.network import join
from components.weights import WeightsError, load_weights
from tests.ambient import AMBIENT
from tests.tiny_networks import defense_of, generator_of

SHAPES = [((1, 8, 8), 4), ((1, 28, 28), 10), ((3, 12, 10), 7)]
each_shape = pytest.mark.parametrize(("shape", "classes"), SHAPES)
FILES = [
    "manifest.json",
    "defense.json",
    "generator.safetensors",
    "discriminator.safetensors",
    "unet.safetensors",
    "classifier.safetensors",
]


def images_of(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved defense that no test may touch."""
    folder = tmp_path_factory.mktemp("defense") / "kept"
    defense_of().save(folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A saved defense to damage."""
    return Path(shutil.copytree(kept, tmp_path / "defense"))


def seal(folder: Path) -> None:
    """Makes the manifest match the files, as a forger would."""
    manifest = read_json(folder / "manifest.json")
    manifest["sha256"] = {name: sha256_file(folder / name) for name in manifest["sha256"]}
    write_json(folder / "manifest.json", manifest)


def describe(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = read_json(folder / "defense.json")
    change(described)
    write_json(folder / "defense.json", described)
    seal(folder)


@each_shape
def test_purified_images_are_images_of_the_same_shape(shape: tuple[int, ...], classes: int) -> None:
    defense, images = defense_of(shape, classes), images_of(5, shape)
    purified = defense.purify(images)
    assert purified.shape == images.shape
    assert 0 <= float(purified.min()) <= float(purified.max()) <= 1
    assert defense(images).shape == (5, classes)
    torch.testing.assert_close(defense(images), defense.classifier(purified))


@each_shape
def test_inspecting_tells_every_step(shape: tuple[int, ...], classes: int) -> None:
    defense, images = defense_of(shape, classes, distance="l2"), images_of(5, shape)
    seen = defense.inspect(images)
    torch.testing.assert_close(seen.generated, defense.projector.project(images).images)
    torch.testing.assert_close(seen.errors, (seen.generated - images).square().flatten(1).mean(1))
    torch.testing.assert_close(seen.realism, defense.discriminator(seen.generated))
    torch.testing.assert_close(seen.images, defense.unet(seen.generated))
    torch.testing.assert_close(seen.images, defense.purify(images))
    assert torch.equal(seen.label_before, defense.classifier(seen.generated).argmax(1))
    assert torch.equal(seen.label, defense(images).argmax(1))


@pytest.mark.parametrize("reads", ["both", "attacked"])
def test_a_unet_may_read_the_attacked_image(tmp_path: Path, reads: Input) -> None:
    defense, images = defense_of(reads=reads), images_of(5, (1, 8, 8))
    seen = defense.inspect(images)
    torch.testing.assert_close(seen.images, defense.unet(join(reads, seen.generated, images)))
    torch.testing.assert_close(seen.images, defense.purify(images))
    defense.save(tmp_path / "saved")
    assert torch.equal(Defense.load(tmp_path / "saved").purify(images), defense.purify(images))


def test_nothing_in_it_trains() -> None:
    defense = defense_of()
    assert not any(part.training for part in defense.modules())
    assert not any(parameter.requires_grad for parameter in defense.parameters())


def test_no_images_give_no_images() -> None:
    defense = defense_of()
    assert defense.purify(torch.empty(0, 1, 8, 8)).shape == (0, 1, 8, 8)
    assert defense(torch.empty(0, 1, 8, 8)).shape == (0, 4)
    assert defense.inspect(torch.empty(0, 1, 8, 8)).label.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_in_another_precision_are_taken(dtype: torch.dtype) -> None:
    images = images_of(3, (1, 8, 8)).to(dtype)
    torch.testing.assert_close(defense_of().purify(images), defense_of().purify(images.float()))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 8, 7), r"images: expected shape \(N, 1, 8, 8\), found \(2, 1, 8, 7\)"),
        (torch.zeros(2, 3, 8, 8), r"images: expected shape \(N, 1, 8, 8\), found \(2, 3, 8, 8\)"),
        (torch.zeros(1, 8, 8), r"images: expected shape \(N, 1, 8, 8\), found \(1, 8, 8\)"),
        (torch.full((1, 1, 8, 8), 1.1), r"images: expected values in \[0, 1\], found 1.1 … 1.1"),
        (torch.full((1, 1, 8, 8), -0.5), r"images: expected values in \[0, 1\], found -0.5 … -0.5"),
        (torch.full((1, 1, 8, 8), torch.nan), r"images: expected values in \[0, 1\], found nan"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"images: expected floating-point values in \[0, 1\]"),
    ],
)
def test_other_images_are_refused(images: torch.Tensor, message: str) -> None:
    defense = defense_of()
    for use in (defense.purify, defense, defense.inspect):
        with pytest.raises(ValueError, match=message):
            use(images)


def test_batches_change_nothing() -> None:
    module, images = torch.nn.Linear(3, 2), torch.rand(7, 3)
    torch.testing.assert_close(in_batches(module, images, torch.device("cpu"), size=2), module(images))
    assert not in_batches(module, images, torch.device("cpu")).requires_grad


def test_an_encoder_is_saved_with_what_starts_from_it(tmp_path: Path) -> None:
    defense = defense_of(init="encoder")
    defense.save(tmp_path / "guessing")
    assert (tmp_path / "guessing" / "encoder.safetensors").is_file()
    images = images_of(5, (1, 8, 8))
    assert torch.equal(Defense.load(tmp_path / "guessing")(images), defense(images))
    (tmp_path / "guessing" / "encoder.safetensors").unlink()
    with pytest.raises(DefenseError, match=r"encoder\.safetensors: expected a file of the saved defense"):
        Defense.load(tmp_path / "guessing")


@each_shape
@pytest.mark.parametrize("realism_weight", [0.0, 0.1])
def test_what_is_saved_comes_back(
    tmp_path: Path, shape: tuple[int, ...], classes: int, realism_weight: float
) -> None:
    defense = defense_of(shape, classes, seed=3, realism_weight=realism_weight, optimizer="sgd")
    defense.save(str(tmp_path / "new" / "folder"))
    again = Defense.load(str(tmp_path / "new" / "folder"))
    images = images_of(4, shape)
    one, other = defense.inspect(images), again.inspect(images)
    for name in ("generated", "images", "label_before", "label", "realism", "errors"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(defense(images), again(images))
    assert again.projector.config == defense.projector.config
    assert again.projector.generator.latent_dim == 5
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_names_of_classes_are_saved_and_copied(tmp_path: Path) -> None:
    defense = defense_of()
    defense.class_names = tuple(f"digit {label}" for label in range(defense.classifier.classes))
    defense.save(tmp_path)
    assert copy.deepcopy(Defense.load(tmp_path)).class_names == defense.class_names
    describe(tmp_path, lambda described: described["class_names"].pop())
    with pytest.raises(DefenseError, match=rf"class_names: expected {defense.classifier.classes}, found"):
        Defense.load(tmp_path)


def test_saving_twice_replaces_and_leaves_neighbours_alone(folder: Path) -> None:
    (folder / "choice.json").write_text("{}")
    defense_of(seed=8).save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "choice.json"])
    images = images_of(2, (1, 8, 8))
    assert torch.equal(Defense.load(folder)(images), defense_of(seed=8)(images))


def test_an_interrupted_save_is_no_defense(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("components.saved_defense.save_weights", full)
    with pytest.raises(OSError, match="No space"):
        defense_of(seed=8).save(folder)
    with pytest.raises(DefenseError, match=r"found no manifest\.json"):
        Defense.load(folder)


def test_files_are_json_and_safetensors(kept: Path) -> None:
    assert sorted(path.name for path in kept.iterdir()) == sorted(FILES)
    for path in kept.glob("*.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DefenseError) as caught:
        Defense.load(folder)
    assert str(folder) in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_named(folder: Path, name: str, share: float) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DefenseError, match=name):
        Defense.load(folder)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(FILES[1:]), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(kept: Path, name: str, place: float, bit: int) -> None:
    path = kept / name
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(len(damaged) * place)] ^= 1 << bit
    try:
        path.write_bytes(damaged)
        with pytest.raises(DefenseError, match=rf"{name}: expected sha256 .*damaged"):
            Defense.load(kept)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b"3",
        b'"sha256"',
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "sha256": 5}',
        b'{"format": 1, "sha256": []}',
        b'{"format": 1, "sha256": {}}',
        b'{"format": 1, "sha256": {"defense.json": 7}}',
        b"\xff\xfe\x00",
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DefenseError, match=str(folder)):
        Defense.load(folder)


@pytest.mark.parametrize(("kind", "found"), [("pipe", "a pipe or a device"), ("folder", "Is a directory")])
def test_a_manifest_that_is_no_plain_file_is_refused_unread(folder: Path, kind: str, found: str) -> None:
    """A pipe would be waited for without end, and of a device all memory be filled."""
    path = folder / "manifest.json"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(DefenseError, match=rf"manifest\.json: expected a manifest, found {found}"):
        Defense.load(folder)


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_format_is_refused(folder: Path, version: object) -> None:
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "format": version})
    with pytest.raises(DefenseError, match=rf"manifest\.json: expected format 2, found {version!r}"):
        Defense.load(folder)


@pytest.mark.parametrize(
    ("section", "key", "value", "network"),
    [
        ("classifier", "architecture", "E", "Classifier"),
        ("classifier", "classes", 5, "Classifier"),
        ("generator", "width", 8, "Generator"),
        ("generator", "latent_dim", 6, "Generator"),
        ("discriminator", "width", 8, "Discriminator"),
        ("unet", "width", 8, "UNet"),
        ("unet", "depth", 2, "UNet"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    folder: Path, section: str, key: str, value: object, network: str
) -> None:
    describe(folder, lambda described: described[section].update({key: value}))
    with pytest.raises(DefenseError, match=f"safetensors: expected the weights of {network} as described"):
        Defense.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("unet"),
        lambda d: d.pop("projector"),
        lambda d: d.update(projector=None),
        lambda d: d.update(unet=[]),
        lambda d: d["projector"].pop("seed"),
        lambda d: d["projector"].update(seed="none"),
        lambda d: d["generator"].update(depth=3),
        lambda d: d["generator"].update(width=-1),
        lambda d: d["generator"].update(width="4"),
        lambda d: d["classifier"].update(architecture="Z"),
        lambda d: d["classifier"].pop("classes"),
        lambda d: d.update(image_shape=[]),
        lambda d: d.update(image_shape=[1, 4, 4]),
        lambda d: d.update(image_shape="1x8x8"),
    ],
)
def test_a_description_that_is_none_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    describe(folder, change)
    with pytest.raises(DefenseError, match=r"defense\.json: expected the description of a defense"):
        Defense.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3}, "step: expected a known field, found 'step'; did you mean steps?"),
        ({"steps": 0}, "steps: expected an integer ≥ 1 and ≤ 100000, found 0"),
        ({"steps": "3"}, "steps: expected an integer ≥ 1 and ≤ 100000, found '3'"),
        ({"optimizer": "lbfgs"}, "optimizer: expected one of 'sgd', 'adam', found 'lbfgs'"),
        ({"bank_size": 1}, "bank_size: expected at least restarts (2), found 1"),
    ],
)
def test_projector_settings_are_checked(folder: Path, change: dict[str, object], message: str) -> None:
    describe(folder, lambda described: described["projector"].update(change))
    with pytest.raises(DefenseError) as caught:
        Defense.load(folder)
    assert str(caught.value) == f"{message} ({folder / 'defense.json'})"


class Trap:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return open, (f"{self.path}", "w")  # type: ignore[return-value]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_classifier_of_other_weights_is_refused(kept: Path, wrapped: bool) -> None:
    """Also one that a name would build, with whose saved weights a copy of the given would be silently filled."""
    saved, other = (network_of("D", (1, 8, 8), 4) for _ in range(2))
    load_weights(saved, kept / "classifier.safetensors")
    right, wrong = (Victim(one, (1, 8, 8), 4) if wrapped else one for one in (saved, other))
    images = images_of(4, (1, 8, 8))
    assert torch.equal(Defense.load(kept, classifier=right)(images), Defense.load(kept)(images))
    with pytest.raises(DefenseError, match=r"classifier: expected the weights of .*, found another layers\."):
        Defense.load(kept, classifier=wrong)
    with pytest.raises(DefenseError, match=r"classifier: expected std \[1\.0\], found \[0\.5\]"):
        Defense.load(kept, classifier=Victim(saved, (1, 8, 8), 4, std=[0.5]))


@pytest.mark.parametrize("name", FILES[2:])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_is_not_opened(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    trap = tmp_path / "sprung"
    content = pickle.dumps(Trap(trap))
    if kind == "torch":
        buffer = io.BytesIO()
        torch.save({"weights": Trap(trap)}, buffer)
        content = buffer.getvalue()
    (folder / name).write_bytes(content)
    seal(folder)
    with pytest.raises(DefenseError, match=f"{name}: expected safetensors"):
        Defense.load(folder)
    assert not trap.exists()


def test_what_is_no_folder_is_refused(tmp_path: Path, kept: Path) -> None:
    cases = {tmp_path / "none": "no such folder", tmp_path: r"no manifest\.json", kept / "defense.json": "a file"}
    for path, found in cases.items():
        with pytest.raises(DefenseError, match=rf"expected a saved defense, found {found}"):
            Defense.load(path)


def test_weights_by_themselves(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(WeightsError, match="expected safetensors, found no such file"):
        load_weights(Discriminator(4, (1, 8, 8)), path)
    save_file(Discriminator(4, (1, 16, 16)).state_dict(), path)
    with pytest.raises(WeightsError, match="expected the weights of Discriminator as described"):
        load_weights(Discriminator(4, (1, 8, 8)), path)


def test_settings_removed_since_are_dropped_where_they_did_nothing(tmp_path: Path) -> None:
    defense, images = defense_of(), images_of(3, (1, 8, 8))
    defense.save(tmp_path)
    described = read_json(tmp_path / "defense.json")
    _rewrite(tmp_path, described, {"race_from": None, "race_factor": 1.5, "stop_error": None})
    assert torch.equal(Defense.load(tmp_path).purify(images), defense.purify(images))
    _rewrite(tmp_path, described, {"race_from": 3})
    with pytest.raises(DefenseError, match="race_from: expected null, as this field was removed, found 3"):
        Defense.load(tmp_path)


def _rewrite(folder: Path, described: dict[str, Any], settings: dict[str, Any]) -> None:
    """Writes a description with other settings of the projector, and the manifest that fits."""
    write_json(folder / "defense.json", {**described, "projector": {**described["projector"], **settings}})
    manifest = read_json(folder / "manifest.json")
    hashes = {**manifest["sha256"], "defense.json": sha256_file(folder / "defense.json")}
    write_json(folder / "manifest.json", {**manifest, "sha256": hashes})


def test_a_search_folder_is_told_where_its_defense_is(tmp_path: Path) -> None:
    defense_of().save(tmp_path / "one" / "best")
    with pytest.raises(DefenseError, match=r"one: expected a saved defense, found no .*; the one of this .*best"):
        Defense.load(tmp_path / "one")


def test_a_sparse_tensor_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"images: expected a dense tensor, found torch\.sparse_coo"):
        defense_of()(torch.rand(1, 1, 8, 8).to_sparse())


def test_it_stays_as_it_is_inside_a_module_that_trains() -> None:
    defense, images = defense_of(), images_of(6, (1, 8, 8))
    expected = defense(images)
    whole = nn.Sequential(defense, nn.Linear(4, 2)).train()
    whole(images)
    assert torch.equal(defense(images), expected)


def test_it_can_be_pickled() -> None:
    """As whoever sends it to another process does."""
    defense, images = defense_of(), images_of(6, (1, 8, 8))
    again = pickle.loads(pickle.dumps(defense))
    assert torch.equal(again(images), defense(images))
    assert torch.equal(again.double()(images), defense.double()(images))


def test_networks_whose_weights_hooks_derive_are_copied() -> None:
    """A GAN's discriminator often has such; after its training each holds the graph of the last pass."""
    tiny, images = defense_of(), images_of(3, (1, 8, 8))
    judge = nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(64, 1)), nn.Flatten(0))
    judge(images).sum().backward()
    defense = Defense(tiny.projector, tiny.unet, tiny.classifier, judge)
    assert torch.equal(copy.deepcopy(defense).inspect(images).realism, defense.inspect(images).realism)


@pytest.mark.parametrize("ambient", AMBIENT)
@pytest.mark.parametrize("init", ["random", "bank", "encoder"])
def test_what_the_caller_set_for_all_of_torch_changes_nothing(ambient: str, init: str) -> None:
    images = images_of(5, (1, 8, 8)).requires_grad_()

    def made() -> list[torch.Tensor]:
        defense = copy.deepcopy(kept)  # which has drawn nothing yet
        seen, logits = defense.inspect(images), defense(images)
        return [seen.generated, seen.images, seen.errors, seen.realism, defense(images.detach()), logits]

    kept = defense_of(init=init, restarts=3)
    expected = made()
    with AMBIENT[ambient]():
        found = made()
    for one, other in zip([*expected, *_gradient(expected, images)], [*found, *_gradient(found, images)], strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert torch.equal(one, other)


def _gradient(made: list[torch.Tensor], images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(made[-1][:, 1].sum(), images)


def test_torch_func_differentiates_the_classifier() -> None:
    classifier, images = defense_of().classifier, images_of(2, (1, 8, 8))
    jacobian = torch.func.jacrev(classifier)(images)
    gradient = torch.autograd.grad(classifier(images.requires_grad_())[0, 1], images)[0]
    torch.testing.assert_close(jacobian[0, 1], gradient)


def test_a_purifying_network_that_is_loaded_anew_is_used_at_once(tmp_path: Path) -> None:
    defense, images = defense_of(), images_of(4, (1, 8, 8))
    before = defense.purify(images)
    with torch.inference_mode():  # as whoever measures has it
        defense.get_submodule("generator").load_state_dict(generator_of(seed=1).float().state_dict())
        after = defense.purify(images)
    assert not torch.equal(after, before)
    defense.save(tmp_path / "saved")
    assert torch.equal(Defense.load(tmp_path / "saved").purify(images), after)
    projector = defense.projector
    assert defense.projector is projector  # built again once, not for every use


def test_the_discriminator_of_the_projector_is_the_defenses_too(tmp_path: Path) -> None:
    whole, images = defense_of(realism_weight=0.1), images_of(4, (1, 8, 8))
    defense = Defense(whole.projector, whole.unet, whole.classifier)
    expected = whole.inspect(images).realism
    assert torch.equal(defense.to("cpu").inspect(images).realism, expected)
    assert torch.equal(copy.deepcopy(defense).inspect(images).realism, expected)
    defense.save(tmp_path / "saved")
    assert torch.equal(Defense.load(tmp_path / "saved").inspect(images).realism, expected)


class Unnamed(nn.Module):
    """A user's own generator, which has all that the projector asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.latent_dim = generator_of().float(), 5

    def folded(self) -> nn.Module:
        return self.inner.folded()


class Plain:
    """Another, which is no torch module."""

    latent_dim = 5

    def folded(self) -> nn.Module:
        return generator_of().float().folded()


@pytest.mark.parametrize(("generator", "found"), [(Unnamed, "Unnamed"), (Plain, "no torch module")])
def test_what_could_not_be_read_again_is_not_saved(
    folder: Path, generator: type[Unnamed | Plain], found: str
) -> None:
    whole = defense_of()
    defense = Defense(Projector(generator(), whole.projector.config), whole.unet, whole.classifier)
    with pytest.raises(DefenseError, match=f"generator: expected a network with `settings`, .*, found {found}"):
        defense.save(folder)
    Defense.load(folder)  # what was there stands


def test_a_precision_that_is_too_narrow_is_named() -> None:
    defense = defense_of()
    generator = defense.get_submodule("generator")
    generator.load_state_dict({name: value * torch.nan for name, value in generator.state_dict().items()})
    with pytest.raises(ValueError, match="found nan … nan; float16 is too narrow"):
        defense.float().purify(images_of(2, (1, 8, 8)))


@pytest.mark.parametrize("levels", [2, None])
def test_black_and_white_pixels_have_a_gradient(levels: int | None) -> None:
    """An attacker would else see none for most of a digit."""
    defense = defense_of(init="encoder", levels=levels, restarts=1).double()
    inside = torch.where(images_of(4, (1, 8, 8)) > 0.5, 0.999, 0.001).double()
    gradients = []
    for images in (inside.round(), inside):
        images.requires_grad_()
        gradients += torch.autograd.grad(defense(images)[:, 0].sum(), images)
    assert bool((gradients[0] != 0).any(0).all())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.1 if levels is None else 1e-9, atol=1e-3)


def test_what_rounding_left_outside_is_clamped_exactly() -> None:
    defense = defense_of()
    images = torch.tensor([-1e-6, -1e-9, 0.0, 0.3, 1.0, 1 + 1e-6]).repeat(11)[:64].view(1, 1, 8, 8)
    assert torch.equal(defense.purify(images), defense.purify(images.clamp(0, 1)))
    assert torch.equal(defense._checked(images), images.clamp(0, 1))
