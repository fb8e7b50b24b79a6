"""From the trials of a search to the defense that it gives: the finalists, the choice among them, its retraining."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tune.evaluation.retraining import forget_others, save_defense, settings_hash
from tune.execution.finalist_training import run_finalists
from tune.execution.seeds import Beginning, final_executor, run_seeds
from tune.execution.trial import Setting, arrays_of
from tune.metrics import DEFENSE_TARGETS, Direction, images_measured
from tune.monitor.kept_runs import forget_seeds
from tune.monitor.runs import run_name
from tune.monitor.terminal import LiveView
from tune.optimizer.choice import choose, rule
from tune.optimizer.finalists import as_json, decide, finalists_of
from tune.pipeline.recipe import Development
from tune.planning.experiment import Options
from tune.planning.preflight import Plan
from tune.space.config import SearchConfig
from tune.storage.ledger import Ledger, Outcome


class Selection:
    """Chooses among the trials that have ended, and retrains the chosen configuration.

    Args:
        plan: the search.
        setting: that all of its trials share.
        options: of the command line.
        check: raises where this driver must stop, and is called often.
    """

    def __init__(self, plan: Plan, setting: Setting, options: Options, check: Callable[[], None]) -> None:
        self.plan, self.setting, self.options, self.check = plan, setting, options, check

    def run(self, ledger: Ledger, beginning: Beginning | None = None) -> None:
        """Writes what was chosen to `best/`, and where the target has a U-Net, retrains it.

        Args:
            ledger: of the trials.
            beginning: of the retraining, made while trials still ran; None = nothing was.

        Raises:
            NoChoiceError: no trial may be chosen, and why.
        """
        search, outcomes = self.plan.config.search, ledger.outcomes()
        best = self.final(choose(outcomes, search.objectives, search.max_cost), outcomes)
        self.keep(best)
        if search.target in DEFENSE_TARGETS:
            self.retrain(best, beginning)

    def final(self, best: Outcome, outcomes: Sequence[Outcome]) -> Outcome:
        """The trial that the finalists' comparison chooses; where there are none, the best one."""
        search, home = self.plan.config.search, self.plan.home
        objectives = search.objectives
        finalists = finalists_of(outcomes, objectives, search.finalists, search.max_cost)
        if len(finalists) < 2 or search.target not in DEFENSE_TARGETS or not self.options.reuse:
            home.delete("finalists.json")
            return best
        seeds = [search.seed + index for index in range(search.finalist_seeds)]
        how = f" with up to {len(seeds)} seeds each" if seeds[1:] else ""
        images = images_measured(next(iter(objectives)), len(self.plan.dataset.validation), search.robust_images)
        work, most = f"the best {len(finalists)} trials compared{how}", len(finalists) * len(seeds)
        with view_of(self.plan, self.options, work, most, objectives, kind="training") as view:
            compared, left_out, spent = run_finalists(
                self.setting, self.plan.dataset, finalists, seeds, images, view, self.check
            )
        for trial, reason in left_out.items():
            print(f"Note: trial {trial} is left out of the comparison, as a training failed: {reason}", file=sys.stderr)
        if not compared:
            home.delete("finalists.json")
            return best
        verdict = decide(compared, seeds, images)
        params = {outcome.trial: outcome.params for outcome in finalists}
        home.write("finalists.json", _json(as_json(compared, verdict, params, left_out, spent)))
        return next(outcome for outcome in finalists if outcome.trial == verdict.chosen)

    def keep(self, best: Outcome) -> None:
        """Writes which trial was chosen and why, and the map of R and L that it is a point of."""
        search, home = self.plan.config.search, self.plan.home
        objectives = search.objectives
        choice = {
            "trial": best.trial,
            "params": best.params,
            "rule": rule(objectives, finalists=home.exists("finalists.json")),
            "objectives": dict(objectives),
            "max_cost": search.max_cost,
            "settings": settings_hash(self.plan.space.config(best.params)),
        }
        home.child("best").write("choice.json", _json(choice))
        maps = self.plan.storage.child("store").child("map").child(best.stages.get("map", "none"))
        if maps.exists("manifest.json"):  # a trial that shares nothing leaves no map of all R and L
            manifest = json.loads(maps.read("manifest.json"))
            home.write("validation_map.json", _json({**manifest["metrics"], "params": best.params}))
        else:
            home.delete("validation_map.json")  # an earlier choice may have left one

    def retrain(self, best: Outcome, beginning: Beginning | None = None) -> None:
        """The chosen configuration over several seeds. The first one's defense is saved: nothing chose it."""
        search, setting, home = self.plan.config.search, self.setting, self.plan.home
        seeds = seeds_of(search)
        forget_others(home, seeds, settings_hash(self.plan.space.config(best.params)))
        forget_seeds(home, [run_name(best.trial, best.params, seed) for seed in seeds])
        work = f"retraining trial {best.trial} on train + validation, then the test images"
        told = {key: way for key, way in search.objectives.items() if key == "robust"}
        with view_of(self.plan, self.options, work, len(seeds), {**told, "psd": "max"}, kind="seed") as view:
            run_seeds(setting, self.plan.dataset, best.params, best.trial, seeds, view, self.check, beginning)
        config = self.plan.space.config(best.params)
        final = Development.for_retraining(self.plan.dataset)
        arrays = arrays_of(train=final.train)
        first = final_executor(setting, arrays, final.fingerprint, config, seeds[0])
        save_defense(first, config, home, self.plan.dataset.class_names)
        choice = json.loads(home.child("best").read("choice.json"))
        home.child("best").write("choice.json", _json({**choice, "saved_seed": seeds[0]}))


def seeds_of(search: SearchConfig) -> list[int]:
    """Seeds of the retraining."""
    return [search.seed + index for index in range(search.retrain_seeds)]


def view_of(
    plan: Plan,
    options: Options,
    work: str,
    number: int,
    objectives: Mapping[str, Direction],
    budget: tuple[float, float] | None = None,
    kind: str = "trial",
) -> LiveView:
    """The live view of a part of a search: its title, how many trainings it has, and what they are judged by."""
    return LiveView(
        f"{plan.name} · {work}",
        number,
        objectives,
        options.quiet,
        options.verbose,
        max_cost=plan.config.search.max_cost if "cost" in objectives else None,
        budget=budget,
        kind=kind,
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
