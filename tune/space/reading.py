"""From a space's file to its fixed and searched fields, refusing whatever could not be meant."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from components.config import nearest
from tune.metrics import DEFENSE_TARGETS
from tune.space.config import OBJECTIVES, section_models
from tune.space.fields import Leaf, found, leaves, leaves_with
from tune.space.ranges import MOST_VALUES, Choice, Condition, Range, is_range, parse_range
from tune.space.strict_yaml import Entry, SpaceError, place, read_mapping, show

COMMAND_LINE = "command line"  # in messages
FOLDER = Path(__file__).parents[2] / "search_spaces"

# A search that could choose its own data or attack would choose the easy ones.
NOT_SEARCHED = {
    "search": "the search cannot search itself",
    "data": "results on different data cannot be compared",
    "attack": "results under different attacks cannot be compared",
}
# What stands behind a target in the order classifier, attack, gan, projection, unet has no effect on it.
NO_EFFECT = {"gan": ("unet",), "projection": ("unet",), "unet": (), "defense": ()}


def find_file(name_or_path: str) -> tuple[Path, str]:
    """The file of a packaged space or a path, and its name in messages. Raises SpaceError for neither."""
    packaged = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    if name_or_path in packaged:
        return packaged[name_or_path], _short(packaged[name_or_path])
    path = Path(name_or_path)
    if os.path.isfile(path):  # unlike Path's, false for what cannot even be looked at
        return path, _short(path)
    kind = "a folder" if os.path.isdir(path) else "no such file or name"
    known = ", ".join(packaged)
    raise SpaceError(
        f"space: expected one of {known}, or the path of a YAML file, found {name_or_path!r}, {kind}"
        + nearest(path.stem, packaged)
    )


def _short(path: Path) -> str:
    """`path` as seen from the working directory where it lies below it."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(path)


def read_space(
    text: str, source: str, overrides: Mapping[str, Any], stored: bool = False
) -> tuple[dict[str, Any], dict[str, Range], dict[str, str]]:
    """Every field's fixed value, the searched ones in an order in which conditions come first, and where each is set.

    Args:
        text: of the file.
        source: named in messages.
        overrides: as those of `load_space`.
        stored: of a search that has begun, which a check that came later must not refuse.

    Raises:
        SpaceError: see `load_space`.
    """
    entries = _merge(read_mapping(text, source), overrides)
    return *_Reader(source, entries, stored).read(), {key: _place(source, entry) for key, entry in entries.items()}


def _place(source: str, entry: Entry) -> str:
    """`my.yaml, line 3`, or `command line` for what an override sets."""
    return place(source, entry.line) if entry.line else COMMAND_LINE


def _merge(entries: dict[str, Entry], overrides: Mapping[str, Any]) -> dict[str, Entry]:
    """Overrides win. A condition on a parameter that they fix is settled by it."""
    settled = {key: value for key, value in overrides.items() if not isinstance(value, Mapping)}
    merged = {key: entry for key, entry in entries.items() if key not in overrides}
    for key, entry in list(merged.items()):
        when = entry.value.get("when") if isinstance(entry.value, dict) else None
        if not isinstance(when, dict) or not settled.keys() & when.keys():
            continue
        if all(settled[name] in _list(values) for name, values in when.items() if name in settled):
            rest = {name: values for name, values in when.items() if name not in settled}
            others = {name: value for name, value in entry.value.items() if name != "when"}
            merged[key] = Entry({**others, "when": rest}, entry.line)
        else:
            del merged[key]
    return {**merged, **{key: Entry(value, None) for key, value in overrides.items()}}


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]


def _options(values: Range) -> str:
    if isinstance(values, Choice):
        return "one of " + ", ".join(map(show, values.options))
    return f"{values.low} to {values.high}"


class _Reader:
    """Turns entries into fields, with the key and the place in every complaint."""

    def __init__(self, source: str, entries: Mapping[str, Entry], stored: bool) -> None:
        self.source, self.stored = source, stored
        self.entries = entries
        self.leaves = leaves_with({key: entry.value for key, entry in entries.items()})

    def read(self) -> tuple[dict[str, Any], dict[str, Range]]:
        fixed = {key: leaf.default for key, leaf in self.leaves.items()}
        ranges: dict[str, Range] = {}
        for key, entry in self.entries.items():
            if self.retired(key, entry.value):
                continue
            leaf = self.leaf(key)
            if isinstance(entry.value, Mapping):
                ranges[key] = self.range(leaf, entry.value)
                del fixed[key]
            else:
                fixed[key] = self.value(leaf, entry.value)
        self.check_variants(fixed)
        fixed = {key: value for key, value in fixed.items() if self.leaves[key].belongs(fixed)}
        ranges = {key: self.with_conditions(key, ranges) for key in ranges}
        self.check_search(fixed, ranges)
        fixed["search.points"] = tuple(self.point(point, ranges) for point in fixed["search.points"])
        return fixed, {key: ranges[key] for key in self.ordered(ranges)}

    def refuse(self, key: str, message: str) -> NoReturn:
        raise SpaceError(f"{key}: {message} ({_place(self.source, self.entries[key])})")

    def retired(self, key: str, value: Any) -> bool:
        """True where `key` is that of a removed field, which older files may still name."""
        section, _, name = key.partition(".")
        try:
            return any(model.retires(name, value) for model in section_models().get(section, ()))
        except ValueError as error:
            self.refuse(key, str(error))

    def leaf(self, key: str) -> Leaf:
        if key in self.leaves:
            return self.leaves[key]
        if key in section_models():
            example = next(name for name in leaves() if name.startswith(f"{key}."))
            self.refuse(key, f"expected dotted keys such as {example}, found a whole section")
        same = [name for name in leaves() if name.endswith(f".{key}")]
        hint = f"; did you mean {' or '.join(same)}?" if same else nearest(key, leaves())
        self.refuse(key, f"expected a field of the experiment, found an unknown key{hint}")

    def check_variants(self, fixed: Mapping[str, Any]) -> None:
        """Every field that the file names is one of the variant that it chooses, such as of the attack."""
        for key in self.entries.keys() & leaves().keys():  # the others are retired
            if not leaves()[key].belongs(fixed):
                section = key.split(".")[0]
                having = " or ".join(sorted(leaves()[key].variants or ()))
                chosen = fixed[f"{section}.name"]
                self.refuse(key, f"expected {section}.name {having}, which has this field, found {chosen}")

    def value(self, leaf: Leaf, value: Any) -> Any:
        try:
            return leaf.check(value)
        except ValueError as error:
            listed = isinstance(value, list) and value and leaf.key.split(".")[0] not in NOT_SEARCHED
            hint = f"; to search these, write {{choice: {show(value)}}}" if listed else ""
            self.refuse(leaf.key, f"{error}{hint}")

    def range(self, leaf: Leaf, written: Mapping[Any, Any]) -> Range:
        section = leaf.key.split(".")[0]
        if section in NOT_SEARCHED and not is_range(written):
            self.refuse(leaf.key, f"expected {leaf.expected}, found {found(dict(written))}")
        if section in NOT_SEARCHED:
            self.refuse(leaf.key, f"expected one value, found a range: {NOT_SEARCHED[section]}")
        try:
            return parse_range(leaf, written)
        except ValueError as error:
            self.refuse(leaf.key, str(error))

    def with_conditions(self, key: str, ranges: Mapping[str, Range]) -> Range:
        """The range of `key` with its conditions' values as the fields they name hold them."""
        conditions = tuple(self.condition(key, condition, ranges) for condition in ranges[key].when)
        return replace(ranges[key], when=conditions)

    def condition(self, key: str, condition: Condition, ranges: Mapping[str, Range]) -> Condition:
        other = ranges.get(condition.key)
        if condition.key == key:
            self.refuse(key, "when: expected another parameter, found itself")
        if other is None:
            kind = (
                "a fixed one"
                if condition.key in leaves()
                else f"an unknown key{nearest(condition.key, ranges)}"
            )
            self.refuse(key, f"when: expected a searched parameter, found {condition.key}, {kind}")
        if other.values() is None:
            self.refuse(
                key,
                f"when: expected a parameter that takes few values, found {condition.key}, a continuous one",
            )
        return replace(
            condition, values=tuple(self.possible(key, condition.key, other, v, "when: ") for v in condition.values)
        )

    def possible(self, key: str, other: str, values: Range, value: Any, where: str = "") -> Any:
        leaf = leaves()[other]
        try:
            held = leaf.check(value)
        except ValueError as error:
            self.refuse(key, f"{where}{other}: {error}")
        if held not in values and not (values.when and held == leaf.default):
            self.refuse(
                key, f"{where}{other}: expected a value it can take, {_options(values)}, found {found(value)}"
            )
        return held

    def point(self, point: Mapping[str, Any], ranges: Mapping[str, Range]) -> dict[str, Any]:
        """The parameters of a first trial, each a value that the search could have proposed."""
        for key in point:
            if key not in ranges:
                hint = nearest(key, ranges)
                self.refuse("search.points", f"expected searched parameters, found {key}, another field{hint}")
        held = {key: self.possible("search.points", key, ranges[key], value) for key, value in point.items()}
        for key in held:
            for condition in ranges[key].when:
                if not self.stored and condition.key in held and held[condition.key] not in condition.values:
                    expected = f"expected {key} only beside {condition.key} {' or '.join(map(show, condition.values))}"
                    self.refuse("search.points", f"{expected}, found it beside {held[condition.key]}")
        return held

    def ordered(self, ranges: Mapping[str, Range]) -> Iterator[str]:
        """Searched keys by name, each after those its conditions name; the file's order does not matter."""
        done: set[str] = set()
        while waiting := [key for key in sorted(ranges) if key not in done]:
            ready = [key for key in waiting if all(condition.key in done for condition in ranges[key].when)]
            if not ready:
                self.refuse(
                    waiting[0], f"when: expected no circle, found one through {' and '.join(waiting)}"
                )
            done.update(ready)
            yield from ready

    def check_search(self, fixed: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
        """The search must have something to search, which the target's trials can feel."""
        target = fixed["search.target"]
        if all(values.values() is not None and len(values.values() or ()) < 2 for values in ranges.values()):
            raise SpaceError(
                "expected at least one parameter with a range, such as projector.steps: {low: 10, high: 60}, "
                f"found nothing to search ({self.source})"
            )
        for key in ranges:
            if key.split(".")[0] in NO_EFFECT[target]:
                self.refuse(key, f"expected a parameter that target {target} depends on, found one behind it")
        if fixed["search.objective"] != "psd" and target not in DEFENSE_TARGETS:
            self.refuse("search.objective", f"expected psd for target {target}, whose trials end in no whole defense")
        if fixed["search.promotion"]:
            self.check_promotion(fixed, ranges)
        self.check_sampler(fixed["search.sampler"], ranges, fixed["search.cost_aware"])
        if fixed["search.max_cost"] is not None:
            self.check_max_cost(fixed, ranges)

    def check_max_cost(self, fixed: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
        """Some configuration must cost no more than is allowed, where trials are judged by cost."""
        most, target = fixed["search.max_cost"], fixed["search.target"]
        if "cost" not in OBJECTIVES[target]:
            self.refuse("search.max_cost", f"expected none for target {target}, whose trials are not judged by cost")
        if self.stored or fixed.get("defense.purifier") != "projector":
            return
        least = 1
        for key in ("projector.restarts", "projector.steps"):
            values = [fixed[key]] if key in fixed else [*ranges[key].ends()]
            least *= min([*values, leaves()[key].default] if key in ranges and ranges[key].when else values)
        if least > most:
            smallest = "the smallest projector.restarts × projector.steps"
            self.refuse("search.max_cost", f"expected at least {least}, {smallest}, found {most}")

    def check_promotion(self, fixed: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
        """Trials must be compared after some epoch, to be promoted from there."""
        if fixed["search.target"] not in DEFENSE_TARGETS:
            found = f"found target {fixed['search.target']}"
            self.refuse("search.promotion", f"expected false where no U-Net is trained, {found}")
        if not fixed["search.early_stopping"]:
            self.refuse("search.promotion", "expected search.early_stopping true beside it, found false")
        if fixed["search.objective"] != "psd":
            found = f"found {fixed['search.objective']}"
            self.refuse("search.promotion", f"expected search.objective psd, by which epochs are compared, {found}")
        epochs = ranges["unet.epochs"].ends()[-1] if "unet.epochs" in ranges else fixed["unet.epochs"]
        if epochs <= fixed["search.warmup_epochs"]:
            first = f"expected unet.epochs above search.warmup_epochs ({fixed['search.warmup_epochs']})"
            self.refuse("search.promotion", f"{first}, so that there is an epoch to be promoted from, found {epochs}")

    def check_sampler(self, sampler: str, ranges: Mapping[str, Range], cost_aware: bool) -> None:
        """The sampler must be one for this kind of space."""
        continuous = [key for key, values in ranges.items() if values.values() is None]
        conditional = [key for key, values in ranges.items() if values.when]
        if sampler == "grid" and continuous:
            what = f"found {continuous[0]} without one; give it a step or a choice, or take sampler tpe"
            self.refuse("search.sampler", f"expected a step or a choice in every range for grid, {what}")
        count = math.prod(len(values.values() or ()) for values in ranges.values())
        if sampler == "grid" and count > MOST_VALUES:
            self.refuse("search.sampler", f"expected at most {MOST_VALUES:,} points for grid, found {count:,}; use tpe")
        if sampler == "grid" and cost_aware and not self.stored:
            self.refuse("search.cost_aware", "expected false for sampler grid, whose order is drawn, found true")
        if sampler == "gp" and conditional:
            what = f"found {conditional[0]} with one; take sampler tpe"
            self.refuse("search.sampler", f"expected no range with a condition (when) for gp, {what}")
