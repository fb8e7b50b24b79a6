"""`python -m tune store --verify, --why, --export, --import`: what is said, and with which status."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tune.commands.filled_storage import filled_storage, kept
from tune import __main__ as entry
from tune.commands import store_care
from tune.storage.care.verification import Checked, verified
from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock


@pytest.fixture
def place(tmp_path: Path) -> Storage:
    return filled_storage(tmp_path)


def run(*words: str) -> int:
    return entry.main(["store", *words])


def test_damage_is_told_and_set_aside(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place.uri, "--verify") == 0
    assert capsys.readouterr().out == "Whole: 10 of 10 folders, 10.0 kB\n"
    place.write("store/gan/aa/weights", b"torn")
    place.write("store/projection/bb-001/weights", b"torn")
    place.child("store").child("unet").child("ee").delete("manifest.json")
    place.child("store").child("unet").child("dd").delete("manifest.json")
    place.write("store/unet/dd/manifest.json/inner", b"")
    with ExperimentLock(place.child("one")):
        assert run(place.uri, "--verify") == 1
    assert "Nothing was moved, as a search may be making these" in capsys.readouterr().err
    assert "gan/aa" in kept(place)
    assert run(place.uri, "--verify") == 1
    printed = capsys.readouterr().out
    assert "gan/aa/weights: expected sha256" in printed
    assert "; used by one, two\n" in printed
    assert "projection/bb-001/weights: " in printed
    assert "unet/ee/manifest.json: expected a file, found none (No such file or directory); used by no exper" in printed
    assert "unet/dd/manifest.json: expected a file, found a folder; used by two\n" in printed
    assert "Whole: 6 of 10 folders, 6.0 kB\n" in printed
    assert f"Moved to {place.uri}/store/.quarantine: 4" in printed
    assert run(place.uri, "--verify") == 0
    run(place.uri)
    assert "quarantine" in capsys.readouterr().out
    run(place.uri, "--prune", "--yes")
    assert len(place.child("store").child(".quarantine").folders()) == 4


def test_a_search_that_began_while_files_were_read_keeps_all(
    place: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write("store/gan/aa/weights", b"torn")
    with ExitStack() as searches:

        def reading(store: Storage, tell: Any) -> Iterator[Checked]:
            yield from verified(store, tell)
            place.child("three").write("space.yaml", b"search.trials: 1\n")
            searches.enter_context(ExperimentLock(place.child("three")))

        monkeypatch.setattr(store_care, "verified", reading)
        assert run(place.uri, "--verify") == 1
    assert "Nothing was moved, as a search may be making these" in capsys.readouterr().err
    assert "gan/aa" in kept(place)


def test_a_trial_is_explained(place: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place.uri, "--why", "one", "0") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Trial 0 of one\n  gan               aa  perhaps built\n")
    assert "it was built before manifests kept what they follow from" in printed


def test_one_storage_fills_another(place: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, other = str(tmp_path / "one.tar"), Storage(tmp_path / "other")
    assert run(place.uri, "--export", file, "--used-by", "one") == 0
    assert f"{file}: 4 folders, " in capsys.readouterr().out
    assert run(other.uri, "--import", file) == 0
    assert capsys.readouterr().out == f"{other.uri}/store: 4 folders are new, 0 were there already\n"
    assert kept(other) == {"gan/aa", *(f"projection/bb-{part:03d}" for part in range(3))}
    assert run(other.uri, "--import", file) == 0
    assert "0 folders are new, 4 were there already" in capsys.readouterr().out
    assert run(place.uri, "--export", file) == 2
    assert "--export: expected a file that is not there yet" in capsys.readouterr().err


def test_what_is_damaged_is_not_exported(place: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.child("store").child("unet").child("ee").delete("weights")
    place.write("store/unet/ee/weights/inner", b"")
    assert run(place.uri, "--export", str(tmp_path / "all.tar")) == 1
    assert "Left out: unet/ee: weights: expected a file, found a folder" in capsys.readouterr().err


def test_a_full_disk_is_noticed_before(
    place: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place.uri, "--export", str(tmp_path / "all.tar")) == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    assert run(f"{tmp_path}/other", "--import", str(tmp_path / "all.tar")) == 2
    assert "--import: expected 10.0 kB of free disk for what is new, found 100 B in " in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--why", "one"), "--why EXPERIMENT TRIAL: expected text and an integer, found one"),
        (("--why",), "--why EXPERIMENT TRIAL: expected text and an integer, found nothing"),
        (("--why", "one", "x"), "--why EXPERIMENT TRIAL: expected text and an integer, found 'one' 'x'"),
        (("--why", "one", "-1"), "--why: expected a trial that ended, one of 0 … 0, in "),
        (("--why", "on", "0"), "--why: expected an experiment in "),
        (("--why", "../one", "0"), "--why: expected an experiment in "),
        (("--export", "x.tar", "--used-by", "three"), "--used-by: expected an experiment in "),
        (("--export", "/proc/z.tar"), "--export: expected a folder that can be written, found /proc: "),
        (("--import", "none.tar"), "--import: expected an export of a store, found no file none.tar"),
        (("--import", "."), "--import: expected an export of a store, found no plain file ."),
        (("--import-", "a.tar"), "--import-: expected a known flag, found an unknown one; did you mean --import?"),
        (("--verify", "--prune"), "--verify: expected without --prune, found both"),
        (("--prune", "--max-size", "lots"), "--max-size: expected a size above 0 with its unit"),
    ],
)
def test_refusals(
    place: Storage,
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert run(place.uri, *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [("--pin", "one"), ("--unpin", "one"), ("--prune", "--yes"), ("--import", "x.tar")])
def test_a_store_that_cannot_be_written_is_named(
    place: Storage, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert run(place.uri, *words) == 2
    expected = f"{words[0]}: expected a folder that can be written, found {place.uri}/store: Read-only file system"
    assert expected in capsys.readouterr().err
