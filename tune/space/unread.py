"""Settings that no trial would read: a range of them compares equal trials, and a value of them does nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

from components.config import fits
from components.datasets import DATASETS
from components.datasets.sources import Embedded
from components.purifiers import PURIFIERS
from tune.space.fields import in_words, leaves
from tune.space.reading import NO_EFFECT
from tune.space.space import SearchSpace
from tune.space.strict_yaml import show


def unread(space: SearchSpace) -> Iterator[str]:
    """Yields a sentence for each of them: which other field lets no trial read it, and what that would have to be.

    They are searched, or set to anything but their default. Points for which there are no trials are named too.
    """
    changed = [key for key in space.changed if key in space.places]
    for key in (*space.ranges, *changed):
        reason = _without_target(space, key) or _unmet(space, _conditions(key))
        if reason:
            state = "searched" if key in space.ranges else f"set to {show(space.fixed[key])}"
            yield f"{key} is {state}, and no trial reads it: {reason}"
    points, trials = len(space.fixed["search.points"]), space.fixed["search.trials"]
    if points > trials:
        untried = f"the last {points - trials} are not tried"
        yield f"search.points has {points} points, of which {untried}: search.trials is {trials}"


def unread_data_dir(name: str, data_dir: str | None) -> Iterator[str]:
    """Yields a sentence where `--data-dir` was given for data that are not looked for there."""
    if data_dir is not None and (name not in DATASETS or isinstance(DATASETS[name], Embedded)):
        kind = "comes with the project" if name in DATASETS else "is a folder itself"
        yield f"--data-dir is set to {data_dir}, and nothing is read there: data.name {show(name)} {kind}"


def _without_target(space: SearchSpace, key: str) -> str:
    section, target = key.split(".", maxsplit=1)[0], space.fixed["search.target"]
    without = dict.fromkeys(NO_EFFECT[target], "U-Net")
    if target == "gan":
        without |= {"attack": "attack"} | dict.fromkeys((*PURIFIERS, "defense"), "purifier")
    return f"target {target} has no {without[section]}" if section in without else ""


def _conditions(key: str) -> Mapping[str, tuple[Any, ...]]:
    """Other fields → their values with which a field is read."""
    section = key.split(".", maxsplit=1)[0]
    own = leaves()[key].read_when
    return {**own, "defense.purifier": (section,)} if section in PURIFIERS else own


def _unmet(space: SearchSpace, conditions: Mapping[str, tuple[Any, ...]]) -> str:
    """The first condition that no trial meets, in words."""
    for other, wanted in conditions.items():
        held = space.values(other)
        if held is not None and not any(fits(value, wanted) for value in held):
            return f"that takes {other} {in_words(wanted)}, found {' and '.join(map(show, held))}"
    return ""
