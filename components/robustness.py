"""Robust accuracy of a model: the result of `attacks.adaptive`, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from components.intervals import Interval, wilson


@dataclass(frozen=True)
class Row:
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

    name: str
    knows: str
    surrogate: str
    steps: int
    restarts: int
    eot: int
    images: int
    right: float
    worst_so_far: float
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Robustness:
    """The accuracy that remains under all attacks together.

    Attributes:
        epsilon: radius of the L∞ ball.
        rows: the attacks, in order.
        stands: bool (N,): right without an attack and after every one.
        clean: share of the images that are right without an attack.
        over_epsilon: (ε, share right under a short attack on some of the images).
        over_steps: (gradient steps, share right), likewise.
        flags: reasons not to believe it.
        seconds: how long it took.
    """

    epsilon: float
    rows: tuple[Row, ...]
    stands: Tensor
    clean: float
    over_epsilon: tuple[tuple[float, float], ...]
    over_steps: tuple[tuple[int, float], ...]
    flags: tuple[str, ...]
    seconds: float

    @property
    def images(self) -> int:
        """Number of attacked images."""
        return len(self.stands)

    @property
    def worst(self) -> float:
        """Share of the images that stay right under the worst attack on each."""
        return int(self.stands.sum()) / max(1, self.images)

    @property
    def interval(self) -> Interval:
        """Of `worst`, 95 %, by the sampling of the images."""
        return wilson(int(self.stands.sum()), self.images)

    def to_json(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "images": self.images,
            "epsilon": self.epsilon,
            "clean": self.clean,
            "attacks": [asdict(row) for row in self.rows],
            "worst": self.worst,
            "wilson95": list(self.interval),
            "over_epsilon": [list(point) for point in self.over_epsilon],
            "over_steps": [list(point) for point in self.over_steps],
            "flags": list(self.flags),
            "seconds": self.seconds,
        }

    def table(self) -> str:
        """The rows for a terminal, and what follows from them."""
        head = ("attack", "knows", "surrogate", "steps", "starts", "EOT", "images", "right %", "worst %")
        lines: list[Sequence[str]] = [head]
        for row in self.rows:
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
