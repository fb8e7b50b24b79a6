"""The experiment that a command line asks for: its space, its storage and its name.

Nothing heavy is imported before the space has been checked, so that whoever mistypes a word is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from components.config import nearest
from tune.errors import Refused
from tune.planning.call import DEFAULT, Call
from tune.planning.user_code import UserCode
from tune.space.space import SearchSpace, load_space, parse_space, unreadable
from tune.space.strict_yaml import show

if TYPE_CHECKING:  # it imports pyarrow, which takes longer than all of the space
    from tune.storage.folder import Storage

# What may change between two sessions of one search. Of the data not the place but the images count: `prepare`.
_FREE = {
    "data.name", "search.trials", "search.budget", "search.patience", "search.terminator", "search.max_cost",
    "search.finalists", "search.finalist_seeds", "search.retrain_seeds", "search.retries",
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """An experiment that may be begun or resumed, as far as its space tells.

    Attributes:
        space: with the command line's overrides.
        storage: of experiments and store.
        name: of the experiment.
        resumed: whether it exists already.
        user_code: plug-in, classifier and weights of the user.
    """

    space: SearchSpace
    storage: Storage
    name: str
    resumed: bool
    user_code: UserCode = field(default_factory=UserCode, kw_only=True)

    @property
    def home(self) -> Storage:
        """The experiment's folder."""
        return self.storage.child(self.name)


@dataclass(frozen=True)
class Options:
    """Options of the command line beside the space.

    Attributes:
        data_dir: where a named data set lies, or is downloaded to.
        warm_start: folder of an earlier experiment to learn from.
        reuse: whether trials share what they build.
        quiet: print no progress, only notes, failures and the result.
        verbose: print every stage of every trial.
        call: what began it.
    """

    data_dir: str | None = None
    warm_start: str | None = None
    reuse: bool = True
    quiet: bool = False
    verbose: bool = False
    call: Call = field(default_factory=Call)


def find_experiment(
    space: str | None,
    overrides: Mapping[str, Any],
    storage: str,
    name: str | None,
    *,
    resume: bool,
    user_code: UserCode | None = None,
) -> Experiment:
    """Reads and checks the space; writes nothing.

    Args:
        space: by name or path; where none is given, that of the experiment to resume, or the default one.
        overrides: dotted key → value, in place of the space's own.
        storage: folder or address.
        name: of the experiment; the space's where none is given.
        resume: whether the experiment may exist already.
        user_code: plug-in and classifier of the user; None for neither.

    Raises:
        Refused: a space or name that cannot be used, an experiment that exists already, or one of another space; or
            nothing to resume by a name without a space, which may be mistyped.
    """
    user_code = user_code or UserCode()
    overrides = {**overrides, **user_code.overrides}
    named = name is not None
    loaded = None if resume and space is None else load_space(space or DEFAULT, overrides)
    name = _checked(name or (loaded.name if loaded else DEFAULT))
    from tune.storage.folder import Storage
    from tune.storage.record import recorded

    try:
        place = Storage(storage)
        if not place.child(name).exists("space.yaml"):
            _refuse_orphans(place.child(name))
            if named and loaded is None:
                _refuse_unknown(place, name)
            return Experiment(loaded or load_space(DEFAULT, overrides), place, name, resumed=False, user_code=user_code)
        if resume:
            user_code.check_resumed(recorded(place.child(name)))
        found = _resumed(loaded, overrides, place.child(name), name, resume=resume)
        return Experiment(found, place, name, resumed=True, user_code=user_code)
    except Refused:
        raise
    except (OSError, ValueError) as error:
        raise Refused(f"--storage: {str(error).removeprefix('storage: ')}") from error


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == "store":
        expected = "expected letters, digits, '.', '_' or '-', at most 100 of them (and not 'store')"
        raise Refused(f"--name: {expected}, found {name!r}")
    return name


def _refuse_orphans(home: Storage) -> None:
    """Refuses trials whose space is lost: a new search would take them for its own."""
    try:
        trials = home.child("trials").names()
    except NotADirectoryError:  # a storage that is a file is refused later, by the flag's name
        return
    if any(name.endswith(".json") for name in trials):
        raise Refused(
            f"--name: expected a new experiment or one with its space.yaml, found trials without it in {home.uri}; "
            + _way_on(home)
        )


def _refuse_unknown(place: Storage, name: str) -> NoReturn:
    """Refuses a name without a space where nothing bears it."""
    with suppress(NotADirectoryError):  # a storage that is a file has none
        others = [other for other in place.folders() if other != "store"]
        found = f"found no {name} in {place.uri}{nearest(name, others)}"
        raise Refused(f"--name: expected an experiment to resume, {found}; to start one of that name, add --space")
    raise Refused(f"--storage: expected a folder, found the file {place.uri}")


def _way_on(home: Storage) -> str:
    """Says how to go on with a search whose space.yaml is lost or damaged."""
    from tune.storage.record import recorded

    command = recorded(home).get("command")
    begun = f" by what began it, {command}," if isinstance(command, str) else ""
    return f"put that file back, or search{begun} under another --name: what lies in the store is found again"


def _resumed(
    loaded: SearchSpace | None, overrides: Mapping[str, Any], home: Storage, name: str, *, resume: bool
) -> SearchSpace:
    """The space of a search that is resumed: its own, but for what may change."""
    if not resume:
        raise Refused(
            f"--name: expected a new experiment, found {name} in {home.uri}; "
            f"add --resume to continue it, or choose another --name"
        )
    source, content = f"{home.uri}/space.yaml", home.read("space.yaml")
    try:
        text = content.decode()
        before = parse_space(text, name, source, stored=True)
    except ValueError as error:
        reason = unreadable(error) if isinstance(error, UnicodeDecodeError) else error
        raise Refused(f"{source}: expected the space of this search, found {reason}; {_way_on(home)}") from error
    space = loaded or parse_space(text, name, source, overrides, stored=True)
    for key in sorted({*before.fixed, *before.ranges} - _FREE):
        if (old := _written(before, key)) != (new := _written(space, key)):
            raise Refused(
                f"{key}: expected what {source} says, {show(old)}, found {show(new)}; a resumed search keeps its "
                f"space (leave --space and --set out to go on with its own, or choose another --name for a new one)"
            )
    return space


def _written(space: SearchSpace, key: str) -> Any:
    return space.ranges[key].written() if key in space.ranges else space.fixed[key]
