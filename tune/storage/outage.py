"""Failures of the storage, such as a full disk. They are no trial's own: the search stops, and can go on later."""

from __future__ import annotations

import errno
import os
import re

# EIO is left out: one unreadable sector may well be the matter of one trial alone.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Of a file system on the network: its server does not answer, has forgotten an open file, or locks nothing just now.
_SILENT = (errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ENOLCK)
_TEXTS = [os.strerror(kind) for kind in (*_FULL, *_SILENT, errno.EACCES) if kind != errno.ETIMEDOUT]  # of anything
# Names and numbers that pyarrow gives failures of S3 and its like which an equal request may not meet.
_PASSING = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING|curlCode|"
    r"HTTP status (429|50[0234])"
)
# The same of failures that an equal request meets, too: no key, or not the right one, on this node or any more.
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|REQUEST_TIME_TOO_SKEWED|NO_SUCH_BUCKET|"
    r"ExpiredToken|InvalidToken|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]"
)


def passing(error: BaseException) -> bool:
    """True where an object store or a file server did not answer, or had too much to do."""
    if not isinstance(error, OSError):
        return False
    return error.errno in _SILENT or (error.errno is None and bool(_PASSING.search(str(error))))


def outage(error: BaseException) -> str | None:
    """Describes the storage failure that raised `error`; None where the storage is not the cause.

    By its text where it is no OSError: safetensors has an error of its own for a full disk, and so has Ray.
    """
    if isinstance(error, OSError) and (passing(error) or _denied(error) or error.errno in _FULL):
        return str(error)
    text = str(error)
    return text.strip().splitlines()[-1] if any(words in text for words in _TEXTS) else None


def _denied(error: OSError) -> bool:
    return isinstance(error, PermissionError) or (error.errno is None and bool(_DENIED.search(str(error))))
