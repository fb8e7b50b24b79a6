"""Failures of the storage, such as a full disk. They are no trial's own: the search stops, and can go on later."""

from __future__ import annotations

import errno
import os

# EIO is left out: one unreadable sector may well be the matter of one trial alone.
_KINDS = {kind: os.strerror(kind) for kind in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


def outage(error: BaseException) -> str | None:
    """Describes the storage failure that raised `error`; None where the storage is not the cause.

    By its text where it is no OSError: safetensors has an error of its own for a full disk, and so has Ray.
    """
    if isinstance(error, OSError) and error.errno in _KINDS:
        return str(error)
    text = str(error)
    return next((f"{text.strip().splitlines()[-1]}" for kind in _KINDS.values() if kind in text), None)
