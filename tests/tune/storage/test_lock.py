"""One driver per experiment, with real second processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tune.storage import lock as lock_module
from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock, LockedError
from tune.storage.patience import patiently

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from tune.storage.lock import ExperimentLock
from tune.storage.folder import Storage
with ExperimentLock(Storage(sys.argv[1]), beat=0.1):
    print("held", flush=True)
    sys.stdin.read()
"""


class Remote(Storage):
    """A folder on this machine that behaves like an object store: no path, no kernel to lock it."""

    @property
    def local(self) -> None:
        """None, as of an object store."""
        return None

    def write(self, name: str, data: bytes) -> None:
        """One put."""
        Storage(self._path).write(name, data)

    def read(self, name: str) -> bytes:
        """One get."""
        return Storage(self._path).read(name)

    def delete(self, name: str) -> None:
        """One delete."""
        Storage(self._path).delete(name)

    @property
    def uri(self) -> str:
        """The path, which stands for an address."""
        return self._path

    def _naming(self, name: str) -> Any:
        return Storage(self._path)._naming(name)


@contextmanager
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def signed(folder: Path, **changes: Any) -> None:
    """Leaves a lock file as a driver elsewhere would have, just now."""
    values = {"host": "elsewhere", "pid": 7, "place": "far", "token": "t", "time": time.time(), **changes}
    Storage(folder).write("driver.lock", lock_module._Holder(**values).model_dump_json().encode())


@pytest.fixture(params=[Storage, Remote], ids=["kernel", "heartbeat"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A folder that the kernel locks, and one where only signs of life tell."""
    folder: Storage = request.param(tmp_path / "search")
    return folder


def quick(storage: Storage) -> ExperimentLock:
    """A lock with a short memory."""
    return ExperimentLock(storage, beat=0.05, patience=0.5)


def test_it_can_be_taken_again_and_again(storage: Storage) -> None:
    for _ in range(2):
        with quick(storage) as held:
            held.check()


def test_a_second_driver_is_refused_with_host_and_process(storage: Storage, tmp_path: Path) -> None:
    with driver(tmp_path / "search") as holder:
        with pytest.raises(LockedError, match="expected no other driver") as refusal, quick(storage):
            pass
        assert refusal.value.pid == holder.pid
        assert refusal.value.host == socket.gethostname()
        assert f"on {socket.gethostname()} with process id {holder.pid}" in str(refusal.value)
        assert str(tmp_path / "search") in str(refusal.value)
        assert holder.poll() is None


def test_refused_within_one_process_too(storage: Storage) -> None:
    with quick(storage):
        with pytest.raises(LockedError) as refusal, quick(storage):
            pass
        assert refusal.value.pid == os.getpid()


def test_a_killed_driver_is_followed_at_once(storage: Storage, tmp_path: Path) -> None:
    with driver(tmp_path / "search") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        begun = time.monotonic()
        with quick(storage):
            assert time.monotonic() - begun < 0.4


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process began")
class TestTheSamePlace:
    """Holders among the processes of this boot and namespace, as a container that starts again finds them."""

    def test_a_process_id_that_was_given_out_again(self, storage: Storage, tmp_path: Path) -> None:
        with driver(tmp_path / "other") as other:
            for pid in (os.getpid(), other.pid):
                signed(tmp_path / "search", host="before", pid=pid, place=lock_module._place(), started=1)
                with quick(storage) as held:
                    held.check()

    def test_a_file_of_an_earlier_version(self, storage: Storage, tmp_path: Path) -> None:
        signed(tmp_path / "search", host="before", pid=os.getpid(), place=lock_module._place())
        path = tmp_path / "search" / "driver.lock"
        path.write_text(path.read_text().replace(',"started":null', ""))
        with quick(storage) as held:
            held.check()

    def test_a_file_of_an_earlier_version_whose_process_runs(self, tmp_path: Path) -> None:
        with driver(tmp_path / "other") as other:
            signed(tmp_path, pid=other.pid, place=lock_module._place(), time=time.time() - 100)
            with pytest.raises(LockedError), quick(Remote(tmp_path)):
                pass

    def test_a_killed_driver_whose_parent_sleeps(self, storage: Storage, tmp_path: Path) -> None:
        with driver(tmp_path / "search") as holder:
            holder.send_signal(signal.SIGKILL)  # and it stays among the processes, as nobody asks for its end
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
            with quick(storage) as held:
                held.check()

    def test_a_driver_that_is_suspended_for_long(self, storage: Storage, tmp_path: Path) -> None:
        with driver(tmp_path / "search") as holder:
            holder.send_signal(signal.SIGSTOP)
            time.sleep(0.6)  # more than the patience of `quick`
            with pytest.raises(LockedError), quick(storage):
                pass


def test_the_kernel_answers_for_another_container(tmp_path: Path) -> None:
    signed(tmp_path, place=f"{lock_module._boot(lock_module._place())}/another")
    begun = time.monotonic()
    with ExperimentLock(Storage(tmp_path), beat=0.05, patience=60) as held:
        held.check()
        assert time.monotonic() - begun < 10


def test_a_container_without_the_same_locks_is_refused_while_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it reaches the folder by a mount of its own that keeps its locks to itself."""
    place, sleep = f"{lock_module._boot(lock_module._place())}/another", time.sleep
    signed(tmp_path, place=place)

    def beat(seconds: float) -> None:
        signed(tmp_path, place=place)
        sleep(seconds)

    monkeypatch.setattr(lock_module.time, "sleep", beat)
    with pytest.raises(LockedError, match="on elsewhere"), quick(Storage(tmp_path)):
        pass


def test_a_driver_that_ended_leaves_no_trace(storage: Storage, tmp_path: Path) -> None:
    with driver(tmp_path / "search") as holder:
        holder.communicate()
        assert holder.returncode == 0
    path = tmp_path / "search" / "driver.lock"
    assert not path.exists() or path.read_bytes() == b""


def test_a_driver_elsewhere_is_refused_while_it_lives(storage: Storage, tmp_path: Path) -> None:
    signed(tmp_path / "search")
    with pytest.raises(LockedError, match="on elsewhere with process id 7") as refusal, quick(storage):
        pass
    assert (refusal.value.host, refusal.value.pid) == ("elsewhere", 7)


@pytest.mark.parametrize("age", [5.0, -5.0], ids=["long ago", "by a fast clock"])
def test_a_silent_driver_elsewhere_is_followed(storage: Storage, tmp_path: Path, age: float) -> None:
    signed(tmp_path / "search", time=time.time() - age)
    with quick(storage):
        assert str(os.getpid()) in (tmp_path / "search" / "driver.lock").read_text()


def test_a_slow_clock_is_no_death(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed(tmp_path / "search", time=time.time() - 100)
    sleep = time.sleep

    def stir(seconds: float) -> None:
        signed(tmp_path / "search", time=time.time() - 99)
        sleep(seconds)

    monkeypatch.setattr(lock_module.time, "sleep", stir)
    with pytest.raises(LockedError, match="on elsewhere"), quick(storage):
        pass


def test_a_process_id_of_another_container_means_nothing(tmp_path: Path) -> None:
    signed(tmp_path, host=socket.gethostname(), pid=2**22 + 1)
    with pytest.raises(LockedError), quick(Remote(tmp_path)):
        pass


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"host": 1}', b"\0" * 200])
def test_half_a_signature_is_none(storage: Storage, damage: bytes) -> None:
    Storage(storage._path).write("driver.lock", damage)
    with quick(storage):
        pass


def test_signs_of_life_go_on(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "search" / "driver.lock"
    with quick(storage):
        first = path.read_text()
        for _ in range(100):
            time.sleep(0.02)
            if path.read_text() != first:
                return
    pytest.fail("no sign of life in two seconds")


def test_a_driver_that_was_given_up_is_told(storage: Storage, tmp_path: Path) -> None:
    with quick(storage) as held:
        signed(tmp_path / "search", host="successor")
        time.sleep(0.3)
        with pytest.raises(LockedError, match="successor"):
            held.check()
    assert "successor" in (tmp_path / "search" / "driver.lock").read_text()


SUSPENDED = """
import sys, time
from tests.tune.storage.test_lock import Remote, quick
from tune.storage.lock import LockedError
with quick(Remote(sys.argv[1])) as held:
    print("held", flush=True)
    while True:
        try:
            held.check()
        except LockedError as error:
            sys.exit(f"stopped: {error}")
        time.sleep(0.001)
"""


def test_a_driver_that_was_suspended_for_too_long_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", SUSPENDED, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=ROOT) as first, ExitStack() as stack:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        first.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(lock_module, "_place", lambda: "another machine")
        time.sleep(0.6)  # more than the patience of `quick`
        try:
            stack.enter_context(second := quick(Remote(tmp_path)))
            first.send_signal(signal.SIGCONT)
            _, said = first.communicate(timeout=60)
            assert first.returncode == 1
            assert f"stopped: {tmp_path}: expected no other driver, found one on" in said
            assert f"process id {os.getpid()}" in said
            second.check()
        finally:
            first.kill()


def test_of_two_at_one_moment_the_last_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rival(seconds: float) -> None:
        signed(tmp_path, host="rival")

    monkeypatch.setattr(lock_module.time, "sleep", rival)
    with pytest.raises(LockedError, match="rival"), quick(Remote(tmp_path)):
        pass
    assert "rival" in (tmp_path / "driver.lock").read_text()


class Silent(Remote):
    """An object store that answers nothing more once it is cut off, and is waited for."""

    cut = False

    @patiently
    def read(self, name: str) -> bytes:
        """One get, where it answers."""
        if self.cut:
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7")
        return super().read(name)

    @patiently
    def delete(self, name: str) -> None:
        """One delete, where it answers."""
        if self.cut:
            raise OSError("AWS Error NETWORK_CONNECTION during DeleteObject operation: curlCode: 7")
        super().delete(name)


def test_the_end_does_not_wait_for_a_storage_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.storage.patience.SHORTEST", 0.05)
    monkeypatch.setattr("tune.storage.patience.LONGEST", 0.05)
    storage = Silent(tmp_path, patience=8.0)
    with quick(storage):
        storage.cut = True
        time.sleep(0.2)  # a beat waits for it
        began = time.monotonic()
    assert time.monotonic() - began < 3


def test_storage_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), quick(Storage(tmp_path / "file")):
        pass
