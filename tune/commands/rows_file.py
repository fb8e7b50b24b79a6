"""The file of `evaluate --out`, and what is kept beside it until all is measured, so that the same command goes on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import components
from components.attacks.kept import Kept
from components.files import write_json
from components.robustness import Robustness
from components.saves import StateFile, TrainingFile
from tune.storage.signature import signature_of


class RowsFile:
    """The rows of an evaluation, and what it has done so far.

    What is kept beside the rows has a name of its own for each command, so that another one, with the same `path`,
    neither goes on with it nor writes over it.

    Args:
        path: where the rows go; None: nowhere, and nothing is kept.
        asked: all that the attacks on the defense follow from, beside the code, as JSON has it.
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
            whole = {**asked, "code": _code()}
            beside = {**whole, "reference": asked_beside}
            self.attacks = Kept(_place(path, whole, "unfinished"), whole)
            self.training = TrainingFile(_place(path, beside, "training"), beside)
            self.attacks_beside = Kept(_place(path, beside, "reference"), beside)

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
        """Removes what was kept beside the rows; the attacks on the defense last, as the others follow from them."""
        for one in reversed(self._beside):
            one.end()

    @property
    def _beside(self) -> list[StateFile]:
        return [one for one in (self.attacks, self.training, self.attacks_beside) if one]


def _place(path: Path, asked: Mapping[str, Any], kind: str) -> Path:
    short = path.name.encode()[:150].decode(errors="ignore")  # a name may be 255 bytes
    return path.with_name(f"{short}.{signature_of({'name': path.name, **asked})[:8]}.{kind}")


def _code() -> str:
    """The hash of the attacks and of all that they attack with: an upgrade in between begins anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(components.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
