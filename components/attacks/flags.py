"""Reasons not to believe a figure of robustness (Carlini et al., On evaluating adversarial robustness, 2019).

Each is raised only by counts that chance would give less often than one time in twenty, so that twenty images raise
none that a thousand would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from components.intervals import upper_tail

CHANCE = 0.05  # how often a flag may be raised where there is no reason
GAIN = 0.02  # share of the images: what more steps, or another seed, may still gain
ESCAPED = 0.05  # share of the images that an attack may fail to break though it could
DEAD = 0.1  # share of the images whose gradient may be zero

Count = tuple[int, int]  # so many, of so many


@dataclass(frozen=True)
class Seeds:
    """Counts that say how far an attack depends on its random starts.

    Attributes:
        name: the attack.
        seeds: with how many it was made.
        by_one: images that one of these broke and all others left. Another seed would break about `by_one / seeds`
            more (Good 1953: what has been seen once tells of what has not been seen).
        later: images that attacks after it broke, which then need no more seeds of this one.
    """

    name: str
    seeds: int
    by_one: int
    later: int


@dataclass(frozen=True)
class Evidence:
    """Counts that the reasons are seen from.

    Attributes:
        logits: (N, classes) of the clean images.
        broken: images broken by gradients through the model, and of those left by queries alone.
        dead: images whose gradient is zero or not finite.
        bounded: images whose pixels of exactly 0 or 1 all have a zero gradient, though just inside they have one.
        unsteady: share of clean images with another label when asked again.
        escaped: images that stay right at ε 0.5 though a plain grey image, which is in the ball, would be misread.
        over_steps: bool (n,) each: which images stay right after so many steps, in ascending order of these.
        seeds: of each attack, what its random starts say.
    """

    logits: Tensor
    broken: tuple[int, int]
    dead: Count = (0, 0)
    bounded: Count = (0, 0)
    unsteady: float = 0.0
    escaped: Count = (0, 0)
    over_steps: Sequence[Tensor] = ()
    seeds: Sequence[Seeds] = ()


def reasons(seen: Evidence) -> tuple[str, ...]:
    """Sentences, one a reason; none where there is none."""
    return (*_weak_attacks(seen), *_odd_model(seen))


def _weak_attacks(seen: Evidence) -> Iterator[str]:
    by_gradient, by_queries = seen.broken
    if more_than_chance(by_queries, by_gradient + by_queries, 0.5) and by_queries > GAIN * len(seen.logits):
        yield (
            f"queries alone broke {by_queries} images that gradients left, which broke {by_gradient}: "
            "the gradients may be masked"
        )
    if more_than_chance(*seen.escaped, ESCAPED):
        left, of = seen.escaped
        yield (
            f"{left} of {of} images stay right at ε 0.5, where all grey is within reach and would be misread: "
            "the attack is too weak"
        )
    for before, last in list(pairwise(seen.over_steps))[-1:]:
        if _fewer(before, last):
            gained = float(before.double().mean() - last.double().mean())
            yield f"the last doubling of the steps still gained {gained:.1%}: more steps may gain more"
    for one in seen.seeds:
        more = more_than_chance(one.by_one, len(seen.logits), GAIN * one.seeds)
        if one.seeds > 1 and more and one.by_one > one.later * one.seeds:
            yield f"{one.name}: only one of {one.seeds} seeds broke {one.by_one} of the images: more seeds are needed"


def _odd_model(seen: Evidence) -> Iterator[str]:
    if more_than_chance(*seen.dead, DEAD):
        yield f"the gradient of {seen.dead[0] / seen.dead[1]:.0%} of the images is zero, missing or not finite"
    if more_than_chance(*seen.bounded, DEAD):
        yield (
            f"in {seen.bounded[0] / seen.bounded[1]:.0%} of the images no gradient reaches pixels of exactly 0 or 1 "
            "and one does just inside: torch.clamp has none at its bounds (since torch 2.14)"
        )
    if seen.unsteady > 0:
        yield f"{seen.unsteady:.1%} of the clean images get another label when asked again: the model is random"
    if _are_probabilities(seen.logits):
        yield "the model gives probabilities in place of logits: gradients vanish where it is sure"


def more_than_chance(count: int, of: int, share: float) -> bool:
    """Tells whether chance alone would give `count` or more `of` that many, each with probability `share`."""
    return of > 0 and upper_tail(count, of, share) < CHANCE


def _fewer(before: Tensor, after: Tensor) -> bool:
    """Exact sign test of whether fewer of the same images, bool (n,), stay right `after` (McNemar 1947)."""
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return lost - won > GAIN * len(before) and more_than_chance(lost, lost + won, 0.5)


def _are_probabilities(logits: Tensor) -> bool:
    sums = logits.double().sum(1)
    return bool(((logits >= 0) & (logits <= 1)).all()) and bool(((sums - 1).abs() < 1e-3).all())
