"""Commands that note how they were called."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

Seen = list[dict[str, Any]]


def make_search(seen: Seen, status: int | None = None) -> Callable[..., int | None]:
    """A command of flags only, which returns `status`."""

    def search(
        space: Annotated[str, "NAME_OR_PATH"] = "quickstart",
        trials: int | None = None,
        cpus_per_trial: float = 1.0,
        resume: bool = False,
        live: bool = True,
        order: Literal["up", "down"] = "up",
        address: Annotated[str | None, "ADDRESS"] = None,
    ) -> int | None:
        """Searches a space.

        Everything is written below the storage folder.

        Args:
            space: a name in search_spaces/, or the path
                of a YAML file.
            trials: how many configurations to try: a number.

        Examples:
            python -m tune.search --space smoke
            python -m tune.search --trials 3   # only three
        """
        seen.append(dict(locals()))
        return status

    return search


def make_purify(seen: Seen) -> Callable[..., int]:
    """A command of words and flags."""

    def purify(folder: str, *images: str, out: str = "purified", limit: int) -> int:
        """Purifies images."""
        seen.append({"folder": folder, "images": images, "out": out, "limit": limit})
        return 0

    return purify
