"""The live view of a search: a page that redraws itself in a terminal, or plain lines elsewhere.

    with LiveView("quickstart · defense", total=20, objectives={"psd": "max", "cost": "min"}) as view:
        view.note("TensorBoard: python -m tensorboard.main --logdir …")
        while searching:
            view.update(trials, {"gan": (1, 19)})  # of each stage: times built, times reused

It is told the state of trials, again and again, and finds out itself what has changed. Of a search with many trials it
remembers those that the page may still show.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from tune.monitor.console import Output
from tune.monitor.terminal_page import Snapshot, alive, describe, duration, one_line
from tune.monitor.terminal_rows import ENDED, State, TrialView, shown
from tune.storage.ledger import in_words

__all__ = ["LiveView", "TrialView"]

REMEMBERED = 500  # ended trials, of which a page shows the best, the latest and the latest failures
REFRESH = 4  # redraws per second: clocks and bars move between two updates
EARLY = 5.0  # seconds before the view opened, from which a stage was begun ahead of it; clocks of nodes differ a little
WAITING = "waiting "  # what stages that only wait begin with
SILENCE = 60.0  # seconds after which a log is told that the search is alive


class LiveView:
    """Shows a search while it runs. Leaving it, by Ctrl-C too, gives the terminal back as it was.

    Args:
        title: the experiment and its target.
        total: trials of the whole search.
        objectives: metric → "max" or "min"; the first decides what is best, ties go to the next.
        quiet: say nothing but failures.
        verbose: also say what is otherwise only seen on the page; in plain lines, each quarter of a stage.
        hint: a line below the title, such as the command that opens TensorBoard.
        max_cost: the largest cost that "best" may have.
        budget: seconds that trials may run, and how many of them earlier sessions used; None = no limit.
        kind: what is shown in the place of trials: seeds of a retraining, for example.
        console: where to; None = standard output.
    """

    def __init__(
        self,
        title: str,
        total: int,
        objectives: Mapping[str, str],
        quiet: bool = False,
        verbose: bool = False,
        hint: str = "",
        max_cost: float | None = None,
        budget: tuple[float, float] | None = None,
        kind: str = "trial",
        console: Console | None = None,
    ) -> None:
        self.console = console or Output()
        self._quiet, self._verbose = quiet, verbose
        self._began = time.time()
        self._view = Snapshot(title, total, objectives, hint=hint, max_cost=max_cost, budget=budget, kind=kind)
        self._trials: dict[int, TrialView] | None = None
        self._counts: Counter[State] = Counter()
        self._live: Live | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._began = time.time()
        if not self._quiet and _can_redraw(self.console):
            self._live = Live(
                console=self.console,
                get_renderable=self.snapshot,
                refresh_per_second=REFRESH,
                vertical_overflow="crop",
            )
            self._live.start()
        elif not self._quiet:
            self._say(self._view.title)
            if self._view.hint:
                self._say(self._view.hint)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, trials: Iterable[TrialView], stages: Mapping[str, tuple[int, int]]) -> None:
        """Show the state of trials, at least of those that changed, and how often each stage was built and reused."""
        ordered = sorted(trials, key=lambda trial: trial.number)
        if self._trials is None:
            self._trials = {trial.number: trial for trial in ordered if trial.state in ENDED}
            self._counts.update(trial.state for trial in self._trials.values())
            self._view = replace(self._view, known=len(self._trials))
            self._resumed()
        for trial in ordered:
            before = self._trials.get(trial.number)
            if before is not trial:
                self._report(before, trial)
                self._counts[trial.state] += 1
                if before is not None or trial.promoted:
                    self._counts[before.state if before is not None else "pruned"] -= 1
                self._trials[trial.number] = trial
        if len(self._trials) > 2 * REMEMBERED:
            kept = shown(self._trials.values(), self._view.objectives, self._view.max_cost, REMEMBERED)
            self._trials = {trial.number: trial for trial in kept}
        known = sorted(self._trials.values(), key=lambda trial: trial.number)
        self._view = replace(self._view, trials=known, counts=dict(self._counts), stages=dict(stages))
        if self._live is None and not self._quiet and time.monotonic() - self._said > SILENCE:
            self._say(alive(self.snapshot()))

    def expect(self, total: int) -> None:
        """Another number of trials, where it depends on how they end."""
        self._view = replace(self._view, total=total)

    def note(self, text: str) -> None:
        """Say something once; it stays above the page."""
        if not self._quiet:
            self._say(text)

    def snapshot(self) -> Snapshot:
        """The search as it stands now, for rich to print."""
        now = time.time()
        return replace(self._view, now=now, seconds=now - self._began)

    def _resumed(self) -> None:
        if self._counts:
            self.note("known from before: " + ", ".join(f"{n} {in_words(state)}" for state, n in self._counts.items()))

    def _report(self, before: TrialView | None, trial: TrialView) -> None:
        """One line for each event; beside the page, which shows them all, only if that is wished for."""
        failed = trial.state == "failed" and (before is None or before.state != "failed")
        if self._verbose or self._live is None:
            for event in () if self._quiet else self._events(before, trial):
                self._say(f"{trial.name}: {event}")
            if failed:
                self._say(f"{trial.name}: failed: {one_line(trial.error)}")

    def _events(self, before: TrialView | None, trial: TrialView) -> Iterator[str]:
        ran = before is not None and before.state == "running"
        lost = ran and before is not None and trial.state == "running" and trial.started != before.started
        cut = lost or trial.state in ("failed", "pruned")  # its stage ended without being done
        old_stage = before.stage if before is not None and ran and not cut else ""
        if lost:
            yield "started again, as it was cut short"
        elif trial.state == "running" and not ran:
            paused = before is not None and before.stage
            yield "goes on" if paused else "promoted, goes on" if trial.promoted else "started"
        if trial.state == "waiting" and before is not None and before.state == "running":
            yield f"{trial.stage}; others have its share of the machine"
        ended = trial.state in ENDED and (before is None or before.state not in ENDED)
        works = not old_stage.startswith(WAITING)
        if old_stage and works and before is not None and (trial.stage != old_stage or ended):
            yield f"{old_stage} done{self._since(before.stage_started)}"
        if trial.state == "running" and trial.stage and trial.stage != old_stage:
            yield self._entered(trial)
        elif self._verbose and before is not None and _quarter(trial) > _quarter(before):
            yield f"{trial.stage} {trial.done:g}/{trial.total:g}"
        if ended and trial.state != "failed":
            names = dict.fromkeys([*self._view.objectives, "pco"])
            yield f"{in_words(trial.state)}{self._since(trial.started)} {describe(trial.metrics, names)}".rstrip()

    def _entered(self, trial: TrialView) -> str:
        """The event of a stage that is new to this view, which work done ahead may have been in for long."""
        if trial.stage.startswith(WAITING):
            return trial.stage
        began, place = trial.stage_started, f" on {trial.host}" if trial.host else ""
        if began is not None and began < self._began - EARLY:
            return f"{trial.stage} goes on, begun {duration(time.time() - began)} ago{place}"
        return f"{trial.stage} started{place}"

    def _since(self, started: float | None) -> str:
        return "" if started is None else f" ({duration(time.time() - started)})"

    def _say(self, text: str) -> None:
        """One line with the time; characters that the terminal lacks are replaced, never an error."""
        self._said = time.monotonic()
        stamp = "" if self._live is not None else time.strftime("%H:%M:%S ")
        encoding = self.console.encoding
        line = f"{stamp}{text}".encode(encoding, "replace").decode(encoding)
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _can_redraw(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal and console.encoding.lower().startswith("utf")


def _quarter(trial: TrialView) -> int:
    return int(4 * trial.done / trial.total) if trial.state == "running" and trial.total else 0
