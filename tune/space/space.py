"""A search space: which fields of an experiment are fixed, which are searched, and between what.

    space = load_space("quickstart")
    params = space.suggest(trial)       # {"projector.steps": 30, …}
    config = space.config(params)       # a validated ExperimentConfig

The file is one flat YAML mapping of dotted keys; search_spaces/README.md describes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components.config import explain, nearest
from tune.space.config import FIDELITY, ExperimentConfig, Fidelity, section_models
from tune.space.fields import Leaf, found, leaves, leaves_with, variant_of
from tune.space.ranges import Choice, Interval, Range
from tune.space.reading import COMMAND_LINE, find_file, read_space
from tune.space.strict_yaml import SpaceError, read_mapping, show

if TYPE_CHECKING:  # it takes a second to import, which a refused space need not
    import optuna
    from optuna.distributions import BaseDistribution

_WITHOUT_COLON = re.compile(r"([a-z_]+\.[a-z_0-9]+)\s*[\s=:]\s*(\S.*)")  # `unet.epochs 2`, of which YAML makes a key

__all__ = ["SearchSpace", "SpaceError", "load_space", "parse_space"]


@dataclass(frozen=True)
class SearchSpace:
    """Every field of an experiment, fixed or searched. Two spaces are equal that fix and search the same.

    Built by `load_space`, which validates; pickles, so that Ray can send it.
    """

    name: str = field(compare=False)
    source: str = field(compare=False)  # the file it was read from, for messages
    fixed: Mapping[str, Any]  # every field that is not searched, defaults included
    ranges: Mapping[str, Range]  # searched fields, each after those that its conditions name
    places: Mapping[str, str] = field(default_factory=dict, compare=False)  # key → where it is set, for messages

    def __post_init__(self) -> None:
        for name in ("fixed", "ranges", "places"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self) -> tuple[Any, ...]:
        return SearchSpace, (self.name, self.source, dict(self.fixed), dict(self.ranges), dict(self.places))

    def where(self, key: str | None = None) -> str:
        """Tells where `key` is set: `my.yaml, line 3`, `command line`, or the file where it has its default.

        Where no key alone is at fault: the file, and the command line if that sets anything but the search itself.
        """
        if key is not None:
            return self.places.get(key, self.source)
        given = any(place == COMMAND_LINE and not key.startswith("search.") for key, place in self.places.items())
        return f"{self.source} and {COMMAND_LINE}" if given else self.source

    @property
    def changed(self) -> dict[str, Any]:
        """The fixed fields that differ from their defaults: what the file asked for, in few lines."""
        return {key: value for key, value in self.fixed.items() if value != leaves_with(self.fixed)[key].default}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Asks `trial` for each searched parameter whose conditions hold, always in the same order."""
        params: dict[str, Any] = {}
        for key, values in self.ranges.items():
            if self.applies(key, params):
                params[key] = _ask(trial, key, values)
        return params

    def distribution(self, key: str) -> BaseDistribution:
        """Optuna's form of the range of `key`."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        values = self.ranges[key]
        if isinstance(values, Choice):
            return CategoricalDistribution(values.options)
        if values.whole:
            return IntDistribution(int(values.low), int(values.high), values.log, int(values.step or 1))
        return FloatDistribution(values.low, values.high, values.log, values.step)

    def applies(self, key: str, params: Mapping[str, Any]) -> bool:
        """True where the conditions of `key` hold for `params`; a parameter left out has its default."""
        return all(
            params.get(condition.key, leaves()[condition.key].default) in condition.values
            for condition in self.ranges[key].when
        )

    def contains(self, params: Mapping[str, Any]) -> bool:
        """True where this space could have suggested `params`."""
        active = {key for key in self.ranges if self.applies(key, params)}
        return set(params) == active and all(params[key] in self.ranges[key] for key in active)

    def fidelity(self, params: Mapping[str, Any]) -> Fidelity:
        """The length of the U-Net's training with these parameters."""
        known = {**self.fixed, **params}
        return Fidelity(*(known.get(key, leaves()[key].default) for key in FIDELITY))

    def config(self, params: Mapping[str, Any]) -> ExperimentConfig:
        """The experiment with `params` for the searched fields, and defaults for those left out.

        Raises:
            SpaceError: a parameter that is not searched here, or values that a component refuses.
        """
        for key in params:
            if key not in self.ranges:
                hint = nearest(key, self.ranges)
                raise SpaceError(f"{key}: expected a searched parameter, found another{hint} ({self.where()})")
        values: dict[str, dict[str, Any]] = {name: {} for name in section_models()}
        known = leaves_with(self.fixed)
        for key, value in {**self.fixed, **params}.items():
            section, name = key.split(".", 1)
            values[section][name] = self._checked(known[key], value)
        built = {name: self._section(name, given) for name, given in values.items()}
        others = {name: built.pop(name) for name in list(built) if name not in ExperimentConfig.model_fields}
        try:
            return ExperimentConfig(**built, others=others)
        except ValidationError as error:  # settings of several components that do not go together
            raise SpaceError(explain(error, ExperimentConfig, self.where())) from error

    def _checked(self, leaf: Leaf, value: Any) -> Any:
        try:
            return leaf.check(value)
        except ValueError as error:
            raise SpaceError(f"{leaf.key}: {error} ({self.where(leaf.key)})") from error

    def _section(self, name: str, values: Mapping[str, Any]) -> Any:
        model = variant_of(name, str(values.get("name")))
        try:
            return model(**values)
        except ValidationError as error:
            complaint = explain(error, model).splitlines()[0]
            separator = "." if error.errors()[0]["loc"] else ": "
            raise SpaceError(f"{name}{separator}{complaint} ({self.where()})") from error

    def bound(self, key: str) -> Any:
        """The largest number that `key` can take; its default counts where a condition can leave it out.

        Raises:
            SpaceError: no such field, or one that is not a number.
        """
        values = self.ranges.get(key)
        listed = self.values(key) or ()
        possible = (values.high, *self._otherwise(key)) if isinstance(values, Interval) else listed
        numbers = [value for value in possible if isinstance(value, int | float)]
        if not numbers:
            raise SpaceError(f"{key}: expected a field with numbers, found {found(possible)} ({self.where(key)})")
        return max(numbers)

    def values(self, key: str) -> tuple[Any, ...] | None:
        """All values that `key` can take, sorted; None where they are continuous or more than 10,000.

        Raises:
            SpaceError: no such field.
        """
        if key not in leaves():
            raise SpaceError(f"{key}: expected a field{nearest(key, leaves())}")
        if key not in self.ranges:
            return (self.fixed[key],)
        listed = self.ranges[key].values()
        if listed is None:
            return None
        unique = dict.fromkeys([*listed, *self._otherwise(key)])
        return tuple(sorted(unique, key=lambda value: (value is not None, value)))

    def _otherwise(self, key: str) -> tuple[Any, ...]:
        return (leaves()[key].default,) if self.ranges[key].when else ()

    def to_yaml(self) -> str:
        """The resolved space, every field with its comment; loads back equal, whatever defaults become."""
        lines = []
        for section in section_models():
            lines.append("")
            for key, leaf in leaves_with(self.fixed).items():
                if key.startswith(f"{section}.") and leaf.belongs(self.fixed):
                    value = self.ranges[key].written() if key in self.ranges else self.fixed[key]
                    lines.append(f"{key}: {show(value)}  # {leaf.comment}".rstrip(" #"))
        return "\n".join(lines[1:]) + "\n"


def _ask(trial: optuna.Trial, key: str, values: Range) -> Any:
    if isinstance(values, Choice):
        return trial.suggest_categorical(key, values.options)
    if values.whole:
        low, high, step = int(values.low), int(values.high), int(values.step or 1)
        return trial.suggest_int(key, low, high, step=step, log=values.log)
    return values.snapped(trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log))


def load_space(name_or_path: str | Path, overrides: Mapping[str, Any] | None = None) -> SearchSpace:
    """The space of that name in search_spaces/, or the one in that file.

    Args:
        name_or_path: `quickstart`, or `my/space.yaml`.
        overrides: dotted key → value (or range), instead of what the file says, as from a command line.

    Raises:
        SpaceError: no such space, or one that cannot be used; one message with key, expected, found and file.
    """
    path, source = find_file(str(name_or_path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"expected a readable YAML file, found {unreadable(error)} ({source})") from error
    return parse_space(text, path.stem, source, overrides)


def parse_settings(text: str) -> dict[str, Any]:
    """Overrides for `load_space` from YAML, of one line or several: `classifier.architecture: E, unet.epochs: 2`.

    Raises:
        SpaceError: it is not YAML, or no mapping, or lacks a colon.
    """
    block = text.lstrip().startswith("{") or "\n" in text.strip()  # of a file's lines, as by "$(cat more.yaml)"
    flow = text if block else f"{{{text}}}"
    try:
        entries = read_mapping(flow, "--set")
    except SpaceError as error:
        raise SpaceError(f"{error}; write KEY: VALUE, and commas between several") from error
    for key, entry in entries.items():
        if entry.value is None and (match := _WITHOUT_COLON.fullmatch(key)):
            if ": " in key:
                raise SpaceError(f"--set: expected {key}, found it in quotes of its own; leave these out")
            name, value = match.groups()
            raise SpaceError(f"--set: expected a colon and a space behind {name}, as in {name}: {value}, found {key!r}")
    return {key: entry.value for key, entry in entries.items()}


def parse_space(
    text: str, name: str, source: str, overrides: Mapping[str, Any] | None = None, *, stored: bool = False
) -> SearchSpace:
    """The space in `text`, as `load_space` reads it from a file; `source` and `stored` as `read_space` takes them."""
    space = SearchSpace(name, source, *read_space(text, source, overrides or {}, stored))
    check_combinations(space)
    return space


def check_combinations(space: SearchSpace) -> None:
    """Builds the experiment at every end of every range, so that no trial is the first to be refused."""
    highest = {key: values.ends()[-1] for key, values in space.ranges.items()}
    single = [{key: value} for key, values in space.ranges.items() for value in values.ends()]
    for wanted in [*single, highest]:
        params = probe(space, wanted)
        try:
            space.config(params)
        except SpaceError as error:
            message = str(error).removesuffix(f" ({space.where()})")
            raise SpaceError(f"{message}, with {show(params)[1:-1]} ({space.where()})") from error


def probe(space: SearchSpace, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with the wanted values where their conditions can be met, and first values otherwise."""
    values = dict(wanted)
    waiting = list(wanted)
    while waiting:
        for condition in space.ranges[waiting.pop()].when:
            values.setdefault(condition.key, condition.values[0])
            waiting.append(condition.key)
    params: dict[str, Any] = {}
    for key, possible in space.ranges.items():
        if space.applies(key, params):
            params[key] = values.get(key, possible.ends()[0])
    return params


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Says in words why a file cannot be read as text."""
    if isinstance(error, OSError):
        return str(error.strerror)
    wide = error.object[:2] in (b"\xff\xfe", b"\xfe\xff")
    return "UTF-16 text, as PowerShell writes; save it as UTF-8" if wide else "bytes that are not UTF-8 text"
