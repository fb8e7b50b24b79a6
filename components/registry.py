"""Extensions by name: attacks, data sets, classifiers and purifiers, ours and those of a user's plug-in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from components.config import nearest

Kind = TypeVar("Kind")
Entry = TypeVar("Entry")


class Registry(Mapping[str, Kind]):
    """Entries by name, in the order in which they were registered. A name is taken once and for all.

        ATTACKS: Registry[type[Attack]] = Registry("attack.name")

        @ATTACKS.register("fgsm")
        class FGSM(Attack): ...

    Args:
        key: the field of a search space whose values the names are, for messages.
        flaw: name and entry → what was expected and found where the entry cannot have that name, else None.

    Attributes:
        sources: name → sha256 of the plug-in that defines it; the project's own entries have none.
        files: name → that plug-in's file, as the user named it.
    """

    def __init__(self, key: str, flaw: Callable[[str, object], str | None] | None = None) -> None:
        self.key = key
        self._flaw = flaw
        self.sources: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self._entries: dict[str, Kind] = {}

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Within the block entries may be added; then only those of before are left."""
        undo = self.undo()
        try:
            yield
        finally:
            undo()

    def undo(self) -> Callable[[], None]:
        """Returns a function that removes every entry added after this call."""
        entries, sources, files = dict(self._entries), dict(self.sources), dict(self.files)

        def restore() -> None:
            self._entries, self.sources, self.files = dict(entries), dict(sources), dict(files)

        return restore

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorates what is to be known as `name`.

        Raises:
            ValueError: the name is taken, or the entry cannot have it; with the file, what was expected and found.
        """

        def add(entry: Entry) -> Entry:
            if self._flaw and (flaw := self._flaw(name, entry)):
                raise ValueError(f"{self.key}: {_origin(entry)}: {flaw}")
            if name in self._entries:
                defined = f"which {_origin(self[name])} defines"
                raise ValueError(f"{self.key}: expected a new name, found {name!r}, {defined}")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def known(self, name: str) -> str:
        """`name`, where it is an entry's.

        Raises:
            ValueError: it is none; with the nearest that is.
        """
        if name not in self:
            raise ValueError(f"expected one of {', '.join(sorted(self))}, found {name!r}{nearest(name, self)}")
        return name

    def described(self, name: str) -> str:
        """The name, for messages: `noise`, or `noise of mine.py` where a plug-in's file defines it."""
        return f"{name} of {self.files[name]}" if name in self.files else name

    def __getitem__(self, name: str) -> Kind:
        """The entry of that name. Raises KeyError, whose message names the known ones."""
        try:
            return self._entries[self.known(name)]
        except ValueError as error:
            raise KeyError(f"{self.key}: {error}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def without_methods(settings: type) -> str | None:
    """Names a method that a class of settings must have and has not; None where it has all."""
    missing = sorted(getattr(settings, "__abstractmethods__", ()))
    return f"{settings.__name__}: expected a method `{missing[0]}`, found none" if missing else None


def raised(error: BaseException) -> str:
    """Describes what a user's code raised, on one line: `ValueError: not of this kind`."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _origin(entry: object) -> str:
    """The file that defines an entry, for messages."""
    while isinstance(entry, partial):
        entry = entry.func
    try:
        return inspect.getfile(inspect.unwrap(entry))  # type: ignore[arg-type]
    except TypeError:
        return repr(entry)
