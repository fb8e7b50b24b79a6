"""Rehearsal of a search by `--dry-run`: what it would do, without doing it."""

from __future__ import annotations

from tune.cluster.own_ray import check_ray
from tune.cluster.resources import Request, Resources
from tune.errors import DONE
from tune.optimizer.warm_start import earlier_ledgers
from tune.planning.dry_run import describe
from tune.planning.experiment import Options
from tune.planning.machine import resources_here, tell_of
from tune.planning.preflight import Plan
from tune.storage.record import recorded


def rehearse(plan: Plan, request: Request, options: Options) -> int:
    """Prints what the search would do; writes nothing.

    Raises:
        Refused: the search cannot start as asked.
    """
    earlier_ledgers(options.warm_start, plan.home, recorded(plan.home))
    resources = _resources(plan, request)
    tell_of(resources)
    print(describe(plan, resources, quiet=options.quiet, reuse=options.reuse))
    return DONE


def _resources(plan: Plan, request: Request) -> Resources:
    if request.address is None:
        check_ray()
        return resources_here(plan, request)
    from tune.execution.ray_start import resources_of_cluster  # and with it Ray

    return resources_of_cluster(plan, request)
