"""The ledger: what is written is read, what is damaged is named, and the first record counts."""

import csv
import io
import json
import logging
import math
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), NUMBERS, st.text(max_size=12))
OUTCOMES = st.builds(
    Outcome,
    trial=st.integers(0, 2000),
    status=st.sampled_from(["finished", "failed", "pruned"]),
    params=st.dictionaries(KEYS, VALUES, max_size=4),
    metrics=st.dictionaries(KEYS, NUMBERS | st.integers(0, 10**6), max_size=4),
    stages=st.dictionaries(KEYS, st.text("0123456789abcdef"), max_size=2),
    seconds=st.floats(0, 1e6),
    seed=st.integers(0, 2**32 - 1),
    error=st.none() | st.text(max_size=20),
    work=st.just({"gan": {"built": 1, "reused": 0, "seconds": 2.5}}),
    intermediate=st.dictionaries(st.integers(1, 99).map(str), NUMBERS, max_size=3),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger in the test's folder."""
    return Ledger(Storage(tmp_path))


def outcome(trial: int = 0, **changes: Any) -> Outcome:
    """A finished outcome."""
    params = {"projector.steps": 30}
    values: dict[str, Any] = {"status": "finished", "params": params, "metrics": {"psd": 0.9}}
    return Outcome(trial=trial, **{**values, **changes})


def test_an_experiment_not_begun_is_empty(ledger: Ledger) -> None:
    assert ledger.outcomes() == []
    assert ledger.proposals() == {}
    assert ledger.outcome(3) is None
    assert ledger.problems == []


@settings(max_examples=40, deadline=None)
@given(outcomes=st.lists(OUTCOMES, max_size=5, unique_by=lambda o: o.trial))
def test_another_process_reads_what_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome]
) -> None:
    storage = Storage(tmp_path_factory.mktemp("ledger"))
    for written in outcomes:
        assert Ledger(storage).record(written) == written
    read = Ledger(storage).outcomes()
    assert read == sorted(outcomes, key=lambda o: o.trial)
    for one, other in zip(read, sorted(outcomes, key=lambda o: o.trial), strict=True):
        assert {k: type(v) for k, v in one.params.items()} == {k: type(v) for k, v in other.params.items()}


def test_the_file_has_the_documented_keys(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record(outcome(7, stages={"gan": "ab12"}, seconds=1.5, ended=1.7e9, seed=3, intermediate={"1": 0.5}))
    ledger.propose(7, {"projector.steps": 30})
    assert json.loads((tmp_path / "trials" / "007.json").read_text()) == {
        "trial": 7,
        "status": "finished",
        "params": {"projector.steps": 30},
        "metrics": {"psd": 0.9},
        "stages": {"gan": "ab12"},
        "seconds": 1.5,
        "ended": 1.7e9,
        "seed": 3,
        "error": None,
        "work": {},
        "intermediate": {"1": 0.5},
        "right": {},
        "earlier": [],
    }
    proposal = json.loads((tmp_path / "proposals" / "007.json").read_text())
    assert proposal == {"trial": 7, "params": {"projector.steps": 30}}


def test_the_first_record_counts(ledger: Ledger, tmp_path: Path) -> None:
    first = outcome(metrics={"psd": 0.5})
    other = Ledger(Storage(tmp_path))
    assert ledger.record(first) == first
    for late in (ledger, other):
        assert late.record(outcome(status="failed", error="the worker died")) == first
    assert Ledger(Storage(tmp_path)).outcomes() == [first]
    assert ledger.propose(0, {"a": 1}) == {"a": 1}
    assert other.propose(0, {"a": 2}) == {"a": 1}


def test_the_record_of_a_promoted_trial_takes_the_place_of_the_one_before(ledger: Ledger, tmp_path: Path) -> None:
    aside = ledger.record(outcome(status="pruned", seconds=2.0, ended=10.0))
    worker = Ledger(Storage(tmp_path))
    assert worker.outcome(0) == aside
    assert worker.outcome(0, promotions=1) is None
    better = worker.record(outcome(seconds=5.0, ended=33.0, earlier=aside.spans))
    assert better.spans == [[8.0, 10.0], [30.0, 33.0]]
    assert ledger.outcome(0) == aside  # as nobody has asked for another
    assert ledger.outcome(0, promotions=1) == better
    assert ledger.outcome(0) == better
    assert ledger.record(outcome(status="failed", earlier=[[1.0, 2.0]])) == better  # again the first one counts
    assert Ledger(Storage(tmp_path)).outcomes() == [better]
    assert ledger.outcome(0, promotions=2) is None


def test_of_many_writers_all_agree(tmp_path: Path) -> None:
    start, agreed = threading.Barrier(8), []

    def record(seed: int) -> None:
        start.wait()
        agreed.append(Ledger(Storage(tmp_path)).record(outcome(seed=seed)))

    writers = [threading.Thread(target=record, args=(seed,)) for seed in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({one.seed for one in agreed}) == 1
    assert Ledger(Storage(tmp_path)).outcome(0) == agreed[0]


@pytest.mark.parametrize("kept", [0, 1, 20, 100, -1])
def test_a_truncated_record_is_named_and_not_there(ledger: Ledger, tmp_path: Path, kept: int) -> None:
    for trial in range(3):
        ledger.record(outcome(trial))
    torn = tmp_path / "trials" / "001.json"
    torn.write_bytes(torn.read_bytes()[:kept])
    later = Ledger(Storage(tmp_path))
    assert [known.trial for known in later.outcomes()] == [0, 2]
    assert later.outcome(1) is None
    (problem,) = later.problems
    assert "001.json: expected the outcome of trial 1, found" in problem
    assert problem.endswith("treated as not there")


DAMAGES = {
    "zeros": b"\0" * 300,
    "not utf-8": b"\xff\xfe{}",
    "another type": b"[]",
    "text for a number": b'{"trial": 0, "status": "finished", "params": {}, "seconds": "1"}',
    "an unknown status": b'{"trial": 0, "status": "done", "params": {}}',
    "no parameters": b'{"trial": 0, "status": "finished"}',
    "another trial's": b'{"trial": 1, "status": "finished", "params": {}}',
    "NaN": b'{"trial": 0, "status": "finished", "params": {}, "metrics": {"psd": NaN}}',
    "infinity": b'{"trial": 0, "status": "finished", "params": {"a": Infinity}}',
    "an overflow": b'{"trial": 0, "status": "finished", "params": {}, "metrics": {"psd": 1e999}}',
    "null": b'{"trial": 0, "status": "finished", "params": {}, "metrics": {"psd": null}}',
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_no_record_is_replaced_by_one(ledger: Ledger, tmp_path: Path, damage: bytes) -> None:
    Storage(tmp_path).write("trials/000.json", damage)
    assert ledger.outcomes() == []
    assert len(ledger.problems) == 1
    assert ledger.record(outcome()) == outcome()
    assert ledger.problems == []
    assert Ledger(Storage(tmp_path)).outcomes() == [outcome()]


def test_damage_is_told_once(ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Storage(tmp_path).write("proposals/004.json", b"{")
    with caplog.at_level(logging.WARNING):
        for one in (ledger, ledger, Ledger(Storage(tmp_path))):  # as a search and its report read it
            assert one.proposals() == {}
    assert len(caplog.records) == 1
    assert "004.json: expected the proposal of trial 4" in caplog.text


def test_a_record_of_a_later_version_is_read(ledger: Ledger, tmp_path: Path) -> None:
    record = {**outcome().model_dump(), "carbon": 3}
    Storage(tmp_path).write("trials/000.json", json.dumps(record).encode())
    assert ledger.outcomes() == [outcome()]


def test_other_files_are_passed_over(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record(outcome())
    for name in ("notes.txt", "000.json.bak", ".000.json.tmp", "x.json"):
        Storage(tmp_path).write(f"trials/{name}", b"?")
    (tmp_path / "trials" / "001.json").mkdir()
    assert ledger.outcomes() == [outcome()]
    assert ledger.problems == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(ledger: Ledger, bad: float) -> None:
    with pytest.raises(ValueError, match=r"metrics\.psd: expected a finite number, found .*000\.json"):
        ledger.record(outcome(metrics={"psd": bad}))
    with pytest.raises(ValueError, match=r"params\.unet\.high_level_weight: expected a finite number"):
        ledger.propose(0, {"unet.high_level_weight": bad})
    with pytest.raises(ValueError, match=r"work\.gan\.seconds: expected a finite number"):
        ledger.record(outcome(work={"gan": {"seconds": bad}}))
    assert ledger.outcomes() == []
    assert ledger.proposals() == {}


def test_nan_settles_as_a_failure_that_says_so(ledger: Ledger) -> None:
    lost = outcome(metrics={"psd": math.nan, "cost": 40}, intermediate={"1": 0.4, "2": math.inf}).settled()
    assert lost.status == "failed"
    assert lost.error == "metrics.psd: expected a finite number, found nan"
    assert lost.metrics == {"cost": 40}
    assert lost.intermediate == {"1": 0.4}
    assert ledger.record(lost) == lost
    assert outcome().settled() == outcome()


def test_trials_past_the_thousandth_are_in_order(ledger: Ledger, tmp_path: Path) -> None:
    for trial in (1000, 2, 999, 10000):
        ledger.record(outcome(trial))
    assert [known.trial for known in Ledger(Storage(tmp_path)).outcomes()] == [2, 999, 1000, 10000]


def test_a_table_of_all_trials(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record(outcome(1, params={"a.b": 1, "a.c": True}, metrics={"psd": 0.1 + 0.2}, seconds=2.0))
    ledger.record(Outcome(trial=0, status="failed", params={"a.b": 2}, error='ValueError: "x", y\nz'))
    ledger.write_csv()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert list(rows[0]) == ["trial", "status", "a.b", "a.c", "psd", "seconds", "seed", "error"]
    assert rows[0]["error"] == 'ValueError: "x", y\nz'
    assert rows[0]["psd"] == rows[0]["a.c"] == ""
    assert float(rows[1]["psd"]) == 0.1 + 0.2
    assert [row["trial"] for row in rows] == ["0", "1"]


def test_an_empty_table(ledger: Ledger, tmp_path: Path) -> None:
    ledger.write_csv()
    assert (tmp_path / "trials.csv").read_text() == "trial,status,seconds,seed,error\n"


class Counting(Storage):
    """A folder that counts the files read from it."""

    reads = 0

    def read(self, name: str) -> bytes:
        """As ever."""
        Counting.reads += 1
        return super().read(name)

    def child(self, name: str) -> Storage:
        """Counted as well."""
        return Counting(super().child(name))


def test_each_record_is_read_once(tmp_path: Path) -> None:
    writer, reader = Ledger(Storage(tmp_path)), Ledger(Counting(tmp_path))
    for trial in range(30):
        writer.record(outcome(trial))
        assert len(reader.outcomes()) == trial + 1
        assert reader.outcome(trial) == outcome(trial)
    assert Counting.reads == 30


def test_what_a_trial_tells_is_not_read(tmp_path: Path) -> None:
    Counting.reads, reader = 0, Ledger(Counting(tmp_path))
    told = Ledger(Storage(tmp_path)).record(outcome(3))
    reader.learn(3, told.model_dump_json())
    assert reader.outcome(3) == outcome(3)
    assert Counting.reads == 0
    reader.learn(4, told.model_dump_json())  # it is of another trial
    assert reader.outcome(4) is None


def test_storage_out_of_reach_is_no_lost_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(Storage(tmp_path)).record(outcome())

    def fails(self: Storage, name: str) -> bytes:
        raise OSError(f"{name}: AWS Error SLOW_DOWN")

    monkeypatch.setattr(Storage, "read", fails)
    with pytest.raises(OSError, match="SLOW_DOWN"):
        Ledger(Storage(tmp_path)).outcomes()


def test_workers_get_it_without_what_it_has_read(ledger: Ledger, tmp_path: Path) -> None:
    for trial in range(50):
        ledger.record(outcome(trial))
    sent = pickle.dumps(ledger)
    assert len(sent) < 1000
    assert pickle.loads(sent).outcomes() == ledger.outcomes()


@pytest.mark.slow
def test_a_thousand_trials_are_not_a_thousand_times_slower(tmp_path: Path) -> None:
    ledger, seconds = Ledger(Storage(tmp_path)), []
    for trial in range(1000):
        begun = time.perf_counter()
        ledger.propose(trial, {"a": trial})
        ledger.record(outcome(trial))
        assert len(ledger.outcomes()) == trial + 1
        seconds.append(time.perf_counter() - begun)
    early, late = sorted(seconds[50:150])[50], sorted(seconds[900:])[50]
    assert late < 5 * early + 0.005, f"{early:.4f} s per trial at the 100th, {late:.4f} s at the 1,000th"
