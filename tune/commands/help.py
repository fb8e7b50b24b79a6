"""Help that teaches: made from a command's docstring and signature, so that it cannot drift from either."""

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tune.commands.types import Later, Parameter, parameters

_SECTION = re.compile(r"^(Args|Examples|Returns|Raises):[ ]*$", re.MULTILINE)
_ARGUMENT = re.compile(r"^[ ]{4}\*?(\w+):[ ]*", re.MULTILINE)
_MARGIN = 26  # where the explanations begin


def commands_help(commands: Mapping[str, Any], name: str) -> str:
    """All commands, one line each."""
    rows = ((word, summary(command)) for word, command in commands.items())
    usage, more = f"usage: {name} COMMAND …", f"more: {name} COMMAND --help"
    return "\n\n".join([usage, _block("commands", _table(rows)), more])


def command_help(function: Callable[..., Any], name: str) -> str:
    """Usage, description, every word and flag with type and default, and the examples."""
    sections = _sections(function)
    texts = _arguments(sections.get("Args", ""))
    known = parameters(function).values()
    words = [(p.metavar, _explained(p, texts)) for p in known if p.is_word or p.is_many]
    flags = [(_flag(p), _explained(p, texts)) for p in known if not p.is_word and not p.is_many]
    blocks = [f"usage: {_usage(known, name)}", sections[""]]
    blocks += [_block("arguments", _table(words))] if words else []
    blocks += [_block("flags", _table([*flags, ("--help", "Show this and exit.")]))]
    if examples := sections.get("Examples"):
        shown = textwrap.indent(textwrap.dedent(examples).strip("\n"), "  ")
        blocks.append(_block("examples", shown.splitlines()))
    return "\n\n".join(blocks)


def first_example(function: Callable[..., Any]) -> str:
    """The first command line of a docstring's examples, without the remark beside it; empty where there is none."""
    return re.split(r"\s{2,}", _sections(function).get("Examples", "").strip(), maxsplit=1)[0]


def summary(command: Callable[..., Any] | Later | Mapping[str, Any]) -> str:
    """The first line of a command's docstring; the names of its commands where it is a group."""
    if isinstance(command, Later):
        return command.sentence
    if isinstance(command, Mapping):
        return ", ".join(command)
    return (inspect.getdoc(command) or "").split("\n", 1)[0]


def _sections(function: Callable[..., Any]) -> dict[str, str]:
    """The docstring's text under the empty name, and its named sections."""
    text, *rest = _SECTION.split(inspect.getdoc(function) or "")
    return {"": text.strip(), **dict(zip(rest[::2], rest[1::2], strict=True))}


def _arguments(section: str) -> dict[str, str]:
    _, *rest = _ARGUMENT.split(section)
    return {name: " ".join(text.split()) for name, text in zip(rest[::2], rest[1::2], strict=True)}


def _explained(parameter: Parameter, texts: Mapping[str, str]) -> str:
    return " ".join(filter(None, [texts.get(parameter.name, ""), _default(parameter)]))


def _default(parameter: Parameter) -> str:
    if parameter.is_many:
        return ""
    if parameter.is_required:
        return "" if parameter.is_word else "(required)"
    if parameter.is_switch:
        return f"(default: {'on' if parameter.default else 'off'})"
    return "" if parameter.default in (None, "") else f"(default: {parameter.default})"


def _flag(parameter: Parameter) -> str:
    if parameter.is_switch and parameter.default is True:
        return f"--no-{parameter.flag[2:]}"
    return f"{parameter.flag} {parameter.metavar}".rstrip()


def _usage(known: Iterable[Parameter], name: str) -> str:
    parts = [name]
    for parameter in known:
        if parameter.is_word:
            parts.append(parameter.metavar)
        elif parameter.is_many:
            parts.append(f"[{parameter.metavar} …]")
        else:
            parts.append(_flag(parameter) if parameter.is_required else f"[{_flag(parameter)}]")
    return textwrap.fill(" ".join(parts), _width(), subsequent_indent="    ", break_on_hyphens=False)


def _block(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{title}:", *lines])


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    for label, text in rows:
        head = f"  {label}".ljust(_MARGIN)
        if len(head) > _MARGIN:  # too long to share a line with its explanation
            lines.append(head)
            head = " " * _MARGIN
        margin = " " * _MARGIN
        lines += textwrap.wrap(text, _width(), initial_indent=head, subsequent_indent=margin) or [
            head.rstrip()
        ]
    return lines


def _width() -> int:
    return max(60, min(shutil.get_terminal_size().columns, 100))
