"""Square attack: random squares, by queries of the logits alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from components.attacks.base import ATTACKS, Attack

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

# Andriushchenko et al., section 4: after these shares of 10,000 queries the squares' share of the image is halved
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@ATTACKS.register("square")
class Square(Attack):
    """Random search over squares of ±ε; no gradient is used.

    Source: Andriushchenko, Croce, Flammarion, Hein, Square attack: a query-efficient black-box adversarial attack via
    random search (ECCV 2020), algorithms 1 and 2.
    """

    title: ClassVar[str] = "Square"
    knows: ClassVar[str] = "the classifier's answers"
    attacker: ClassVar[str] = (
        "sees the logits that the classifier gives to images, neither its weights nor its gradient, and changes random "
        "squares by at most ε of the range from 0 to 1, keeping what brings the classifier nearer to a mistake"
    )
    not_tried: ClassVar[str] = "attacks by gradients (FGSM, PGD)"

    name: Literal["square"] = "square"  # the attack
    queries: int = Field(default=500, ge=1, le=1_000_000)  # of the logits of each image
    share: float = Field(default=0.8, gt=0, le=1)  # of the image that the first squares cover

    def perturb(self, classifier: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
        import torch

        from components.attacks.losses import margin
        from components.draws import chance_of
        from components.training import evaluating, mix

        images = images.detach()
        chance = chance_of(mix(seed))
        stripes = _signs((1, images.shape[1], 1, images.shape[3]), chance).to(images)
        best = (images + self.epsilon * stripes).clamp(0, 1)
        with evaluating(classifier), torch.no_grad():
            widest = margin(classifier(best), labels)
            for query in range(1, self.queries):
                open_ = (widest <= 0).nonzero().squeeze(1)  # those already misread need no further query
                if not len(open_):
                    break
                rows, columns = self._square(query, tuple(images.shape[2:]), chance)
                signs = _signs((1, images.shape[1], 1, 1), chance).to(images)
                tried = best[open_].clone()
                tried[..., rows, columns] = images[open_][..., rows, columns] + self.epsilon * signs
                tried = tried.clamp(0, 1)
                reached = margin(classifier(tried), labels[open_])
                better = reached > widest[open_]
                best[open_[better]], widest[open_[better]] = tried[better], reached[better]
        return best

    def _square(self, query: int, size: tuple[int, ...], chance: Generator) -> tuple[slice, slice]:
        """The same square for all images, so that an image's result does not depend on its neighbours."""
        share = self.share / 2 ** sum(query / self.queries > place for place in _HALVINGS)
        side = max(1, min(*size, round((share * size[0] * size[1]) ** 0.5)))
        return _place(side, size[0], chance), _place(side, size[1], chance)


def _place(side: int, size: int, chance: Generator) -> slice:
    from components.draws import integers

    start = int(integers(size - side + 1, (), chance))
    return slice(start, start + side)


def _signs(shape: tuple[int, ...], chance: Generator) -> Tensor:
    from components.draws import integers

    return 2.0 * integers(2, shape, chance) - 1
