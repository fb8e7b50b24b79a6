"""A campaign's progress as a file, written after each attack and within long ones: an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from pydantic import TypeAdapter
from torch import Tensor

from components.robustness import AttackResult
from components.saves import StateFile

_TENSORS = ("worst", "margins", "stands")
_ROWS = TypeAdapter(tuple[AttackResult, ...])


@dataclass
class Begun:
    """An attack that is being made.

    Attributes:
        index: int64 (n,), places of the images that stood when it began.
        left_by: for each seed that is done, bool (n,), which of them it left right.
        made: candidates of the seed under way, for the first of them, a tensor (m, C, H, W) for each part.
    """

    index: Tensor
    left_by: list[Tensor] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """As a file has it."""
        parts = {"index": self.index}
        if self.left_by:
            parts["left_by"] = torch.stack(self.left_by)
        return parts | ({"made": torch.cat(self.made)} if self.made else {})

    def to(self, device: torch.device) -> Begun:
        """The same on a device."""
        left_by, made = ([tensor.to(device) for tensor in tensors] for tensors in (self.left_by, self.made))
        return Begun(self.index.to(device), left_by, made)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Begun:
        """Reads what `tensors` gave. Raises LookupError where there is no `index`."""
        made = [tensors["made"]] if "made" in tensors else []
        return cls(tensors["index"], list(tensors.get("left_by", ())), made)


@dataclass(frozen=True)
class Progress:
    """The attacks that were made so far, and all that they have found.

    Attributes:
        made: names of all attacks that were made whole, in order.
        rows: of the report.
        outcomes: (place among `made`, images broken, of these by one seed alone).
        worst: (N, C, H, W), the most harmful candidate of each image.
        margins: (N,), theirs.
        stands: bool (N,), right after every attack.
        seconds: that all this took.
        begun: the attack after these, where some of it is made.
    """

    made: tuple[str, ...]
    rows: tuple[AttackResult, ...]
    outcomes: tuple[tuple[int, int, int], ...]
    worst: Tensor
    margins: Tensor
    stands: Tensor
    seconds: float
    begun: Begun | None = None


class Kept(StateFile):
    """A file with the progress of one campaign."""

    def read(self) -> Progress | None:
        """The progress, as `read_state`."""
        noted = self.read_state()
        if noted is None:
            return None
        try:
            rows = _ROWS.validate_json(noted["rows"])
            outcomes = tuple((place, broken, by_one) for place, broken, by_one in noted["outcomes"])
            tensors, begun = {name: noted[name] for name in _TENSORS}, noted["begun"]
            begun = Begun.of(begun) if begun else None
            return Progress(tuple(noted["made"]), rows, outcomes, **tensors, seconds=noted["seconds"], begun=begun)
        except (LookupError, TypeError, ValueError):
            return None

    def write(self, progress: Progress) -> None:
        """Writes the file anew, as `write_state`."""
        begun = progress.begun.tensors() if progress.begun else {}
        noted = {
            "made": list(progress.made),
            "rows": _ROWS.dump_json(progress.rows).decode(),
            "outcomes": [list(outcome) for outcome in progress.outcomes],
            "seconds": progress.seconds,
            **{name: _stored(getattr(progress, name)) for name in _TENSORS},
            "begun": {name: _stored(tensor) for name, tensor in begun.items()},
        }
        self.write_state(noted)


def _stored(tensor: Tensor) -> Tensor:
    """Without the rest of what it may be a part of."""
    return tensor.detach().cpu().clone()
