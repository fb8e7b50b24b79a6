"""The attacker who knows everything: many attacks through a defense, the cheap ones first.

Each attack is made on the images that are still right, and every candidate is judged by the real model, without
surrogates. The worst case is taken per image. (Carlini et al., On evaluating adversarial robustness, 2019; Tramèr et
al., On adaptive attacks to adversarial example defenses, NeurIPS 2020.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.attacks import bits
from components.attacks.apgd import APGD
from components.attacks.flags import flags_of
from components.attacks.losses import input_gradient, margin
from components.attacks.presets import PRESETS, Preset, PresetName
from components.attacks.square import Square
from components.attacks.target import Stage, Target, target_of, with_draws
from components.robustness import Robustness, Row

CPU_IMAGES, GPU_IMAGES = 250, 10_000  # attacked at once
Tell = Callable[[str], None]
Made = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # images, labels, their places, seed → candidates


@dataclass(frozen=True)
class Planned:
    """An attack to be made: its row's facts, and how candidates are made with one seed."""

    name: str
    knows: str
    surrogate: str
    steps: int
    seeds: int
    make: Made
    gradient: bool = True


def evaluate_defense(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float = 0.3,
    preset: PresetName = "standard",
    stage: Stage = "defense",
    seed: int = 0,
    curves: bool = True,
    tell: Tell | None = None,
) -> Robustness:
    """Attacks a model in every way of the preset and says what is left.

    Args:
        model: a `Defense`, or any module: images (N, C, H, W) in [0, 1] → logits.
        images, labels: what is attacked, and the true labels, int64 (N,).
        epsilon: radius of the L∞ ball, in [0, 1].
        preset: how much is tried, see `presets`.
        stage: up to which stage of a defense.
        seed: of all random starts.
        curves: whether to measure some images over ε and over steps, too.
        tell: told what is done.

    Raises:
        ValueError: ε outside [0, 1], or no images.
    """
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: expected a number in 0 … 1, found {epsilon}")
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"images: expected at least one, and a label for each, found {len(images)} and {len(labels)}")
    device = next(model.parameters(), images).device
    chosen, tell = PRESETS[preset], tell or (lambda _: None)
    target = with_draws(target_of(model, stage), images[:20].to(device), chosen.draws)
    campaign = Campaign(target, images.to(device), labels.to(device), epsilon, seed, tell)
    began = time.perf_counter()
    for planned in plan(campaign, chosen):
        campaign.make(planned)
    over_epsilon, over_steps = _curves(campaign, chosen) if curves else ((), ())
    found = campaign.result(over_epsilon, over_steps, time.perf_counter() - began)
    return found


class Campaign:
    """The images under attack: which still stand, and the most harmful candidate of each.

    Args:
        target: what is attacked.
        images, labels, epsilon, seed, tell: as `evaluate_defense`.
    """

    def __init__(
        self, target: Target, images: Tensor, labels: Tensor, epsilon: float, seed: int, tell: Tell
    ) -> None:
        self.target, self.images, self.labels = target, images, labels
        self.epsilon, self.seed, self.tell = epsilon, seed, tell
        self.logits = target.judge(images)
        self.margins = margin(self.logits, labels)
        self.worst = images.clone()
        self.clean = self.margins <= 0  # those already wrong are counted and not attacked
        self.stands = self.clean.clone()
        self.rows: list[Row] = []
        self.broken_by: list[tuple[Planned, int]] = []

    def make(self, planned: Planned) -> None:
        """Makes an attack with each of its seeds on the images that stand, and notes what it leaves."""
        index = self.stands.nonzero().squeeze(1)
        if not len(index):
            return
        parts = index.split(CPU_IMAGES if index.device.type == "cpu" else GPU_IMAGES)
        shares, before = [], len(index)
        for number in range(planned.seeds):
            for_seed = self.seed + number
            made = [planned.make(self.images[part], self.labels[part], part, for_seed) for part in parts]
            shares.append(self._judged(index, torch.cat(made)))
        left = int(self.stands.sum())
        self.broken_by.append((planned, before - left))
        row = Row(
            planned.name,
            planned.knows,
            planned.surrogate,
            planned.steps,
            planned.seeds,
            self.target.draws if planned.gradient else 1,
            before,
            left / before,
            left / len(self.images),
            tuple(shares),
        )
        self.rows.append(row)
        self.tell(f"{row.name} ({row.surrogate}): {before - left} of {before} broken, {left} stand")

    def _judged(self, index: Tensor, candidates: Tensor) -> float:
        """Judges candidates for the images at `index`; the share of these that they leave right."""
        images = self.images[index]
        low, high = (images - self.epsilon).clamp(min=0), (images + self.epsilon).clamp(max=1)
        candidates = torch.minimum(torch.maximum(candidates, low), high)
        margins = margin(self.target.judge(candidates), self.labels[index])
        better = margins > self.margins[index]
        self.worst[index[better]], self.margins[index[better]] = candidates[better], margins[better]
        self.stands[index[margins > 0]] = False
        return float((margins <= 0).double().mean())

    def result(
        self,
        over_epsilon: Sequence[tuple[float, float]],
        over_steps: Sequence[tuple[int, float]],
        seconds: float,
    ) -> Robustness:
        """The accuracy that remains under all attacks together, with the reasons not to believe it."""
        queries = sum(broken for planned, broken in self.broken_by if not planned.gradient)
        gradients = sum(broken for planned, broken in self.broken_by if planned.gradient)
        again = self.target.judge(self.images).argmax(1)
        flags = flags_of(
            self.logits,
            self.rows,
            broken=(gradients, queries),
            dead=_dead_gradients(self),
            unsteady=float((again != self.logits.argmax(1)).double().mean()),
            over_epsilon=over_epsilon,
            over_steps=over_steps,
        )
        return Robustness(
            self.epsilon,
            tuple(self.rows),
            self.stands.cpu(),
            float(self.clean.double().mean()),
            tuple(over_epsilon),
            tuple(over_steps),
            flags,
            seconds,
        )


def plan(campaign: Campaign, preset: Preset) -> Iterator[Planned]:
    """The attacks of a preset on a target, in order of cost."""
    target, epsilon = campaign.target, campaign.epsilon
    for knows, source in target.sources.items():
        steps = preset.transfer_steps
        yield _gradient(f"transferred APGD from {knows}", knows, "none", source, epsilon, "ce", steps, 1)
    everything = "everything"
    views = list(target.views.items())[: preset.views]
    for name, view in views:
        yield _gradient("APGD cross-entropy", everything, name, view, epsilon, "ce", preset.steps, preset.seeds)
    (name, view), *_ = views
    if preset.dlr:
        yield _gradient("APGD DLR", everything, name, view, epsilon, "dlr", preset.steps, preset.seeds)
    if target.levels is not None:
        yield from _bits(campaign, preset, name, view)
    if preset.targets:
        loss, starts = "targeted", preset.targets
        yield _gradient("APGD targeted DLR", everything, name, view, epsilon, loss, preset.steps, 1, starts)
    if preset.square:
        square = Square(epsilon=epsilon, queries=preset.square)
        made = _perturbing(square, target.model)
        yield Planned("Square", "logits", "none", preset.square, preset.seeds, made, gradient=False)


def _gradient(
    name: str,
    knows: str,
    surrogate: str,
    view: nn.Module,
    epsilon: float,
    loss: str,
    steps: int,
    seeds: int,
    starts: int = 1,
) -> Planned:
    config = APGD.model_validate({"epsilon": epsilon, "loss": loss, "steps": steps, "restarts": starts})
    return Planned(name, knows, surrogate, steps * starts, seeds, _perturbing(config, view))


def _perturbing(config: APGD | Square, model: nn.Module) -> Made:
    def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
        return config.perturb(model, images, labels, seed)

    return make


def _bits(campaign: Campaign, preset: Preset, name: str, view: nn.Module) -> Iterator[Planned]:
    """Searches over grey levels, from the image, from the most harmful candidate so far, and from random levels."""
    target, epsilon = campaign.target, campaign.epsilon

    def start(origin: str, cells: bits.Cells, index: Tensor, seed: int) -> Tensor:
        if origin == "random":
            return bits.random_levels(cells, seed)
        return cells.levels_of(campaign.worst[index] if origin == "best so far" else cells.images)

    def by_gradient(origin: str) -> Made:
        def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
            cells = target.cells(images, epsilon)
            assert cells is not None
            begin = start(origin, cells, index, seed)
            return bits.greedy(target.judge, view, cells, labels, begin, preset.greedy, preset.screened)[0]

        return make

    def by_blocks(origin: str) -> Made:
        def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
            cells = target.cells(images, epsilon)
            assert cells is not None
            begin = start(origin, cells, index, seed)
            return bits.blocks(target.judge, cells, labels, begin, preset.blocks, seed)[0]

        return make

    for origin in preset.origins:
        seeds = preset.seeds if origin == "random" else 1
        yield Planned(f"greedy levels from {origin}", "everything", name, preset.greedy, seeds, by_gradient(origin))
    for origin in preset.origins[:1] if preset.blocks else ():
        made = by_blocks(origin)
        yield Planned(
            f"random blocks of levels from {origin}", "logits, levels", "none", preset.blocks, preset.seeds, made, False
        )


def _dead_gradients(campaign: Campaign) -> float:
    """Share of some images whose gradient through the best view is zero, NaN or infinite; 1 where there is none."""
    _, view = next(iter(campaign.target.views.items()))
    some = slice(0, 100)
    try:
        gradient, _ = input_gradient(view, campaign.images[some], campaign.labels[some], margin)
    except ValueError:
        return 1.0
    size = gradient.abs().flatten(1).sum(1)
    return float((~size.isfinite() | (size == 0)).double().mean())


Curve = tuple[tuple[float, float], ...]


def _curves(campaign: Campaign, preset: Preset) -> tuple[Curve, tuple[tuple[int, float], ...]]:
    """Shares of some images that stay right under a short attack: over ε, and over its steps."""
    images, labels = campaign.images[: preset.curve_images], campaign.labels[: preset.curve_images]

    def left(epsilon: float, steps: int, greedy: int) -> float:
        small = Campaign(campaign.target, images, labels, epsilon, campaign.seed, lambda _: None)
        (name, view), *_ = campaign.target.views.items()
        small.make(_gradient("", "", name, view, epsilon, "ce", steps, 1))
        if greedy and campaign.target.levels is not None:
            only = preset.model_copy(update={"greedy": greedy, "blocks": 0, "origins": ("best so far",)})
            for planned in _bits(small, only, name, view):
                small.make(planned)
        return float(small.stands.double().mean())

    campaign.tell(f"robust accuracy over ε and over steps, {len(images)} images")
    short = preset.curve_steps
    over_epsilon = tuple((epsilon, left(epsilon, short, short)) for epsilon in preset.epsilons)
    over_steps = tuple((steps, left(campaign.epsilon, steps, 0)) for steps in preset.step_counts)
    return over_epsilon, over_steps
