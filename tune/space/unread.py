"""Searched parameters that no trial would read, so that equal trials would be compared."""

from collections.abc import Iterator

from components.purifiers import PURIFIERS
from tune.space.fields import leaves
from tune.space.space import SearchSpace
from tune.space.strict_yaml import show


def unread(space: SearchSpace) -> Iterator[str]:
    """Yields a sentence for each of them: which other field lets no trial read it, and what that would have to be."""
    for key in space.ranges:
        section = key.split(".", maxsplit=1)[0]
        conditions = dict(leaves()[key].read_when)
        if section in PURIFIERS:
            conditions["defense.purifier"] = (section,)
            if space.fixed["search.target"] == "gan":
                yield f"{key} is searched, and no trial reads it: target gan has no purifier"
                continue
        for other, wanted in conditions.items():
            held = space.values(other)
            if held is not None and not {*held} & {*wanted}:
                takes, found = " or ".join(map(show, wanted)), " and ".join(map(show, held))
                yield f"{key} is searched, and no trial reads it: that takes {other} {takes}, found {found}"
