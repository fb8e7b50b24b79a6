"""`python -m tune COMMAND`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tune.commands import command_line
from tune.commands.catalogue import compare, evaluate, purify, report, store
from tune.commands.types import Later
from tune.errors import FAILED, INTERRUPTED, REFUSED
from tune.execution.interruption import interrupt

_REFUSALS = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_SEARCH = "Searches a space, retrains the best configuration over several seeds, and reports it on the test images."
COMMANDS: command_line.Commands = {
    "search": Later("search", "tune.search", _SEARCH),
    **{command.__name__: command for command in (report, compare, purify, evaluate, store)},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, the process's own by default, and returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["search"]:
        sys.argv[1:] = words[1:]
        from tune import search

        search.main()
    try:
        return command_line.run(COMMANDS, words, "python -m tune")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except _REFUSALS as error:
        print(f"error: {_in_words(error)}", file=sys.stderr)
        return REFUSED
    except OSError as error:  # a full disk, a network that is gone
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def _in_words(error: Exception) -> str:
    if isinstance(error, NotADirectoryError) and error.filename:
        file = next((path for path in (Path(error.filename), *Path(error.filename).parents) if path.is_file()), None)
        return f"{file or error.filename}: expected a folder, found a file"
    return str(error)


if __name__ == "__main__":
    interrupt()  # a scheduler's SIGTERM and a lost terminal end a command with the words of Ctrl-C
    sys.exit(main())
