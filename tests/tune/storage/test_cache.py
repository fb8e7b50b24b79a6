"""Copies of a node: one process fetches, none loses what it uses, and all of them end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.files import sha256_file
from tune.storage.cache import Cache
from tune.storage.folder import Storage
from tune.storage.store import Store

ROOT = Path(__file__).parents[3]
SIGNATURE = "a" * 20
STUCK = """
import sys, time
from pathlib import Path
from tune.storage.cache import Cache
def fetch(folder):
    (folder / "half").write_bytes(b"half")
    print("fetching", flush=True)
    time.sleep(60)
Cache(Path(sys.argv[1])).get("gan", "a", fetch)
"""


def fetching(folder: Path, size: int = 100) -> bool:
    (folder / "weights").write_bytes(b"w" * size)
    return True


def test_a_node_fetches_once(tmp_path: Path) -> None:
    fetched: Counter[str] = Counter()
    together = threading.Barrier(8)

    def fetch(folder: Path) -> bool:
        fetched["gan"] += 1
        return fetching(folder)

    def process(number: int) -> bytes:
        together.wait(10)
        copy = Cache(tmp_path).get("gan", "a", fetch)
        assert copy is not None
        return (copy[0] / "weights").read_bytes()

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(process, range(8))) == {b"w" * 100}
    assert fetched["gan"] == 1


def test_there_may_be_nothing_to_fetch(tmp_path: Path) -> None:
    assert Cache(tmp_path).get("gan", "a", lambda folder: False) is None
    assert Cache(tmp_path).get("gan", "a", fetching) is not None


def test_copies_that_another_user_could_change_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="link: expected a folder of user"):
        Cache(tmp_path / "link").get("gan", "a", fetching)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(PermissionError, match="expected a folder of user"):
        Cache(tmp_path).get("gan", "a", fetching)


def test_a_size_that_is_none_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LATENT_DEFENSE_CACHE", "10GB")
    assert Cache(tmp_path).get("gan", "a", fetching) is not None
    assert "LATENT_DEFENSE_CACHE: expected bytes, such as 20000000000, found '10GB'" in caplog.text


def test_copies_that_nobody_uses_make_room_on_a_full_disk(tmp_path: Path) -> None:
    cache, full = Cache(tmp_path, limit=10**9), [True]
    assert cache.get("gan", "old", fetching) is not None
    used = cache.get("gan", "used", fetching)

    def filling(folder: Path) -> bool:
        if (tmp_path / "gan" / "old").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        full.clear()
        return fetching(folder)

    assert cache.get("unet", "new", filling) is not None
    assert {path.name for path in tmp_path.glob("[!.]*/*")} == {"used", "new"}
    assert used is not None
    assert not full


def test_who_is_killed_while_it_fetches_is_replaced(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "fetching\n"
    finally:
        holder.kill()
        holder.wait()
    (left,) = tmp_path.glob(".draft-*")
    copy = Cache(tmp_path).get("gan", "a", fetching)
    assert copy is not None
    assert [path.name for path in copy[0].iterdir()] == ["weights"]
    os.utime(left, (0, 0))
    assert Cache(tmp_path).get("gan", "b", fetching) is not None
    assert not left.exists()


def test_the_longest_unused_goes_and_nothing_in_use(tmp_path: Path) -> None:
    others, cache = Cache(tmp_path, limit=250), Cache(tmp_path, limit=250)
    used = others.get("projection", "a-000", fetching)  # its other parts are kept, too
    assert cache.get("projection", "a-001", fetching) is not None
    assert cache.get("gan", "b", fetching) is not None
    assert {path.name for path in tmp_path.glob("[!.]*/*")} == {"a-000", "a-001", "b"}  # all of them in use
    assert used is not None
    assert cache.get("unet", "c", lambda folder: fetching(folder, 10)) is not None
    assert {path.name for path in tmp_path.glob("[!.]*/*")} == {"a-000", "a-001", "c"}
    del used
    assert cache.get("unet", "d", fetching) is not None
    assert {path.name for path in tmp_path.glob("[!.]*/*")} == {"c", "d"}


def test_two_may_evict_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list of the copies and a look into them another process removes one."""
    cache, find = Cache(tmp_path, limit=150), Path.glob
    assert cache.get("gan", "a", fetching) is not None

    def found(folder: Path, pattern: str) -> list[Path]:
        homes = list(find(folder, pattern))
        if tmp_path / "gan/a" in homes:
            Cache(tmp_path).drop("gan", "a")
        return homes

    monkeypatch.setattr(Path, "glob", found)
    assert cache.get("gan", "b", fetching) is not None
    assert {path.name for path in find(tmp_path, "[!.]*/*")} == {"b"}


def test_a_copy_is_there_where_others_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(f"{folder}: stale file handle")

    monkeypatch.setattr("shutil.disk_usage", fail)
    monkeypatch.delenv("LATENT_DEFENSE_CACHE", raising=False)
    assert Cache(tmp_path).get("gan", "a", fetching) is not None
    assert "not every copy that may go was removed" in caplog.text


@pytest.fixture
def store(tmp_path: Path, bucket: str) -> Store:
    """A store on an object store, with one artifact."""
    store = Store(Storage(bucket).child(tmp_path.name), tmp_path / "cache")
    with store.draft("gan", SIGNATURE) as draft:
        save_file({"w": torch.ones(1000)}, draft.folder / "w.safetensors")
    return store


def test_a_builder_fetches_nothing_and_others_once(tmp_path: Path, store: Store) -> None:
    away = Store(store.storage, tmp_path / "away").find("gan", SIGNATURE)
    store.storage.remove_tree()
    artifact, again = store.find("gan", SIGNATURE), Store(store.storage, tmp_path / "away").find("gan", SIGNATURE)
    assert artifact is not None
    assert away is not None
    assert again is not None
    assert artifact.manifest == away.manifest == again.manifest
    assert torch.equal(load_file(again.folder / "w.safetensors")["w"], torch.ones(1000))


def test_what_is_fetched_is_hashed_once(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr("tune.storage.store.sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    assert Store(store.storage, tmp_path / "away").find("gan", SIGNATURE) is not None
    assert hashed == ["w.safetensors"]
    assert Store(store.storage, tmp_path / "away").find("gan", SIGNATURE) is not None  # of another process
    assert hashed == ["w.safetensors"] * 2


def test_a_damaged_copy_is_fetched_again(tmp_path: Path, store: Store) -> None:
    (copy,) = (tmp_path / "cache").glob(f"gan.*/{SIGNATURE}/w.safetensors")
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1])
    artifact = Store(store.storage, tmp_path / "cache").find("gan", SIGNATURE)
    assert artifact is not None
    assert copy.read_bytes() == whole


def test_a_copy_of_what_another_removed_is_none(tmp_path: Path, store: Store) -> None:
    Store(store.storage, tmp_path / "elsewhere").remove("gan", SIGNATURE)
    (copy,) = (tmp_path / "cache").glob(f"gan.*/{SIGNATURE}")
    assert Store(store.storage, tmp_path / "cache").find("gan", SIGNATURE) is not None  # it was there a moment ago
    os.utime(copy, (0, 0))
    assert Store(store.storage, tmp_path / "cache").find("gan", SIGNATURE) is None


def test_a_copy_of_what_was_built_again_is_fetched_again(tmp_path: Path, store: Store) -> None:
    other = Store(store.storage, tmp_path / "elsewhere")
    other.remove("gan", SIGNATURE)
    with other.draft("gan", SIGNATURE) as draft:
        save_file({"w": torch.zeros(1000)}, draft.folder / "w.safetensors")
    (copy,) = (tmp_path / "cache").glob(f"gan.*/{SIGNATURE}")
    os.utime(copy, (0, 0))
    artifact = Store(store.storage, tmp_path / "cache").find("gan", SIGNATURE)
    assert artifact is not None
    assert torch.equal(load_file(artifact.folder / "w.safetensors")["w"], torch.zeros(1000))


def test_of_two_builders_the_first_to_end_stays(tmp_path: Path, store: Store) -> None:
    with Store(store.storage, tmp_path / "elsewhere").draft("gan", SIGNATURE) as draft:
        save_file({"w": torch.zeros(1000)}, draft.folder / "w.safetensors")
    for cache in ("elsewhere", "third"):
        artifact = Store(store.storage, tmp_path / cache).find("gan", SIGNATURE)
        assert artifact is not None
        assert torch.equal(load_file(artifact.folder / "w.safetensors")["w"], torch.ones(1000))


def test_another_storage_has_its_own_copies(tmp_path: Path, store: Store, bucket: str) -> None:
    other = Store(Storage(bucket).child(f"{tmp_path.name}-other"), tmp_path / "cache")
    assert other.find("gan", SIGNATURE) is None


def test_what_is_removed_has_no_copy(tmp_path: Path, store: Store) -> None:
    store.remove("gan", SIGNATURE)
    assert Store(store.storage, tmp_path / "cache").find("gan", SIGNATURE) is None
    assert store.find("gan", SIGNATURE) is None
