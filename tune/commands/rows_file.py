"""The file of `evaluate --out`, and what is kept beside it until all is measured, so that the same command goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.attacks.kept import Kept
from components.files import write_json
from components.robustness import Robustness
from components.saves import TrainingFile


class RowsFile:
    """The rows of an evaluation, and what it has done so far.

    Args:
        path: where the rows go; None: nowhere, and nothing is kept.
        asked: all that the attacks on the defense follow from, as JSON has it.
        asked_beside: all that the reference follows from beside these.

    Attributes:
        attacks: the attacks on the whole defense that were made.
        training: the epochs of the reference.
        attacks_beside: the attacks on the reference.
    """

    def __init__(self, path: Path | None, asked: Mapping[str, Any], asked_beside: Mapping[str, Any]) -> None:
        self.attacks = self.training = self.attacks_beside = None
        self._path = path
        if path:
            beside = {**asked, "reference": asked_beside}
            self.attacks = Kept(path.with_name(f"{path.name}.unfinished"), asked)
            self.training = TrainingFile(path.with_name(f"{path.name}.training"), beside)
            self.attacks_beside = Kept(path.with_name(f"{path.name}.reference"), beside)

    def write(self, found: Mapping[str, Robustness]) -> bool:
        """Writes the rows of the whole defense, with every stage beside them; False, with an error, if that fails."""
        if self._path is None:
            return True
        beside = {stage: {"clean": one.clean, "worst": one.worst} for stage, one in found.items()}
        try:
            write_json(self._path, {"adaptive": found["defense"].model_copy(update={"beside": beside}).to_json()})
        except OSError as error:  # such as a disk that has become full
            expected = f"--out: expected a file that can be written, found {self._path}"
            print(f"error: {expected}: {error.strerror}", file=sys.stderr)
            return False
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block, an interruption ends with a line on what is not lost."""
        try:
            yield
        except KeyboardInterrupt:
            if there := [str(one.path) for one in self._beside if one.path.exists()]:
                print(f"the same command goes on after what is kept in {' and '.join(there)}", file=sys.stderr)
            raise

    def end(self) -> None:
        """Removes what was kept beside the rows."""
        for one in self._beside:
            one.end()

    @property
    def _beside(self) -> list[Kept | TrainingFile]:
        return [one for one in (self.attacks, self.training, self.attacks_beside) if one]
