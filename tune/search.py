"""`python -m tune.search`: the whole search, from a space to a report.

Torch, Ray and all that is slow to import follows once the command line and the space have been checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, NoReturn

from tune.execution.interruption import interrupt, leave_at_once

if __name__ == "__main__":
    leave_at_once()  # as main does, which the imports below may keep waiting for seconds

from tune.cluster.resources import Request
from tune.commands import command_line
from tune.commands.output import drop_output, reader_is_gone
from tune.commands.types import IN_PYTHON
from tune.errors import DONE, FAILED, INTERRUPTED, REFUSED, Refused
from tune.planning.call import Call
from tune.planning.experiment import Experiment, Options, find_experiment
from tune.planning.finished import is_finished
from tune.planning.user_code import user_code_of
from tune.space.space import parse_settings

if TYPE_CHECKING:
    from tune.planning.preflight import Plan

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


def search(
    *,
    space: Annotated[str | None, "NAME_OR_PATH"] = None,
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
    plugin: Annotated[str | None, "FILE.py"] = None,
    set: Annotated[str | None, "YAML"] = None,
    warm_start: Annotated[str | None, "DIR"] = None,
    no_reuse: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    verbose: bool = False,
    classifier: Annotated[object, IN_PYTHON] = None,
) -> int:
    """Searches a space, retrains the best configuration over several seeds, and reports it on the test images.

    Everything is kept in STORAGE/NAME, where --resume continues after a crash or Ctrl-C; finished stages are shared
    by all searches of one storage.

    Args:
        space: a space of search_spaces/ by name, or a YAML file; none = quickstart, or with --resume the experiment's
            own.
        trials: configurations to try, in place of the space's own number.
        storage: folder or s3:// address for experiments and the shared store; where none is given, that in the
            environment as TUNE_STORAGE, which a cluster's head has, or results.
        name: of the experiment; the space's where none is given.
        resume: continue the experiment of that name; where there is none it is started, if --space says of what, or
            if neither that nor --name was given.
        seed: of suggestions and trainings, in place of the space's own.
        concurrent: trials at once; where none is given, as many as this machine holds, or as the cluster can grow to.
        cpus_per_trial: CPU cores, and so threads, of each trial.
        gpus_per_trial: GPUs of each trial, a fraction to share one; none = an equal share of this machine's, and on a
            cluster by the memory that a trial takes.
        address: of a running Ray cluster (auto = the one on this machine); none = this machine alone.
        data_dir: where a named data set lies, or is downloaded to.
        max_cost: the largest restarts × steps that the best configuration may have.
        plugin: one Python file of yours, with the classifiers, attacks and data sets that the space names; it is run.
        set: other values for fields of the space, such as "classifier.architecture: E, unet.epochs: 2"; may be given
            again.
        warm_start: folder of an earlier experiment to learn from.
        no_reuse: let each trial build everything itself, to measure what sharing saves.
        dry_run: print what would be done, and do nothing.
        quiet: print no progress, only notes, failures and the result.
        verbose: print every stage of every trial.
        classifier: a trained torch module to defend, in place of the space's own.

    Examples:
        python -m tune.search                                   the default space, on embedded data
        python -m tune.search --space smoke                     every stage once, in two minutes
        python -m tune.search --space mnist --data-dir ~/mnist  the published setting
        python -m tune.search --resume                          go on after a crash: the same words and --resume
    """
    given = dict(locals())
    place = storage or os.environ.get("TUNE_STORAGE") or None
    call = Call.of(search, {**given, "storage": place})

    def work() -> int:
        overrides = parse_settings(set) if set else {}
        flags = {"search.trials": trials, "search.seed": seed, "search.max_cost": max_cost}
        overrides |= {key: value for key, value in flags.items() if value is not None}
        request = Request(cpus_per_trial, gpus_per_trial, concurrent, address)
        options = Options(data_dir, warm_start, not no_reuse, quiet, verbose, call)
        with user_code_of(plugin, classifier) as user_code:
            experiment = find_experiment(space, overrides, place or "results", name, resume=resume, user_code=user_code)
            return _search(experiment, request, options, dry_run)

    return _status(work, call, "TUNE_STORAGE" if place and not storage else "--storage")


def _status(work: Callable[[], int], call: Call, storage: str) -> int:
    """The exit status of `work`; where it was refused or interrupted, stderr says why and how to go on.

    Args:
        work: a search.
        call: by which it is repeated.
        storage: the flag or variable that a refused storage is blamed on.
    """
    try:
        return work()
    except Refused as error:
        print(f"error: {str(error).replace('--storage:', f'{storage}:', 1)}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print(f"\ninterrupted; {_going_on(call)}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if reader_is_gone():
            return _end_unread(call)
        print(f"error: {error}\nWhat was saved stays valid. To go on:\n  {call.resumed}", file=sys.stderr)
        return FAILED


def _search(experiment: Experiment, request: Request, options: Options, dry_run: bool) -> int:
    """Runs a session of the experiment, or rehearses it, where it is not known to be finished."""
    if not options.quiet:
        print(_first_line(experiment), flush=True)
    asked = (options.data_dir, options.warm_start, options.reuse)
    if request.address is None and is_finished(experiment, *asked):
        return _tell_of_report(experiment)
    interrupt()
    plan = _prepared(experiment, options.data_dir)
    if dry_run:
        from tune.execution.rehearsal import rehearse

        return rehearse(plan, request, options)
    from tune.execution.session import run  # Ray, for seconds

    return run(plan, request, options)


def _prepared(experiment: Experiment, data_dir: str | None) -> Plan:
    """The search, checked; says what is to be known of its space and data: settings without effect, images left out."""
    from tune.planning.preflight import prepare  # torch, for seconds
    from tune.space.unread import unread, unread_data_dir

    plan = prepare(experiment, data_dir)
    ignored = unread_data_dir(plan.config.data.name, data_dir)
    for note in (*unread(experiment.space), *ignored, *plan.dataset.notes):
        print(f"note: {note}", file=sys.stderr)
    return plan


def _end_unread(call: Call) -> int:
    """Ends quietly where nobody reads the output any more, as after `| head`: of a dry run enough has been read."""
    drop_output()
    if "dry_run" in call.given:
        return DONE
    with suppress(OSError):
        print(f"interrupted, as its output was closed; {_going_on(call)}", file=sys.stderr)
    return INTERRUPTED


def _going_on(call: Call) -> str:
    if "dry_run" in call.given:
        return "nothing was started"
    return f"nothing that was saved is lost. To go on:\n  {call.resumed}"


def _first_line(experiment: Experiment) -> str:
    """`Search space search_spaces/quickstart.yaml, new experiment results/quickstart; reading mnist_mini …`."""
    state, space = "resumed" if experiment.resumed else "new", experiment.space
    place = experiment.home.uri
    return f"Search space {space.source}, {state} experiment {place}; reading {space.fixed['data.name']} …"


def _tell_of_report(experiment: Experiment) -> int:
    """Says where the report of a finished search is."""
    from tune.monitor.runs import viewing_commands  # and with it pyarrow
    from tune.report.told import told

    print("Nothing is left to do: every trial has its outcome and every seed is measured. The report:")
    print(told(experiment.home))
    print(viewing_commands(experiment.home, None))
    return DONE


def main() -> NoReturn:
    """The command line."""
    if sys.platform == "win32":
        print("error: expected Linux or macOS, found Windows, where a search does not run; use WSL", file=sys.stderr)
        sys.exit(REFUSED)
    leave_at_once()
    try:
        sys.exit(command_line.run(search, name="python -m tune.search"))
    except OSError as error:  # of the output itself
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
