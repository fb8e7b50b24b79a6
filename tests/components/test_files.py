"""Files are whole or absent, and damage has a name."""

import errno
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from components.files import expanded, lock, plain, read_json, sha256_file, write_atomic, write_json


@pytest.mark.parametrize(("content", "expected"), [(b"\0\xff", b"\0\xff"), ("ε", "ε".encode()), (b"", b"")])
def test_what_is_written_is_read(tmp_path: Path, content: bytes | str, expected: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, b"before")
    write_atomic(path, content)
    assert path.read_bytes() == expected
    assert [other.name for other in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_whom_the_umask_lets_read_can_read_it(tmp_path: Path, umask: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "file", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == expected


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(path, b"after")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"before"
    assert [other.name for other in tmp_path.iterdir()] == ["file"]


def test_a_read_only_disk_is_told_by_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: Path, *_: Any, **__: Any) -> None:  # which unlink says even of a file that is not there
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OSError, match="Read-only") as caught:
        write_atomic(tmp_path / "file", b"1")
    assert caught.value.filename == str(tmp_path / "file")


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"after")
    assert not list(tmp_path.iterdir())


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"λ": [1, 2.5, None, True], "nested": {"a": "b"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "λ" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"psd": number})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe", b"nothing"])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected JSON") as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("file", ["/dev/zero", "pipe"])
def test_a_pipe_or_a_device_is_no_plain_file(tmp_path: Path, file: str) -> None:
    path = tmp_path / file  # which /dev/zero stands for itself in
    if not path.exists():
        os.mkfifo(path)
    with pytest.raises(OSError, match="a pipe or a device"):
        plain(path)
    with pytest.raises(FileNotFoundError):
        plain(tmp_path / "nothing")
    assert plain(tmp_path) == tmp_path


def test_the_home_of_nobody_is_refused() -> None:
    assert expanded("~") == Path.home()
    with pytest.raises(ValueError, match="~nobody-at-all/x: expected the home of a user of this machine"):
        expanded("~nobody-at-all/x")


def test_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_lock_is_held_by_one_or_shared(tmp_path: Path) -> None:
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    assert lock(handles[0])
    assert not lock(handles[1])
    os.close(handles.pop(0))
    assert lock(handles[0], shared=True)
    assert lock(handles[1], shared=True)
    assert not lock(handles[0])
    for handle in handles:
        os.close(handle)


def test_a_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    handle = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="no file locks on this system"):
        lock(handle)
    os.close(handle)
