"""Temporary folders that a killed process does not leave behind for good."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.files import lock

_PREFIX = "latent-defense-scratch-"


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A temporary folder of this machine, gone when the block ends.

    One whose process was killed meanwhile is removed by the next call: each folder is locked while its process lives
    (flock), and the kernel lets go of the lock however that ends.

    Args:
        purpose: in the folder's name, for who looks into /tmp.

    Raises:
        OSError: there is no room for it.
    """
    _sweep()
    # Under its own name only once it is locked, so that no other process takes it for a left one.
    new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}{purpose}-"))
    folder = new.with_name(new.name.removeprefix("new-"))
    handle = os.open(new, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, where `_sweep` gets none either and removes nothing
            lock(handle, shared=True)
        new.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _sweep() -> None:
    """Removes the folders whose process is dead."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if lock(handle):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
