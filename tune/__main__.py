"""`python -m tune COMMAND`. Each command imports what it needs when it is called, so that help is quick."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated

from tune.commands import command_line
from tune.errors import FAILED, INTERRUPTED, REFUSED

_REFUSALS = (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def search() -> int:
    """Searches a space, retrains the best configuration over several seeds, and reports it on the test images."""
    from tune.search import main as run_search

    run_search()
    return 0


def report(folder: Annotated[str, "FOLDER"]) -> int:
    """Writes an experiment's report again, from its files alone.

    Args:
        folder: the experiment, STORAGE/NAME; a path or an s3:// address.

    Examples:
        python -m tune report results/quickstart
    """
    from tune.report.writer import write_report

    print(write_report(folder))
    return 0


def compare(*folders: Annotated[str, "FOLDER"], out: Annotated[str | None, "DIR"] = None) -> int:
    """Sets several searches side by side, from their files alone.

    Args:
        folders: the experiments, two or more.
        out: where to write compare.html and compare.md too.

    Examples:
        python -m tune compare results/quickstart results/mnist --out comparison
    """
    from tune.report.comparison import compare as compared

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(compared(folders, out, width))
    return 0


def purify() -> int:
    """Purifies image files with a saved defense, and tabulates their labels before and after."""
    raise NotImplementedError  # `tune.commands.purify` takes its place when it is called


def evaluate() -> int:
    """Attacks a saved defense in every known way, by an attacker who knows all of it."""
    raise NotImplementedError  # `tune.commands.evaluate` takes its place when it is called


def store() -> int:
    """Lists what searches built and share, with its users; with --prune removes what no experiment uses."""
    raise NotImplementedError  # `tune.commands.store` takes its place when it is called


COMMANDS: dict[str, Callable[..., int]] = {
    "search": search,
    "report": report,
    "compare": compare,
    "purify": purify,
    "evaluate": evaluate,
    "store": store,
}
_ELSEWHERE = {"purify": "tune.commands.purify", "evaluate": "tune.commands.evaluate", "store": "tune.commands.store"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, the process's own by default, and returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["search"]:
        sys.argv[1:] = words[1:]  # the search notes how it was called, and says how to resume
        return search()
    try:
        return command_line.run(_commands(words), words, "python -m tune")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except _REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:  # `| head` has seen enough; what Python flushes at its end must not complain either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, a network that is gone
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def _commands(words: Sequence[str]) -> dict[str, Callable[..., int]]:
    """All commands; of those that live elsewhere only the one that is called is imported."""
    called = words[0] if words else ""
    if called not in _ELSEWHERE:
        return COMMANDS
    return {**COMMANDS, called: getattr(import_module(_ELSEWHERE[called]), called)}


if __name__ == "__main__":
    sys.exit(main())
