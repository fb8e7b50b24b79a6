"""The call that began a search, in words that repeat it."""

from __future__ import annotations

import inspect
import shlex
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
        """The command line; of a search of a torch module, which none can name, the call from Python."""
        given = {name: value for name, value in self.given.items() if name not in ("classifier", "dry_run")}
        if "classifier" in self.given:
            arguments = ", ".join([*(f"{name}={value!r}" for name, value in given.items()), "classifier=module"])
            return f"from Python: search({arguments}) with the same module"
        flags = ([f"--{name.replace('_', '-')}", *_words(value)] for name, value in given.items())
        return shlex.join(["python", "-m", "tune.search", *(word for words in flags for word in words)])

    @property
    def resumed(self) -> str:
        """The same, to go on with what was interrupted."""
        given = {name: value for name, value in self.given.items() if name != "resume"}
        if "name" in given and not {"space", "resume"} & self.given.keys():
            given["space"] = DEFAULT  # by a name alone nothing is begun, and perhaps nothing was written yet
        return Call({**given, "resume": True}).command


def _words(value: Any) -> list[str]:
    return [] if value is True else [str(value)]
