"""Tables and live views on standard output."""

from __future__ import annotations

import errno
import os

from rich.console import Console


class Output(Console):
    """Standard output; that it was closed is an error for the command to end by, and not rich's own exit."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
