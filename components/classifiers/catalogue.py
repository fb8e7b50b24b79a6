"""Every classifier there is by name: Defense-GAN's A–F, those of plug-ins, and torchvision's. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from components.classifiers import torchvision_models
from components.config import nearest
from components.registry import Registry, raised

if TYPE_CHECKING:
    from torch import nn

    from components.classifiers.base import ImageClassifier

Build: TypeAlias = Callable[[tuple[int, ...], int], "nn.Module"]  # (C, H, W), classes → an untrained network

CLASSIFIERS: Registry[Build] = Registry("classifier.architecture")


def _defense_gan(letter: str) -> Build:
    def build(image_shape: tuple[int, ...], classes: int) -> nn.Module:
        from components.classifiers.defense_gan import Classifier

        return Classifier(letter, image_shape, classes)

    return build


for _letter in "ABCDEF":
    CLASSIFIERS.register(_letter)(_defense_gan(_letter))


def known(name: str) -> str:
    """`name`, where it is a classifier's.

    Raises:
        ValueError: it is none; with the nearest that is.
    """
    if name in CLASSIFIERS or name in torchvision_models.names():
        return name
    others = (*CLASSIFIERS, *torchvision_models.names())
    listed = ", ".join(CLASSIFIERS)
    raise ValueError(
        f"expected {listed}, a torchvision model, or one that --plugin defines, found {name!r}{nearest(name, others)}"
    )


def network_of(architecture: str, image_shape: Sequence[int], classes: int) -> ImageClassifier:
    """An untrained classifier by name. Messages begin with the name, and with the file where a plug-in defines it.

    Args:
        architecture: its name.
        image_shape: (C, H, W) of the images.
        classes: number of classes.

    Raises:
        ValueError: there is none of that name, or it cannot be a classifier of such images.
    """
    from components.classifiers.base import ClassifierError
    from components.classifiers.victim import as_classifier

    shape, called = tuple(image_shape), CLASSIFIERS.described(known(architecture))
    own = architecture in CLASSIFIERS
    build = CLASSIFIERS[architecture] if own else partial(torchvision_models.build, architecture)
    try:
        return as_classifier(build(shape, classes), shape, classes, architecture)
    except ClassifierError as error:
        raise ClassifierError(f"{called}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever the code of a plug-in raises
        expected = f"a network of images {shape} and {classes} classes"
        raise ClassifierError(f"{called}: expected {expected}, found {raised(error)}") from error
