"""The range of a searched parameter: a list of values or an interval of numbers, perhaps under a condition."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from components.config import nearest
from tune.space.fields import Leaf, found

MOST_VALUES = 10_000  # above this a range is treated as continuous rather than listed

_CHOICE = {"choice"}
_INTERVAL = {"low", "high", "step", "log"}
_FORMS = "{choice: [...]} or {low: ..., high: ...}"


@dataclass(frozen=True)
class Condition:
    """Holds while parameter `key` has one of `values`."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Choice:
    """One of a list of values."""

    options: tuple[Any, ...]
    when: tuple[Condition, ...] = ()

    def values(self) -> tuple[Any, ...]:
        """All values, as written."""
        return self.options

    def ends(self) -> tuple[Any, ...]:
        """The values that validation must try."""
        return self.options

    def __contains__(self, value: Any) -> bool:
        return value in self.options

    def written(self) -> dict[str, Any]:
        """As the YAML has it."""
        return {"choice": list(self.options), **_written(self.when)}


@dataclass(frozen=True)
class Interval:
    """A number between `low` and `high`, both included; whole where both are."""

    low: int | float
    high: int | float
    step: int | float | None = None  # distance between neighbours; whole numbers have 1 where none is given
    log: bool = False  # uniform in the logarithm
    when: tuple[Condition, ...] = ()

    @property
    def whole(self) -> bool:
        """True where its values are integers."""
        return isinstance(self.low, int)

    def values(self) -> tuple[int | float, ...] | None:
        """All values in ascending order; None where they are not finite, or more than 10,000."""
        if self.low == self.high:
            return (self.low,)
        step = self.step or (1 if self.whole else None)
        if step is None or (self.high - self.low) / step >= MOST_VALUES:
            return None
        count = round((self.high - self.low) / step) + 1
        if self.whole:
            return tuple(range(int(self.low), int(self.high) + 1, int(step)))
        # in decimals, so that 0.1 + 2 × 0.1 is the 0.3 that the file means
        low, distance = Decimal(str(self.low)), Decimal(str(step))
        return tuple(float(low + index * distance) for index in range(count))

    def ends(self) -> tuple[int | float, ...]:
        """The values that validation must try."""
        return (self.low, self.high)

    def snapped(self, value: int | float) -> int | float:
        """`value` at the exact decimal of its step, free of the sampler's rounding."""
        if self.step is None or self.whole:
            return value
        return min(self.values() or (value,), key=lambda exact: abs(exact - value))

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or math.inf)
        return abs(steps - round(steps)) < 1e-8  # a sampler's 0.30000000000000004 is the file's 0.3

    def written(self) -> dict[str, Any]:
        """As the YAML has it."""
        options = {"step": self.step, "log": self.log or None}
        given = {name: value for name, value in options.items() if value is not None}
        return {"low": self.low, "high": self.high, **given, **_written(self.when)}


Range = Choice | Interval


def is_range(written: Mapping[Any, Any]) -> bool:
    """True for what is meant as a range, right or wrong, and not as another mapping."""
    return not (_CHOICE | _INTERVAL).isdisjoint(written)


def parse_range(leaf: Leaf, written: Mapping[Any, Any]) -> Range:
    """The range that `written` gives field `leaf`; conditions are checked later, with the other ranges known.

    Raises:
        ValueError: what was expected and what was found, without key or place.
    """
    names = set(written)
    if unknown := sorted(map(str, names - _CHOICE - _INTERVAL - {"when"})):
        near = nearest(unknown[0], _CHOICE | _INTERVAL | {"when"})
        raise ValueError(f"expected {_FORMS}, found a field {unknown[0]!r}{near}")
    if names & _CHOICE and names & _INTERVAL:
        raise ValueError(f"expected {_FORMS}, found both")
    if not names - {"when"}:
        raise ValueError(f"expected {_FORMS}, found {found(dict(written))}")
    when = _conditions(written.get("when", {}))
    return _choice(leaf, written["choice"], when) if names & _CHOICE else _interval(leaf, written, when)


def _choice(leaf: Leaf, options: Any, when: tuple[Condition, ...]) -> Choice:
    if not isinstance(options, list | tuple):
        raise ValueError(f"choice: expected a list of values, found {found(options)}")
    if not options:
        raise ValueError("choice: expected at least one value, found none")
    values = tuple(_within("choice", leaf, option) for option in options)
    for index, value in enumerate(values):
        if isinstance(value, tuple):
            raise ValueError(f"choice: expected numbers, text, true or false, found {found(options[index])}")
        if value in values[:index]:
            raise ValueError(f"choice: expected each value once, found {found(value)} twice")
    return Choice(values, when)


def _interval(leaf: Leaf, written: Mapping[str, Any], when: tuple[Condition, ...]) -> Interval:
    if leaf.number is None:
        raise ValueError(f"expected {{choice: [...]}} of {leaf.expected}, found low and high")
    if missing := {"low", "high"} - set(written):
        raise ValueError(f"expected both low and high, found no {max(missing)}")
    low, high = (_bound(name, leaf, written[name]) for name in ("low", "high"))
    if low > high:
        raise ValueError(f"expected low ≤ high, found low {low} and high {high}")
    log = written.get("log", False)
    if not isinstance(log, bool):
        raise ValueError(f"log: expected true or false, found {found(log)}")
    if log and low <= 0:
        raise ValueError(f"expected low > 0 with log: true, found low {low}")
    if log and "step" in written:
        raise ValueError("expected step or log: true, found both")
    return Interval(low, high, _step(leaf, written, Decimal(str(high)) - Decimal(str(low))), log, when)


def _bound(name: str, leaf: Leaf, value: Any) -> int | float:
    end = _within(name, leaf, value)
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise ValueError(f"{name}: expected a number, found {found(value)}")
    return end


def _step(leaf: Leaf, written: Mapping[str, Any], width: Decimal) -> int | float | None:
    if "step" not in written:
        return None
    step = written["step"]
    kinds = (int,) if leaf.number is int else (int, float)
    if isinstance(step, bool) or not isinstance(step, kinds) or not math.isfinite(step) or step <= 0:
        noun = "an integer ≥ 1" if leaf.number is int else "a number > 0"
        raise ValueError(f"step: expected {noun}, found {found(step)}")
    if not _divides(step, width):
        raise ValueError(f"step: expected one that divides high − low ({width:g}), found {step}")
    return leaf.number(step) if leaf.number else step


def _divides(step: int | float, width: Decimal) -> bool:
    try:
        return width % Decimal(str(step)) == 0
    except InvalidOperation:  # so many steps that a sampler could not count them either
        return False


def _within(name: str, leaf: Leaf, value: Any) -> Any:
    try:
        return leaf.check(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _conditions(written: Any) -> tuple[Condition, ...]:
    if not isinstance(written, Mapping) or not all(isinstance(key, str) for key in written):
        raise ValueError(f"when: expected {{other.key: value}}, found {found(written)}")
    return tuple(Condition(key, tuple(_listed(values))) for key, values in written.items())


def _listed(values: Any) -> Sequence[Any]:
    if values in ([], ()):
        raise ValueError("when: expected at least one value, found an empty list")
    return values if isinstance(values, list | tuple) else [values]


def _written(when: tuple[Condition, ...]) -> dict[str, Any]:
    conditions = {c.key: c.values[0] if len(c.values) == 1 else list(c.values) for c in when}
    return {"when": conditions} if conditions else {}
