"""Saves of unfinished work: its state behind its own sha256, so that a flipped bit is noticed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from components.files import plain, write_atomic
from components.training import Training


def saved(training: Training, **noted: Any) -> bytes:
    """A training's state after its last finished epoch, as "training", with what is noted beside it, sealed."""
    return sealed_state({"training": training.state_dict(), **noted})


def sealed_state(state: Mapping[str, Any]) -> bytes:
    """A state of tensors, numbers and texts, and of lists and dictionaries of these."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return sealed(buffer.getvalue())


def opened(content: bytes) -> dict[str, Any]:
    """The state that was sealed by `sealed_state`.

    Raises:
        ValueError: the content is damaged, or has other objects in it.
    """
    file = io.BytesIO(unsealed(content))
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)  # here may be no GPU
    except Exception as error:  # whatever such a file makes of torch.load
        raise ValueError(str(error)) from error
    return state


def sealed(content: bytes) -> bytes:
    """`content` behind its own sha256."""
    return hashlib.sha256(content).digest() + content


def unsealed(content: bytes) -> bytes:
    """The content that was `sealed`. Raises ValueError where it has changed since."""
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("found a damaged file")
    return content


class StateFile:
    """A file with the state of unfinished work, which is gone on with where the same is asked for again.

    Args:
        path: the file.
        asked: all that the work follows from, as JSON has it; the file of another is not gone on with.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path, self._asked = path, json.dumps(asked, sort_keys=True)

    def read_state(self) -> dict[str, Any] | None:
        """The state; None where there is no such file, or it is damaged or that of something else."""
        try:
            state = opened(plain(self.path).read_bytes())
        except (OSError, ValueError):
            return None
        return state if state.get("asked") == self._asked else None

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Writes the file anew, whole or not at all. Raises OSError where that cannot be."""
        write_atomic(self.path, sealed_state({**state, "asked": self._asked}))

    def end(self) -> None:
        """Removes the file, if it can be."""
        with suppress(OSError):
            self.path.unlink()


class TrainingFile(StateFile):
    """The file of an unfinished training, written after each epoch."""

    def go_on(self, training: Training) -> bool:
        """Takes over the epochs that are kept; False where there are none, or those of another training."""
        state = self.read_state()
        if state is None:
            return False
        try:
            training.load_state_dict(state["training"])
        except (LookupError, RuntimeError, ValueError):  # of another architecture
            return False
        return True

    def write(self, training: Training) -> None:
        """Writes the file anew, as `write_state`."""
        self.write_state({"training": training.state_dict()})
