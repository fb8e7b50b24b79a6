"""Checks of what a Ray of our own needs on this machine, without importing it, which takes a second."""

from __future__ import annotations

import os
from importlib.metadata import version

from tune.errors import Refused

RAY = "2.60"  # the releases whose inner functions connection.py replaces: pyproject.toml keeps pip from others
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"  # the longest that Ray 2.60 makes
_LONGEST = 107  # bytes of a socket's path: sockaddr_un of Linux, less its end


def check_ray(temporary: str | None = None) -> None:
    """Checks that a Ray of our own can be started here.

    Args:
        temporary: where Ray would put its sockets; None for where it does.

    Raises:
        Refused: another release of Ray, or a temporary folder whose name is too long for its sockets.
    """
    if not (found := version("ray")).startswith(f"{RAY}."):
        raise Refused(
            f"ray: expected release {RAY}, whose start on one machine is known, found {found}; "
            f"to get it: pip install 'ray[tune]=={RAY}.*' (or join a running cluster by --address)"
        )
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    folder = temporary or os.environ.get(variable, "/tmp")  # noqa: S108  (as Ray does; nothing is written)
    if (length := len(os.path.join(folder, _SOCKET).encode())) > _LONGEST:
        room = len(folder.encode()) - (length - _LONGEST)
        raise Refused(
            f"{variable}: expected a folder whose path has at most {room} characters, as Ray puts its sockets there, "
            f"found {len(folder.encode())} in {folder}; set RAY_TMPDIR to a shorter one, such as /tmp"
        )
