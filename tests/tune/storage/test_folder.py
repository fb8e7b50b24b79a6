"""A folder that behaves the same on a local disk and in an object store."""

import errno
import os
import pickle
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from tune.storage import folder
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.outage import outage
from tune.storage.patience import LONGEST


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty folder, on each kind of storage."""
    if request.param == "local":
        return Storage(tmp_path / "search")
    folder = Storage(request.getfixturevalue("bucket")).child(request.node.originalname)
    assert folder.local is None
    return folder


def test_a_folder_that_is_not_there_is_empty(storage: Storage) -> None:
    assert storage.names() == []
    assert storage.folders() == []
    assert not storage.exists("a.json")
    storage.delete("a.json")
    storage.remove_tree()


def test_what_is_written_is_read_and_can_be_replaced(storage: Storage) -> None:
    storage.write("b.json", b"first")
    storage.write("a.json", b"")
    storage.write("b.json", b"second")
    assert storage.read("b.json") == b"second"
    assert storage.read("a.json") == b""
    assert storage.names() == ["a.json", "b.json"]
    assert storage.exists("b.json")


def test_a_missing_file_is_named(storage: Storage, tmp_path: Path) -> None:
    for use in (storage.read, lambda name: storage.download(name, tmp_path / "copy")):
        with pytest.raises(FileNotFoundError, match=r"search.*gone\.json"):
            use("gone.json")
    assert not (tmp_path / "copy").exists()


def test_folders_are_apart_from_files(storage: Storage) -> None:
    storage.child("trials").write("000.json", b"{}")
    storage.child("trials").child("more").write("001.json", b"{}")
    storage.write("best/choice.json", b"{}")
    storage.write("space.yaml", b"")
    assert storage.folders() == ["best", "trials"]
    assert storage.names() == ["space.yaml"]
    assert storage.child("trials").names() == ["000.json"]
    assert storage.child("best").read("choice.json") == b"{}"
    assert not storage.exists("trials")


def test_only_the_named_file_or_tree_goes(storage: Storage) -> None:
    for name in ("kept/a", "gone/a", "gone/deep/b", "c", "d"):
        storage.write(name, b"x")
    storage.delete("c")
    storage.child("gone").remove_tree()
    assert storage.names() == ["d"]
    assert "gone" not in storage.folders()
    assert storage.child("kept").names() == ["a"]


def test_create_never_replaces(storage: Storage) -> None:
    assert storage.create("a/x.json", b"first")
    assert not storage.create("a/x.json", b"second")
    assert storage.read("a/x.json") == b"first"
    assert storage.child("a").names() == ["x.json"]


def test_large_files_go_up_and_come_down_whole(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 11
    (tmp_path / "source").write_bytes(data)
    storage.upload(tmp_path / "source", "model/weights.bin")
    storage.download("model/weights.bin", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_missing_source_is_blamed_on_the_source(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        storage.upload(tmp_path / "nothing_here", "a")
    assert not storage.exists("a")


def test_another_process_opens_the_same_folder(storage: Storage) -> None:
    storage.write("a", b"1")
    for again in (Storage(storage.uri), pickle.loads(pickle.dumps(storage)), Storage(storage)):
        assert again == storage
        assert again.read("a") == b"1"
    assert Storage(storage.child("trials").uri) == storage.child("trials")


def test_names_of_spaces_and_signs(storage: Storage) -> None:
    folder = storage.child("my search, 50% #1?")
    folder.write("a b.json", b"1")
    assert Storage(folder.uri).names() == ["a b.json"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b"])
def test_names_stay_inside(storage: Storage, name: str) -> None:
    with pytest.raises(ValueError, match="expected a file or folder inside"):
        storage.read(name)


def test_local_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("results").local == tmp_path / "results"
    assert Storage(tmp_path.as_uri()).child("a").local == tmp_path / "a"
    assert Storage(tmp_path.as_uri()) == Storage(tmp_path)
    assert not (tmp_path / "results").exists()


def test_keys_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as refusal:
        Storage("s3://AKIA123:topsecret@results/search")
    assert "topsecret" not in str(refusal.value)
    assert "AKIA123" not in str(refusal.value)


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a folder or an address like s3://bucket/folder, found ftp://x/y"):
        Storage("ftp://x/y")


@pytest.mark.parametrize("address", ["s3://", "s3:/bucket/x", "s3:bucket", "gs://", "S3:/bucket"])
def test_an_address_without_its_bucket_is_no_folder(address: str) -> None:
    with pytest.raises(ValueError, match=r"storage: expected a bucket, as in (s3|gs)://bucket/folder, found"):
        Storage(address)


def test_the_server_of_the_environment_is_part_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = Storage("s3://results/search/")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert "127.0.0.1" in storage.child("trials").uri
    assert Storage(storage.uri) == storage
    assert storage.child("trials").uri.startswith("s3://results/search/trials?")


@pytest.mark.parametrize("folder", ["/here", "s3://bucket?region=eu-west-1", "s3://bucket/a%20b?region=eu-west-1"])
def test_a_folder_lies_in_its_parent(folder: str) -> None:
    outer = Storage(folder)
    inner = outer.child("one of them")
    assert (inner.name, inner.parent) == ("one of them", outer)
    assert (inner.parent.uri, inner.parent.child("two").place) == (outer.uri, outer.child("two").place)


def test_links_do_not_make_another_place(tmp_path: Path) -> None:
    (tmp_path / "real/store").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real/store")
    linked, real = Storage(tmp_path / "link"), Storage(tmp_path / "real/store")
    assert (linked.place, linked.name, linked.parent) == (real.place, "store", Storage(tmp_path / "real"))


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    storage = Storage(bucket.replace("/results/", "/nobodys/"))
    with pytest.raises(OSError, match=r"s3://nobodys/search/a\.json.*bucket does not exist"):
        storage.write("a.json", b"1")


@pytest.mark.slow
def test_a_listing_of_more_than_one_page(bucket: str) -> None:
    storage = Storage(bucket).child("many")
    for number in range(1005):
        storage.write(f"{number:04d}.json", b"{}")
    assert storage.names() == [f"{number:04d}.json" for number in range(1005)]


def test_of_many_writers_one_creates(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    start, won = threading.Barrier(8), []

    def write(number: int) -> None:
        start.wait()
        if storage.create("one", f"{number}".encode() * 100_000):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert storage.read("one") == f"{won[0]}".encode() * 100_000
    assert os.listdir(tmp_path) == ["one"]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    contents = {bytes([letter]) * 200_000 for letter in b"abc"}
    storage.write("file", min(contents))
    done = threading.Event()

    def replace() -> None:
        while not done.is_set():
            for content in contents:
                storage.write("file", content)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        assert all(storage.read("file") in contents for _ in range(200))
    finally:
        done.set()
        writer.join()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_named_and_what_was_there_stays(small_disk: Path, tmp_path: Path) -> None:
    storage = Storage(small_disk)
    storage.write("a.json", b"first")
    large = tmp_path / "large"
    large.write_bytes(bytes(100_000))
    full = (
        lambda: storage.write("a.json", bytes(100_000)),
        lambda: storage.create("b.json", bytes(100_000)),
        lambda: storage.upload(large, "a.json"),
        lambda: Storage(tmp_path).download("large", small_disk / "a.json"),
    )
    for fill in full:
        with pytest.raises(OSError, match=r"No space left on device: .*small/[ab]\.json") as error:
            fill()
        assert error.value.errno == errno.ENOSPC
        assert storage.read("a.json") == b"first"
        assert os.listdir(small_disk) == ["a.json"]
    storage.write("a.json", b"second")
    assert storage.read("a.json") == b"second"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"a\.json"):
        Storage(tmp_path).write("a.json", b"1")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "trials").write_text("")
    with pytest.raises(OSError, match="trials"):
        Storage(tmp_path).child("trials").write("a.json", b"1")


def test_drafts_of_killed_writers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    folder = Storage(tmp_path)
    writer = """
import os, sys
from tune.storage.folder import Storage
os.link = os.replace = lambda *places: os.kill(os.getpid(), 9)  # just before the file gets its name
getattr(Storage(sys.argv[1]), sys.argv[2])("old.json", b"x")
"""
    for kind in ("write", "create"):
        subprocess.run([sys.executable, "-c", writer, str(tmp_path), kind], cwd=Path(__file__).parents[3])
    drafts = list(tmp_path.iterdir())
    assert len(drafts) == 2
    assert folder.names() == []
    folder.sweep()
    assert list(tmp_path.iterdir()) == drafts  # their writers may be alive
    for name in ("old.json", "kept.json"):
        folder.write(name, b"y")
    for path in (*drafts, tmp_path / "kept.json"):
        os.utime(path, (1e9, 1e9))
    folder.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.json", "old.json"]
    Storage(tmp_path / "nothing").sweep()


def test_a_store_that_does_not_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []
    monkeypatch.setattr("tune.storage.patience.time.monotonic", lambda: now[0])
    monkeypatch.setattr("tune.storage.patience.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def unreachable(storage: Storage, name: str) -> Any:
        asked.append(now[0])
        raise OSError("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate.")

    monkeypatch.setattr(Storage, "reading", unreachable)
    with pytest.raises(OSError, match="SLOW_DOWN"):
        Storage(tmp_path, patience=60.0).child("a").read("b")
    assert 60 <= asked[-1] < 60 + 1.5 * LONGEST
    assert 5 < len(asked) < 20
    asked.clear()
    with pytest.raises(OSError, match="SLOW_DOWN"):  # before a search begins, somebody waits for the answer
        Storage(tmp_path).read("b")
    assert len(asked) == 1


@pytest.mark.parametrize("kind", [errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ENOLCK])
def test_a_file_server_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    monkeypatch.setattr("tune.storage.patience.time.sleep", lambda seconds: None)
    failures = [3]

    def silent(of: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            failures[0] -= 1
            if failures[0] >= 0:
                raise OSError(kind, os.strerror(kind))
            return of(*arguments)

        return answer

    monkeypatch.setattr(folder, "write_atomic", silent(folder.write_atomic))
    monkeypatch.setattr(FileLeases, "_acquire", silent(FileLeases._acquire))
    Storage(tmp_path, patience=60.0).write("a", b"1")
    failures[0] = 3
    assert FileLeases(tmp_path, patience=60.0).acquire(["key"]) == "key"
    failures[0] = 1
    with pytest.raises(OSError, match=os.strerror(kind)) as caught:
        Storage(tmp_path).write("a", b"1")
    assert outage(caught.value)  # no trial's own failure


def test_the_region_of_a_bucket_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.storage.patience.time.sleep", lambda seconds: None)
    said = "When resolving region for bucket 'results': AWS Error NETWORK_CONNECTION during HeadBucket operation"
    answers = iter([OSError(said), OSError(said), (fs.LocalFileSystem(), "results")])

    def from_uri(uri: str) -> Any:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("tune.storage.address.fs.FileSystem", SimpleNamespace(from_uri=from_uri))
    assert Storage("s3://results", patience=60.0)._path == "results"


def test_what_does_not_pass_is_raised_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Storage(tmp_path, patience=60.0).read("gone")


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_whom_the_umask_lets_read_can_read_what_is_stored(tmp_path: Path, umask: int, expected: int) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    before = os.umask(umask)
    try:
        Storage(tmp_path / "results").upload(tmp_path / "source", "copy")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "results/copy").stat().st_mode) == expected
