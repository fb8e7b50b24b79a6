"""The contract of an attack: frozen settings that can perturb images, known by a name.

    @ATTACKS.register("fgsm")
    class FGSM(Attack):
        name: Literal["fgsm"] = "fgsm"

        def perturb(self, classifier, images, labels, seed=0): ...

The settings must be readable without torch, so an attack imports it inside its functions.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from components.config import Config
from components.registry import Registry, without_methods

if TYPE_CHECKING:
    from torch import Tensor, nn


KNOWS = "knows the classifier completely, its architecture, weights and gradient, and"
_ROUNDING = 1e-5  # by which float32 may leave the ball; bfloat16 by as much as its numbers below 1 are apart


class AttackError(ValueError):
    """An attack made something else than images near those it was given."""


class Attack(Config):
    """Settings of an attack in the L∞ ball around each image.

    Attributes:
        title: the attack's name, in reports; where there is none, `name` as it is spelled.
        knows: what the attacker knows of the classifier, in reports.
        attacker: what the attacker knows and does, in reports.
        not_tried: attacks on the classifier that this one is not, in reports.
    """

    title: ClassVar[str] = ""
    knows: ClassVar[str] = "the classifier"
    attacker: ClassVar[str] = f"{KNOWS} changes the images in the L∞ ball of radius ε, on pixels from 0 to 1"
    not_tried: ClassVar[str] = "other attacks on the classifier"

    name: str  # the attack
    epsilon: float = Field(default=0.3, ge=0, le=1)  # radius of the L∞ ball, on images in [0, 1]
    labels: Literal["true", "predicted"] = "true"  # whose loss is raised; either way the label leaks into the attack

    def identity(self) -> dict[str, Any]:
        """The settings; those of a plug-in's attack with its sha256."""
        source = ATTACKS.sources.get(self.name)
        return {**super().identity(), "plugin": source} if source else super().identity()

    @abstractmethod
    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        """Attacks one batch, on the classifier's device.

        Args:
            classifier: images → logits (N, classes); it is attacked in evaluation mode and left as it was.
            images: (N, C, H, W) in [0, 1].
            labels: int64 (N,), the labels that the attack leads away from.
            seed: of what it draws.

        Returns:
            The attacked images, (N, C, H, W) in [0, 1], each pixel within `epsilon` of the original. An image's result
            depends neither on its neighbours nor on its place in the batch.
        """


def _flaw(name: str, settings: object) -> str | None:
    """Says what keeps a class from being the attack of that name."""
    if not (isinstance(settings, type) and issubclass(settings, Attack)):
        return f"expected a subclass of components.attacks.Attack, found {settings!r}"
    field = settings.model_fields["name"]
    if field.default != name:
        found = "none" if field.is_required() else repr(field.default)
        return f'{settings.__name__}: expected name: Literal["{name}"] = "{name}", found {found}'
    return without_methods(settings)


ATTACKS: Registry[type[Attack]] = Registry("attack.name", _flaw)


def attack(
    config: Attack, classifier: nn.Module, images: Tensor, labels: Tensor, batch_size: int | None = None
) -> Tensor:
    """Attacks `images` (N, C, H, W) in [0, 1] as `config` says.

    It computes on the classifier's device and returns the attacked images on their own. The attack works on copies, so
    one that changes what it is given does no harm.

    With `labels: predicted` the attacker raises the loss of what the classifier itself says, as one who does not
    know the truth must. It leaks the label that it starts from (Kurakin et al. 2017, section 4), which then is the true
    one no more often than the classifier is right.

    Raises:
        AttackError: the attack gave something else than images in [0, 1] within ε of these.
    """
    import torch

    from components.hardware import images_at_once
    from components.training import evaluating

    device = next(classifier.parameters()).device
    batch_size = batch_size or images_at_once(images, device)
    attacked = []
    for batch, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        given, target = batch.to(device, copy=True), truth.to(device, copy=True)
        with evaluating(classifier):
            if config.labels == "predicted":
                with torch.no_grad():
                    target = classifier(given).argmax(1)
            made = config.perturb(classifier, given, target)
        attacked.append(_checked(made, batch, config))
    return torch.cat(attacked)


def _checked(made: object, batch: Tensor, config: Attack) -> Tensor:
    """The images that an attack made of a batch, like the batch."""
    import torch

    named = ATTACKS.described(config.name)
    if not isinstance(made, torch.Tensor):
        raise AttackError(f"{named}: expected a tensor, found {type(made).__module__}.{type(made).__name__}")
    if made.shape != batch.shape:
        raise AttackError(f"{named}: expected images {tuple(batch.shape)}, found {tuple(made.shape)}")
    made = made.detach().to(batch)
    low, high = float(made.min()), float(made.max())
    if not (low >= 0 and high <= 1):  # nor NaN, which is neither
        raise AttackError(f"{named}: expected images in [0, 1], found {low:g} … {high:g}")
    moved = float((made - batch).abs().max())
    if moved > config.epsilon + max(_ROUNDING, torch.finfo(batch.dtype).eps):
        raise AttackError(f"{named}: expected pixels moved by at most {config.epsilon:g}, found {moved:g}")
    return made
