"""The whole defense: projector, then U-Net, in front of the classifier. Read this file first.

    x_adv ── projector ──▶ x_g ── U-Net ──▶ U(x_g) ── classifier ──▶ label
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from components.classifiers.base import ImageClassifier
from components.hardware import images_at_once
from components.layout import channels_first
from components.projector.trace import Projection
from components.purifiers import Purifier, Surrogates
from components.saved_defense import DefenseError, read_parts, write_parts
from components.training import freeze, uncast
from components.unet.network import UNet, join

__all__ = ["Defense", "DefenseError", "Purification", "Surrogates", "in_batches"]

ROUNDING = 1.001e-4  # beyond [0, 1] what resizing or x ± ε leaves, a fortieth of one of 256 grey levels: clamped


@dataclass(frozen=True)
class Purification:
    """The result of the defense for each image.

    Attributes:
        generated: x_g, (N, C, H, W) in [0, 1].
        images: U(x_g), likewise.
        label_before: the classifier's label of x_g, int64 (N,).
        label: its label of U(x_g).
        realism: the discriminator's score of x_g, (N,); higher is more like a training image; NaN where there is none.
        errors: distance between x_g and the image, after its grey levels were reduced where they are, (N,).
    """

    generated: Tensor
    images: Tensor
    label_before: Tensor
    label: Tensor
    realism: Tensor
    errors: Tensor


class Defense(nn.Module):
    """Purifies images in front of a classifier.

        defense = Defense.load("results/quickstart/best")
        clean = defense.purify(images)      # (N, C, H, W) in [0, 1] → the same
        labels = defense(images).argmax(1)  # logits of the purified images

    It is differentiable: the logits of images that require a gradient have the values of the real defense and, through
    squeezing and descent, the gradient of `surrogates`. Like any module it can be moved, cast, copied and saved with
    all of its networks, and works under `torch.inference_mode()`. `torch.autocast` changes nothing in it.

    Args:
        projector: image → the image that the U-Net cleans; the latent projector, or another purifier.
        unet: purified image → denoised image.
        classifier: the network to defend.
        discriminator: scores how real a purified image looks; where none is given, the projector's, if it has one.

    Attributes:
        class_names: of the labels 0, 1, …, saved with it; empty where the labels are all that is known.
    """

    def __init__(
        self, projector: Purifier, unet: UNet, classifier: ImageClassifier, discriminator: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.surrogates, device = Surrogates(), projector.device
        self.class_names: tuple[str, ...] = ()
        networks = projector.networks
        for name, network in networks.items():
            self.add_module(name, freeze(network).to(device))
        self.unet = freeze(unet).to(device)
        self.classifier = freeze(classifier).to(device)
        judge = networks.get("discriminator") if discriminator is None else discriminator
        self.discriminator = None if judge is None else freeze(judge).to(device)
        self._projector, self._weights = projector, _versions(networks)
        self.eval()

    @property
    def projector(self) -> Purifier:
        """The purifier; no module itself, it is built again from its networks when they have moved or changed."""
        if self._weights != _versions(self._projector.networks):  # new ones may be loaded into one of them alone
            with uncast(self._projector.device):
                self._renew_projector()
        return self._projector

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of the purified images, with a gradient where `images` require one.

        Raises:
            ValueError, TypeError: as `purify`.
            NoGradient: the images require a gradient, which `surrogates` cannot give.
        """
        if torch.is_grad_enabled() and getattr(images, "requires_grad", False):
            return self.through(images, self.surrogates)
        with _recorded(self.projector.device):
            return in_batches(self.classifier, self.purify(images), self.projector.device)

    def through(self, images: Tensor, surrogates: Surrogates) -> Tensor:
        """Logits (N, classes) of the purified images, with the gradient of `surrogates`; raises as `forward`."""
        device, images = self.projector.device, self._checked(images)
        logits = []
        with uncast(device):
            for part in channels_first(images.to(device)).split(images_at_once(images, device)):
                generated = self.reconstructed(part, surrogates)
                logits.append(self.classifier(self.unet(join(self.unet.input, generated, part))))
        return torch.cat(logits).to(images.device)

    def reconstructed(self, images: Tensor, surrogates: Surrogates) -> Tensor:
        """x_g of images (N, C, H, W) in [0, 1] on the networks' device, with the gradient of `surrogates`.

        Raises:
            NoGradient: they cannot give one.
        """
        with uncast(self.projector.device):
            generated = self.projector.through(images, surrogates)
        _check_generated(generated)
        return generated

    def purify(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1], attacked or not → purified images of the same shape and range.

        Raises:
            TypeError: the images are no tensor.
            ValueError: the images have another shape than those the defense was trained on, or leave [0, 1] by more
                than rounding; or the generator does.
        """
        with _recorded(self.projector.device):
            images = self._checked(images)
            return self.denoise(self._projected(images).images, images)

    def denoise(self, generated: Tensor, images: Tensor) -> Tensor:
        """U(x_g), the second half of `purify`; see `unet.join` for what a U-Net may read."""
        with uncast(self.projector.device):
            return in_batches(self.unet, join(self.unet.input, generated, images), self.projector.device)

    def inspect(self, images: Tensor) -> Purification:
        """Purifies as the published method runs: classify x_g, score its realism, denoise, classify again.

        Raises:
            ValueError: as `purify`.
        """
        with _recorded(self.projector.device):
            images = self._checked(images)
            found = self._projected(images)
            denoised = self.denoise(found.images, images)
            realism = torch.full((len(images),), torch.nan, dtype=images.dtype, device=images.device)
            if self.discriminator is not None:
                realism = in_batches(self.discriminator, found.images, self.projector.device)
            return Purification(
                found.images,
                denoised,
                self.classifier.predict(found.images),
                self.classifier.predict(denoised),
                realism,
                found.errors,
            )

    def _projected(self, images: Tensor) -> Projection:
        found = self.projector.project(images)
        _check_generated(found.images)
        return found

    def _checked(self, images: Tensor) -> Tensor:
        """The images in the networks' own precision, without what rounding left beyond [0, 1]."""
        if not isinstance(images, Tensor):
            found = f"found {type(images).__module__}.{type(images).__name__}"
            raise TypeError(f"images: expected a tensor, {found}; torch.as_tensor makes one of an array")
        if images.layout != torch.strided:
            raise ValueError(f"images: expected a dense tensor, found {images.layout}; images.to_dense() makes one")
        shape = ", ".join(map(str, self.classifier.image_shape))
        if images.ndim != 4 or tuple(images.shape[1:]) != self.classifier.image_shape:
            raise ValueError(f"images: expected shape (N, {shape}), found {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ValueError(f"images: expected floating-point values in [0, 1], found {images.dtype}")
        check_range(images)
        if images.is_inference():
            images = images.clone()  # autograd, by which the projector descends, may not keep the original
        images = images.to(next(self.unet.parameters()).dtype)
        # the values of clamp, but not its gradient, which torch 2.14 makes zero at 0 and 1 themselves: an attacker
        # would see none for the pixels of a black ground
        return images + (images.detach().clamp(0, 1) - images.detach())

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, also inside a module that trains: its normalisation would learn from every call."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Converts every tensor by `fn`; `.to()`, `.double()` and similar methods call it."""
        with torch.inference_mode(False):
            super()._apply(fn, recurse)
        self._renew_projector()
        return self

    def _renew_projector(self) -> None:
        """Builds the purifier from its networks as they are now, and where."""
        device = next(self.unet.parameters()).device
        with torch.inference_mode(False):
            self._projector = _renewed(self._projector, lambda network: network, self.discriminator, device)
        self._weights = _versions(self._projector.networks)

    def __deepcopy__(self, memo: dict[int, Any]) -> Defense:
        def copied(network: Any) -> Any:
            return copy.deepcopy(network, memo)

        judge = copied(self.discriminator)
        projector = _renewed(self.projector, copied, judge, self.projector.device)
        clone = Defense(projector, copied(self.unet), copied(self.classifier), judge)
        clone.surrogates, clone.class_names = self.surrogates, self.class_names
        return clone

    def save(self, folder: Path | str) -> None:
        """Writes weights as safetensors and the rest as JSON; the manifest, which makes it valid, last.

        Raises:
            DefenseError: a network has no `settings` from which `load` could build it; nothing was written.
        """
        others = {"discriminator": self.discriminator, "unet": self.unet}
        known = {name: network for name, network in others.items() if network is not None}
        write_parts(Path(folder), self.projector, known, self.classifier, self.class_names)

    @classmethod
    @torch.inference_mode(False)
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", classifier: nn.Module | None = None
    ) -> Defense:
        """Reads a saved defense; nothing is unpickled.

        Args:
            folder: where it was saved.
            device: where to compute.
            classifier: the user's own module that it defends, where no name says how to build that; it is copied.

        Raises:
            DefenseError: a file is missing, damaged or of another architecture, and which; or the classifier has
                another shape, number of classes, normalisation or weights than the one that it was made for.
        """
        parts = read_parts(Path(folder), classifier)
        networks = parts.networks
        for network in networks.values():
            freeze(network).to(device)
        purifier = parts.config.component(networks, parts.seed, device)
        defense = cls(purifier, networks["unet"], networks["classifier"], networks.get("discriminator"))
        defense.class_names = parts.class_names
        return defense


def _versions(networks: Mapping[str, nn.Module]) -> list[tuple[int, int]]:
    """Numbers that change with every weight that is written or replaced."""
    weights = (weight for network in networks.values() for weight in (*network.parameters(), *network.buffers()))
    return [(id(weight), 0 if weight.is_inference() else weight._version) for weight in weights]


def _renewed(
    purifier: Purifier, copied: Callable[[Any], Any], judge: nn.Module | None, device: torch.device
) -> Purifier:
    """The same purifier of copies of its networks, elsewhere; `judge` is the discriminator of its defense."""
    networks = {name: copied(network) for name, network in purifier.networks.items()}
    if judge is not None:
        networks["discriminator"] = judge
    return purifier.config.component(networks, purifier.seed, device)


@contextmanager
def _recorded(device: torch.device) -> Iterator[None]:
    """Within the block the projector may take gradients, also in inference mode; what comes of it has none.

    Nor is anything cast: an image's result would follow from its batch, of which some chunks run in other threads.
    """
    with torch.inference_mode(False), torch.no_grad(), uncast(device):
        yield


def _check_generated(generated: Tensor) -> None:
    """Refuses a generator of another range, such as tanh's: everything behind it would be silently wrong."""
    if strayed := _strayed(generated):
        narrow = "float16 is too narrow for it, bfloat16 and float32 are not"
        remedy = narrow if math.isnan(strayed[0]) else "if it ends in tanh, let it return (images + 1) / 2"
        raise ValueError(f"generator: expected images in [0, 1], found {strayed[0]:g} … {strayed[1]:g}; {remedy}")


def check_range(images: Tensor) -> None:
    """Refuses images that leave [0, 1] by more than rounding. Raises ValueError."""
    if strayed := _strayed(images):
        raise ValueError(f"images: expected values in [0, 1], found {strayed[0]:g} … {strayed[1]:g}")


def _strayed(images: Tensor) -> tuple[float, float] | None:
    """The lowest and the highest value, where one leaves [0, 1] by more than rounding or is NaN; else None."""
    if not len(images):
        return None
    low, high = float(images.detach().min()), float(images.detach().max())
    return None if low >= -ROUNDING and high <= 1 + ROUNDING else (low, high)


@torch.no_grad()
def in_batches(module: nn.Module, images: Tensor, device: torch.device, size: int | None = None) -> Tensor:
    """`module` over `images` (N, …) in groups that fit the memory, with the result on the images' device."""
    size = size or images_at_once(images, device)
    done = torch.cat([module(part.to(device)).to(images.device) for part in images.split(size)])
    return done.contiguous()  # whoever flattens it by `view` relies on that
