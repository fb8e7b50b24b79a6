"""The call that began a search, in words that repeat it."""

from __future__ import annotations

import inspect
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "quickstart"  # the space where none is named


@dataclass(frozen=True)
class Call:
    """The arguments of `search` that say more than its defaults, however it was called.

    Attributes:
        given: parameter → value.
    """

    given: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Call:
        """The call of `function` with these arguments, as for a search that is no rehearsal."""
        defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
        return cls({name: v for name, v in arguments.items() if v is not defaults[name] and v != defaults[name]})

    @property
    def command(self) -> str:
        """The command line; of a search of a torch module, which none can name, the call from Python.

        Its Python is `python`, on whichever machine it is read.
        """
        given = {name: value for name, value in self.given.items() if name not in ("classifier", "dry_run")}
        if "classifier" in self.given:
            arguments = ", ".join([*(f"{name}={value!r}" for name, value in given.items()), "classifier=module"])
            return f"from Python: search({arguments}) with the same module"
        flags = ([f"--{name.replace('_', '-')}", *_words(value)] for name, value in given.items())
        return shlex.join(["python", "-m", "tune.search", *(word for words in flags for word in words)])

    @property
    def resumed(self) -> str:
        """The same, to go on with what was interrupted by this interpreter."""
        given = {name: value for name, value in self.given.items() if name != "resume"}
        if "name" in given and not {"space", "resume"} & self.given.keys():
            given["space"] = DEFAULT  # by a name alone nothing is begun, and perhaps nothing was written yet
        return resumed(Call({**given, "resume": True}).command)


def resumed(command: str) -> str:
    """Turns a `Call.command` into one to be copied here, for this interpreter, that goes on with what it began."""
    if not command.startswith("python "):
        return command if "resume=True" in command else f"{command}, and resume=True"
    words = command.removeprefix("python ")
    return f"{shlex.quote(interpreter())} {words}{'' if '--resume' in words.split() else ' --resume'}"


def interpreter() -> str:
    """The name of this Python on a command line: `python` where that is the same, else its path, short below here."""
    own, short = sys.executable or "python", shutil.which("python")
    if short and os.path.realpath(own) == os.path.realpath(short) and _folder(own) == _folder(short):
        return "python"
    below = os.path.relpath(own)
    return below if os.sep in below and not below.startswith(os.pardir) else own


def _folder(file: str) -> str:
    """Its folder: a virtual environment's Python is a link to one that knows none of its packages."""
    return os.path.realpath(os.path.dirname(os.path.abspath(file)))


def _words(value: Any) -> list[str]:
    return [] if value is True else [str(value)]
