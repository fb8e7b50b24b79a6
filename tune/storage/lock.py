"""One driver per experiment: two would propose the same trials twice, each blind to the other's."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from components.files import lock
from tune.errors import Refused
from tune.storage.folder import Storage

_ENDED = -1  # in the place of when a process began


class LockedError(Refused):
    """Another driver holds the experiment: on `host`, as process `pid`."""

    def __init__(self, message: str, host: str, pid: int) -> None:
        super().__init__(message)
        self.host = host
        self.pid = pid


class _Holder(BaseModel):
    """The signature of a driver in the lock file."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    place: str  # where the process id means something
    token: str  # of this very lock: process ids return
    time: float  # of the last sign of life, in seconds since 1970 by the holder's clock
    started: int | None = None  # of the process, in ticks since the boot; earlier versions did not sign with it


class ExperimentLock:
    """Held by the one driver of an experiment, while the block runs.

    The file `driver.lock` in the experiment's folder names the holder and the time of its last sign of life.
    On a local disk the kernel holds the lock as well (flock) and lets go of it when the driver dies, by
    kill -9 too, so that the next driver takes over at once. Elsewhere one among the same processes is asked for by
    its id and the time of its start, as a container that starts again gives its ids out again. Where the kernel
    cannot tell (a driver on another machine, or in another container), `patience` seconds without a sign of life
    mean death.

    Args:
        storage: the experiment's folder; it is waited for with its patience, but not at the end of the block.
        beat: seconds between signs of life.
        patience: seconds without one after which a holder elsewhere is given up; must outlast lost requests.
    """

    file = "driver.lock"
    holders = "driver"  # of whom there is one at a time

    def __init__(self, storage: Storage, *, beat: float = 10.0, patience: float = 60.0) -> None:
        self._storage = storage
        self._beat = beat
        self._patience = patience
        self._token = uuid.uuid4().hex
        self._handle: int | None = None  # of the locked file, where the kernel locks
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._successor: _Holder | None = None
        self._signed = time.time()

    def __enter__(self) -> ExperimentLock:
        """Takes the lock, or that of a dead driver.

        Raises:
            LockedError: another driver is alive.
            OSError: the storage cannot be written.
        """
        try:
            self._claim()
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._keep_alive, name="experiment-lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._storage.patience = 0.0  # else the last beat and the erasing would wait for a storage that is gone
        if self._thread is not None:
            self._thread.join()
        with suppress(OSError):  # the work is done; the record goes stale by itself
            self._erase()
        self._release()

    def check(self) -> None:
        """Raises LockedError if another driver has taken over, having seen no sign of life for too long.

        Cheap enough to be called often; a driver does so before whatever it starts.
        """
        if abs(time.time() - self._signed) > 2 * self._beat:  # this process was suspended, and its thread too
            self._check_holder()
        if self._successor is not None:
            raise self._refusal(self._successor)

    def holder(self) -> LockedError | None:
        """Looks who holds it, without taking it: the refusal that whoever takes it would meet; None where it is free.

        Raises:
            OSError: the storage cannot be read.
        """
        holder = self._holder()
        return None if holder is None or self._is_dead(holder, free=False) else self._refusal(holder)

    def _claim(self) -> None:
        folder = self._storage.local
        free = folder is not None and self._flock(folder / self.file)
        holder = self._holder()
        if holder is not None and not self._is_dead(holder, free):
            raise self._refusal(holder)
        self._sign()
        if not free:
            self._wait_for_rivals()

    def _flock(self, path: Path) -> bool:
        """Takes the kernel's lock (flock); False where the file system has none.

        Raises:
            LockedError: the kernel says that its holder is alive.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # as the umask says
        try:
            free = lock(self._handle)
        except OSError:  # NFS or FUSE without locks
            os.close(self._handle)
            self._handle = None
            return False
        if not free:
            raise self._refusal(self._holder_soon())
        return True

    def _wait_for_rivals(self) -> None:
        """An object store lets two drivers sign at one moment: the last signature stands."""
        time.sleep(min(1.0, self._beat))
        holder = self._holder()
        if holder is not None and holder.token != self._token:
            raise self._refusal(holder)

    def _is_dead(self, holder: _Holder, free: bool) -> bool:
        if free and holder.host == socket.gethostname():
            return True  # the kernel has let go of its lock
        if holder.place == _place() and not (free and holder.started is None):
            return not _runs(holder)
        # of another container of this machine, too; but its mounts may differ from ours, and then its locks
        let_go = free and _boot(holder.place) == _boot(_place())
        silent = abs(time.time() - holder.time) > self._patience
        return (let_go or silent) and not self._shows_life(holder)

    def _shows_life(self, holder: _Holder) -> bool:
        """True where the holder signs again within two heartbeats; its clock may differ from ours."""
        time.sleep(2 * self._beat)
        return self._holder() not in (None, holder)

    def _holder(self) -> _Holder | None:
        """The signature in the file; None where there is none, or half of one."""
        try:
            return _Holder.model_validate_json(self._storage.read(self.file))
        except (FileNotFoundError, ValidationError):
            return None

    def _holder_soon(self) -> _Holder:
        """The signature of a driver that the kernel says is alive, which may be about to sign."""
        for _ in range(20):
            if holder := self._holder():
                return holder
            time.sleep(0.05)
        return _Holder(host="an unknown host", pid=0, place="", token="", time=time.time())

    def _sign(self) -> None:
        signature = _Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            place=_place(),
            token=self._token,
            time=time.time(),
            started=_started(os.getpid()),
        )
        data = signature.model_dump_json().encode()
        self._signed = signature.time
        if self._handle is None:
            self._storage.write(self.file, data)
        else:  # in place: a file moved over the locked one would not be locked
            os.pwrite(self._handle, data.ljust(os.fstat(self._handle).st_size), 0)
            os.fsync(self._handle)  # other machines on NFS see it only then

    def _erase(self) -> None:
        if self._successor is not None:
            return
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
        else:
            self._storage.delete(self.file)

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _keep_alive(self) -> None:
        while not self._stop.wait(self._beat):
            with suppress(OSError):  # a lost request; the next beat may reach the storage
                self._check_holder()
                if self._successor is not None:
                    return
                self._sign()

    def _check_holder(self) -> None:
        holder = self._holder()
        if holder is not None and holder.token != self._token:
            self._successor = holder

    def _refusal(self, holder: _Holder) -> LockedError:
        seen = datetime.fromtimestamp(holder.time, UTC).astimezone()
        return LockedError(
            f"{self._storage.uri}: expected no other {self.holders}, found one on {holder.host} with process id "
            f"{holder.pid}, last seen {seen:%Y-%m-%d %H:%M:%S %Z}; stop it first (a dead one is given up "
            f"{self._patience:g} s after it was last seen)",
            host=holder.host,
            pid=holder.pid,
        )


def _place() -> str:
    """Names this boot and process namespace: containers may share a host's name and not its processes."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return uuid.uuid4().hex  # equal to no other place, so that only time tells


def _boot(place: str) -> str:
    """The kernel of a place, which all containers of a machine share."""
    return place.partition("/")[0]


def _runs(holder: _Holder) -> bool:
    """Tells whether the process of a holder in this place is there still, and not another with its process id."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # of another user
    started = _started(holder.pid)
    unsigned = holder.started is None and holder.pid != os.getpid()  # which would have signed with it
    cannot_tell = started is None or (unsigned and started != _ENDED)
    return cannot_tell or holder.started == started


def _started(pid: int) -> int | None:
    """The time at which a process began, in ticks since the boot; None where that cannot be told."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = line.rpartition(")")[2].split()  # before it the program's name, with whatever is in it
        return _ENDED if state in "ZX" else int(numbers[18])  # killed, but its parent has not asked for its end yet
    except (OSError, ValueError, IndexError):
        return None
