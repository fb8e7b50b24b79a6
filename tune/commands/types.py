"""The parameters of a command: their names on a command line, their types, and how a word becomes a value."""

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "text"}
_METAVARS = {int: "N", float: "X", bool: "", str: "TEXT"}
IN_PYTHON = "in Python"  # marks a parameter, by Annotated, that no command line has
_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command's signature."""

    name: str
    kind: Any  # inspect's: positional, keyword-only, *many
    annotation: Any  # int, float, bool, str, a Literal of texts, or a tuple of some of these
    default: Any  # inspect.Parameter.empty where there is none
    shown_as: str  # the text of Annotated[…, "FOLDER"]; empty for the type's own

    @property
    def flag(self) -> str:
        """`--cpus-per-trial`."""
        return "--" + self.name.rstrip("_").replace("_", "-")  # `import_`: a word that Python keeps for itself

    @property
    def metavar(self) -> str:
        """The placeholder for the value in help: FOLDER, N."""
        if self.is_word or self.is_many:
            return self.shown_as or self.name.upper()
        return self.shown_as or "|".join(self.options) or " ".join(_METAVARS[kind] for kind in self.kinds)

    @property
    def label(self) -> str:
        """The parameter's name in messages: FOLDER for a positional word, --out for a flag, --why EXPERIMENT TRIAL."""
        if self.is_word:
            return self.metavar
        return f"{self.flag} {self.metavar}" if len(self.kinds) > 1 else self.flag

    @property
    def is_mapping(self) -> bool:
        """True where its values are mappings, which may be given one after the other."""
        return self.shown_as == "YAML"

    @property
    def is_many(self) -> bool:
        """True where it takes any number of words."""
        return bool(self.kind is inspect.Parameter.VAR_POSITIONAL)

    @property
    def is_required(self) -> bool:
        """True where it has no default."""
        return self.default is inspect.Parameter.empty and not self.is_many

    @property
    def is_word(self) -> bool:
        """True where it is positional and not a flag."""
        return self.is_required and self.kind is not inspect.Parameter.KEYWORD_ONLY

    @property
    def is_word_or_flag(self) -> bool:
        """True where it has a default and Python would also accept it by position."""
        return not self.is_required and self.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of the words that it takes, one after the other."""
        return get_args(self.annotation) if get_origin(self.annotation) is tuple else (self.annotation,)

    @property
    def is_switch(self) -> bool:
        """True where it is a flag without a value."""
        return self.annotation is bool

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The texts it must be one of; empty where any will do."""
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    @property
    def expected(self) -> str:
        """In words: `an integer`."""
        if self.options:
            return f"one of {', '.join(self.options)}"
        if self.kinds == (str,) and self.shown_as and not self.is_word and not self.is_many:
            return self.shown_as  # `DIR` says more than `text`; a word has it as its label
        return " and ".join(_EXPECTED[kind] for kind in self.kinds)

    def parse(self, *texts: str) -> Any:
        """The value that a text, or several, stand for. Raises ValueError, saying what was expected and found."""
        values = [_PARSERS.get(kind, _text)(text) for kind, text in zip(self.kinds, texts, strict=True)]
        if None in values or (self.options and values[0] not in self.options):
            raise ValueError(f"expected {self.expected}, found {' '.join(map(repr, texts))}")
        return values[0] if len(self.kinds) == 1 else tuple(values)


def _text(text: str) -> str | None:
    return text or None


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _truth(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


_PARSERS: Mapping[Any, Callable[[str], Any]] = {int: _integer, float: _number, bool: _truth, str: _text}


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of `function` by name. Raises TypeError for one that no command line could give."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function).parameters
    words = {name: given for name, given in signature.items() if get_args(hints.get(name))[1:] != (IN_PYTHON,)}
    known = {name: _parameter(given, hints.get(name)) for name, given in words.items()}
    if any(p.is_many for p in known.values()) and any(p.is_word_or_flag for p in known.values()):
        raise TypeError("expected flags after *words, found one before them, which a word would fill")
    return known


def _parameter(given: inspect.Parameter, hint: Any) -> Parameter:
    shown_as = ""
    while (origin := get_origin(hint)) in (Annotated, Union, types.UnionType):
        if origin is Annotated:
            hint, shown_as, *_ = get_args(hint)
        else:  # `int | None`: None is what leaving the flag out says, never a word
            (hint,) = (kind for kind in get_args(hint) if kind is not types.NoneType)
    known = origin is Literal or all(kind in _PARSERS for kind in (get_args(hint) if origin is tuple else (hint,)))
    if given.kind is inspect.Parameter.VAR_KEYWORD or not known:
        raise TypeError(f"{given.name}: expected int, float, bool, str, a tuple of them or a Literal, found {hint}")
    return Parameter(given.name, given.kind, hint, given.default, shown_as)


@dataclass(frozen=True)
class Later:
    """A command that is imported when it is called, so that the help of all needs none of them.

    Attributes:
        name: of the function, and of the command.
        module: where the function is.
        sentence: the first of its docstring.
    """

    name: str
    module: str
    sentence: str

    def load(self) -> Callable[..., int | None]:
        """The function itself."""
        function: Callable[..., int | None] = getattr(import_module(self.module), self.name)
        return function
