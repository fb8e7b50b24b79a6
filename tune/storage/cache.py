"""Copies of artifacts on a node, shared by its processes: each is fetched once, by one of them.

    <folder>/<stage>/<signature>/           a whole artifact: its files, and manifest.json
    <folder>/.locks/<stage>.<signature>     locked by who fetches it
    <folder>/.in-use/<stage>.<signature>    locked together by all who use it or another of its parts

Every lock is the kernel's (flock), and so ends with its process. Others read the files as the first did: safetensors
maps them into memory, so that the processes of a node share the pages too.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from components.files import lock

log = logging.getLogger(__name__)

ABANDONED = 86_400.0  # seconds, after which what a killed process was fetching is removed
SHARE = 0.5  # of the disk's room that copies may take, where LATENT_DEFENSE_CACHE does not say how many bytes
_DRAFT = ".draft-"


class Use:
    """A claim to copies: none of them is evicted while it lives."""

    def __init__(self, handle: int) -> None:
        weakref.finalize(self, os.close, handle)


class Copy(NamedTuple):
    """A copy in use.

    Attributes:
        folder: its files.
        use: keeps it from being evicted.
        fresh: whether it was fetched just now, by this process.
    """

    folder: Path
    use: Use
    fresh: bool


class Cache:
    """A folder of copies that does not grow beyond its limit: those longest unused go, and never those in use.

    Args:
        folder: on a local disk; by default a temporary one, of this user alone, that lives as long as the machine's.
        limit: bytes; by default those in LATENT_DEFENSE_CACHE, else half of what the disk has for it.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / f"latent-defense-store-{os.getuid()}"
        self._limit = limit
        self._uses: weakref.WeakValueDictionary[str, Use] = weakref.WeakValueDictionary()

    def get(self, stage: str, signature: str, fetch: Callable[[Path], bool]) -> Copy | None:
        """The copy of an artifact; None where there is nothing to fetch.

        Args:
            stage: of the artifact.
            signature: of the artifact.
            fetch: writes all of it to a folder; False where there is none.

        Raises:
            OSError: it cannot be fetched, there is no room for it, or the folder of copies is another user's.
        """
        self._claim()
        use, home, fresh = self._use(stage, signature), self.folder / stage / signature, False
        if not home.is_dir():
            with _locked(self.folder / ".locks" / f"{stage}.{signature}", wait=True):
                fresh = not home.is_dir()
                if fresh and not self._fetch(home, fetch):
                    return None
        return Copy(home, use, fresh)

    def put(self, stage: str, signature: str, folder: Path) -> None:
        """Moves the files of a folder to where they are the copy, in place of an older one."""
        self.drop(stage, signature)

        def fetch(draft: Path) -> bool:
            for path in folder.iterdir():
                shutil.move(path, draft)
            return True

        self.get(stage, signature, fetch)

    def drop(self, stage: str, signature: str) -> None:
        """Removes a copy, whoever uses it."""
        home = self.folder / stage / signature
        with suppress(FileNotFoundError), tempfile.TemporaryDirectory(dir=self.folder, prefix=_DRAFT) as gone:
            home.rename(Path(gone) / signature)  # at once, so that nobody finds a part of it

    def _claim(self) -> None:
        """Creates the folder for this user alone: what another could write there would be read as our own."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.folder.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
            expected = f"expected a folder of user {os.getuid()}"
            raise PermissionError(f"{self.folder}: {expected}, found one of user {found.st_uid} or no folder")

    def _fetch(self, home: Path, fetch: Callable[[Path], bool]) -> bool:
        try:
            there = self._fetched(home, fetch)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._remove_unused(0)  # others may have filled the disk, and copies that nobody uses make room
            there = self._fetched(home, fetch)
        if there:
            self._evict()
        return there

    def _fetched(self, home: Path, fetch: Callable[[Path], bool]) -> bool:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=_DRAFT) as name:
            draft = Path(name) / home.name
            draft.mkdir()
            if not fetch(draft):
                return False
            draft.rename(home)
        return True

    def _use(self, stage: str, signature: str) -> Use:
        group = _group(stage, signature)
        use = self._uses.get(group)
        if use is None:
            path = self.folder / ".in-use" / group
            use = self._uses[group] = Use(_open_locked(path, shared=True))
            os.utime(path)
        return use

    def _evict(self) -> None:
        """Removes what need not stay; what it cannot remove, it leaves: the copy that was asked for is there."""
        most = self._asked()
        try:
            self._remove_abandoned()
            self._remove_unused(most)
        except OSError as error:
            log.warning("%s: not every copy that may go was removed: %s", self.folder, error)

    def _remove_abandoned(self) -> None:
        """Removes what killed processes left."""
        for left in self.folder.glob(f"{_DRAFT}*"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    shutil.rmtree(left, ignore_errors=True)

    def _remove_unused(self, most: int | None) -> None:
        """Removes copies until the others keep within the limit."""
        sizes: dict[str, int] = {}
        folders: dict[str, list[Path]] = {}
        for home in self.folder.glob("[!.]*/*"):
            group = _group(home.parent.name, home.name)
            folders.setdefault(group, []).append(home)
            sizes[group] = sizes.get(group, 0) + _size(home)
        taken = sum(sizes.values())
        excess = taken - (self._share(taken) if most is None else most)
        for group in sorted(sizes, key=self._used) if excess > 0 else ():
            with suppress(BlockingIOError), _locked(self.folder / ".in-use" / group, wait=False):
                for home in folders[group]:
                    self.drop(home.parent.name, home.name)
                excess -= sizes[group]
            if excess <= 0:
                return

    def _used(self, group: str) -> float:
        with suppress(FileNotFoundError):
            return (self.folder / ".in-use" / group).stat().st_mtime
        return 0.0

    def _asked(self) -> int | None:
        """The limit that was asked for; None where none was."""
        if self._limit is not None:
            return self._limit
        if said := os.environ.get("LATENT_DEFENSE_CACHE"):
            if said.isdecimal():
                return int(said)
            # no reason to lose what was just built or fetched
            expected = f"expected bytes, such as 20000000000, found {said!r}"
            log.warning("LATENT_DEFENSE_CACHE: %s; half of the disk's room is taken", expected)
        return None

    def _share(self, taken: int) -> int:
        return int(SHARE * (shutil.disk_usage(self.folder).free + taken))


def _size(home: Path) -> int:
    """Bytes of a copy; what another process removes meanwhile has none."""
    size = 0
    with suppress(FileNotFoundError):
        for path in home.iterdir():
            with suppress(FileNotFoundError):
                size += path.stat().st_size
    return size


def _group(stage: str, signature: str) -> str:
    """The name that all parts of an artifact share."""
    return f"{stage}.{signature.partition('-')[0]}"


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    """Holds a lock alone, and removes its file afterwards. Raises BlockingIOError where it cannot without waiting."""
    handle = _open_locked(path, wait=wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _open_locked(path: Path, *, shared: bool = False, wait: bool = True) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not lock(handle, shared=shared, wait=wait):
            os.close(handle)
            raise BlockingIOError(path)
        with suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        os.close(handle)  # it was removed meanwhile, and another may stand in its place
