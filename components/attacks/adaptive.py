"""The attacker who knows everything: many attacks through a defense, the cheap ones first.

Each attack is made on the images that are still right, and every candidate is judged by the real model, without
surrogates. The worst case is taken per image. (Carlini et al., On evaluating adversarial robustness, 2019; Tramèr et
al., On adaptive attacks to adversarial example defenses, NeurIPS 2020.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor, nn

from components.attacks import bits
from components.attacks.apgd import APGD
from components.attacks.campaign import Attacked, Campaign, Curve, Made, Planned, Tell
from components.attacks.eot import draws_of
from components.attacks.presets import PRESETS, Preset, PresetName
from components.attacks.square import Square
from components.attacks.target import Stage, stand_ins_of, target_of, with_draws


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
) -> Attacked:
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
    device, images = next(model.parameters(), images).device, _as_weights(model, images)
    chosen, tell = PRESETS[preset], tell or (lambda _: None)
    target = with_draws(target_of(model, stage), images[:20].to(device), chosen.draws)
    campaign = Campaign(target, images.to(device), labels.to(device), epsilon, seed, tell)
    began = time.perf_counter()
    campaign.make_all(list(plan(campaign, chosen)))
    over_epsilon, over_steps = _curves(campaign, chosen) if curves else ((), ())
    return campaign.result(over_epsilon, over_steps, preset, time.perf_counter() - began)


def _as_weights(model: nn.Module, images: Tensor) -> Tensor:
    """The images in the precision of the model's weights, as a `Defense` takes them."""
    return images.to(next((value.dtype for value in model.parameters() if value.is_floating_point()), images.dtype))


def plan(campaign: Campaign, preset: Preset) -> Iterator[Planned]:
    """The attacks of a preset on a target, in order of cost."""
    target, epsilon = campaign.target, campaign.epsilon
    for knows, source in target.sources.items():
        title, steps = f"transferred APGD from {knows}", preset.transfer_steps
        yield _gradient(title, knows, stand_ins_of(source), source, epsilon, "ce", steps, 1)
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
        yield Planned("Square", "logits", "none", preset.square, preset.seeds, made, preset.square, gradient=False)


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
    made = _perturbing(config, view)
    passes = 1 if surrogate == "none" else 3 * steps * starts  # a transferred one leaves the model itself to the judge
    return Planned(name, knows, surrogate, steps * starts, seeds, made, passes, draws=draws_of(view))


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
        title, made = f"greedy levels from {origin}", by_gradient(origin)
        passes = preset.greedy * bits.passes(target.levels or 2, preset.screened)
        yield Planned(title, "everything", name, preset.greedy, seeds, made, passes, draws=draws_of(view))
    for origin in preset.origins[:1] if preset.blocks else ():
        made = by_blocks(origin)
        title, queries = f"random blocks of levels from {origin}", preset.blocks
        yield Planned(title, "logits, levels", "none", queries, preset.seeds, made, queries, gradient=False)


def _curves(campaign: Campaign, preset: Preset) -> tuple[Curve, Curve]:
    """Courses of a short attack: what it leaves right of some images, over ε and over its steps."""
    images, labels = campaign.images[: preset.curve_images], campaign.labels[: preset.curve_images]

    def left(epsilon: float, steps: int, greedy: int) -> Tensor:
        if epsilon == 0:
            return campaign.clean[: len(images)]
        small = Campaign(campaign.target, images, labels, epsilon, campaign.seed, lambda _: None)
        (name, view), *_ = campaign.target.views.items()
        small.make(_gradient("", "", name, view, epsilon, "ce", steps, 1))
        if greedy and campaign.target.levels is not None:
            only = preset.model_copy(update={"greedy": greedy, "blocks": 0, "origins": ("best so far",)})
            for planned in _bits(small, only, name, view):
                small.make(planned)
        return small.stands

    campaign.tell(f"robust accuracy over ε and over steps, {len(images)} images")
    short = preset.curve_steps
    over_epsilon = [(epsilon, left(epsilon, short, short)) for epsilon in preset.epsilons]
    over_steps = [(steps, left(campaign.epsilon, steps, 0)) for steps in preset.step_counts]
    return over_epsilon, over_steps
