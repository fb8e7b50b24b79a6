"""The store: whole artifacts or none, whatever was done to their files."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from pathlib import Path

import pytest

from tune.storage.folder import Storage
from tune.storage.store import MANIFEST, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Storage(tmp_path / "store"))


def put(store: Store, signature: str = "abc", content: bytes = b"0123456789" * 20) -> Path:
    """Makes an artifact, and returns its folder."""
    with store.draft("gan", signature) as draft:
        (draft.folder / "weights.bin").write_bytes(content)
        draft.metrics["psd"] = 0.5
        draft.description["seed"] = 3
    assert store.storage.local is not None
    return store.storage.local / "gan" / signature


def again(store: Store) -> Store:
    """The same store, as another process sees it."""
    return Store(store.storage)


def test_what_is_drafted_is_found(store: Store) -> None:
    put(store)
    artifact = again(store).find("gan", "abc")
    assert artifact is not None
    assert artifact.signature == "abc"
    assert artifact.metrics == {"psd": 0.5}
    assert artifact.manifest["seed"] == 3
    assert (artifact.folder / "weights.bin").read_bytes() == b"0123456789" * 20


def test_nothing_is_found_where_nothing_is(store: Store) -> None:
    assert store.find("gan", "abc") is None
    assert not store.has("gan", "abc")
    assert list(store.artifacts()) == []


def test_a_draft_that_fails_leaves_no_artifact(store: Store) -> None:
    def fail() -> None:
        with store.draft("gan", "abc") as draft:
            (draft.folder / "weights.bin").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.find("gan", "abc") is None


@pytest.mark.parametrize("length", [0, 1, 100, 199])
def test_a_truncated_file_is_named_and_not_used(store: Store, caplog: pytest.LogCaptureFixture, length: int) -> None:
    path = put(store) / "weights.bin"
    path.write_bytes(path.read_bytes()[:length])
    with caplog.at_level(logging.WARNING):
        assert again(store).find("gan", "abc") is None
    assert f"{path}: expected sha256" in caplog.text
    assert "built again" in caplog.text


@pytest.mark.parametrize("position", [0, 57, 199])
def test_a_flipped_bit_is_noticed(store: Store, caplog: pytest.LogCaptureFixture, position: int) -> None:
    path = put(store) / "weights.bin"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert again(store).find("gan", "abc") is None
    assert str(path) in caplog.text


def test_a_missing_file_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = put(store) / "weights.bin"
    path.unlink()
    assert again(store).find("gan", "abc") is None
    assert f"{path}: found no such file" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"stage": "gan"}', b"\xff\xfe", b"3"])
def test_a_damaged_manifest_is_named(store: Store, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    path = put(store) / MANIFEST
    path.write_bytes(content)
    assert again(store).find("gan", "abc") is None
    assert str(path) in caplog.text
    assert list(again(store).artifacts()) == []


@pytest.mark.parametrize("name", [MANIFEST, "weights.bin"])
def test_a_folder_in_the_place_of_a_file_is_named_and_replaced(
    store: Store, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = put(store)
    (folder / name).unlink()
    (folder / name / "inner").mkdir(parents=True)
    assert again(store).find("gan", "abc") is None
    assert f"{folder / name}: " in caplog.text
    assert len(list(again(store).artifacts())) == (name != MANIFEST)
    put(again(store))
    assert again(store).find("gan", "abc") is not None


def test_a_flipped_bit_in_a_measurement_is_noticed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = put(store) / MANIFEST
    assert path.read_text().count("0.5") == 1
    path.write_text(path.read_text().replace("0.5", "0.7"))
    assert again(store).find("gan", "abc") is None
    assert f"{path}: expected the manifest of this artifact, found another sha256" in caplog.text


def test_an_artifact_under_anothers_signature_is_not_used(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = put(store, "abc")
    put(store, "xyz", b"of another architecture")
    shutil.rmtree(path)
    shutil.copytree(path.with_name("xyz"), path)
    assert again(store).find("gan", "abc") is None
    assert f"{path / MANIFEST}: expected the manifest of this artifact, found that of gan/xyz" in caplog.text
    assert again(store).find("gan", "xyz") is not None


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "..", ""])
def test_a_manifest_cannot_point_outside_its_folder(
    store: Store, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = put(store) / MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "files": {name: "0" * 64}}))
    assert again(store).find("gan", "abc") is None
    assert "found a file outside its folder" in caplog.text


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_truncated_manifest_is_named(store: Store, caplog: pytest.LogCaptureFixture, part: float) -> None:
    path = put(store) / MANIFEST
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    assert again(store).find("gan", "abc") is None
    assert str(path) in caplog.text


def test_a_damaged_artifact_is_replaced(store: Store) -> None:
    put(store)
    (put(store) / "weights.bin").write_bytes(b"")
    other = again(store)
    put(other, content=b"new")
    artifact = again(store).find("gan", "abc")
    assert artifact is not None
    assert (artifact.folder / "weights.bin").read_bytes() == b"new"


def test_of_two_builders_the_first_to_end_stays(store: Store) -> None:
    folder = put(store, content=b"of the first")
    put(again(store), content=b"of the second")
    assert (folder / "weights.bin").read_bytes() == b"of the first"
    assert again(store).find("gan", "abc") is not None


def test_a_full_disk_while_publishing_leaves_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Storage, name: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", name)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "write", full)  # of the manifest: the files are there already
        with pytest.raises(OSError, match="No space left"):
            put(store)
    assert again(store).find("gan", "abc") is None
    put(again(store))
    assert again(store).find("gan", "abc") is not None


DAMAGED = {"torn": '{"steps": [1', "null": "null", "a number": "3", "a list": "[3]", "no hash": '{"steps": [1, 2]}'}


@pytest.mark.parametrize("damaged", [*DAMAGED.values(), None], ids=[*DAMAGED, "a flipped bit"])
def test_a_damaged_note_of_what_can_be_gone_on_from_is_left_out_and_made_again(
    store: Store, caplog: pytest.LogCaptureFixture, damaged: str | None
) -> None:
    store.relate("projection", "base", "abc", {"steps": [1, 2]})
    assert store.relatives("projection", "base") == {"abc": {"steps": [1, 2]}}
    assert store.storage.local is not None
    path = store.storage.local / ".relatives/projection/base/abc.json"
    path.write_text(path.read_text().replace("2]", "6]") if damaged is None else damaged)
    assert again(store).relatives("projection", "base") == {}
    assert str(path) in caplog.text
    again(store).relate("projection", "base", "abc", {"steps": [1, 2]})
    assert again(store).relatives("projection", "base") == {"abc": {"steps": [1, 2]}}


def test_removing_begins_with_the_manifest(store: Store) -> None:
    folder = put(store)
    store.remove("gan", "abc")
    assert not folder.exists()
    assert store.find("gan", "abc") is None


def test_the_save_of_a_training_goes_with_its_end(store: Store) -> None:
    store.unfinished("abc").write("training.pt", b"half")
    put(store)
    assert store.unfinished("abc").names() == []


def test_a_manifest_names_every_file(store: Store) -> None:
    manifest = json.loads((put(store) / MANIFEST).read_text())
    assert list(manifest["files"]) == ["weights.bin"]
    assert manifest["bytes"] == 200
    assert manifest["seconds"] >= 0
