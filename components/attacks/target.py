"""The target of an adaptive attack: the model's real answers, and differentiable stand-ins for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from components.attacks.bits import Cells
from components.attacks.eot import EOT
from components.attacks.remembered import Answers, Grey, grey_of
from components.defense import Defense
from components.hardware import images_at_once
from components.purifiers import Surrogates
from components.squeezing import Surrogate as Squeezing
from components.squeezing import squeezed_with_gradient
from components.training import evaluating, uncast

Stage = Literal["classifier", "threshold", "gan", "defense"]


@dataclass(frozen=True)
class Target:
    """A model under attack.

    Attributes:
        model: images → logits, as it answers; judges every candidate.
        views: differentiable stand-ins by the name of their surrogate; the first is the best known.
        sources: models from which attacks are transferred, by name.
        levels, threshold: as `squeezing.squeezed`, where the model sees nothing else of the images; else None.
    """

    model: nn.Module
    views: Mapping[str, nn.Module]
    sources: Mapping[str, nn.Module] = field(default_factory=dict)
    levels: int | None = None
    threshold: float | None = None

    @torch.no_grad()
    def judge(self, images: Tensor) -> Tensor:
        """The logits (N, classes) of the real model."""
        parts = images.split(images_at_once(images, images.device))
        with evaluating(self.model):
            return torch.cat([self.model(part).to(images.device) for part in parts])

    def remembering(self) -> Answers:
        """The judge, for one search: it is not asked twice about the same grey levels, unless it is random."""
        random = any(isinstance(view, EOT) for view in self.views.values())
        return Answers(self.judge, None if random else grey_of(self.model))

    def cells(self, images: Tensor, epsilon: float) -> Cells | None:
        """The grey levels that each pixel can be given; None where images are not squeezed."""
        return None if self.levels is None else Cells(images, epsilon, self.levels, self.threshold)


class Part(nn.Module):
    """A defense up to one of its stages, in front of its classifier.

    Args:
        defense: the whole.
        stage: classifier: nothing in front of it; threshold: the grey levels; gan: x_g; defense: all.
        surrogates: of the gradient, with which it stands in for the defense; None: it is the defense.
    """

    def __init__(self, defense: Defense, stage: Stage, surrogates: Surrogates | None = None) -> None:
        super().__init__()
        self.defense, self.stage = defense, stage
        levels = defense.projector.config.levels
        # behind the plain threshold is what is set beside a defense that squeezes nothing
        self.levels = {"classifier": None, "threshold": levels or 2}.get(stage, levels)
        self.surrogates = surrogates or defense.surrogates
        # a stand-in answers as such even where no gradient is asked for; one that unrolls cannot, and is no quicker
        self.stands_in = surrogates is not None and surrogates.descent != "unrolled"

    @property
    def stand_ins(self) -> str:
        """The surrogates that its gradient goes through, by name; none where it needs none."""
        descent = self.surrogates.descent if self.stage in ("gan", "defense") else None
        names = [self.surrogates.squeezing if self.levels else None, descent]
        return ", ".join(name for name in names if name) or "none"

    @property
    def grey(self) -> Grey | None:
        """The grey levels of images, where it sees nothing else of them."""
        if self.levels is None or (self.stage == "defense" and self.defense.unet.input != "generated"):
            return None
        squeezing, threshold = self.surrogates.squeezing, self.defense.projector.config.threshold
        by_identity = replace(self.surrogates, squeezing="straight_through")
        straight = self if by_identity == self.surrogates else Part(self.defense, self.stage, by_identity)
        return Grey(self.levels, threshold, squeezing, straight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W) in [0, 1]."""
        with uncast(self.defense.projector.device):
            return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        defense = self.defense
        with_gradient = self.stands_in or (torch.is_grad_enabled() and images.requires_grad)
        if self.stage == "defense":
            return defense.through(images, self.surrogates) if with_gradient else defense(images)
        seen = images.to(next(defense.unet.parameters()))
        if self.stage == "threshold":
            threshold = defense.projector.config.threshold
            seen = squeezed_with_gradient(seen, self.levels, threshold, self.surrogates.squeezing)
        elif self.stage == "gan" and with_gradient:
            seen = defense.reconstructed(seen, self.surrogates)
        elif self.stage == "gan":
            seen = defense.projector.project(seen).images
        logits: Tensor = defense.classifier(seen)
        return logits


def target_of(model: nn.Module, stage: Stage = "defense") -> Target:
    """Builds the target for an attacker who knows everything of `model`.

    Args:
        model: a `Defense`, or any module that gives logits.
        stage: up to which stage of a defense.
    """
    if not isinstance(model, Defense):
        return Target(model, {"none": model})
    config = model.projector.config
    classifier, threshold = Part(model, "classifier"), Part(model, "threshold")
    if stage == "classifier":
        return Target(classifier, {"none": classifier})
    sources = {"the classifier": classifier}
    views: dict[str, nn.Module] = {}
    squeezings: list[Squeezing] = ["straight_through", "sigmoid"]
    if stage == "threshold":
        for squeezing in squeezings:
            views[squeezing] = Part(model, stage, Surrogates(squeezing))
        return Target(threshold, views, sources, threshold.levels, config.threshold)
    if config.levels:
        sources["the classifier and the grey levels"] = threshold
    for descent in _descents(model):
        for squeezing in squeezings if config.levels else squeezings[:1]:
            surrogates = Surrogates(squeezing, descent, exact=False)
            view = Part(model, stage, surrogates)
            views[view.stand_ins] = view
            if stage == "defense":
                # a U-Net can hide the way that leads through the purifier: of 1,000 images behind `mnist_robust`
                # its gradient broke 6 after that of the purifier alone had broken 17
                sources.setdefault("all but the U-Net", Part(model, "gan", surrogates))
    whole = Part(model, stage)
    return Target(whole, views, sources, whole.levels if whole.grey else None, config.threshold)


def _descents(defense: Defense) -> list[Literal["encoder", "unrolled"] | None]:
    """Surrogates of the purifier's descent in latents; none where it has no generator to descend in."""
    networks = defense.projector.networks
    if "generator" not in networks:
        return [None]
    return ["encoder", "unrolled"] if "encoder" in networks else ["unrolled"]


def with_draws(target: Target, images: Tensor, draws: int) -> Target:
    """The target with gradients over `draws` passes, where it answers the same images differently."""
    if torch.equal(target.judge(images), target.judge(images)):
        return target
    views, sources = (
        {name: EOT(model, draws) for name, model in models.items()} for models in (target.views, target.sources)
    )
    return replace(target, views=views, sources=sources)


def stand_ins_of(source: nn.Module) -> str:
    """The surrogates of a source, by name."""
    part = source.model if isinstance(source, EOT) else source
    return part.stand_ins if isinstance(part, Part) else "none"
