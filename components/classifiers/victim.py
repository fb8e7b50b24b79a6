"""Any torch module as the classifier to defend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from components.classifiers.base import LOGITS, PENULTIMATE, ClassifierError, ImageClassifier
from components.classifiers.layers import Layers, layers_of
from components.classifiers.weights import tensors_of
from components.draws import chance_of, uniform
from components.layout import channels_first
from components.registry import raised
from components.training import evaluating, settle

_PROBES = 3  # images on which a module is looked at
_NEIGHBOURS = 1e-3  # of the largest logit: what other sums of a larger batch may change


class Victim(ImageClassifier):
    """Images (N, C, H, W) in [0, 1] → logits (N, classes) of a module of the user's.

        victim = Victim(network, (3, 32, 32), 10, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))

    The module predicts in evaluation mode, on images from which `mean` is subtracted and which are then divided by
    `std`. A grey image is repeated where these have three channels.

    Layers are named as by torchvision's `get_graph_node_names`, or, where the module cannot be traced, as by
    `named_modules`. `penultimate` is what the last layer with weights reads, or the one given.

    Args:
        module: images → logits.
        image_shape: (C, H, W) of the images.
        classes: number of classes.
        layer: what `penultimate` means.
        mean: of each channel; 0 where none is given.
        std: of each channel; 1 where none is given.

    Raises:
        ClassifierError: the module does not take such images, its output has another shape, or it is not the same in
            every call, in every batch and with unchanged weights; or it gives probabilities, or no gradient; or its
            state holds something else than tensors.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        image_shape: Sequence[int],
        classes: int,
        layer: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.architecture = type(module).__name__
        self.image_shape, self.classes, self.layer = tuple(image_shape), classes, layer
        self.module = module
        for name, values, otherwise in (("mean", mean, 0.0), ("std", std, 1.0)):
            self.register_buffer(name, self._channels(name, values, otherwise), persistent=False)
        self._layers: Layers | None = None
        first = next(self.parameters(), None)
        if first is None:
            raise ClassifierError(f"{self.architecture}: expected a module with weights, found none")
        learning = {name: weights.requires_grad for name, weights in self.named_parameters()}
        if any(learning.values()):  # a module of which all is frozen has only been trained before
            self.fixed = frozenset(name for name, learns in learning.items() if not learns)
        with evaluating(self), torch.no_grad():
            self._check(probe(self.image_shape).to(self.mean.device))
        if layer is not None:
            self._known(layer)

    @property
    def network(self) -> nn.Module:
        return self.module

    @property
    def layer_names(self) -> list[str]:
        return [*(name for name in self._seen().names if name != LOGITS), LOGITS]

    @property
    def normalisation(self) -> dict[str, list[float]]:
        """The means and standard deviations by name."""
        return {name: getattr(self, name).flatten().tolist() for name in ("mean", "std")}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → logits (N, classes), in the images' precision."""
        logits: Tensor = self.module(self._normalised(images))
        floating = isinstance(logits, Tensor) and logits.is_floating_point()  # what is none is named by the checks
        return logits.to(images.dtype) if floating else logits

    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """The named layer's output (N, …) and the logits (N, classes) of `images`, in one pass.

        Raises:
            ValueError: no layer has that name.
        """
        if layer == LOGITS:
            logits = self(images)
            return logits, logits
        layers = self._seen()
        layer = (self.layer or layers.penultimate) if self._known(layer) == PENULTIMATE else layer
        seen, logits = layers.read(self._normalised(images), layer)
        return seen, logits.to(images.dtype)

    def _normalised(self, images: Tensor) -> Tensor:
        return (channels_first(images) - self.mean) / self.std

    def _seen(self) -> Layers:
        """The module's layers, looked at again when it has moved."""
        if self._layers is None:
            with evaluating(self), torch.inference_mode(False), torch.no_grad():
                images = probe(self.image_shape).to(self.mean)
                try:
                    self._layers = layers_of(self.module, (images - self.mean) / self.std)
                except RuntimeError as error:  # of a scripted module, which takes no hooks
                    self._refuse("a module whose layers can be read", raised(error))
        return self._layers

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Converts every tensor by `fn`; `.to()`, `.double()` and similar methods call it."""
        self._layers = None  # a traced graph keeps the buffers that it was made with
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        settle(self.module)
        return {**self.__dict__, "_layers": None}  # copies have a graph of their own

    def _channels(self, name: str, values: Sequence[float] | None, otherwise: float) -> Tensor:
        """`values` (C, 1, 1), one a channel, in the precision and on the device of the module."""
        channels = self.image_shape[0]
        given = [otherwise] * channels if values is None else [float(value) for value in values]
        if len(given) != channels and channels != 1:
            raise ClassifierError(f"{name}: expected {channels} numbers, one a channel, found {len(given)}")
        if name == "std" and not all(value > 0 for value in given):
            raise ClassifierError(f"std: expected numbers > 0, found {given}")
        weights = next((value for value in self.module.parameters() if value.is_floating_point()), torch.empty(0))
        return torch.tensor(given, dtype=weights.dtype, device=weights.device).view(-1, 1, 1)

    def _check(self, images: Tensor) -> None:
        """The module is a classifier of such images, and a function of them alone."""
        before = {name: value.clone() for name, value in tensors_of(self.module).items()}
        logits, again = self._called(images), self._called(images)
        if not torch.equal(logits, again):
            difference = float((logits - again).abs().max())
            self._refuse(
                "the same logits in two calls in evaluation mode",
                f"logits that differ by up to {difference:.3g}; does it draw random numbers, or drop out?",
            )
        alone = torch.cat([self._called(image[None]) for image in images])
        if float((alone - logits).abs().max()) > _NEIGHBOURS * max(1.0, float(logits.abs().max())):
            self._refuse(
                "logits of an image that do not depend on its batch",
                "others in another batch; does its batch normalisation keep no running averages?",
            )
        after = self.module.state_dict()
        if changed := [name for name, value in before.items() if not torch.equal(value, after[name])]:
            self._refuse("unchanged weights in evaluation mode", f"that a call changes {changed[0]}")
        if bool((logits >= 0).all()) and float((logits.sum(1) - 1).abs().max()) < _NEIGHBOURS:
            self._refuse("logits", "probabilities: each row's sum is 1; leave the softmax out")
        self._check_gradient(images)
        settle(self.module)

    def _check_gradient(self, images: Tensor) -> None:
        """Attacks and trainings descend through the module."""
        with torch.inference_mode(False), torch.enable_grad():
            images = images.clone().requires_grad_()
            logits = self._called(images)
            if not logits.requires_grad:
                self._refuse("logits with a gradient", "none: they are detached, or computed without torch")
            try:
                (gradient,) = torch.autograd.grad(logits.square().sum(), images, allow_unused=True)
            except RuntimeError as error:
                self._refuse("logits with a gradient", raised(error))
            if gradient is None:
                self._refuse("logits with a gradient to the images", "none")

    def _called(self, images: Tensor) -> Tensor:
        shape = ", ".join(map(str, self.image_shape))
        try:
            logits = self(images)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            self._refuse(f"a network of images ({shape})", raised(error))
        expected = f"logits (N, {self.classes}) of images ({shape})"
        if not isinstance(logits, Tensor):
            self._refuse(expected, type(logits).__name__)
        if logits.shape != (len(images), self.classes) or not logits.is_floating_point():
            self._refuse(expected, f"{tuple(logits.shape)} of {logits.dtype} for N = {len(images)}")
        if not logits.isfinite().all():
            self._refuse(f"finite {expected}", "NaN or infinity")
        return logits

    def _refuse(self, expected: str, found: str) -> NoReturn:
        raise ClassifierError(f"{self.architecture}: expected {expected}, found {found}")


def as_classifier(
    network: object, image_shape: Sequence[int], classes: int, architecture: str | None = None
) -> ImageClassifier:
    """A module as a classifier of such images: itself where it is one, else wrapped in a `Victim`.

    Args:
        network: a torch module.
        image_shape: (C, H, W) of the images.
        classes: number of classes.
        architecture: what to call it; the name of its own class where none is given.

    Raises:
        ClassifierError: it is no module, or not one of such images and classes.
    """
    if not isinstance(network, nn.Module):
        raise ClassifierError(f"expected a torch.nn.Module, found {type(network).__name__}")
    classifier = network if isinstance(network, ImageClassifier) else Victim(network, image_shape, classes)
    expected, found = (tuple(image_shape), classes), (classifier.image_shape, classifier.classes)
    if expected != found:
        raise ClassifierError(f"expected images {expected[0]} of {classes} classes, found {found[0]} of {found[1]}")
    classifier.architecture = architecture or classifier.architecture
    return classifier


def probe(image_shape: Sequence[int]) -> Tensor:
    """Images on which a module is looked at, float32 in [0, 1]; drawn apart from all other random numbers."""
    return uniform((_PROBES, *image_shape), chance_of(0))
