"""The classifiers A–F of Defense-GAN's MNIST experiments."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.classifiers.base import PENULTIMATE, ClassifierError, ImageClassifier
from components.layout import channels_first, channels_last

# Samangouei, Kabkab, Chellappa: Defense-GAN (ICLR 2018), appendix, table 5. C64-5/2: 64 filters of 5 × 5,
# stride 2; FC128: fully connected; D.5: dropout. A ReLU follows each C and FC; the last layer, to the classes,
# is implied.
ARCHITECTURES = {
    "A": "C64-5 C64-5/2 D.25 FC128 D.5",
    "B": "D.2 C64-8/2 C128-6/2 C128-5 D.5",
    "C": "C128-3 C64-5/2 D.25 FC128 D.5",
    "D": "FC200 D.5 FC200",
    "E": "FC200 FC200",
    "F": "C64-8/2 C128-6/2 C128-5",
}


class Classifier(ImageClassifier):
    """Images (N, C, H, W) in [0, 1] → logits (N, classes), with access to each layer by name.

    Layers are named `conv1`, `conv2`, …, `dense1`, … (after their ReLU) and `logits`; `penultimate` is the last
    before the logits.

    Args:
        architecture: a letter of `ARCHITECTURES`.
        image_shape: (C, H, W) of the images.
        classes: number of classes.

    Raises:
        ClassifierError: the images are too small for this architecture.
    """

    def __init__(self, architecture: str, image_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.architecture, self.image_shape, self.classes = architecture, tuple(image_shape), classes
        self.layers = nn.ModuleDict()
        counts: Counter[str] = Counter()
        dropout: list[nn.Module] = []  # waits for the layer whose input it thins
        shape = self.image_shape
        for token in [*ARCHITECTURES[architecture].split(), f"logits{classes}"]:
            kind, size, kernel, stride = _TOKEN.fullmatch(token).groups()  # type: ignore[union-attr]
            if kind == "D":
                dropout = [nn.Dropout(float(size))]
                continue
            counts[kind] += 1
            layer: nn.Module
            if kind == "C":
                layer = _convolution(shape, int(size), int(kernel), int(stride or 1), first=counts["C"] == 1)
            else:
                layer = nn.Sequential(Flatten(), nn.Linear(math.prod(shape), int(size)))
            name = "logits" if kind == "logits" else f"{_NAMES[kind]}{counts[kind]}"
            rectifier = [] if kind == "logits" else [nn.ReLU()]
            self.layers[name] = nn.Sequential(*dropout, layer, *rectifier)
            dropout = []
            shape = tuple(layer(torch.zeros(1, *shape)).shape[1:])
        channels_last(self)

    @property
    def layer_names(self) -> list[str]:
        """Names that `features` takes, from first to last."""
        return list(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] → logits (N, classes)."""
        return self.features(images, "logits")

    def features_and_logits(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """The named layer's output (N, …) and the logits (N, classes) of `images`, in one pass.

        Raises:
            ValueError: no layer has that name.
        """
        layer = self.layer_names[-2] if self._known(layer) == PENULTIMATE else layer
        outputs, maps = {}, channels_first(images)
        for name, module in self.layers.items():
            maps = module(maps)
            outputs[name] = maps
        return outputs[layer], maps


class Flatten(nn.Flatten):
    """Maps (N, C, H, W) → vectors (N, C·H·W), whose gradient comes back in the order in which the maps lie in memory.

    As torch flattens maps with their channels last, their gradient has the channels first, and what reads both, as a
    ReLU's does, takes twenty times longer on a processor: 5 % of a training step. The numbers are the same.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Flattens, and says in which order the gradient is to be."""
        if maps.requires_grad and maps.dim() == 4 and maps.stride(1) == 1:  # the channels are last
            maps.register_hook(_channels_last)
        return super().forward(maps)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # which torch.func can follow, too


_TOKEN = re.compile(r"(C|FC|D|logits)([\d.]+)(?:-(\d+))?(?:/(\d+))?")
_NAMES = {"C": "conv", "FC": "dense"}


def _convolution(shape: tuple[int, ...], filters: int, kernel: int, stride: int, *, first: bool) -> nn.Conv2d:
    # Defense-GAN's code pads its first convolution ("SAME") and none of the others ("VALID").
    padding = (kernel - 1) // 2 if first else 0
    if min(shape[1:]) + 2 * padding < kernel:
        expected, found = f"{kernel} × {kernel}", f"{shape[1]} × {shape[2]}"
        raise ClassifierError(f"expected maps of at least {expected}, found {found}")
    return nn.Conv2d(shape[0], filters, kernel, stride, padding)
