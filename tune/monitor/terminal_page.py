"""The page of the live view: the state of all trials, as wide and high as the terminal allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune.metrics import text_of, title_of
from tune.monitor.terminal_rows import ENDED, FAILURE_ROWS, State, TrialView, choose_rows, ranked
from tune.storage.ledger import in_words

STYLES: Mapping[State, str] = {
    "waiting": "dim",
    "running": "cyan",
    "finished": "green",
    "pruned": "yellow",
    "failed": "red",
}

# columns of a terminal from which there is room for all objectives, the time left, a bar, PCO
WITH_ALL, WITH_LEFT, WITH_BAR, WITH_PCO = 56, 70, 84, 112
BAR, VALUE = 14, 8  # columns
ALIVE = 4  # running trials in a line of a log
LEAST_ROWS = 4  # trials to show however low the terminal is


@dataclass(frozen=True)
class Snapshot:
    """One search as it stands; printing it with rich prints the page."""

    title: str
    total: int  # trials of the whole search
    objectives: Mapping[str, str]  # metric → "max" or "min"; the first decides
    trials: Sequence[TrialView] = ()  # by number; of many those of `shown`
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # stage → times built, times reused
    hint: str = ""  # shown below the title
    seconds: float = 0  # since this session began
    known: int = 0  # trials that had ended before it
    now: float = 0  # seconds since 1970
    max_cost: float | None = None
    budget: tuple[float, float] | None = None  # seconds that trials may run, and those used before this session
    counts: Mapping[State, int] | None = None  # of all trials; None where `trials` are all of them
    kind: str = "trial"  # what they are called

    @property
    def counted(self) -> Mapping[State, int]:
        """Trials by state."""
        return Counter(trial.state for trial in self.trials) if self.counts is None else self.counts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield page(self, options.max_width, options.size.height)


def page(view: Snapshot, width: int, height: int) -> RenderableType:
    """The whole page; it keeps to `height` lines by showing fewer trials."""
    ranking = ranked(view.trials, view.objectives, view.max_cost)
    above = [_title(view), *_hint(view), _counts(view), *_budget(view), _bar(view, width), _best(view, ranking)]
    below = [*_stages(view), *_failures(view)]
    taken = sum(_height(part, width) for part in [*above, *below]) + 6  # blank, head, 3 headings, cursor
    rows = choose_rows(view.trials, ranking, max(height - taken, LEAST_ROWS))
    return Group(*above, *_table(view, rows, width), *below)


def _height(part: RenderableType, width: int) -> int:
    """Lines that a part takes; only texts that may wrap take more than one."""
    return -(-part.cell_len // width) if isinstance(part, Text) and part.cell_len and not part.no_wrap else 1


def _title(view: Snapshot) -> RenderableType:
    return Text(view.title, style="bold", no_wrap=True, overflow="ellipsis")


def _hint(view: Snapshot) -> list[RenderableType]:
    return [Text(view.hint, style="dim", overflow="fold")] if view.hint else []


def _counts(view: Snapshot) -> Text:
    counts: Counter[State] = Counter(view.counted)
    ended = sum(counts[state] for state in ENDED)
    parts = [Text(f"{ended}/{view.total} {view.kind}s", style="bold")]
    parts += [Text(f"{counts[state]} {in_words(state)}", STYLES[state]) for state in STYLES if counts[state]]
    parts.append(Text(duration(view.seconds) + _left(view, ended)))
    return Text(" · ").join(parts)


def _left(view: Snapshot, ended: int) -> str:
    """Time left for the search, from the trials that ended in this session; a single one says too little."""
    here = ended - view.known
    if here < 2 or ended >= view.total:
        return ""
    left = view.seconds / here * (view.total - ended)
    if view.budget:
        left = min(left, max(view.budget[0] - view.budget[1] - view.seconds, 0))
    return f", about {duration(left)} left"


def _budget(view: Snapshot) -> list[Text]:
    """The used share of the budget."""
    if view.budget is None:
        return []
    whole, before = view.budget
    return [Text(f"budget: {duration(before + view.seconds)} of {duration(whole)} used", style="dim")]


def _bar(view: Snapshot, width: int) -> RenderableType:
    ended = sum(number for state, number in view.counted.items() if state in ENDED)
    return _line(_progress_bar(ended, max(view.total, 1), min(width, 80)))


def _progress_bar(done: float, total: float, width: int) -> ProgressBar:
    return ProgressBar(total, done, width, complete_style="cyan", finished_style="green")


def _line(*cells: RenderableType) -> RenderableType:
    """One line; a bar by itself does not end its line."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(*cells)
    return grid


def _best(view: Snapshot, ranking: Sequence[TrialView]) -> RenderableType:
    if not ranking:
        limit = "" if view.max_cost is None else f" within a cost of {view.max_cost:g}"
        return Text(f"best so far: no {view.kind}{limit} has finished yet", style="dim")
    best = ranking[0]
    text = Text("best so far: ", no_wrap=True, overflow="ellipsis")
    text.append(describe(best.metrics, view.objectives), style="bold green")
    return text.append(f" · {best.name}")


def _table(view: Snapshot, rows: Mapping[str, Sequence[TrialView]], width: int) -> list[RenderableType]:
    metrics = _metric_columns(view, width)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    titles = [title_of(metric) for metric in metrics]
    values = sum(2 + max(len(title), VALUE) for title in titles)
    fixed = 26 + values + 8 * (width >= WITH_LEFT) + BAR * (width >= WITH_BAR)
    table.add_column(view.kind, no_wrap=True, overflow="ellipsis", max_width=max(width - fixed, 12))
    table.add_column("state", no_wrap=True)
    table.add_column("done", no_wrap=True)
    for title in [*(["left"] if width >= WITH_LEFT else []), *titles]:
        table.add_column(title, justify="right", no_wrap=True)
    for heading, trials in rows.items():
        if trials:
            table.add_row(Text(heading, "dim italic"))
        for trial in trials:
            table.add_row(*_row(view, trial, metrics, width))
    return [Text(""), table] if table.rows else []


def _row(view: Snapshot, trial: TrialView, metrics: Iterable[str], width: int) -> list[RenderableType]:
    left: list[RenderableType] = [_trial_left(trial, view.now)] if width >= WITH_LEFT else []
    values = [text_of(m, trial.metrics[m]) if m in trial.metrics else "" for m in metrics]
    return [Text(trial.name), _state(trial), _progress(trial, width), *left, *values]


def _metric_columns(view: Snapshot, width: int) -> list[str]:
    """The objectives, and PCO where there is room for it."""
    objectives = list(view.objectives)
    if width < WITH_ALL:
        return objectives[:1]
    with_pco = width >= WITH_PCO and any("pco" in trial.metrics for trial in view.trials)
    return list(dict.fromkeys([*objectives, *(["pco"] if with_pco else [])]))


def _state(trial: TrialView) -> Text:
    words = trial.stage if trial.state == "running" and trial.stage else in_words(trial.state)
    return Text(words, style=STYLES[trial.state])


def _progress(trial: TrialView, width: int) -> RenderableType:
    if trial.state != "running" or not trial.total:
        return Text("")
    percent = f"{100 * min(trial.done / trial.total, 1):3.0f} %"
    if width < WITH_BAR:
        return Text(percent)
    return _line(_progress_bar(trial.done, trial.total, BAR), percent)


def _trial_left(trial: TrialView, now: float) -> str:
    if trial.state != "running" or trial.stage_started is None or not 0 < trial.done < trial.total:
        return ""
    return duration((now - trial.stage_started) * (trial.total - trial.done) / trial.done)


def _stages(view: Snapshot) -> list[RenderableType]:
    if not view.stages:
        return []
    text = Text("built + reused: ", style="dim")
    parts = [f"{stage} {built} + {reused}" for stage, (built, reused) in view.stages.items()]
    return [Text(""), text.append(" · ".join(parts))]


def _failures(view: Snapshot) -> list[RenderableType]:
    latest = [trial for trial in view.trials if trial.state == "failed"][-FAILURE_ROWS:]
    lines = [f"failed: {trial.name}: {one_line(trial.error)}" for trial in latest]
    if (more := view.counted.get("failed", 0) - len(latest)) > 0:
        lines.insert(0, f"failed: {more} more before these")
    return [Text(line, "red", no_wrap=True, overflow="ellipsis") for line in lines]


def alive(view: Snapshot) -> str:
    """The state of a search in one line of a log: its counts, and how far some of the running trials are."""
    running = [trial for trial in view.trials if trial.state == "running" and trial.stage]
    parts = [f"{trial.name}: {_how_far(trial, view.now)}" for trial in running[:ALIVE]]
    if len(running) > ALIVE:
        parts.append(f"and {len(running) - ALIVE} more")
    return " · ".join([_counts(view).plain, *parts])


def _how_far(trial: TrialView, now: float) -> str:
    """`projection 25 %, 1:30 left`."""
    percent = f" {100 * min(trial.done / trial.total, 1):.0f} %" if trial.total else ""
    left = _trial_left(trial, now)
    return f"{trial.stage}{percent}" + (f", {left} left" if left else "")


def describe(metrics: Mapping[str, float], names: Iterable[str]) -> str:
    """`PSD 87.5 %, cost 240`; names without a value are left out."""
    known = [name for name in names if name in metrics]
    return ", ".join(f"{title_of(name)} {text_of(name, metrics[name])}" for name in known)


def duration(seconds: float) -> str:
    """`0.4 s`, `38 s`, `3:12`, `1:02:03`."""
    if 0.05 <= seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def one_line(error: str | None) -> str:
    """The last line of an error, which names it."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
