"""`python -m tune.search`: the whole search, from a space to a report."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

if __name__ == "__main__":  # until `main` nothing has begun: Ctrl-C while torch is imported needs no traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault(
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
)  # our own ledger and TensorBoard files stand for them
os.environ.setdefault(
    "TUNE_DISABLE_STRICT_METRIC_CHECKING", "1"
)  # a missing metric fails its trial, not the search
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # those of trials are recorded and told of without Ray
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the terminal is the live view's
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C is ours: it must end with status 130
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "100000")  # Tune's own state is never read

import ray

from components.pretrained import described
from tune.cluster.connection import alone, expected
from tune.cluster.resources import Request, Resources
from tune.commands import command_line
from tune.execution.driver import run_seeds, run_trials
from tune.execution.dry_run import describe
from tune.execution.preflight import Plan, Refused, prepare
from tune.execution.retraining import save_median
from tune.execution.trial import Setting, arrays_of, final_bench
from tune.metrics import OBJECTIVES
from tune.monitor.runs import where_to_watch
from tune.monitor.tensorboard import write_experiment
from tune.monitor.terminal import LiveView
from tune.optimizer.choice import NoChoiceError, choose, rule
from tune.optimizer.searcher import LedgerSearcher, WarmStart, export_study
from tune.optimizer.stopping import StopRules, clock, seconds_of
from tune.optimizer.warm_start import earlier_ledgers
from tune.pipeline.job import Development
from tune.report.writer import write_report
from tune.space.space import SpaceError, parse_settings
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.lock import LockedError
from tune.storage.record import reproducibility

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def search(
    *,
    space: Annotated[str, "NAME_OR_PATH"] = "quickstart",
    trials: int | None = None,
    storage: Annotated[str | None, "DIR"] = None,
    name: str | None = None,
    resume: bool = False,
    seed: int | None = None,
    concurrent: int | None = None,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float | None = None,
    address: str | None = None,
    data_dir: Annotated[str | None, "DIR"] = None,
    max_cost: int | None = None,
    set: Annotated[str | None, "YAML"] = None,
    warm_start: Annotated[str | None, "DIR"] = None,
    no_reuse: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
) -> int:
    """Searches a space, retrains the best configuration over several seeds, and reports it on the test images.

    Everything is kept in STORAGE/NAME, where --resume continues after a crash or Ctrl-C; finished stages are shared
    by all searches of one storage.

    Args:
        space: a space of search_spaces/ by name, or a YAML file.
        trials: configurations to try, in place of the space's own number.
        storage: folder or s3:// address for experiments and the shared store; where none is given, that in the
            environment as TUNE_STORAGE, which a cluster's head has, or results.
        name: of the experiment; the space's where none is given.
        resume: continue the experiment of that name (or start it, where there is none).
        seed: of suggestions and trainings, in place of the space's own.
        concurrent: trials at once; where none is given, as many as this machine holds, or as the cluster can grow to.
        cpus_per_trial: CPU cores, and so threads, of each trial.
        gpus_per_trial: GPUs of each trial, a fraction to share one; none = an equal share of this machine's, and on a
            cluster by the memory that a trial takes.
        address: of a running Ray cluster (auto = the one on this machine); none = this machine alone.
        data_dir: where a named data set lies, or is downloaded to.
        max_cost: the largest restarts × steps that the best configuration may have.
        set: other values for fields of the space, such as "classifier.architecture: E, unet.epochs: 2".
        warm_start: folder of an earlier experiment to learn from.
        no_reuse: let each trial build everything itself, to measure what sharing saves.
        dry_run: print what would be done, and do nothing.
        quiet: print failures and the result alone.
        verbose: print every stage of every trial.

    Examples:
        python -m tune.search                                   the default space, on embedded data
        python -m tune.search --space smoke                     every stage once, in a minute
        python -m tune.search --space mnist --data-dir ~/mnist  the published setting
        python -m tune.search --space mnist --resume            go on after a crash
    """
    try:
        overrides = parse_settings(set) if set else {}
        flags = {"search.trials": trials, "search.seed": seed, "search.max_cost": max_cost}
        overrides |= {key: value for key, value in flags.items() if value is not None}
        place = storage or os.environ.get("TUNE_STORAGE") or "results"
        plan = prepare(space, overrides, place, name, data_dir, resume=resume)
        request = Request(cpus_per_trial, gpus_per_trial, concurrent, address)
        earlier = earlier_ledgers(warm_start, plan.home, _recorded(plan.home))
        if dry_run:
            resources = expected(plan, request)
            print(describe(plan, resources.concurrent, resources.cpus, resources.gpus))
            return 0
        with alone(plan, request, verbose=verbose) as resources:
            return _run(plan, resources, earlier, reuse=not no_reuse, quiet=quiet, verbose=verbose)
    except (Refused, LockedError, SpaceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; nothing that was saved is lost. To go on:\n  {_resume_command()}",
            file=sys.stderr,
        )
        return INTERRUPTED
    except OSError as error:
        print(
            f"error: {error}\nWhat was saved stays valid. To go on:\n  {_resume_command()}", file=sys.stderr
        )
        return FAILED


def _run(
    plan: Plan, resources: Resources, earlier: list[Ledger], *, reuse: bool, quiet: bool, verbose: bool
) -> int:
    began = time.monotonic()
    _heed_sigterm()  # again: Ray has put a handler of its own in place
    setting = _begin(plan, resources, reuse=reuse)
    ledger, options = Ledger(plan.home), plan.config.search
    if resources.address is not None:
        print(f"Cluster: {resources}")
    print(where_to_watch(plan.home, resources.address))
    try:
        searcher = LedgerSearcher(
            plan.space,
            ledger,
            trials=options.trials,
            seed=options.seed,
            warm_start=earlier,
            points=options.points,
            startup=options.startup_trials,
            max_cost=options.max_cost,
            rules=StopRules(plan.space, len(plan.dataset.validation)),
        )
        _tell_of_warm_start(plan.home, searcher.warm_started)
        title = f"{plan.name} · {options.target}"
        with LiveView(
            title, searcher.most, OBJECTIVES[options.target], quiet, verbose, budget=_budget(plan, ledger)
        ) as view:
            run_trials(setting, plan.dataset, searcher, resources.concurrent, view)
            view.note(f"no further trial: {searcher.stopped}")
        _note_end(plan.home, searcher.stopped)
        _derive(plan, ledger)
        best = choose(ledger.outcomes(), options.target, options.max_cost)
        _keep_choice(plan, best)
        if options.target in ("unet", "defense"):
            _retrain(plan, setting, best, quiet=quiet, verbose=verbose)
    except NoChoiceError as error:
        write_report(plan.home)
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        print(f"error: retraining failed: {last}\nTo go on:\n  {_resume_command()}", file=sys.stderr)
        return FAILED
    finally:
        _add_time(plan.home, time.monotonic() - began)
    print(write_report(plan.home))
    print(where_to_watch(plan.home, resources.address))
    return 0


def _budget(plan: Plan, ledger: Ledger) -> tuple[float, float] | None:
    """Seconds of the budget, and how many of them earlier sessions used."""
    budget = plan.config.search.budget
    return None if budget is None else (seconds_of(budget), clock(ledger.outcomes()))


def _note_end(home: Storage, stopped: str | None) -> None:
    """Keeps in the record what ended the search, for the report."""
    home.write("record.json", _json({**_recorded(home), "stopped": stopped}))


def _begin(plan: Plan, resources: Resources, *, reuse: bool) -> Setting:
    """Writes what the search is, and returns what its trials share."""
    for folder in (plan.home, *map(plan.home.child, ("trials", "proposals", "best", "best/seeds"))):
        folder.sweep()
    plan.home.write("space.yaml", plan.space.to_yaml().encode())
    if not _recorded(plan.home):
        record = reproducibility(sys.argv[1:], plan.config.search.seed, plan.dataset)
        record["notes"] = _notes(plan)
        plan.home.write("record.json", _json(record))
    write_experiment(plan.home, plan.space, plan.config.search.target)
    return Setting(
        plan.space,
        plan.storage.uri,
        plan.name,
        plan.config.search.seed,
        resources.cpus,
        resources.gpus,
        plan.dataset.classes,
        plan.dataset.fingerprint,
        reuse,
    )


def _notes(plan: Plan) -> list[str]:
    """What a reader must know of where the networks come from, for the report."""
    return [described(plan.config.gan.pretrained)] if plan.config.gan.pretrained else []


def _derive(plan: Plan, ledger: Ledger) -> None:
    """What is made from the ledger for other programs, and never read back."""
    ledger.write_csv()
    if plan.home.local is not None:
        export_study(plan.space, ledger, plan.home.local / "study.db", plan.config.search.max_cost)


def _keep_choice(plan: Plan, best: Outcome) -> None:
    options = plan.config.search
    objectives = OBJECTIVES[options.target]
    choice = {
        "trial": best.trial,
        "params": best.params,
        "rule": rule(objectives),
        "objectives": dict(objectives),
        "max_cost": options.max_cost,
    }
    plan.home.child("best").write("choice.json", _json(choice))
    maps = plan.storage.child("store").child("map").child(best.stages.get("map", "none"))
    if maps.exists("manifest.json"):  # a trial that shares nothing leaves no map of all R and L
        manifest = json.loads(maps.read("manifest.json"))
        plan.home.write("validation_map.json", _json({**manifest["metrics"], "params": best.params}))


def _retrain(plan: Plan, setting: Setting, best: Outcome, *, quiet: bool, verbose: bool) -> None:
    """The chosen configuration over several seeds; the median one is saved."""
    options = plan.config.search
    seeds = [options.seed + index for index in range(options.retrain_seeds)]
    title = f"{plan.name} · retraining trial {best.trial} on train + validation, then the test images"
    with LiveView(title, len(seeds), {"psd": "max"}, quiet, verbose) as view:
        results = run_seeds(setting, plan.dataset, best.params, best.trial, seeds, view)
    config = plan.space.config(best.params)
    final = Development.for_retraining(plan.dataset)
    arrays = arrays_of(train=final.train)
    benches = {seed: final_bench(setting, arrays, final.fingerprint, config, seed) for seed in seeds}
    saved = save_median(
        benches, config, {seed: row["metrics"]["psd"] for seed, row in results.items()}, plan.home
    )
    choice = json.loads(plan.home.child("best").read("choice.json"))
    plan.home.child("best").write("choice.json", _json({**choice, "median_seed": saved}))


def _recorded(home: Storage) -> dict[str, Any]:
    """The record of the search; nothing where it has none, or a damaged one."""
    try:
        record = json.loads(home.read("record.json"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _add_time(home: Storage, seconds: float) -> None:
    """Adds this session to the search's wall time, where the storage lets it: what ended the session says why not."""
    with suppress(OSError):
        record = _recorded(home)
        home.write("record.json", _json({**record, "wall_s": round(record.get("wall_s", 0.0) + seconds, 1)}))


def _tell_of_warm_start(home: Storage, learned: Mapping[str, WarmStart]) -> None:
    """Notes in the record what was learned from where, for the report and for whoever resumes."""
    record = _recorded(home)
    before = record.get("warm_start")
    noted = dict(before) if isinstance(before, Mapping) else {}
    for uri, (used, left_out) in learned.items():
        print(f"Warm start: {used} finished trials of {uri}; {left_out} more do not fit this space")
        noted.setdefault(uri, {"used": used, "left_out": left_out})
    if noted:
        home.write("record.json", _json({**record, "warm_start": noted}))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _resume_command() -> str:
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["python", "-m", "tune.search", *words, "--resume"])


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _heed_sigterm()
    sys.exit(command_line.run(search, name="python -m tune.search"))


def _heed_sigterm() -> None:
    """SIGTERM, by which schedulers and preempted machines announce the end, is treated as Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())


def _interrupt() -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
