"""A campaign's progress as a file, written after each attack and within long ones: an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from components.files import plain, write_atomic
from components.robustness import AttackResult
from components.saves import opened, packed

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


class Kept:
    """A file with the progress of one campaign.

    Args:
        path: the file.
        asked: all that the result follows from; progress of something else is not gone on with.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path, self._asked = path, json.dumps(asked, sort_keys=True)

    def read(self) -> Progress | None:
        """The progress; None where there is no such file, or it is damaged or that of something else."""
        try:
            noted = opened(plain(self.path).read_bytes())
            if noted["asked"] != self._asked:
                return None
            rows = _ROWS.validate_json(noted["rows"])
            outcomes = tuple((place, broken, by_one) for place, broken, by_one in noted["outcomes"])
            tensors, begun = {name: noted[name] for name in _TENSORS}, noted["begun"]
            begun = Begun.of(begun) if begun else None
            return Progress(tuple(noted["made"]), rows, outcomes, **tensors, seconds=noted["seconds"], begun=begun)
        except (OSError, LookupError, TypeError, ValueError):
            return None

    def write(self, progress: Progress) -> None:
        """Writes the file anew, whole or not at all. Raises OSError where that cannot be."""
        begun = progress.begun.tensors() if progress.begun else {}
        noted = {
            "asked": self._asked,
            "made": list(progress.made),
            "rows": _ROWS.dump_json(progress.rows).decode(),
            "outcomes": [list(outcome) for outcome in progress.outcomes],
            "seconds": progress.seconds,
            **{name: _stored(getattr(progress, name)) for name in _TENSORS},
            "begun": {name: _stored(tensor) for name, tensor in begun.items()},
        }
        write_atomic(self.path, packed(noted))

    def end(self) -> None:
        """Removes the file, if it can be."""
        with suppress(OSError):
            self.path.unlink()


def _stored(tensor: Tensor) -> Tensor:
    """Without the rest of what it may be a part of."""
    return tensor.detach().cpu().clone()
