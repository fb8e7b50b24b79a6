"""One flat YAML mapping, read strictly: what a reader of the file would expect, or a clear refusal.

PyYAML follows YAML 1.1, where `1e-4` is text, `on` true, `010` eight and `1:30` ninety. Here numbers,
booleans and null follow the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2); all else is text.
"""

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from tune.errors import Refused


class SpaceError(Refused):
    """A search space that cannot be used; the message says key, what was expected, what found, and where."""


@dataclass(frozen=True)
class Entry:
    """A value and the line of its key; no line where it came from elsewhere than the file."""

    value: Any
    line: int | None = None


class StrictLoader(yaml.SafeLoader):
    """YAML 1.2 scalars, no duplicate keys, no aliases (a flat mapping needs none; nested ones explode)."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self.source = source

    def refuse(self, message: str, mark: yaml.Mark) -> NoReturn:
        raise SpaceError(f"{message} ({place(self.source, mark.line + 1)})")

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            self.refuse(f"expected the value itself, found the alias *{alias.anchor}", alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse("expected a key of one word, found a list or mapping", key.start_mark)
            if key.value in lines:
                message = f"{key.value}: expected once, found again (first on line {lines[key.value]})"
                self.refuse(message, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        pairs = ((self.construct_object(key), value) for key, value in node.value)
        return {key: self.construct_object(value, deep=True) for key, value in pairs}

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        text = self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
        return float(text)

    def construct_boolean(self, node: yaml.ScalarNode) -> bool:
        return self.construct_scalar(node).lower() == "true"


_SCALARS = (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
)
StrictLoader.yaml_implicit_resolvers = {}  # none of PyYAML's own, which the class would inherit
for _name, _pattern, _first in _SCALARS:
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)
StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_integer)
StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.construct_float)
StrictLoader.add_constructor("tag:yaml.org,2002:bool", StrictLoader.construct_boolean)


def read_mapping(text: str, source: str) -> dict[str, Entry]:
    """The entries of one flat mapping, in written order.

    Raises:
        SpaceError: not YAML, not one mapping, empty, a key that is not text, or a key written twice.
    """
    try:
        return dict(_entries(text, source))
    except SpaceError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place(source, mark.line + 1 if mark else None)
        raise SpaceError(f"not valid YAML: {_problem(error)} ({where}){_invisible(text)}") from error
    except RecursionError as error:
        raise SpaceError(f"not valid YAML: brackets nested too deeply ({source})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag such as !!int on something that is none
        raise SpaceError(f"not valid YAML: {str(error).splitlines()[0]} ({source})") from error


def _entries(text: str, source: str) -> Iterator[tuple[str, Entry]]:
    loader = StrictLoader(text, source)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SpaceError(f"expected a mapping of dotted keys to values, found an empty file ({source})")
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else show(node.value)
            raise SpaceError(f"expected a mapping of dotted keys to values, found {kind} ({source})")
        values = loader.construct_document(node)
        for (key, _), (name, value) in zip(node.value, values.items(), strict=True):
            line = key.start_mark.line + 1
            if not isinstance(name, str):
                raise SpaceError(f"{show(name)}: expected a dotted key ({place(source, line)})")
            yield name, Entry(value, line)
    finally:
        loader.dispose()


def _invisible(text: str) -> str:
    """A closing remark on the first character outside of comments that looks like a space, or nothing, and is none."""
    for number, line in enumerate(text.splitlines(), 1):
        for sign in line.split("#", 1)[0]:
            if unicodedata.category(sign) in ("Zs", "Cf") and sign not in " \ufeff":
                return f"; line {number} has U+{ord(sign):04X}, {unicodedata.name(sign).lower()}: type a plain space"
    return ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    if error.problem and "'\\t'" in error.problem:
        return "a tab; indent with spaces"
    return (error.problem or error.context or "unreadable").removeprefix("but ")


def place(source: str, line: int | None) -> str:
    """`search_spaces/my.yaml, line 3`."""
    return source if line is None else f"{source}, line {line}"


_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_RESERVED = {"null", "true", "false"}


def show(value: Any) -> str:
    """`value` on one line of YAML that reads back as the same value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(show, value)) + "]"
    if not isinstance(value, str):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    escaped = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return '"' + "".join(escaped) + '"'
