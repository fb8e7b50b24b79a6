"""Real searches as small as they can be: 8 × 8 images, four channels, the whole command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.tiny import tiny_split, write_folder
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

ROOT = Path(__file__).parents[2]
SETTINGS: Mapping[str, Any] = {
    "search.target": "defense",
    "search.trials": 3,
    "search.startup_trials": 2,
    "search.retrain_seeds": 1,
    "search.finalists": 1,
    "search.early_stopping": False,
    "data.validation_fraction": 0.2,
    "classifier.architecture": "E",
    "classifier.epochs": 3,
    "gan.latent_dim": 4,
    "gan.width": 4,
    "gan.discriminator_width": 4,
    "gan.steps": 20,
    "gan.steps_per_epoch": 10,
    "gan.batch_size": 16,
    "projector.restarts": "{choice: [1, 2]}",
    "projector.steps": "{low: 2, high: 6, step: 2}",
    "projector.bank_size": 64,
    "unet.width": 4,
    "unet.depth": 1,
    "unet.epochs": 2,
    "unet.high_level_weight": "{low: 0.1, high: 10.0, log: true}",
}
# Tests wait so many times as long as a fast machine needs: what hangs is found, what is slow or beside others passes.
PATIENCE = float(os.environ.get("LATENT_DEFENSE_PATIENCE", 3))
MARK = "LATENT_DEFENSE_TEST"  # in the environment of every process of one search, so that none is overlooked


def write_space(folder: Path, images: int = 60, **changes: Any) -> Path:
    """A space and its data set; `unet__epochs=4` changes `unet.epochs`."""
    data = folder / "tiny"
    if not data.exists():
        write_folder(data, tiny_split(images), tiny_split(20, seed=1))
    settings = {"data.name": data, **SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    lines = [f"{key}: {str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]
    path = folder / "space.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def words(space: Path, storage: Path | str, *more: str, name: str = "one") -> list[str]:
    """The command line of a search, one trial at a time."""
    return ["--space", str(space), "--storage", str(storage), "--name", name, "--concurrent", "1", *more]


def as_in_a_terminal() -> None:
    """Lets a new process be interrupted: what a shell runs in the background, or by nohup, has it ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Search:
    """A search as a process, with all processes that it started."""

    def __init__(self, arguments: Sequence[str], log: Path, module: str = "tune.search") -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        environment = {**os.environ, MARK: self.mark, "LATENT_DEFENSE_OBJECT_STORE": str(80 << 20)}
        environment |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment |= {"RAY_worker_niceness": "0"}  # else whatever is busy beside them leaves them 3 % of a core
        self.began = time.monotonic()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=as_in_a_terminal,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 150) -> int:
        """Its exit status."""
        return self.process.wait(seconds * PATIENCE)

    def until(self, condition: Callable[[], Any], seconds: float = 90) -> Any:
        """Waits for something to be true while the search runs, and returns it."""
        end = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            if found := condition():
                return found
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            time.sleep(0.02)
        raise AssertionError(f"waited {seconds} s in vain:\n{self.output}")

    def kill(self) -> None:
        """kill -9 of the driver alone."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> None:
        """Ctrl-C: the terminal sends it to the driver and all that it started in its group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> dict[int, str]:
        """Process id → command line, of all that the search started and are alive."""
        return dict(_marked(self.mark))

    def gone(self, seconds: float = 30) -> bool:
        """Whether no process of it is left, after a while."""
        end = time.monotonic() + seconds * PATIENCE
        while self.processes() and time.monotonic() < end:
            time.sleep(0.2)
        return not self.processes()

    def end(self) -> None:
        """Ends whatever is left, by process id."""
        for pid in self.processes():
            with_suppressed_kill(pid)
        self.process.wait(10 * PATIENCE)


def with_suppressed_kill(pid: int) -> None:
    """kill -9, of a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line:  # a process that has ended and waits for its parent has none
                    yield int(folder.name), line
        except OSError:
            continue


@contextmanager
def searching(arguments: Sequence[str], log: Path, module: str = "tune.search") -> Iterator[Search]:
    """A search in the background; nothing of it is left afterwards."""
    search = Search(arguments, log, module)
    try:
        yield search
    finally:
        search.end()


def run(arguments: Sequence[str], log: Path, seconds: float = 150) -> tuple[int, str]:
    """Exit status and output of a search that is left alone."""
    with searching(arguments, log) as search:
        return search.wait(seconds), search.output


def note(fault: str, status: int, said: str, lost: str) -> None:
    """A row of the table of faults, which `pytest -s` shows."""
    print(f"\n| {fault} | {status} | {said} | {lost} |", flush=True)


def line(output: str, text: str) -> str:
    """The first line of an output that holds a text."""
    found = [line.strip() for line in output.splitlines() if text in line]
    assert found, f"expected {text!r} in:\n{output}"
    return found[0]


def outcomes(home: Path | Storage) -> dict[int, Outcome]:
    """The ledger."""
    return {outcome.trial: outcome for outcome in Ledger(Storage(home)).outcomes()}


def results(home: Path | Storage) -> list[dict[str, Any]]:
    """What of the ledger must not depend on speed or interruptions."""
    fields = {"trial", "status", "params", "metrics", "stages", "seed", "error", "intermediate", "right"}
    return [outcome.model_dump(include=fields) for _, outcome in sorted(outcomes(home).items())]


def choice(home: Path) -> dict[str, Any]:
    """The choice of a search."""
    found: dict[str, Any] = json.loads((home / "best/choice.json").read_text())
    return found


def snapshot(home: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every record, and of every event file of a trial that has ended: a second run would show."""
    ended = sorted(outcomes(home))
    files = [home / "trials" / f"{trial:03d}.json" for trial in ended]
    for trial in ended:
        files += sorted(home.glob(f"tensorboard/{trial:03d} */*"))
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def overlapping_space(folder: Path, number: int) -> Path:
    """A space whose U-Nets are its own, and all before them those of the others."""
    folder.mkdir()
    return write_space(folder, images=200, unet__width=4 + 2 * number, gan__steps=200, gan__steps_per_epoch=50)


def check_shared(storage: Storage, homes: Sequence[Storage]) -> int:
    """Whatever is in the store was built once, by one of the searches; returns how much of it both have used."""
    built, uses = Counter[str](), [set[tuple[str, str]]() for _ in homes]
    for home, used in zip(homes, uses, strict=True):
        ended = [outcome.model_dump() for outcome in Ledger(home).outcomes()]
        seeds = home.child("best").child("seeds")
        ended += [json.loads(seeds.read(name)) for name in seeds.names() if name.endswith(".json")]
        for one in ended:
            built.update({stage: int(work["built"]) for stage, work in one["work"].items()})
            used.update(one["stages"].items())
    store = storage.child("store")
    assert {stage: count for stage, count in built.items() if count} == {
        stage: len(store.child(stage).folders()) for stage in store.folders()
    }
    shared = set.intersection(*uses)
    assert {"classifier", "gan", "projection_train"} <= {stage for stage, _ in shared}
    assert "unet" not in {stage for stage, _ in shared}
    return len(shared)


def searched_alone(space: Path, storage: Path, home: Storage) -> Storage:
    """The experiment of the same name, searched with a store of its own."""
    name = home.uri.partition("?")[0].rpartition("/")[2]
    status, output = run(words(space, storage / name, name=name), storage.with_name(f"{name}-alone.log"))
    assert status == 0, output
    return Storage(storage / name).child(name)


def reported(home: Storage) -> dict[str, Any]:
    """What of a report must not depend on speed, or on who built what."""
    report = json.loads(home.read("report.json"))
    return {key: report[key] for key in ("dataset", "attack", "best", "test")}
