"""A campaign's progress as a file, written after each attack: one of hours goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from components.files import plain, write_atomic
from components.robustness import AttackResult

_TENSORS = ("worst", "margins", "stands")
_ROWS = TypeAdapter(tuple[AttackResult, ...])


@dataclass(frozen=True)
class Progress:
    """The attacks that were made so far, and all that they have found.

    Attributes:
        made: names of all attacks that were made, in order.
        rows: of the report.
        outcomes: (place among `made`, images broken, of these by one seed alone).
        worst: (N, C, H, W), the most harmful candidate of each image.
        margins: (N,), theirs.
        stands: bool (N,), right after every attack.
        seconds: that all this took.
    """

    made: tuple[str, ...]
    rows: tuple[AttackResult, ...]
    outcomes: tuple[tuple[int, int, int], ...]
    worst: Tensor
    margins: Tensor
    stands: Tensor
    seconds: float


class Kept:
    """A file with the progress of one campaign.

    Args:
        path: the file.
        asked: all that the result follows from; progress of something else is not gone on with.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path, self._asked = path, json.loads(json.dumps(asked))

    def read(self) -> Progress | None:
        """The progress; None where there is no such file, or it is damaged or that of something else."""
        try:
            with safe_open(plain(self.path), "pt") as file:
                noted = json.loads((file.metadata() or {})["progress"])
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
            if noted["asked"] != self._asked:
                return None
            rows = _ROWS.validate_python(noted["rows"])
            outcomes = tuple((place, broken, by_one) for place, broken, by_one in noted["outcomes"])
            return Progress(tuple(noted["made"]), rows, outcomes, **tensors, seconds=float(noted["seconds"]))
        except (OSError, SafetensorError, LookupError, TypeError, ValueError):
            return None

    def write(self, progress: Progress) -> None:
        """Writes the file anew, whole or not at all. Raises OSError where that cannot be."""
        rows = _ROWS.dump_python(progress.rows, mode="json")
        noted = {"asked": self._asked, "made": progress.made, "rows": rows, "outcomes": progress.outcomes}
        noted["seconds"] = progress.seconds
        tensors = {name: getattr(progress, name).detach().cpu().contiguous() for name in _TENSORS}
        write_atomic(self.path, save(tensors, {"progress": json.dumps(noted)}))

    def end(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)
