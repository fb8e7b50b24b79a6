"""Artifacts between storages: what arrives is what was sent, or nothing does."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune.errors import Refused
from tune.storage.care.tar_export import export
from tune.storage.care.tar_import import opened, put
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.manifest import hash_of
from tune.storage.store import Store

Members = list[tuple[tarfile.TarInfo, bytes]]


NAMES = [("gan", "aa"), ("projection", "bb-000"), ("projection", "bb-001")]


def filled(place: Storage, cache: Path) -> Storage:
    for stage, folder in NAMES:
        with Store(place, cache).draft(stage, folder) as draft:
            (draft.folder / "weights.bin").write_bytes(folder.encode() * 100)
            (draft.folder / "history.json").write_bytes(b"[]")
    return place


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return filled(Storage(tmp_path / "store"), tmp_path / "cache")


def quiet(*_: Any) -> None:
    """Takes the progress."""


def imported(file: Path, target: Storage) -> list[str]:
    with opened(file, quiet) as contents:
        return [one.folder for one in put(target, contents.artifacts, contents, quiet)]


def files(place: Storage) -> dict[str, bytes]:
    found = {}
    for stage in place.folders():
        for folder in place.child(stage).folders():
            home = place.child(stage).child(folder)
            found |= {f"{stage}/{folder}/{name}": home.read(name) for name in home.names()}
    return found


def test_what_is_exported_arrives_to_the_byte(store: Storage, tmp_path: Path) -> None:
    assert export(store, NAMES, tmp_path / "all.tar", quiet) == []
    target = Storage(tmp_path / "target" / "store")
    assert imported(tmp_path / "all.tar", target) == []
    assert files(target) == files(store)
    assert len(files(target)) == 9
    assert imported(tmp_path / "all.tar", store) == []  # what is there stays as it is
    assert files(target) == files(store)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


def test_what_can_be_gone_on_from_arrives_too(store: Storage, tmp_path: Path) -> None:
    Store(store).relate("projection", "base", "bb", {"restarts": [1, 2], "steps": [4]})
    Store(store).relate("projection", "base", "cc", {"restarts": [1], "steps": [4]})
    export(store, NAMES, tmp_path / "all.tar", quiet)
    imported(tmp_path / "all.tar", Storage(tmp_path / "target"))
    assert Store(Storage(tmp_path / "target")).relatives("projection", "base") == {
        "bb": {"restarts": [1, 2], "steps": [4]}
    }


@pytest.mark.slow
def test_an_object_store_is_a_storage_too(bucket: str, tmp_path: Path) -> None:
    store = filled(Storage(bucket).child("export").child("store"), tmp_path / "cache")
    assert export(store, NAMES, tmp_path / "all.tar", quiet) == []
    target = Storage(bucket).child("import").child("store")
    assert imported(tmp_path / "all.tar", target) == []
    assert files(target) == files(store)
    assert len(files(target)) == 9


def test_damage_is_left_out_and_named(store: Storage, tmp_path: Path) -> None:
    store.child("gan").child("aa").write("weights.bin", b"torn")
    (line,) = export(store, NAMES, tmp_path / "all.tar", quiet)
    assert line.startswith("gan/aa: weights.bin: expected sha256")
    target = Storage(tmp_path / "target")
    imported(tmp_path / "all.tar", target)
    assert target.folders() == ["projection"]


def test_an_export_reads_every_file_once(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, expected = list[str](), sorted(f"{store.uri}/{name}" for name in files(store))
    opened_file = Storage.reading

    def counted(storage: Storage, name: str) -> Any:
        read.append(f"{storage.uri}/{name}")
        return opened_file(storage, name)

    monkeypatch.setattr(Storage, "reading", counted)
    export(store, NAMES, tmp_path / "all.tar", quiet)
    assert sorted(read) == expected


def test_an_export_replaces_nothing(store: Storage, tmp_path: Path) -> None:
    (tmp_path / "all.tar").write_bytes(b"mine")
    with pytest.raises(Refused, match=r"--export: expected a file that is not there yet, found .*all\.tar"):
        export(store, NAMES, tmp_path / "all.tar", quiet)
    with pytest.raises(Refused, match="--export: expected a file in a folder that is there"):
        export(store, NAMES, tmp_path / "none" / "all.tar", quiet)
    assert (tmp_path / "all.tar").read_bytes() == b"mine"


def test_an_export_that_fails_leaves_no_file(store: Storage, tmp_path: Path) -> None:
    def fail(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(store, NAMES, tmp_path / "all.tar", fail)
    assert not list(tmp_path.glob("*.tar")) + list(tmp_path.glob(".*.part"))


def test_an_import_that_fails_leaves_whole_artifacts(store: Storage, tmp_path: Path) -> None:
    export(store, NAMES, tmp_path / "all.tar", quiet)
    target = Storage(tmp_path / "target")

    def fail(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with opened(tmp_path / "all.tar", quiet) as contents, pytest.raises(KeyboardInterrupt):
        put(target, contents.artifacts, contents, fail)
    assert {name.rpartition("/")[0] for name in files(target)} == {"gan/aa", "projection/bb-000"}
    imported(tmp_path / "all.tar", target)
    assert files(target) == files(store)


def test_what_a_search_builds_at_this_moment_is_left_to_it(store: Storage, tmp_path: Path) -> None:
    export(store, NAMES, tmp_path / "all.tar", quiet)
    leases = FileLeases(tmp_path / "target" / ".leases")
    assert leases.acquire(["aa"])
    assert imported(tmp_path / "all.tar", Storage(tmp_path / "target")) == ["aa"]
    leases.release("aa")
    assert Storage(tmp_path / "target").folders() == ["projection"]


@pytest.fixture
def members(tmp_path: Path) -> Members:
    """The members of a good export of one artifact, to be made worse."""
    place = Storage(tmp_path / "good")
    with Store(place).draft("gan", "aa") as draft:
        (draft.folder / "a").write_bytes(b"a" * 1000)
        (draft.folder / "b").write_bytes(b"")
    export(place, [("gan", "aa")], tmp_path / "good.tar", quiet)
    with tarfile.open(tmp_path / "good.tar") as tar:
        return [(member, stream.read()) for member in tar if (stream := tar.extractfile(member))]


def packed_again(members: Members, file: Path) -> Path:
    with tarfile.open(file, "w") as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return file


def named(name: str, **changes: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def renamed(members: Members, change: Callable[[str], str]) -> Members:
    return [(named(change(member.name)), data) for member, data in members]


def with_file(members: Members, name: str) -> Members:
    """The manifest names a file of that name, and all hashes are right."""
    manifest = json.loads(members[0][1])
    manifest["files"][name] = hashlib.sha256(b"x").hexdigest()
    del manifest["sha256"]
    data = json.dumps(manifest).encode()
    index = {"format": "latent-defense store 1", "artifacts": {"gan/aa": hashlib.sha256(data).hexdigest()}}
    added = (named(f"gan/aa/{name}"), b"x")
    return [(named("gan/aa/manifest.json"), data), *members[1:-1], added, (members[-1][0], json.dumps(index).encode())]


def note(name: str, facts: dict[str, Any]) -> tuple[tarfile.TarInfo, bytes]:
    return named(name), json.dumps({**facts, "sha256": hash_of(facts)}).encode()


HOSTILE: dict[str, Callable[[Members], Members]] = {
    "empty": lambda m: [],
    "no list": lambda m: m[:-1],
    "list alone missing a file": lambda m: [*m[:1], *m[2:]],
    "twice": lambda m: [*m[:-1], *m],
    "a file more": lambda m: [*m[:-1], (named("gan/aa/c"), b"c"), m[-1]],
    "another artifact's file": lambda m: [m[0], (named("gan/bb/a"), b"a" * 1000), *m[1:]],
    "a file changed": lambda m: [m[0], (m[1][0], b"b" * 1000), *m[2:]],
    "a file shorter": lambda m: [m[0], (m[1][0], b"a" * 999), *m[2:]],
    "up and out": lambda m: renamed(m, lambda name: f"../{name}"),
    "absolute": lambda m: renamed(m, lambda name: f"/{name}"),
    "within, up and out": lambda m: renamed(m, lambda name: name.replace("gan/aa", "gan/..")),
    "a hidden folder": lambda m: renamed(m, lambda name: name.replace("gan", ".users")),
    "the pins": lambda m: [(named(".pins/aa/manifest.json"), m[0][1]), *m[1:]],
    "no folder": lambda m: renamed(m, lambda name: name.rpartition("/")[2]),
    "a line break": lambda m: renamed(m, lambda name: name.replace("aa", "a\na")),
    "another stage": lambda m: renamed(m, lambda name: name.replace("gan", "unet")),
    "another signature": lambda m: renamed(m, lambda name: name.replace("aa", "ab")),
    "a link": lambda m: [m[0], (named("gan/aa/a", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""), *m[2:]],
    "a hard link": lambda m: [m[0], (named("gan/aa/a", type=tarfile.LNKTYPE, linkname="gan/aa/b"), b""), *m[2:]],
    "a device": lambda m: [m[0], (named("gan/aa/a", type=tarfile.CHRTYPE), b""), *m[2:]],
    "a fifo": lambda m: [(named("gan/aa/manifest.json", type=tarfile.FIFOTYPE), b""), *m[1:]],
    "a folder": lambda m: [(named("gan", type=tarfile.DIRTYPE), b""), *m],
    "no manifest": lambda m: [(m[0][0], b"{}"), *m[1:]],
    "a deep manifest": lambda m: [(m[0][0], b"[" * 100_000), *m[1:]],
    "a pickle": lambda m: [(m[0][0], b"\x80\x04."), *m[1:]],
    "a relative that goes out": lambda m: [*m[:-1], note(".relatives/../../x.json", {"steps": [4]}), m[-1]],
    "a relative in the pins": lambda m: [*m[:-1], note(".pins/gan/base/aa.json", {"steps": [4]}), m[-1]],
    "a relative of no numbers": lambda m: [*m[:-1], note(".relatives/gan/base/aa.json", {"steps": ["4"]}), m[-1]],
    "a relative that is not listed": lambda m: [*m[:-1], note(".relatives/gan/base/aa.json", {"steps": [4]}), m[-1]],
    "a relative of another hash": lambda m: [*m[:-1], (named(".relatives/gan/base/aa.json"), b"{}"), m[-1]],
    "another list": lambda m: [*m[:-1], (m[-1][0], b'{"format": "latent-defense store 1", "artifacts": {}}')],
    "another format": lambda m: [*m[:-1], (m[-1][0], b'{"format": "2", "artifacts": {}}')],
    "a list that is none": lambda m: [*m[:-1], (m[-1][0], b"[]")],
    "a file of a hidden name": lambda m: with_file(m, ".leases"),
    "a file that goes out": lambda m: with_file(m, "../../x"),
    "a file in the manifest's place": lambda m: with_file(m, "manifest.json"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_export_is_refused(change: Callable[[Members], Members], members: Members, tmp_path: Path) -> None:
    file = packed_again(change(members), tmp_path / "bad.tar")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Refused, match=r"bad\.tar: .*(expected|found)"):
        imported(file, Storage(tmp_path / "target"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_good_one_made_by_hand_is_taken(members: Members, tmp_path: Path) -> None:
    """The hostile ones above are refused for what was changed, not for how they are packed."""
    for number, good in enumerate((members, with_file(members, "c"))):
        target = Storage(tmp_path / f"target{number}")
        imported(packed_again(good, tmp_path / f"{number}.tar"), target)
        assert len(files(target)) == 3 + number


@pytest.mark.parametrize("length", [0, 1, 100, 512, 600, 1024, 2000, 2560, 3000, 3600])
def test_a_torn_one_is_refused(length: int, members: Members, tmp_path: Path) -> None:
    whole = packed_again(members, tmp_path / "whole.tar").read_bytes()
    (tmp_path / "torn.tar").write_bytes(whole[:length])
    with pytest.raises(Refused, match=r"torn\.tar: .*(expected|found)"):
        imported(tmp_path / "torn.tar", Storage(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_every_flipped_byte_of_a_header_or_a_file_is_refused(members: Members, tmp_path: Path) -> None:
    whole = packed_again(members, tmp_path / "whole.tar").read_bytes()
    for position in (0, 50, 130, 156, 520, 1100, 2100, 3000):
        (tmp_path / "bad.tar").write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        with pytest.raises(Refused, match=r"bad\.tar: "):
            imported(tmp_path / "bad.tar", Storage(tmp_path / f"target{position}"))


def test_a_header_that_claims_any_size_is_refused(members: Members, tmp_path: Path) -> None:
    info = named("gan/aa/manifest.json", size=1 << 60)
    (tmp_path / "bad.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
    with pytest.raises(Refused, match=r"bad\.tar: .*(expected at most|found)"):
        imported(tmp_path / "bad.tar", Storage(tmp_path / "target"))


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    for file, found in ((tmp_path, "no plain file"), (tmp_path / "none.tar", "no file")):
        with pytest.raises(Refused, match=f"--import: expected an export of a store, found {found} {file}"):
            imported(file, Storage(tmp_path / "target"))
