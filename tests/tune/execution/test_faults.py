"""Faults injected for real into real searches: signals, a full disk, damaged files, rivals."""

from __future__ import annotations

import io
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from components.saves import unsealed
from tests.tiny import T10K_LABELS
from tests.tune.tiny_search import (
    PATIENCE,
    Search,
    check_shared,
    choice,
    line,
    note,
    outcomes,
    overlapping_space,
    reported,
    results,
    run,
    searched_alone,
    searching,
    snapshot,
    words,
    write_space,
)
from tune.storage.folder import Storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400 * PATIENCE)]

LONG = {"unet__epochs": 12, "unet__width": 16, "unet__batch_size": 8}  # trials of seconds, to be caught in


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home, log = tmp_path / "results/one", tmp_path / "log"
    with searching(words(space, home.parent), log) as search:
        search.until(lambda: outcomes(home))
        search.interrupt()
        assert search.wait(30) == 130
        assert "Traceback" not in search.output
        assert search.gone()
        before = snapshot(home)
        command = search.output.strip().splitlines()[-1].strip()
    assert " -m tune.search " in command
    assert command.endswith("--resume")
    status, output = run(shlex.split(command)[3:], log)
    assert status == 0, output
    assert sorted(outcomes(home)) == [0, 1, 2]
    assert snapshot(home).items() >= before.items()
    note("Ctrl-C in a trial", 130, command, "nothing: resumed with that command")


@pytest.mark.parametrize("moment", [1.0, 4.0, 8.0])
def test_ctrl_c_at_any_moment_of_the_start(tmp_path: Path, moment: float) -> None:
    space = write_space(tmp_path)
    with searching(words(space, tmp_path / "results"), tmp_path / "log") as search:
        time.sleep(moment)
        search.interrupt()
        assert search.wait(30) == 130, search.output
        assert "Traceback" not in search.output
        said = [words for words in search.output.splitlines() if words.startswith("interrupted")]
        note(f"Ctrl-C {moment:g} s after the start", 130, *said or ["nothing, as nothing had begun"], "nothing")
    status, output = run(words(space, tmp_path / "results", "--resume"), tmp_path / "log")
    assert status == 0, output


def test_ray_listens_on_loopback_alone(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: (home / "proposals").exists())
        addresses = set().union(*map(listening, search.processes()))
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def listening(pid: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal form, on which a process takes connections."""
    sockets = set()
    with suppress(OSError):
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(os.readlink(handle).removeprefix("socket:[").removesuffix("]"))
    rows = [row.split() for table in ("tcp", "tcp6") for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def test_sigterm_is_ctrl_c(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: (home / "proposals").exists())
        search.process.terminate()
        assert search.wait(30) == 130
        note("SIGTERM", 130, line(search.output, "interrupted"), "nothing")
        assert "--resume" in search.output


def test_a_second_driver_is_refused_and_a_dead_ones_lock_taken_over(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **{**LONG, "unet__epochs": 60})
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "first") as first:
        first.until(lambda: (home / "space.yaml").exists())
        status, output = run(words(space, home.parent, "--resume"), tmp_path / "second")
        assert first.process.poll() is None
        assert status == 2
        refusal = line(output, f"process id {first.process.pid}")
        assert f"on {os.uname().nodename}" in refusal
        note("a second driver", status, refusal, "nothing: the first goes on")
        first.kill()
    with searching(words(space, home.parent, "--resume"), tmp_path / "third") as third:
        third.until(lambda: "started" in third.output)
        assert f'"pid":{third.process.pid},' in (home / "driver.lock").read_text()
        note("resumed after kill -9, a stale lock", 0, "none: the lock is taken over at once", "nothing")


def test_a_driver_that_has_been_taken_over_stops(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **{**LONG, "unet__epochs": 60})
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: (home / "proposals").exists())
        search.process.send_signal(signal.SIGSTOP)
        # as a driver on another machine signs, whose file system does not pass locks on: this kernel would not let one
        signature = {"host": "elsewhere", "pid": 7, "place": "far", "token": "t", "time": time.time()}
        (home / "driver.lock").write_text(json.dumps(signature))
        record = (home / "record.json").read_bytes()
        search.process.send_signal(signal.SIGCONT)
        assert search.wait(60) == 1, search.output
        said = line(search.output, "error: another driver has taken over")
        assert "on elsewhere with process id 7" in said
        assert (home / "record.json").read_bytes() == record
        assert json.loads((home / "driver.lock").read_bytes())["host"] == "elsewhere"
        assert search.gone()
    note("a driver suspended, and taken over meanwhile", 1, said, "nothing: the other goes on")


def test_sighup_is_ctrl_c(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: (home / "proposals").exists())
        search.process.send_signal(signal.SIGHUP)
        assert search.wait(30) == 130, search.output
        assert "--resume" in search.output
        note("SIGHUP", 130, line(search.output, "interrupted"), "nothing")


def test_nothing_survives_a_killed_driver(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: outcomes(home))
        search.kill()
        assert search.gone()
        note("kill -9 of the driver", -9, "none; every process that it started is gone", "work since the last epoch")


def test_a_killed_worker_costs_one_epoch(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=400, search__trials=1, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        search.until(lambda: saved_epoch(home) >= 3)
        kill_workers(search)
        epoch = saved_epoch(home)
        seen = []
        while search.process.poll() is None:
            seen += [found] if (found := saved_epoch(home)) else []
            time.sleep(0.02)
        assert search.process.returncode == 0, search.output
    assert epoch >= 3
    assert not [found for found in seen if found < epoch], "it began again"
    assert outcomes(home)[0].status == "finished"
    quiet = tmp_path / "quiet"
    assert run(words(space, quiet), tmp_path / "quiet.log")[0] == 0
    assert results(home) == results(quiet / "one")
    note(f"kill -9 of the worker after epoch {epoch}", 0, "none: the trial finishes elsewhere", "at most one epoch")


def test_a_worker_that_always_dies_is_given_up(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=400, search__trials=2, search__retries=1, **LONG)
    home = tmp_path / "results/one"
    with searching(words(space, home.parent), tmp_path / "log") as search:
        for _ in range(2):
            search.until(lambda: workers(search) and not outcomes(home))
            before = saved_epoch(home)
            search.until(lambda before=before: saved_epoch(home) > before)
            kill_workers(search)
        assert search.wait() == 0, search.output
    ended = outcomes(home)
    assert (ended[0].status, ended[1].status) == ("failed", "finished")
    assert "its worker was lost 2 times" in str(ended[0].error)
    note("kill -9 of a worker, once more than search.retries", 0, str(ended[0].error)[:150], "that trial")


def test_nan_and_other_errors_of_a_trial_are_its_own(tmp_path: Path) -> None:
    space = write_space(tmp_path, search__trials=4, unet__high_level_weight="{choice: [1.0, 1.0e300]}")
    home = tmp_path / "results/one"
    status, output = run(words(space, home.parent), tmp_path / "log")
    assert status == 0, output
    ended = outcomes(home)
    by_weight = {o.params["unet.high_level_weight"]: o.status for o in ended.values()}
    assert by_weight == {1.0: "finished", 1e300: "failed"}
    failed = next(outcome for outcome in ended.values() if outcome.status == "failed")
    assert "expected a finite number" in str(failed.error)
    assert "\n" not in str(failed.error)
    note("a loss becomes NaN", status, line(output, "expected a finite number"), "that trial")
    assert choice(home)["params"]["unet.high_level_weight"] == 1.0


def test_a_search_without_a_finished_trial_says_why(tmp_path: Path) -> None:
    space = write_space(tmp_path, unet__high_level_weight="{choice: [1.0e+299, 1.0e+300]}")
    status, output = run(words(space, tmp_path / "results"), tmp_path / "log")
    assert status == 1, output
    note("every trial fails", status, line(output, "error: no trial finished with"), "nothing more")
    assert "with a finite psd and cost" in output
    assert "Traceback" not in output
    assert json.loads((tmp_path / "results/one/report.json").read_text())["search"]["failed"] == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 60 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(place)], capture_output=True)
    if os.geteuid() != 0 or mount.returncode:
        pytest.skip("mounting a file system takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("left", [0, 20_000, 150_000])
def test_a_full_disk_loses_nothing(tmp_path: Path, small_disk: Path, left: int) -> None:
    space = write_space(tmp_path, images=300, **LONG)
    home, ballast = small_disk / "one", small_disk / "ballast"
    with searching(words(space, small_disk), tmp_path / "log") as search:
        search.until(lambda: outcomes(home))
        fill(ballast, left)
        assert search.wait(90) == 1, search.output
        said = line(search.output, "No space left on device")
        note(f"a full disk, {left} bytes left", 1, said, "work since the last save")
        assert "Traceback" not in search.output
        assert str(small_disk) in said
        assert "--resume" in search.output
    before = snapshot(home)
    assert {outcome.status for outcome in outcomes(home).values()} == {"finished"}
    status, output = run(words(space, small_disk, "--resume"), tmp_path / "full")
    assert status == 2, output
    note("resumed while the disk is full", status, line(output, "--storage: expected"), "nothing")
    ballast.unlink()
    status, output = run(words(space, small_disk, "--resume"), tmp_path / "free")
    assert status == 0, output
    assert {outcome.status for outcome in outcomes(home).values()} == {"finished"}
    assert len(outcomes(home)) == 3
    assert snapshot(home).items() >= before.items()


def test_a_full_disk_in_the_retraining_costs_no_trial(tmp_path: Path, small_disk: Path) -> None:
    space = write_space(tmp_path, images=300, search__retrain_seeds=2, **LONG)
    home, ballast = small_disk / "one", small_disk / "ballast"
    with searching(words(space, small_disk), tmp_path / "log") as search:
        search.until(lambda: "· retraining trial" in search.output)
        fill(ballast, 0)
        assert search.wait(90) == 1, search.output
        note("a full disk in the retraining", 1, line(search.output, "No space left on device"), "work since the save")
        assert "--resume" in search.output
        assert "Traceback" not in search.output
    before = snapshot(home)
    assert len(before) >= 3
    ballast.unlink()
    status, output = run(words(space, small_disk, "--resume"), tmp_path / "free")
    assert status == 0, output
    assert snapshot(home).items() >= before.items()
    assert len(list(home.glob("best/seeds/*.json"))) == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "a flipped bit": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
    "a pickle": lambda content: pickle.dumps(Bomb()),
}


class Bomb:
    """An object that leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOMB"],)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A space, and a storage with the whole search of it; for reading only."""
    folder = tmp_path_factory.mktemp("searched")
    space = write_space(folder)
    status, output = run(words(space, folder / "results"), folder / "log")
    assert status == 0, output
    return space, folder / "results"


@pytest.mark.parametrize("first", range(len(DAMAGES)))
def test_damaged_files_are_named_and_made_again(
    tmp_path: Path, searched: tuple[Path, Path], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    space, whole = searched
    home = shutil.copytree(whole, tmp_path / "results") / "one"
    before, chosen = results(home), choice(home)
    files = [*home.glob("trials/*.json"), home / "best/seeds/0.json", home / "record.json", home / "best/choice.json"]
    stored = [path for path in (home.parent / "store").rglob("*") if path.suffix in (".json", ".safetensors", ".npz")]
    damages = list(DAMAGES.values())
    for number, path in enumerate([*sorted(files), *sorted(stored)]):
        content = path.read_bytes()
        damaged = damages[(first + number) % len(damages)](content)
        # records of trials have no hash: half of one is noticed, another digit in it is not
        path.write_bytes(damaged if path in stored or len(damaged) != len(content) else b"")
    status, output = run(words(space, home.parent, "--resume"), tmp_path / "log")
    assert status == 0, output
    assert not (tmp_path / "exploded").exists()
    assert results(home) == before
    assert choice(home) == chosen
    for path in sorted(home.glob("trials/*.json")):
        complaint = line(output, f"{path}: expected the outcome of trial {int(path.stem)}")
    assert json.loads((home / "record.json").read_text())["seed"] == 0
    note(f"each of {len(files) + len(stored)} files damaged, resumed", status, complaint, "only what was damaged")


def test_two_searches_build_each_artifact_once(tmp_path: Path) -> None:
    space = write_space(tmp_path, images=300)
    storage = tmp_path / "results"
    with (
        searching(words(space, storage, name="one"), tmp_path / "one.log") as one,
        searching(words(space, storage, name="two"), tmp_path / "two.log") as two,
    ):
        assert (one.wait(), two.wait()) == (0, 0), one.output + two.output
    built: Counter[str] = Counter()
    for name in ("one", "two"):
        for outcome in outcomes(storage / name).values():
            built.update({stage: int(work["built"]) for stage, work in outcome.work.items()})
        seed = json.loads((storage / name / "best/seeds/0.json").read_text())
        built.update({stage: int(work["built"]) for stage, work in seed["work"].items()})
    stages = [folder for folder in (storage / "store").iterdir() if not folder.name.startswith(".")]
    stored = {folder.name: len(list(folder.iterdir())) for folder in stages}
    assert {stage: count for stage, count in built.items() if count} == stored
    assert results(storage / "one") == results(storage / "two")
    note("two searches at once on one store", 0, f"none: {sum(built.values())} artifacts, each built once", "nothing")


def test_two_searches_that_share_some_stages(tmp_path: Path) -> None:
    spaces = [overlapping_space(tmp_path / name, number) for number, name in enumerate(("one", "two"))]
    storage = tmp_path / "results"
    with (
        searching(words(spaces[0], storage, name="one"), tmp_path / "one.log") as one,
        searching(words(spaces[1], storage, name="two"), tmp_path / "two.log") as two,
    ):
        assert (one.wait(), two.wait()) == (0, 0), one.output + two.output
    homes = [Storage(storage).child(name) for name in ("one", "two")]
    shared = check_shared(Storage(storage), homes)
    alone = [searched_alone(space, tmp_path / "alone", home) for space, home in zip(spaces, homes, strict=True)]
    for home, other in zip(homes, alone, strict=True):
        assert results(home) == results(other)
        assert reported(home) == reported(other)
    note("two searches with other U-Nets at once on one store", 0, f"none: {shared} shared artifacts", "nothing")


def test_the_test_labels_decide_nothing(tmp_path: Path) -> None:
    space = write_space(tmp_path, search__retrain_seeds=3)
    assert run(words(space, tmp_path / "true"), tmp_path / "log")[0] == 0
    path = tmp_path / "tiny" / T10K_LABELS
    content = path.read_bytes()
    path.write_bytes(content[:8] + bytes(reversed(content[8:])))
    assert run(words(space, tmp_path / "permuted"), tmp_path / "log")[0] == 0
    one, other = tmp_path / "true/one", tmp_path / "permuted/one"
    assert results(one) == results(other)
    assert choice(one) == choice(other)
    saved = [json.loads((home / "best/manifest.json").read_text())["sha256"] for home in (one, other)]
    assert saved[0] == saved[1]
    pso = [json.loads((home / "report.json").read_text())["test"]["pso"]["mean"] for home in (one, other)]
    assert pso[0] != pso[1]  # so they were permuted


def saved_epoch(home: Path) -> int:
    """The last epoch that a U-Net's unfinished training has saved; 0 where there is none."""
    for path in (home.parent / "store/.unfinished").glob("*/training.pt"):
        try:
            state: dict[str, Any] = torch.load(io.BytesIO(unsealed(path.read_bytes())), weights_only=True)
        except (FileNotFoundError, ValueError):
            continue
        if "psd" in state["history"][-1]:
            return int(state["training"]["epoch"])
    return 0


def workers(search: Search) -> list[int]:
    """The processes that run trials: actors of Tune's class for functions."""
    return [pid for pid, line in search.processes().items() if line.startswith("ray::ImplicitFunc")]


def kill_workers(search: Search) -> None:
    """kill -9 of every process that runs a trial."""
    found = workers(search)
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def fill(ballast: Path, left: int) -> None:
    """Fills a disk up to some bytes."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(b"0" * 4096):
                pass
        file.truncate(max(0, file.tell() - left))
