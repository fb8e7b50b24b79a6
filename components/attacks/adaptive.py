"""The attacker who knows everything: many attacks through a defense, the cheap ones first.

Each attack is made on the images that are still right, and every candidate is judged by the real model, without
surrogates. The worst case is taken per image. (Carlini et al., On evaluating adversarial robustness, 2019; Tramèr et
al., On adaptive attacks to adversarial example defenses, NeurIPS 2020.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from components.attacks import bits
from components.attacks.apgd import APGD
from components.attacks.campaign import Attacked, Campaign, Curve, Made, Planned, Tell
from components.attacks.climb import climb
from components.attacks.eot import draws_of
from components.attacks.kept import Kept
from components.attacks.presets import PRESETS, Origin, Preset, PresetName
from components.attacks.square import Square
from components.attacks.target import Stage, stand_ins_of, target_of, with_draws
from components.defense import check_range


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
    kept: Kept | None = None,
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
        kept: where the progress is kept after each attack, and gone on with.

    Raises:
        ValueError: ε outside [0, 1], images by more than rounding, no images, labels that are no whole numbers or no
            class of the model, or a preset or a stage that there is not.
    """
    _check(images, labels, epsilon, preset, stage)
    device, images = next(model.parameters(), images).device, _as_weights(model, images)
    chosen, tell = PRESETS[preset], tell or (lambda _: None)
    target = with_draws(target_of(model, stage), images[:20].to(device), chosen.draws)
    campaign = Campaign(target, images.to(device), labels.to(device), epsilon, seed, tell)
    campaign.make_all(list(plan(campaign, chosen)), kept)
    over_epsilon, over_steps = _curves(campaign, chosen) if curves else ((), ())
    return campaign.result(over_epsilon, over_steps, preset)


def _check(images: Tensor, labels: Tensor, epsilon: float, preset: str, stage: str) -> None:
    """Refuses what would be attacked without sense, or fail in the middle. Raises ValueError."""
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: expected a number in 0 … 1, found {epsilon}")
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"images: expected at least one, and a label for each, found {len(images)} and {len(labels)}")
    check_range(images)
    if labels.dtype != torch.int64:
        raise ValueError(f"labels: expected int64, found {labels.dtype}")
    for name, given, known in (("preset", preset, tuple(PRESETS)), ("stage", stage, get_args(Stage))):
        if given not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, found {given!r}")


def sampled(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, preset: PresetName
) -> tuple[Callable[[], object], float]:
    """One attack by gradients through a model, and which share it is of the passes of all attacks of a preset.

    By these the seconds of the preset can be reckoned, of images that all stand; the networks need not be trained.
    """
    chosen = PRESETS[preset]
    target = with_draws(target_of(model, "defense"), images, chosen.draws)
    planned = list(plan(Campaign(target, images, labels, epsilon, 0, lambda _: None), chosen))
    one = next(each for each in planned if each.gradient and not each.carried)
    index = torch.arange(len(images), device=images.device)
    return lambda: one.make(images, labels, index, 0), one.passes / sum(each.seeds * each.passes for each in planned)


def _as_weights(model: nn.Module, images: Tensor) -> Tensor:
    """The images in the precision of the model's weights, as a `Defense` takes them."""
    return images.to(next((value.dtype for value in model.parameters() if value.is_floating_point()), images.dtype))


def plan(campaign: Campaign, preset: Preset) -> Iterator[Planned]:
    """The attacks of a preset on a target, in order of cost."""
    target, epsilon = campaign.target, campaign.epsilon
    views = list(target.views.items())[: preset.views]
    for origin, source in target.sources.items():
        yield _transferred(origin, source, views[0][1], epsilon, preset.transfer_steps)
    by_gradient = APGD(epsilon=epsilon, steps=preset.steps)
    for name, view in views:
        yield _through("APGD cross-entropy", name, view, by_gradient, preset.seeds)
    (name, view), *_ = views
    if preset.dlr:
        yield _through("APGD DLR", name, view, by_gradient.model_copy(update={"loss": "dlr"}), preset.seeds)
    if target.levels is not None:
        yield from _bits(campaign, preset, name, view)
    if preset.targets:
        towards = by_gradient.model_copy(update={"loss": "targeted", "restarts": preset.targets})
        yield _through("APGD targeted DLR", name, view, towards)
    if preset.square:
        square = Square(epsilon=epsilon, queries=preset.square)
        made = _perturbing(square, target.remembering())
        yield Planned("Square", "logits", "none", preset.square, preset.seeds, made, preset.square, gradient=False)


def _through(name: str, surrogate: str, view: nn.Module, config: APGD, seeds: int = 1) -> Planned:
    """APGD through a view of the model, whose name is `surrogate`, begun with each of `seeds`."""
    steps = config.steps * config.restarts
    made, draws = _perturbing(config, view), draws_of(view)
    return Planned(name, "everything", surrogate, steps, seeds, made, 3 * steps, draws=draws)


def _transferred(origin: str, source: nn.Module, view: nn.Module, epsilon: float, steps: int) -> Planned:
    """APGD on a model that the target is made of; which of its steps carries over best, the best view says."""
    config = APGD(epsilon=epsilon, steps=steps)

    def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
        return config.through(source, images, labels, seed, judge=view)

    name, surrogate, draws = f"transferred APGD from {origin}", stand_ins_of(source), draws_of(source)
    return Planned(name, "everything", surrogate, steps, 1, make, 2 * steps, draws=draws, carried=True)


def _perturbing(config: APGD | Square, model: nn.Module) -> Made:
    def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
        return config.perturb(model, images, labels, seed)

    return make


def _bits(campaign: Campaign, preset: Preset, name: str, view: nn.Module) -> Iterator[Planned]:
    """Searches over grey levels, from the image, from the most harmful candidate so far, and from random levels."""
    target, levels = campaign.target, campaign.target.levels or 2

    def by_gradient(cells: bits.Cells, labels: Tensor, begin: Tensor, seed: int) -> Tensor:
        return bits.greedy(target.remembering(), view, cells, labels, begin, preset.greedy, preset.screened)[0]

    def by_single_changes(cells: bits.Cells, labels: Tensor, begin: Tensor, seed: int) -> Tensor:
        return climb(target.remembering(), view, cells, labels, begin, preset.climb, preset.width)[0]

    def by_blocks(cells: bits.Cells, labels: Tensor, begin: Tensor, seed: int) -> Tensor:
        return bits.blocks(target.remembering(), cells, labels, begin, preset.blocks, seed)[0]

    for origin in preset.origins:
        seeds, made = preset.seeds if origin == "random" else 1, _begun(campaign, origin, by_gradient)
        title, passes = f"greedy levels from {origin}", preset.greedy * bits.passes(levels, preset.screened)
        yield Planned(title, "everything", name, preset.greedy, seeds, made, passes, draws=draws_of(view))
    first, knows = preset.origins[0], "logits, levels"
    if queries := preset.climb:
        made = _begun(campaign, first, by_single_changes)
        if campaign.most_changes <= preset.width:
            title = f"every single change of level from {first}"
            yield Planned(title, knows, "none", queries, 1, made, queries, gradient=False)
        else:
            title = f"the best of {preset.width} single changes of level from {first}"
            yield Planned(title, "everything", name, queries, 1, made, queries, draws=draws_of(view))
    if queries := preset.blocks:
        title, made = f"random blocks of levels from {first}", _begun(campaign, first, by_blocks)
        yield Planned(title, knows, "none", queries, preset.seeds, made, queries, gradient=False)


def _begun(campaign: Campaign, origin: Origin, search: Callable[[bits.Cells, Tensor, Tensor, int], Tensor]) -> Made:
    """Makes candidates by a search over grey levels; it is given cells, labels, the levels to begin at, and a seed."""

    def make(images: Tensor, labels: Tensor, index: Tensor, seed: int) -> Tensor:
        cells = campaign.target.cells(images, campaign.epsilon)
        assert cells is not None
        if origin == "random":
            return search(cells, labels, bits.random_levels(cells, seed), seed)
        begin = cells.levels_of(campaign.worst[index] if origin == "best so far" else images)
        return search(cells, labels, begin, seed)

    return make


def _curves(campaign: Campaign, preset: Preset) -> tuple[Curve, Curve]:
    """Courses of a short attack: what it leaves right of some images, over ε and over its steps."""
    images, labels = campaign.images[: preset.curve_images], campaign.labels[: preset.curve_images]

    def left(epsilon: float, steps: int, greedy: int) -> Tensor:
        if epsilon == 0:
            return campaign.clean[: len(images)]
        small = Campaign(campaign.target, images, labels, epsilon, campaign.seed, lambda _: None)
        (name, view), *_ = campaign.target.views.items()
        small.make(_through("", name, view, APGD(epsilon=epsilon, steps=steps)))
        if greedy and campaign.target.levels is not None:
            only = preset.model_copy(update={"greedy": greedy, "climb": 0, "blocks": 0, "origins": ("best so far",)})
            for planned in _bits(small, only, name, view):
                small.make(planned)
        return small.stands

    def course(name: str, places: Sequence[float], measured: Callable[[Any], Tensor]) -> Curve:
        found: list[tuple[float, Tensor]] = []
        for number, place in enumerate(places, 1):
            campaign.tell(f"robust accuracy over {name}, {number} of {len(places)}: {place:g}, {len(images)} images")
            found.append((place, measured(place)))
        return found

    short = preset.curve_steps
    over_epsilon = course("ε", preset.epsilons, lambda epsilon: left(epsilon, short, short))
    return over_epsilon, course("steps", preset.step_counts, lambda steps: left(campaign.epsilon, steps, 0))
