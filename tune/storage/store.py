"""Content-addressed artifacts, shared by the trials, nodes and searches of one storage.

    <storage>/store/<stage>/<signature>/     files, and manifest.json, which is written last
    <storage>/store/.unfinished/<signature>/ the last save of a training that has not ended
    <storage>/store/.relatives/<stage>/<base>/<signature>.json  projections that differ only in R and L
    <storage>/store/.quarantine/<stage>-<signature>-<time>/      what did not match its manifest
    <storage>/store/.pins/<name>.json        artifacts that are kept though no experiment uses them

Equal signature = the same artifact. An artifact without a manifest, or with a file that does not match it, is not
there: it is built again, and the store says so. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.files import sha256_file
from tune.storage.cache import Cache, Use
from tune.storage.folder import Storage
from tune.storage.manifest import check_manifest, hash_of
from tune.storage.scratch import scratch

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CONFIRMED = 600.0  # seconds for which a copy needs no question whether its artifact has been removed
UNFINISHED = ".unfinished"
USERS = ".users"
RELATIVES = ".relatives"
QUARANTINE = ".quarantine"


@dataclass(frozen=True)
class User:
    """A note of an experiment that uses a store.

    Attributes:
        note: its file.
        experiment: where it is now, or was.
        beside: whether it lies beside the store, wherever that is moved.
        resumed: of one beside it, whether it had trials before this note, and so perhaps a note by another address.
    """

    note: str
    experiment: Storage
    beside: bool
    resumed: bool


@dataclass(frozen=True)
class Artifact:
    """One finished artifact.

    Attributes:
        folder: its files, on this machine.
        manifest: what it is, how it was made, and the sha256 of every file.
        use: of a copy, keeps it from being evicted.
    """

    folder: Path
    manifest: Mapping[str, Any]
    use: Use | None = field(default=None, compare=False, repr=False)

    @property
    def signature(self) -> str:
        """The hash of everything that it follows from."""
        return str(self.manifest["signature"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Measurements of the stage that built it."""
        metrics: Mapping[str, Any] = self.manifest["metrics"]
        return metrics


class Store:
    """The artifacts of a storage, by stage and signature.

    Args:
        storage: the folder `store/` of a storage.
        cache: where to keep copies of artifacts that are not on a local file system, which are then asked for no more.
    """

    def __init__(self, storage: Storage, cache: Path | None = None) -> None:
        self.storage = storage
        self.cache = Cache(cache)
        self._place = hashlib.sha256(storage.uri.encode()).hexdigest()[:8]
        self._known: dict[tuple[str, str], Artifact] = {}

    def find(self, stage: str, signature: str) -> Artifact | None:
        """The artifact, each file checked against its manifest once per process; None where there is no whole one."""
        key = stage, signature
        if key not in self._known:
            artifact = self._open(stage, signature)
            if artifact is None:
                return None
            self._known[key] = artifact
        return self._known[key]

    def has(self, stage: str, signature: str) -> bool:
        """True where there is a manifest; cheaper than `find`, and without its checks."""
        return (stage, signature) in self._known or self.storage.child(stage).child(signature).exists(
            MANIFEST
        )

    def listed(self, stage: str) -> set[str]:
        """The signatures of a stage of which there is at least a part: all of them in one request (of 1,000 each)."""
        return set(self.storage.child(stage).folders())

    @contextmanager
    def draft(self, stage: str, signature: str) -> Iterator[Draft]:
        """A folder to write an artifact's files to; it becomes the artifact when the block ends without an error.

        Where a whole one stands there by then, as another process was quicker, that one stays: others may use it.

        Raises:
            OSError: it cannot be written; no part of it counts, and what stood there before is gone or still whole.
        """
        with scratch(stage) as folder:
            draft = Draft(folder)
            yield draft
            draft.description["seconds"] = round(draft.seconds, 3)
            self._publish(draft, self.storage.child(stage).child(signature), stage, signature)
        self.unfinished(signature).remove_tree()

    def unfinished(self, signature: str) -> Storage:
        """The folder in which a training saves its state until the artifact is complete."""
        return self.storage.child(UNFINISHED).child(signature)

    def relate(self, stage: str, base: str, signature: str, facts: Mapping[str, Any]) -> None:
        """Notes that the artifacts of `signature` can be gone on from by others of the same `base`."""
        note = json.dumps({**facts, "sha256": hash_of(facts)})
        self.storage.child(RELATIVES).child(stage).child(base).write(f"{signature}.json", note.encode())

    def relatives(self, stage: str, base: str) -> dict[str, dict[str, Any]]:
        """The facts noted by `relate`, by signature; the artifacts themselves may have been removed."""
        home = self.storage.child(RELATIVES).child(stage).child(base)
        found: dict[str, dict[str, Any]] = {}
        for name in home.names():
            try:
                facts = dict(json.loads(home.read(name)))
                if facts.pop("sha256", None) != hash_of(facts):
                    raise ValueError("found one that does not match its sha256")
                found[name.removesuffix(".json")] = facts
            except (ValueError, TypeError) as error:
                log.warning("%s/%s: expected a note of what can be gone on from, %s; left out", home.uri, name, error)
        return found

    def artifacts(self, stages: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The manifests of all artifacts, or of those of some stages, in order of stage and signature."""
        for stage in self.storage.folders() if stages is None else stages:
            for signature in self.storage.child(stage).folders():
                manifest = _manifest(self.storage.child(stage).child(signature), stage, signature)
                if manifest is not None:
                    yield manifest

    @property
    def home(self) -> Storage:
        """The storage in which it lies; others may share it, by links."""
        return self.storage.parent

    def note_user(self, experiment: Storage, resumed: bool = False) -> None:
        """Notes that an experiment uses this store, for whoever prunes it: several storages may share one store.

        One beside the store is noted by its name, which stays true where both are moved. `resumed` says that it has
        trials already, which may have been noted under another address.
        """
        beside = experiment.parent.place == self.home.place
        address, folder = experiment.name if beside else experiment.uri, self.storage.child(USERS)
        name = f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"
        if beside and folder.exists(name):
            return  # how it was noted first counts
        note = {"experiment": address, "beside": True, "resumed": resumed} if beside else {"experiment": address}
        folder.write(name, json.dumps(note).encode())

    def users(self) -> Iterator[User]:
        """Every experiment that was noted. Raises ValueError, naming a torn note."""
        folder, home = self.storage.child(USERS), self.home
        for name in folder.names():
            if name.endswith(".json"):
                try:
                    note = json.loads(folder.read(name))
                    address, beside = str(note["experiment"]), note.get("beside") is True
                    experiment = home.child(address) if beside else Storage(address)
                    yield User(f"{folder.uri}/{name}", experiment, beside, note.get("resumed") is True)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise ValueError(f"{folder.uri}/{name}: expected the address of an experiment") from error

    def remove(self, stage: str, signature: str) -> None:
        """Deletes an artifact, its manifest first: what is left of it after a crash is no artifact."""
        home = self.storage.child(stage).child(signature)
        home.delete(MANIFEST)
        home.remove_tree()
        self._known.pop((stage, signature), None)
        if home.local is None:
            self.cache.drop(self._copies(stage), signature)

    def _publish(self, draft: Draft, home: Storage, stage: str, signature: str) -> None:
        if home.exists(MANIFEST):
            if self._open(stage, signature) is not None:
                return
            home.delete(MANIFEST)
        for name in home.folders() if home.local is not None else ():
            home.child(name).remove_tree()  # one in the place of a file; an artifact has none of its own
        home.sweep()
        files = sorted(path for path in draft.folder.iterdir() if path.is_file())
        for path in files:
            home.upload(path, path.name)
        manifest = {
            "stage": stage,
            "signature": signature,
            **draft.description,
            "metrics": draft.metrics,
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "bytes": sum(path.stat().st_size for path in files),
            "files": {path.name: sha256_file(path) for path in files},
        }
        manifest = {**manifest, "sha256": hash_of(manifest)}
        home.write(MANIFEST, json.dumps(manifest, indent=2, allow_nan=False).encode())
        if home.local is None:  # the builder has no need to fetch it
            Storage(draft.folder).write(MANIFEST, json.dumps(manifest).encode())
            try:
                self.cache.put(self._copies(stage), signature, draft.folder)
            except OSError as error:
                log.warning("%s/%s: published, but not kept on this node: %s", stage, signature, error)

    def _open(self, stage: str, signature: str) -> Artifact | None:
        home = self.storage.child(stage).child(signature)
        if home.local is not None:
            manifest = _manifest(home, stage, signature)
            whole = manifest is not None and _is_whole(home, home.local, manifest)
            return Artifact(home.local, manifest) if manifest is not None and whole else None
        for _ in range(2):  # a copy may be damaged where the artifact is not
            copy = self.cache.get(
                self._copies(stage), signature, lambda folder: _fetched(home, stage, signature, folder)
            )
            if copy is None:
                return None
            manifest = _manifest(Storage(copy.folder), stage, signature)
            if manifest is not None and (copy.fresh or _is_good(copy.folder, manifest, home)):
                return Artifact(copy.folder, manifest, copy.use)
            self.cache.drop(self._copies(stage), signature)
        return None

    def _copies(self, stage: str) -> str:
        """The name under which copies of a stage are kept: those of another storage are not this one's."""
        return f"{stage}.{self._place}"


class Draft:
    """An artifact in the making.

    Attributes:
        folder: where to put its files; all of them are kept.
        metrics: what was measured, for the manifest: finite numbers, text, lists and mappings of them.
        description: what the manifest says beside that.
        seconds_before: time spent on it in runs that were interrupted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics: dict[str, Any] = {}
        self.description: dict[str, Any] = {}
        self.seconds_before = 0.0
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds spent on it so far, in this run and those before."""
        return self.seconds_before + time.perf_counter() - self._began


def _manifest(home: Storage, stage: str, signature: str) -> dict[str, Any] | None:
    """The manifest in an artifact's folder; None where there is none, or another."""
    try:
        manifest = json.loads(home.read(MANIFEST))
        check_manifest(manifest, stage, signature)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        _refuse(home, MANIFEST, "expected the manifest of this artifact, found a folder")
        return None
    except (ValueError, AttributeError, TypeError) as error:
        _refuse(home, MANIFEST, f"expected the manifest of this artifact, {error}")
        return None
    return dict(manifest)


def _is_whole(home: Storage, folder: Path, manifest: Mapping[str, Any]) -> bool:
    """False where a file of the artifact, which lie in `folder`, is not as the manifest says."""
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            _refuse(home, name, "found no such file")
            return False
        if sha256_file(path) != expected:
            _refuse(home, name, f"expected sha256 {expected[:12]}…, found another")
            return False
    return True


def _is_good(copy: Path, manifest: Mapping[str, Any], home: Storage) -> bool:
    """True where a copy is whole, and that of the artifact in the store, or was at most ten minutes ago.

    That may have been built again, with other files: then the copies of all nodes must be of the same one.
    """
    if time.time() - copy.stat().st_mtime > CONFIRMED:
        if _manifest(home, str(manifest["stage"]), str(manifest["signature"])) != manifest:
            return False
        os.utime(copy)
    return _is_whole(home, copy, manifest)


def _fetched(home: Storage, stage: str, signature: str, folder: Path) -> bool:
    """Copies an artifact to an empty folder; False where there is no whole one."""
    manifest = _manifest(home, stage, signature)
    if manifest is None:
        return False
    for name in manifest["files"]:
        with suppress(FileNotFoundError):  # said below
            home.download(name, folder / name)
    if not _is_whole(home, folder, manifest):
        return False
    Storage(folder).write(MANIFEST, json.dumps(manifest).encode())
    return True


def _refuse(home: Storage, name: str, reason: str) -> None:
    log.warning("%s/%s: %s; the artifact is built again", home.uri, name, reason)
