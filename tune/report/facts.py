"""The facts of a search: what its files hold and what follows from that, for report.json and every section alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args
from urllib.parse import urlsplit

from components.attacks import ATTACKS, Attack
from components.robustness import Robustness
from tune.metrics import METRICS, OBJECTIVES, TARGETS, Objective, Target, images_measured, objectives_of
from tune.optimizer.choice import NoChoiceError, Objectives, by_rank, choose, has_objectives, pareto_front
from tune.optimizer.finalists import finalists_of
from tune.optimizer.stopping import Clock
from tune.report.effects import Effects, effects
from tune.report.reading import Choice, Finalists, ProjectionMap, Reader, SeedScore
from tune.report.scores import ClassScore, Score, gain, per_class, scores
from tune.space.config import PURIFIERS, SearchConfig
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome, warn

_READ = {"both": "x_g and the attacked image", "attacked": "the attacked image alone, and no x_g"}


@dataclass(frozen=True)
class Facts:
    """A search: fields are what its files hold, properties what follows from them, each computed once."""

    name: str
    place: str  # folder or URI
    space: Mapping[str, Any]  # dotted key → fixed value, or the mapping that describes its range
    record: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]  # by trial number
    choice: Choice | None = None
    seeds: tuple[SeedScore, ...] = ()  # by seed
    projection: ProjectionMap | None = None
    problems: tuple[str, ...] = ()  # what could not be read
    finalists: Finalists | None = None  # None where there were none

    # the question

    @property
    def target(self) -> Target:
        target: Target = self.space.get("search.target", "defense")
        return target if target in OBJECTIVES else "defense"

    @property
    def searched(self) -> str:
        """The target in words."""
        return TARGETS[self.target].title.format(purifier=self.purifier)

    @cached_property
    def objectives(self) -> Objectives:
        asked: Objective = self.space.get("search.objective", "psd")
        named = self.choice and self.choice.objectives
        return named or objectives_of(self.target, asked if asked in get_args(Objective) else "psd")

    @property
    def objective(self) -> str:
        """The metric that decides."""
        return next(iter(self.objectives))

    @cached_property
    def ranges(self) -> dict[str, Mapping[str, Any]]:
        """The searched keys and the description of each one's range."""
        return {key: value for key, value in self.space.items() if isinstance(value, Mapping)}

    def setting(self, key: str) -> Any:
        """The value of a dotted key in the chosen configuration; None where it is not known."""
        return self.best_params.get(key, None if key in self.ranges else self.space.get(key))

    @property
    def max_cost(self) -> float | None:
        if self.choice and self.choice.max_cost is not None:
            return self.choice.max_cost
        limit: float | None = self.space.get("search.max_cost")
        return limit

    # the trials

    def with_status(self, status: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status == status]

    @cached_property
    def finished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if has_objectives(outcome, self.objectives)]

    @cached_property
    def ranked(self) -> list[Outcome]:
        """The finished trials, the best first."""
        return sorted(self.finished, key=by_rank(self.objectives))

    @cached_property
    def front(self) -> list[Outcome]:
        """The finished trials that no other beats in one objective without losing in another, cheapest first."""
        return pareto_front(self.finished, self.objectives)

    @cached_property
    def best(self) -> Outcome | None:
        """The chosen trial: the one retrained, or that the rule would choose; None where none qualifies."""
        chosen = [o for o in self.outcomes if self.choice and o.trial == self.choice.trial]
        return chosen[0] if chosen else self.ruled

    @cached_property
    def ruled(self) -> Outcome | None:
        """The trial that the rule names now; None where none qualifies."""
        if self.finalists:
            rows = {row.trial for row in self.finalists.finalists} | set(self.finalists.left_out)
            now = finalists_of(self.outcomes, self.objectives, len(rows), self.max_cost)
            if {o.trial for o in now} == rows:
                return next((o for o in now if o.trial == self.finalists.chosen), None)
        try:
            return choose(self.outcomes, self.objectives, self.max_cost)
        except NoChoiceError:
            return None

    @property
    def best_params(self) -> dict[str, Any]:
        return dict((self.choice and self.choice.params) or (self.best.params if self.best else {}))

    @cached_property
    def effects(self) -> Effects | None:
        """Effects of the parameters; None where too few trials showed a score, or nothing varied."""
        asked = self.space.get("search.robust_images", SearchConfig().robust_images)
        images = images_measured(self.objective, self.data.get("validation", 0), asked)
        return effects(self.outcomes, self.objectives, self.ranges, images)

    @cached_property
    def work(self) -> dict[str, dict[str, float]]:
        """Stage → times built and reused, and computing seconds, over all trials and in the order of the work."""
        total: dict[str, dict[str, float]] = {}
        for outcome in self.outcomes:
            for stage, work in (outcome.work or {}).items():
                sums = total.setdefault(stage, {"built": 0, "reused": 0, "seconds": 0.0})
                for key in sums:
                    sums[key] += work.get(key, 0)
        return total

    def worked(self, key: str) -> float:
        """The sum over all stages of one of their entries in `work`."""
        return sum(sums[key] for sums in self.work.values())

    # the test

    @cached_property
    def test(self) -> dict[str, Score]:
        """Every metric of the test images that all seeds have; empty where nothing was retrained."""
        return scores(self.seeds, self.saved)

    @cached_property
    def saved(self) -> SeedScore | None:
        """The seed whose defense was saved: the first, but in experiments of before that name another."""
        named = self.choice and self.choice.saved_seed
        return next((score for score in self.seeds if score.seed == named), next(iter(self.seeds), None))

    @property
    def adaptive(self) -> Robustness | None:
        """The saved defense under an attacker who knows it; None where that was not measured."""
        return self.saved.adaptive if self.saved else None

    def gain(self, over: str) -> Score | None:
        """PSD's distance above another metric, seed by seed, as of paired runs; None where one is not known."""
        return gain(self.test["psd"], self.test[over]) if {"psd", over} <= self.test.keys() else None

    @cached_property
    def classes(self) -> list[ClassScore]:
        """The saved defense's scores by true class; none where its confusions are not known."""
        counts = self.saved.confusion if self.saved else None
        return [] if counts is None else per_class(counts)

    # words, times and places

    @property
    def attack(self) -> str:
        """The attack with its strength."""
        name, epsilon = self.setting("attack.name") or "fgsm", self.setting("attack.epsilon")
        return (self.attack_type.title or str(name)) + ("" if epsilon is None else f", ε = {epsilon:g}")

    @property
    def attack_type(self) -> type[Attack]:
        """The attack's class, which owns its sentences; that of all attacks where it is not known here."""
        name = self.setting("attack.name") or "fgsm"
        return ATTACKS.get(str(name), Attack)

    @cached_property
    def variants(self) -> list[str]:
        """Names the settings that go beyond the published method."""
        on = []
        if levels := self.levels:
            on.append(f"images are reduced to {levels} grey levels before the {self.purifier}")
        if read := _READ.get(str(self.setting("unet.input"))):
            on.append(f"the U-Net reads {read}")
        if self.setting("attack.labels") == "predicted":
            on.append("the attack starts from predicted labels")
        return on

    @property
    def switched_on(self) -> str:
        """A sentence that names the variants, for the note of every table of scores; empty where there are none."""
        return f"Variants on: {'; '.join(self.variants)}." if self.variants else ""

    @property
    def circumstances(self) -> str:
        """The attack and the variants."""
        return f"Gray-box {self.attack}. {self.switched_on}".rstrip()

    @property
    def section(self) -> str:
        """The name of the component that rebuilt the attacked images, and of its section."""
        return str(self.setting("defense.purifier") or "projector")

    @property
    def purifier(self) -> str:
        """The title of that component; its name where it is not known here."""
        return PURIFIERS[self.section].title if self.section in PURIFIERS else self.section

    @property
    def levels(self) -> int | None:
        """Grey levels that the purifier reduces images to; None where it keeps all."""
        levels: int | None = self.setting(f"{self.section}.levels")
        return levels

    def row(self, metric: str) -> str:
        """The name of a test score in tables."""
        return METRICS[metric].row.format(purifier=self.purifier)

    def part(self, metric: str) -> str:
        """The part of the defense behind which a test score counts attacked images."""
        return METRICS[metric].part.format(purifier=self.purifier)

    @property
    def data(self) -> Mapping[str, Any]:
        """The data set as it was recorded; empty where that is not known."""
        data = self.record.get("data")
        return data if isinstance(data, Mapping) else {}

    def class_called(self, label: int) -> str:
        """A label as reports write it, with its name where it has one: `3 cat`."""
        names = self.data.get("class_names")
        return f"{label} {names[label]}" if isinstance(names, list) and label < len(names) else str(label)

    @cached_property
    def wall_s(self) -> float | None:
        """Wall time of the search in seconds, at least; None where it is not known.

        A session that is killed does not record its own: where the trials alone ran for longer, it is their time.
        """
        return max(self.recorded_s, Clock(self.outcomes).seconds()) or None

    @property
    def recorded_s(self) -> float:
        """Wall time of the sessions that could record it, in seconds."""
        wall = self.record.get("wall_s")
        return float(wall) if isinstance(wall, int | float) else 0.0

    @property
    def untimed(self) -> bool:
        """True where a session has not recorded its time; of records of before each session's is not known."""
        sessions = self.record.get("sessions")
        rows = [row for row in sessions if isinstance(row, Mapping)] if isinstance(sessions, list) else []
        timed = [row for row in rows if "wall_s" in row]
        return self.wall_s != self.recorded_s or 0 < len(timed) < len(rows)


def facts_of(storage: Storage, tell: Callable[[str], None] = warn) -> Facts:
    """The facts in an experiment's folder; `tell` is told of each file that cannot be read, as `problems` keeps it.

    Raises:
        FileNotFoundError: the folder holds neither a space nor a trial: no experiment.
    """
    reader = Reader(storage, tell)
    outcomes, space = reader.outcomes(), reader.space()
    if not outcomes and not space:
        found = "; ".join(problem for problem in reader.problems if problem.startswith("space.yaml")) or "neither"
        raise FileNotFoundError(f"{storage.uri}: expected an experiment's folder (space.yaml, trials/), found {found}")
    choice = reader.model("best/choice.json", Choice)
    return Facts(
        name=urlsplit(storage.uri).path.rstrip("/").rsplit("/", 1)[-1],
        place=str(storage.local or storage.uri),
        space=space,
        outcomes=outcomes,
        choice=choice,
        finalists=reader.model("finalists.json", Finalists),
        record=reader.mapping("record.json"),
        seeds=reader.seeds(choice),
        projection=reader.model("validation_map.json", ProjectionMap),
        problems=tuple(reader.problems),
    )
