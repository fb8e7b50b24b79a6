"""The terminal view: what stands on the page, which lines a log gets, and that the terminal comes back."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from tune.metrics import text_of
from tune.monitor.terminal import LiveView, TrialView
from tune.monitor.terminal_page import Snapshot, duration
from tune.monitor.terminal_rows import State, choose_rows, ranked

OBJECTIVES = {"psd": "max", "cost": "min"}
STAGES = {"gan": (1, 4), "projection": (2, 3)}
NOW = 1_700_000_000.0


def finished(number: int, psd: float, cost: float = 240, **more: Any) -> TrialView:
    name, metrics = f"{number:03d} R4 L60", {"psd": psd, "cost": cost, "pco": 0.9}
    return TrialView(number, name, "finished", metrics=metrics, started=NOW + number, **more)


RUNNING = TrialView(
    4, "004 R2 L30 λ0.3", "running", "projection", 150, 600, started=NOW - 90, stage_started=NOW - 30
)
FAILED = TrialView(
    2, "002 R1 L10 λ0.02", "failed", error="Traceback …\nRuntimeError: CUDA out of memory\n", started=NOW
)
PRUNED = TrialView(3, "003 R4 L20 λ10", "pruned", metrics={"psd": 0.61}, started=NOW)
TRIALS = (finished(0, 0.85), finished(1, 0.875, 120), FAILED, PRUNED, RUNNING)


def page(trials: tuple[TrialView, ...] = TRIALS, width: int = 100, height: int = 40, **more: Any) -> str:
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    view = Snapshot("quickstart · defense", 20, OBJECTIVES, trials, STAGES, seconds=125, now=NOW, **more)
    console.print(view)
    return console.export_text()


def plain(width: int = 100, **options: Any) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=width)
    return LiveView("quickstart · defense", 20, OBJECTIVES, console=console, **options), file


def lines(file: io.StringIO) -> list[str]:
    """Without the time of day."""
    return [line.split(" ", 1)[1] for line in file.getvalue().splitlines()]


def test_a_long_title_of_a_metric_takes_its_room_from_the_names() -> None:
    long = replace(RUNNING, name="004 " + "gan.latent_dim 64 " * 4)
    ended = replace(finished(0, 0.85), metrics={"clean_gan": 0.85})
    console = Console(record=True, width=80, height=40, file=io.StringIO())
    console.print(Snapshot("gan", 20, {"clean_gan": "max"}, (ended, long), now=NOW))
    text = console.export_text()
    assert "clean accuracy, no U-Net" in text
    (row,) = (line for line in text.splitlines() if line.startswith("004"))
    assert row.split()[-4:] == ["projection", "25", "%", "1:30"]


def test_a_log_tells_of_a_trial_that_waits_and_goes_on() -> None:
    view, file = plain()
    waits = replace(RUNNING, stage="waiting for gan", total=0)
    with view:
        for trial in (RUNNING, waits, replace(waits, state="waiting"), replace(RUNNING, stage="")):
            view.update([trial], {})
    assert lines(file)[-2:] == [
        "004 R2 L30 λ0.3: waiting for gan; others have its share of the machine",
        "004 R2 L30 λ0.3: goes on",
    ]


def test_a_log_is_told_now_and_then_that_a_long_stage_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("tune.monitor.terminal.time.monotonic", lambda: clock[0])
    running = replace(RUNNING, stage_started=time.time() - 30)
    view, file = plain()
    with view:
        for _ in range(200):  # looks, half a second apart
            view.update([finished(0, 0.85), running], {})
            clock[0] += 0.5
    said = [line for line in lines(file) if "trials" in line]
    assert len(said) == 1
    assert said[0].startswith("1/20 trials · 1 running · 1 finished · ")
    assert said[0].endswith("004 R2 L30 λ0.3: projection 25 %, 1:30 left")
    quiet, file = plain(quiet=True)
    with quiet:
        quiet.update([running], {})
        clock[0] += 1000
        quiet.update([running], {})
    assert file.getvalue() == ""


# --- the page ---------------------------------------------------------------------------------------------


def test_page_counts_trials_by_state() -> None:
    text = page()
    assert "quickstart · defense" in text
    assert "4/20 trials · 1 running · 2 finished · 1 stopped early · 1 failed · 2:05, about 8:20 left" in text


def test_seeds_are_not_called_trials() -> None:
    running = replace(RUNNING, name="seed 0")
    shown = page((running,), kind="seed")
    assert "0/20 seeds · 1 running" in shown
    assert "best so far: no seed has finished yet" in shown
    assert "trial" not in shown


def test_page_names_the_best_so_far() -> None:
    assert "best so far: PSD 87.5 %, cost 120 · 001 R4 L60" in page()
    assert "no trial has finished yet" in page((RUNNING,))


def test_page_shows_the_running_stage_with_progress_and_time_left() -> None:
    (row,) = [line for line in page().splitlines() if line.startswith("004")]
    assert row.split()[:5] == ["004", "R2", "L30", "λ0.3", "projection"]
    assert "25 %" in row
    assert "1:30" in row  # 30 s for a quarter


def test_page_shows_reuse_and_failures_with_their_reason() -> None:
    text = page()
    assert "built + reused: gan 1 + 4 · projection 2 + 3" in text
    assert "failed: 002 R1 L10 λ0.02: RuntimeError: CUDA out of memory" in text


def test_page_shows_the_hint_whole() -> None:
    command = "python -m tensorboard.main --logdir " + "long/" * 40
    assert command in page(hint=command).replace("\n", "")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 220])
def test_page_keeps_to_the_width(width: int) -> None:
    text = page(width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "004" in text
    assert "25 %" in text
    assert "87.5 %" in text


@pytest.mark.parametrize("height", [16, 24, 50])
def test_page_of_a_thousand_trials_keeps_to_the_height(height: int) -> None:
    trials = tuple(finished(n, n / 2000) for n in range(1000)) + tuple(
        replace(RUNNING, number=n, name=f"{n} running") for n in range(1000, 1064)
    )
    begun = time.perf_counter()
    text = page(trials, height=height, hint="TensorBoard: …")
    assert time.perf_counter() - begun < 2
    assert len(text.splitlines()) <= height
    assert "1000 running" in text
    assert "999 R4 L60" in text


def test_rows_are_the_running_the_best_and_the_latest() -> None:
    trials = [*(finished(n, -abs(n - 10)) for n in range(50)), replace(RUNNING, number=50)]
    rows = choose_rows(trials, ranked(trials, OBJECTIVES), room=9)
    numbers = {heading: [trial.number for trial in part] for heading, part in rows.items()}
    assert numbers == {"running": [50], "best": [10, 9, 11], "latest": [49, 48, 47, 46, 45]}


def test_of_many_trials_the_page_is_the_same_and_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.monitor.terminal.REMEMBERED", 30)
    trials = [replace(FAILED, number=n) if n % 9 == 4 else finished(n, abs(n - 40) / 1000) for n in range(300)]
    trials.append(replace(RUNNING, number=300))
    view, _ = plain(quiet=True)
    for trial in trials:
        view.update([trial], STAGES)
    told = view.snapshot()
    assert len(told.trials) < 70
    assert page(tuple(told.trials), counts=told.counts) == page(tuple(trials))


@pytest.mark.parametrize(
    ("metrics", "max_cost", "best"),
    [
        ([{"psd": 0.8, "cost": 10}, {"psd": 0.9, "cost": 99}], None, 1),
        ([{"psd": 0.8, "cost": 10}, {"psd": 0.9, "cost": 99}], 50, 0),
        ([{"psd": 0.9, "cost": 99}, {"psd": 0.9, "cost": 10}], None, 1),
        ([{"psd": 0.9, "cost": 10}, {"psd": 0.9, "cost": 10}], None, 0),
        ([{"psd": float("nan"), "cost": 10}, {"psd": 0.1, "cost": 10}], None, 1),
        ([{"psd": 0.9}, {"psd": 0.1, "cost": 10}], None, 1),
    ],
)
def test_best(metrics: list[Mapping[str, float]], max_cost: float | None, best: int) -> None:
    trials = [TrialView(number, "", "finished", metrics=values) for number, values in enumerate(metrics)]
    assert ranked(trials, OBJECTIVES, max_cost)[0].number == best


# --- plain lines ------------------------------------------------------------------------------------------


def test_without_a_terminal_each_event_is_a_line() -> None:
    view, file = plain(hint="TensorBoard: tensorboard --logdir x")
    with view:
        view.update([], {})
        view._began -= 60
        for stage in ("gan", "projection", "projection"):
            view.update([replace(RUNNING, stage=stage, stage_started=time.time() - 30)], STAGES)
        done = replace(finished(4, 0.875, 60), name=RUNNING.name, started=time.time() - 95)
        view.update([done], STAGES)
        view.update([done, FAILED], STAGES)
    assert lines(file) == [
        "quickstart · defense",
        "TensorBoard: tensorboard --logdir x",
        "004 R2 L30 λ0.3: started",
        "004 R2 L30 λ0.3: gan started",
        "004 R2 L30 λ0.3: gan done (30 s)",
        "004 R2 L30 λ0.3: projection started",
        "004 R2 L30 λ0.3: projection done (30 s)",
        "004 R2 L30 λ0.3: finished (1:35) PSD 87.5 %, cost 60, PCO 90.0 %",
        "002 R1 L10 λ0.02: failed: RuntimeError: CUDA out of memory",
    ]


def test_work_that_was_begun_ahead_goes_on_and_waiting_is_no_work() -> None:
    view, file = plain()
    with view:
        for stage, seconds in (("gan", 65), ("waiting to be trained", 0), ("unet", 0)):
            view.update([replace(RUNNING, stage=stage, stage_started=time.time() - seconds)], STAGES)
    assert lines(file)[2:] == [
        "004 R2 L30 λ0.3: gan goes on, begun 1:05 ago",
        "004 R2 L30 λ0.3: gan done (1:05)",
        "004 R2 L30 λ0.3: waiting to be trained",
        "004 R2 L30 λ0.3: unet started",
    ]


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_stage_that_was_cut_short_is_not_done(state: State) -> None:
    view, file = plain()
    with view:
        view.update([], {})
        view.update([RUNNING], STAGES)
        view.update([replace(RUNNING, state=state, error="lost")], STAGES)
    assert not [line for line in lines(file) if "done" in line]


def test_a_trial_that_lost_its_worker_says_so() -> None:
    view, file = plain()
    with view:
        view._began = NOW - 90
        view.update([], {})
        view.update([RUNNING], STAGES)
        view.update([replace(RUNNING, started=time.time(), stage="")], STAGES)
        view.update([replace(RUNNING, started=view.snapshot().trials[0].started, stage="gan")], STAGES)
    assert [line.partition(": ")[2] for line in lines(file)[1:]] == [
        "started", "projection started", "started again, as it was cut short", "gan started",
    ]  # fmt: skip


def test_trials_known_from_before_are_counted_and_not_listed() -> None:
    view, file = plain()
    with view:
        view.update(TRIALS[:4], STAGES)
        view.update(TRIALS[:4], STAGES)
    assert lines(file)[1:] == ["known from before: 2 finished, 1 failed, 1 stopped early"]


def test_a_promoted_trial_is_said_to_go_on_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pruned = TrialView(RUNNING.number, RUNNING.name, "pruned")
    promoted = replace(RUNNING, stage="", promoted=True)
    view, file = plain()
    with view:
        view.update([pruned], {})
        view.update([promoted], {})
        view.update([replace(finished(4, 0.875, 60), name=RUNNING.name, started=None)], {})
    assert lines(file)[2:4] == [
        "004 R2 L30 λ0.3: promoted, goes on",
        "004 R2 L30 λ0.3: finished PSD 87.5 %, cost 60, PCO 90.0 %",
    ]
    monkeypatch.setattr("tune.monitor.terminal.REMEMBERED", 2)
    view, _ = plain(quiet=True)
    for number in range(9):
        view.update([replace(pruned, number=number)], {})
    view.update([replace(promoted, number=1)], {})  # long forgotten
    counts = view.snapshot().counted
    assert (counts["pruned"], counts["running"]) == (8, 1)


def test_a_resumed_searchs_failures_stay_failures_until_they_run_again() -> None:
    view, file = plain()
    with view:
        view.update([FAILED], {})
        view.update([replace(FAILED, state="running", stage="gan", error=None)], {})
    assert lines(file)[2:] == ["002 R1 L10 λ0.02: started", "002 R1 L10 λ0.02: gan started"]


def test_a_stage_on_another_node_names_it() -> None:
    view, file = plain()
    with view:
        view._began = NOW - 90
        view.update([replace(RUNNING, host="ip-172-31-0-7")], {})
    assert lines(file)[-1].endswith(f": {RUNNING.stage} started on ip-172-31-0-7")


def test_quiet_says_nothing_but_failures() -> None:
    view, file = plain(quiet=True)
    with view:
        view.note("a note")
        view.update([RUNNING], STAGES)
        view.update([replace(RUNNING, state="finished"), FAILED], STAGES)
    assert lines(file) == ["002 R1 L10 λ0.02: failed: RuntimeError: CUDA out of memory"]


def test_verbose_says_each_quarter_of_a_stage() -> None:
    view, file = plain(verbose=True)
    with view:
        view.update([], {})
        for done in (0, 100, 150, 200, 310):
            view.update([replace(RUNNING, done=done)], STAGES)
    assert lines(file)[3:] == ["004 R2 L30 λ0.3: projection 150/600", "004 R2 L30 λ0.3: projection 310/600"]


def test_markup_in_names_and_errors_is_text() -> None:
    view, file = plain()
    with view:
        view.update([], {})
        view.update([replace(FAILED, error="[red]KeyError: [/nothing]")], {})
    assert lines(file)[-1].endswith("failed: [red]KeyError: [/nothing]")
    assert "[/nothing]" in page((replace(FAILED, error="KeyError: [/nothing]"),))


def test_a_terminal_without_the_letters_gets_others() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    with LiveView("a · b", 1, OBJECTIVES, console=Console(file=file, width=80)) as view:
        view.note("λ0.3")
    file.flush()
    assert raw.getvalue().decode("ascii").endswith("?0.3\n")


# --- the terminal -----------------------------------------------------------------------------------------


def terminal() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=100, height=30, _environ={"TERM": "xterm"}), file


def test_a_terminal_gets_the_page_and_its_cursor_back() -> None:
    console, file = terminal()
    with LiveView("quickstart · defense", 20, OBJECTIVES, console=console) as view:
        view.note("TensorBoard: …")
        view.update(TRIALS, STAGES)
    text = file.getvalue()
    assert "TensorBoard: …" in text
    assert "best so far" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def interrupted(view: LiveView) -> None:
    view.update(TRIALS, STAGES)
    raise KeyboardInterrupt


def test_ctrl_c_gives_the_cursor_back() -> None:
    console, file = terminal()
    view = LiveView("quickstart · defense", 20, OBJECTIVES, console=console)
    with pytest.raises(KeyboardInterrupt), view:
        interrupted(view)
    text = file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_quiet_leaves_the_terminal_alone() -> None:
    console, file = terminal()
    with LiveView("quickstart · defense", 20, OBJECTIVES, quiet=True, console=console) as view:
        view.update([RUNNING], STAGES)
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.42, "0.4 s"), (38.4, "38 s"), (192, "3:12"), (3723, "1:02:03"), (-5, "0 s")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("psd", 0.8754, "87.5 %"),
        ("cost", 240, "240"),
        ("cost", 123456, "123,456"),
        ("validation_loss", 0.123456, "0.1235"),
        ("psd", float("nan"), "nan"),
    ],
)
def test_text_of(name: str, value: float, text: str) -> None:
    assert text_of(name, value) == text


def test_a_closed_output_ends_the_search_by_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    closed = os.fdopen(write, "w", buffering=1)
    monkeypatch.setattr("sys.stdout", closed)
    with pytest.raises(BrokenPipeError), LiveView("one", 3, {"psd": "max"}) as view:  # not SystemExit, as rich does
        view.note("a line")
    with pytest.raises(BrokenPipeError):
        closed.close()
