"""Robust accuracy of a model: the result of `attacks.adaptive`, as files keep it and as a table; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.intervals import Interval, wilson


class AttackResult(BaseModel):
    """One attack, made on the images that were still right before it.

    Attributes:
        name: the attack.
        knows: what the attacker knows.
        surrogate: what stands in for parts without a gradient; none where no gradient is used.
        steps: gradients, or queries, of each image and restart.
        restarts: starts, or seeds.
        eot: passes of which the mean is taken.
        images: how many it was made on.
        right: share of these that stay right.
        worst_so_far: share of all images that no attack up to here has broken.
        seeds: of these images, the share that each seed leaves right.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    knows: str
    surrogate: str = "none"
    steps: int
    restarts: int
    eot: int
    images: int
    right: float
    worst_so_far: float
    seeds: tuple[float, ...] = ()


class Robustness(BaseModel):
    """The accuracy that remains under all attacks together.

    Attributes:
        images: number of attacked images.
        epsilon: radius of the L∞ ball.
        clean: share of the images that are right without an attack.
        worst: share that stays right under the worst attack on each.
        attacks: in order.
        flags: reasons not to believe it.
        over_epsilon: (ε, share right under a short attack on some of the images).
        over_steps: (gradient steps, share right), likewise.
        grey: of the images of the curves that plain grey, in the ball of ε 0.5, would break: how many the short attack
            left right there, of how many; None where that was not measured.
        preset: the list of attacks.
        beside: stage of the defense → its clean and its worst, under the same attacks.
        seconds: how long it took; None where that is not to be kept.
    """

    model_config = ConfigDict(frozen=True)

    images: int = Field(ge=1)
    epsilon: float
    clean: float = Field(ge=0, le=1)
    worst: float = Field(ge=0, le=1)
    attacks: tuple[AttackResult, ...]
    flags: tuple[str, ...] = ()
    over_epsilon: tuple[tuple[float, float], ...] = ()
    over_steps: tuple[tuple[int, float], ...] = ()
    grey: tuple[int, int] | None = None
    preset: str = "quick"
    beside: Mapping[str, Mapping[str, float]] = {}
    seconds: float | None = None

    @property
    def interval(self) -> Interval:
        """Of `worst`, 95 %, by the sampling of the images."""
        return self.interval_of(self.worst)

    def interval_of(self, share: float) -> Interval:
        """Of a share of these images, 95 %, by their sampling."""
        return wilson(round(share * self.images), self.images)

    def to_json(self) -> dict[str, Any]:
        """The form in which files have it, with the interval of `worst`."""
        return {**self.model_dump(mode="json", exclude_none=True), "wilson95": list(self.interval)}

    def table(self) -> str:
        """The rows for a terminal, and what follows from them."""
        head = ("attack", "knows", "surrogate", "steps", "starts", "EOT", "images", "right %", "worst %")
        lines: list[Sequence[str]] = [head]
        for row in self.attacks:
            counts = (str(value) for value in (row.steps, row.restarts, row.eot, row.images))
            shares = (f"{100 * share:.2f}" for share in (row.right, row.worst_so_far))
            lines.append((row.name, row.knows, row.surrogate, *counts, *shares))
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = ["  ".join(map(_aligned, line, widths, range(len(head)))).rstrip() for line in lines]
        low, high = self.interval
        text.append(
            f"clean {100 * self.clean:.2f} %, worst case at ε {self.epsilon:g}: {100 * self.worst:.2f} % of "
            f"{self.images} images (95 %: {100 * low:.2f} … {100 * high:.2f})"
        )
        curves = (("over ε", self.over_epsilon), ("over steps", self.over_steps))
        text += [f"{name}: " + ", ".join(f"{at:g}: {100 * share:.1f} %" for at, share in c) for name, c in curves if c]
        return "\n".join([*text, *(f"flag: {flag}" for flag in self.flags)])


def _aligned(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 3 else text.rjust(width)
