"""Spot machines first, on-demand ones while EC2 has no spot: the scorer of Ray's autoscaler in cluster.yaml.

Ray offers one hook to choose among node types that fit: the function that RAY_AUTOSCALER_UTILIZATION_SCORER
names. Its own scorer looks at resources only, so two types with the same resources tie for ever, and a spot
type that EC2 refuses (InsufficientInstanceCapacity, MaxSpotInstanceCountExceeded) is asked for again at
every step. Ray does keep the refusals of the last 30 minutes (AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S)
and hands them to the scorer; here they are used.
"""

from typing import Any

from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

Resources = dict[str, Any]  # resource name to amount
Score = tuple[bool, int, bool, bool, float, float]


def score(
    node_resources: Resources,
    demands: list[Resources],
    node_type: str,
    *,
    node_availability_summary: NodeAvailabilitySummary,
) -> Score | None:
    """How well `node_type` suits `demands`; the type with the highest score is launched, None = nothing fits.

    In order: no GPU machine for work without a GPU and the number of resources asked for (both Ray's), not
    refused by EC2 lately, spot, then Ray's measure of how full the machine would be. A type is spot if its
    name says so (tests/cluster/audits.py holds cluster.yaml to that): Ray tells a scorer nothing else about
    the type.
    """
    base = _default_utilization_scorer(
        node_resources, demands, node_type, node_availability_summary=node_availability_summary
    )
    if base is None:
        return None
    gpu_ok, matching, least, mean = base
    record = node_availability_summary.node_availabilities.get(node_type)
    available = record is None or record.is_available
    return gpu_ok, matching, available, "spot" in node_type, least, mean
