"""A minute without the storage, by the clock, in the midst of 32 trials that wait for what one builds."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.datasets.dataset import Dataset
from tests.tune.line_to_server import LineToServer
from tests.tune.pipeline.waiting_trials import WAITING, Waiting
from tests.tune.tiny_search import PATIENCE
from tune.storage import folder
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 * PATIENCE)]

SECONDS = 60.0
FIRST_LOOK = 5.0  # seconds, after which a trial looks into the store although it was told nothing


def check(search: Waiting) -> None:
    """Runs the trials, whose GAN is built once and none of which fails."""
    began = time.monotonic()
    assert sorted(search.run()) == [0] + [1] * WAITING
    assert time.monotonic() - began > SECONDS
    assert search.built["gan"] == 1
    print(f"\n{time.monotonic() - began:.0f} s in all, of them {SECONDS:.0f} without the storage")


def for_a_minute(cut: Callable[[], None], mend: Callable[[], None]) -> Callable[[], None]:
    """Cuts something now, and mends it after a minute."""

    def interrupt() -> None:
        cut()
        threading.Timer(SECONDS, mend).start()

    return interrupt


def tried_again(caplog: pytest.LogCaptureFixture) -> int:
    return sum("trying again" in record.getMessage() for record in caplog.records)


def test_an_object_store_that_is_out_of_reach(
    bucket: str, tmp_path: Path, tiny_dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server's own
    port = bucket.rpartition(":")[2]
    line = LineToServer("127.0.0.1", int(port))
    try:
        place = Storage(bucket.replace(port, f"{line.port}"), patience=600.0)
        check(Waiting(place, tiny_dataset, tmp_path, for_a_minute(line.cut, line.mend), FIRST_LOOK))
    finally:
        line.close()
    assert tried_again(caplog) > WAITING


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be frozen."""
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, place]):
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a file system takes root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_file_system_that_hangs(disk: Path, tmp_path: Path, tiny_dataset: Dataset) -> None:
    """As one on NFS does whose server is gone: whoever writes, or asks for a lease, stands still until it is back."""

    def freeze() -> None:
        subprocess.run(["fsfreeze", "-f", disk], check=True)
        subprocess.Popen(["sh", "-c", f"sleep {SECONDS}; fsfreeze -u '{disk}'"], start_new_session=True)

    check(Waiting(Storage(disk / "results", patience=600.0), tiny_dataset, tmp_path, freeze, by_files=True))


def test_a_file_server_that_forgot_us(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every request and every lease is refused for a minute, as by NFS with `soft`, or by a bucket that is mounted."""
    caplog.set_level(logging.WARNING)
    gone = threading.Event()

    def refuse(of: Any, name: str) -> None:
        original = getattr(of, name)

        def refusing(*arguments: Any, **options: Any) -> Any:
            if gone.is_set():
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return original(*arguments, **options)

        monkeypatch.setattr(of, name, refusing)

    for name in ("write_atomic", "names_in"):
        refuse(folder, name)
    refuse(Storage, "reading")
    refuse(FileLeases, "_acquire")
    place = Storage(tmp_path / "results", patience=600.0)
    check(Waiting(place, tiny_dataset, tmp_path, for_a_minute(gone.set, gone.clear), by_files=True))
    assert tried_again(caplog) > WAITING
