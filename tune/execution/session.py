"""One session of a search: from an experiment that is asked for to its report."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence

import ray

from components.pretrained import described
from tune.cluster.resources import Request, Resources
from tune.durations import seconds_of
from tune.errors import DONE, FAILED
from tune.execution.ahead import Ahead
from tune.execution.driver import run_trials
from tune.execution.interruption import interrupt
from tune.execution.memory_monitor import in_words
from tune.execution.ray_start import running_ray
from tune.execution.selection import Selection, seeds_of, view_of
from tune.execution.trial import Setting
from tune.monitor.runs import viewing_commands
from tune.monitor.tensorboard import write_experiment
from tune.optimizer.choice import NoChoiceError
from tune.optimizer.early_stopping import halving_of
from tune.optimizer.export import export_study
from tune.optimizer.searcher import LedgerSearcher, WarmStart
from tune.optimizer.stopping import Clock, StopRules
from tune.optimizer.warm_start import earlier_ledgers
from tune.planning.experiment import Options
from tune.planning.finished import note_finished
from tune.planning.machine import tell_of
from tune.planning.preflight import Plan
from tune.planning.remaining_costs import stage_costs
from tune.report.told import told
from tune.report.writer import write_report
from tune.space.config import SearchConfig
from tune.storage.care.exclusion import wait_for_removals
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.lock import ExperimentLock, LockedError
from tune.storage.record import (
    add_time,
    differences,
    identity_of,
    keep_identity,
    recorded,
    reproducibility,
    with_session,
    write_record,
)
from tune.storage.store import Store


def run(plan: Plan, request: Request, options: Options) -> int:
    """Runs what is left of the search, writes its report, and returns the exit status.

    Raises:
        Refused: the search cannot start as asked; nothing was written.
        OSError: the storage failed; what was saved stays valid.
    """
    earlier = earlier_ledgers(options.warm_start, plan.home, recorded(plan.home))
    with running_ray(plan, request, quiet=options.quiet, verbose=options.verbose) as (resources, lock):
        interrupt()
        tell_of(resources)
        return Session(plan, resources, options, lock).run(earlier)


class Session:
    """The work of one driver on one experiment.

    Args:
        plan: the search.
        resources: what each trial gets.
        options: of the command line.
        lock: that of the experiment, which another driver may take over.
    """

    def __init__(self, plan: Plan, resources: Resources, options: Options, lock: ExperimentLock) -> None:
        self.plan, self.resources, self.options, self.lock = plan, resources, options, lock
        self.ledger = Ledger(plan.home)
        self.setting = Setting(
            plan.space,
            plan.storage.uri,
            plan.name,
            plan.config.search.seed,
            resources.cpus,
            resources.gpus,
            plan.dataset.classes,
            plan.dataset.fingerprint,
            options.reuse,
            plan.user_code,
            identity_of(plan.home),
        )

    def run(self, earlier: Sequence[Ledger]) -> int:
        """Trials, choice, retraining and report; returns the exit status."""
        began, home = time.monotonic(), self.plan.home
        ending = Storage(home)  # whom the storage has let down, or who is told to stop, does not wait for it again
        self._begin()
        print(viewing_commands(home, self.resources.address))
        try:
            complete = self._search(earlier)
            ending = home
        except NoChoiceError as error:
            write_report(home)
            return _failed(str(error))
        except LockedError as error:
            began = math.nan
            return _failed(f"another driver has taken over, and this one stops: {error}")
        except ray.exceptions.RayError as error:
            return _failed(f"a training failed: {in_words(str(error))}\nTo go on:\n  {self.options.call.resumed}")
        finally:
            if not math.isnan(began):  # beside another driver nothing more is written
                add_time(ending, time.monotonic() - began, [outcome.trial for outcome in self.ledger.known()])
        write_report(home)
        print(told(home))
        print(viewing_commands(home, self.resources.address))
        if complete:
            note_finished(self.plan, self.options.data_dir, self.options.warm_start, self.options.reuse)
        return DONE

    def _begin(self) -> None:
        """Writes what the search is, and what this session of it runs with."""
        plan, home = self.plan, self.plan.home
        inner = ("trials", "proposals", "best", "best/seeds", "uses/trials", "uses/trainings")
        for folder in (home, *map(home.child, inner)):
            folder.sweep()
        home.write("space.yaml", plan.space.to_yaml().encode())
        keep_identity(home, self.setting.identity)
        store = plan.storage.child("store")
        Store(store).note_user(home, plan.resumed)
        wait_for_removals(store, lambda said: print(f"Note: {said}", file=sys.stderr))
        now = reproducibility(self.options.call.command, plan.config.search.seed, plan.dataset)
        now |= plan.user_code.record()
        plan.user_code.keep(home)
        origin = [described(name)] if (name := plan.config.gan.pretrained) else []
        now["notes"] = [*origin, *plan.dataset.notes]
        before = recorded(home)
        if differing := differences(before, now):
            print(
                f"Caution: {'; '.join(differing)}. Trials of both are compared; the report lists which ran with which.",
                file=sys.stderr,
            )
        write_record(home, with_session(before, now, [outcome.trial for outcome in self.ledger.outcomes()]))
        write_experiment(home, plan.space, plan.config.search.target)

    def _search(self, earlier: Sequence[Ledger]) -> bool:
        """Trials, choice and retraining; returns True where no trial is left to run."""
        plan, search = self.plan, self.plan.config.search
        searcher = LedgerSearcher(
            plan.space,
            self.ledger,
            trials=search.trials,
            seed=search.seed,
            warm_start=earlier,
            points=search.points,
            startup=search.startup_trials,
            max_cost=search.max_cost,
            rules=StopRules(plan.space, len(plan.dataset.validation)),
            costs=stage_costs(plan) if self.options.reuse else None,
            halving=halving_of(plan.space, self.ledger.outcomes(), len(plan.dataset.validation)),
        )
        if not self.options.reuse and (dropped := _without_sharing(search)):
            print(f"Note: --no-reuse: trials share nothing, so {dropped}", file=sys.stderr)
        _tell_of_warm_start(plan.home, searcher.warm_started)
        with view_of(plan, self.options, search.target, searcher.most, search.objectives, self._budget()) as view:
            given = self.setting, plan.dataset, searcher, self.resources.concurrent
            ahead = Ahead(*given, seeds_of(search), view.note)
            run_trials(*given, view, self.lock.check, ahead.look)
            stopped = searcher.stopped
            view.note(f"no further trial is begun: {stopped}")
        write_record(plan.home, {**recorded(plan.home), "stopped": stopped})
        self.ledger.write_csv()
        if plan.home.local is not None:
            export_study(plan.space, self.ledger, plan.home.local / "study.db", search.max_cost)
        Selection(plan, self.setting, self.options, self.lock.check).run(self.ledger, ahead.beginning)
        return searcher.over

    def _budget(self) -> tuple[float, float] | None:
        """Seconds of the budget, and those of them that earlier sessions used; None where there is none."""
        budget = self.plan.config.search.budget
        return None if budget is None else (seconds_of(budget), Clock(self.ledger.outcomes()).seconds())


def _without_sharing(search: SearchConfig) -> str:
    """The settings that have no effect where trials share nothing, in words; empty where there are none."""
    dropped = ["the best ones are not compared (search.finalists)"] if search.finalists > 1 else []
    dropped += ["seconds do not rank proposals (search.cost_aware)"] if search.cost_aware else []
    return " and ".join(dropped)


def _failed(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return FAILED


def _tell_of_warm_start(home: Storage, learned: Mapping[str, WarmStart]) -> None:
    """Notes in the record what was learned from where, for the report and for whoever resumes."""
    record = recorded(home)
    before = record.get("warm_start")
    noted = dict(before) if isinstance(before, Mapping) else {}
    for uri, (used, left_out) in learned.items():
        print(f"Warm start: {used} finished trials of {uri}; {left_out} more do not fit this space")
        noted.setdefault(uri, {"used": used, "left_out": left_out})
    if noted:
        write_record(home, {**record, "warm_start": noted})
