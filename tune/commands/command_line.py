"""Command lines, checked in full before anything runs, and then called by fire.

Fire runs a function before it rejects an unknown flag, and turns `--gpu=false` into the true string "false".
So each word is checked against the signature first. A docstring, with `Args:` and `Examples:`, is the help.

    sys.exit(run(search))                                  # one command:  python -m tune.search --trials 3
    sys.exit(run({"report": report, "store": {…}}))        # several:      python -m tune report FOLDER
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

try:
    import fire
except ModuleNotFoundError as missing:
    remedy = "`make search` or `make test` installs it into .venv; then: . .venv/bin/activate"
    sys.exit(f"error: {missing.name}: expected this package for {sys.executable}, found none; {remedy}")

from components.config import nearest
from tune.commands.help import command_help, commands_help, first_example
from tune.commands.output import drop_output, reader_is_gone, tolerant_output
from tune.commands.types import Later, Parameter, parameters
from tune.errors import DONE, REFUSED, Refused

Command = Callable[..., int | None]
Commands = Mapping[str, "Command | Later | Commands"]

_NUMBER = re.compile(r"-\.?\d.*")
_HELP = {"--help", "-h"}


class UsageError(Refused):
    """The command line does not fit the command; the message says what was expected and found."""


def run(command: Command | Later | Commands, argv: Sequence[str] | None = None, name: str | None = None) -> int:
    """Checks `argv` against `command` and calls it.

    Args:
        command: a function with annotated parameters, or functions by name. Parameters without a default are
            positional words, `*names` takes any number of words, all others are flags.
        argv: words after the program's name; the process's own where None.
        name: how help and messages call the program; `python -m …` of the running module where None.

    Returns:
        The exit status: the command's own result; 0 where it has none, help was asked for, or its output was closed
        by a reader that has seen enough; 2 where the words do not fit (then nothing ran, and stderr says why).
    """
    try:
        with tolerant_output():
            return _run(command, list(sys.argv[1:] if argv is None else argv), name or _program())
    except OSError:
        unread = reader_is_gone()
        drop_output()
        if unread:
            return DONE
        raise


def _run(command: Command | Later | Commands, words: list[str], name: str) -> int:
    if sys.flags.optimize > 1:
        return _refuse("expected Python with docstrings, which help and Ray read, found -OO or PYTHONOPTIMIZE=2", name)
    while isinstance(command, Mapping):
        if not words or words[0] in _HELP or words[0].startswith("-"):
            return _without_command(command, words, name)
        word = words.pop(0)
        if word not in command:
            return _refuse(
                f"expected one of {', '.join(command)}, found {word!r}" + nearest(word, command), name
            )
        command, name = command[word], f"{name} {word}"
    if isinstance(command, Later):
        command = command.load()
    if _asks_for_help(words):
        print(command_help(command, name))
        return DONE
    try:
        arguments = check(command, words)
    except UsageError as error:
        return _refuse(str(error), name)
    # Values go to fire as Python literals, which its parser reads back as they are.
    result = fire.Fire(command, command=arguments, name=name, serialize=lambda _: None)
    return DONE if result is None else int(result)


def check(function: Command, words: Sequence[str]) -> list[str]:
    """The words of a valid command line in the form that fire reads as meant: `--trials=3`, `--name='007'`.

    Raises:
        UsageError: unknown or repeated flag, missing value, value of the wrong type, stray or missing word.
    """
    return _Line(parameters(function), first_example(function)).read(words)


def joined(flag: str, one: str, other: str) -> str:
    """Two mappings in YAML, `a: 1` and `b: 2`, as one.

    Raises:
        UsageError: one is in braces or of several lines.
    """
    for text in (one, other):
        if text.lstrip().startswith("{") or "\n" in text.strip():
            raise UsageError(f"{flag}: expected KEY: VALUE where it is given again, or all in one, found {text!r}")
    return f"{one.rstrip().rstrip(',')}, {other}"


class _Line:
    """One command line, read word by word against a signature; whoever left something out is shown the example."""

    def __init__(self, known: Mapping[str, Parameter], example: str) -> None:
        self.known, self.example = known, example
        self.flags: dict[str, Any] = {}
        self.words: list[str] = []

    def read(self, words: Sequence[str]) -> list[str]:
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                self.words += waiting
                break
            if word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word):
                self.read_flag(word, waiting)
            else:
                self.words.append(word)
        self.place_words()
        return self.for_fire()

    def read_flag(self, word: str, waiting: list[str]) -> None:
        """Reads one flag, taking its value from `waiting` where it has none of its own."""
        flag, equals, value = word.partition("=")
        parameter, negated = self.parameter(flag)
        before = self.flags.get(parameter.name)
        if before is not None and not parameter.is_mapping:
            once = f"once, with one {parameter.shown_as}" if parameter.shown_as else "once"
            raise UsageError(f"{parameter.flag}: expected {once}, found again as {word}")
        if negated and equals:
            raise UsageError(f"{flag}: expected no value, found {value!r}")
        if parameter.is_switch and not equals:
            # "--gpu false" means what it says, rather than a switch and a stray word
            follows = bool(waiting) and waiting[0].lower() in ("true", "false") and not negated
            value, equals = (waiting.pop(0) if follows else str(not negated)), "="
        values = [value] if equals else []
        while len(values) < len(parameter.kinds):
            if not waiting or (waiting[0].startswith("-") and not _NUMBER.fullmatch(waiting[0])):
                found = " ".join(values) or "nothing"
                raise UsageError(f"{parameter.label}: expected {parameter.expected}, found {found}")
            values.append(waiting.pop(0))
        read = self.value(parameter, parameter.label, *values)
        self.flags[parameter.name] = read if before is None else joined(parameter.flag, before, read)

    def parameter(self, flag: str) -> tuple[Parameter, bool]:
        """The parameter that a flag sets, and whether it is switched off by `--no-`."""
        name = flag.removeprefix("--").replace("-", "_")
        flags = {known.name.rstrip("_"): known for known in self.known.values() if not known.is_many}
        if flag.startswith("--") and name in flags:
            return flags[name], False
        positive = name.removeprefix("no_")
        if flag.startswith("--no") and positive in flags and flags[positive].is_switch and positive != name:
            return flags[positive], True
        spelled = [known.flag for known in flags.values()]
        raise UsageError(f"{flag}: expected a known flag, found an unknown one{nearest(flag, spelled)}")

    def place_words(self) -> None:
        """Gives the bare words to the positional parameters, in order."""
        many: list[Any] = []
        waiting = list(self.words)
        for parameter in self.known.values():
            if parameter.is_many:
                many = [self.value(parameter, parameter.metavar, word) for word in waiting]
                waiting = []
            elif parameter.is_word and waiting and parameter.name not in self.flags:
                self.flags[parameter.name] = self.value(parameter, parameter.metavar, waiting.pop(0))
        if waiting:
            flags = [known.flag for known in self.known.values() if not known.is_many]
            stray = waiting[0]
            raise UsageError(f"expected flags, found a stray word {stray!r}" + nearest(f"--{stray}", flags))
        for parameter in self.known.values():
            if parameter.is_required and parameter.name not in self.flags:
                found = "nothing" if parameter.is_word else f"no {parameter.flag}"
                shown = f"; for example: {self.example}" if self.example else ""
                raise UsageError(f"{parameter.label}: expected {parameter.expected}, found {found}{shown}")
        self.many = many

    def value(self, parameter: Parameter, label: str, *texts: str) -> Any:
        try:
            return parameter.parse(*texts)
        except ValueError as error:
            raise UsageError(f"{label}: {error}") from error

    def for_fire(self) -> list[str]:
        words = [repr(self.flags.pop(known.name)) for known in self.known.values() if known.is_word]
        flags = [f"--{name}={value!r}" for name, value in self.flags.items()]
        return [*words, *map(repr, self.many), *flags]


def _asks_for_help(words: Sequence[str]) -> bool:
    before = words[: words.index("--")] if "--" in words else words
    return not _HELP.isdisjoint(before)


def _without_command(commands: Commands, words: Sequence[str], name: str) -> int:
    if words and words[0] in _HELP:
        print(commands_help(commands, name))
        return DONE
    found = repr(words[0]) if words else "nothing"
    return _refuse(f"expected one of {', '.join(commands)}, found {found}", name)


def _refuse(message: str, name: str) -> int:
    print(f"error: {message}\nhelp: {name} --help", file=sys.stderr)
    return REFUSED


def _program() -> str:
    """`python -m tune.search`, as the running module was started."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return inspect.getmodulename(sys.argv[0]) or "python"
