"""Which keys of a KubeRay RayJob (ray.io/v1, KubeRay 1.7) deploy/kuberay-job.yaml may use, and their types.

Kubernetes drops a misspelt key without a word, so unknown ones must be found here. Only the keys in use are
listed, as the reference of the custom resource has them (docs.ray.io, KubeRay CRD API reference; pods:
core/v1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = Any  # a type; a dict of keys (a leading * = required); a list of one schema; a set of allowed values

TEXTS = {"": str}  # any key
QUANTITIES = {"*cpu": str, "*memory": str, "nvidia.com/gpu": str}
CONTAINER = {
    "*name": str,
    "*image": str,
    "*resources": {"*requests": QUANTITIES, "*limits": QUANTITIES},
    "ports": [{"*containerPort": int, "name": str}],
    "volumeMounts": [{"*name": str, "*mountPath": str}],
    "env": [{"*name": str, "value": str}],
}
POD = {
    "*spec": {
        "serviceAccountName": str,
        "nodeSelector": TEXTS,
        "tolerations": [{"key": str, "operator": {"Exists", "Equal"}, "effect": {"NoSchedule", "NoExecute"}}],
        "*containers": [CONTAINER],
        "volumes": [{"*name": str, "emptyDir": {"medium": {"Memory", ""}, "sizeLimit": str}}],
    }
}
WORKERS = {
    "*groupName": str,
    "priority": int,
    "replicas": int,
    "*minReplicas": int,
    "*maxReplicas": int,
    "rayStartParams": TEXTS,
    "*template": POD,
}
CLUSTER = {
    "*rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": {"v1", "v2"},
        "upscalingMode": {"Default", "Aggressive", "Conservative"},
        "idleTimeoutSeconds": int,
    },
    "authOptions": {"mode": {"disabled", "token"}},
    "*headGroupSpec": {
        "serviceType": {"ClusterIP", "NodePort", "LoadBalancer"},
        "*rayStartParams": TEXTS,
        "*template": POD,
    },
    "workerGroupSpecs": [WORKERS],
}
RAY_JOB = {
    "*apiVersion": {"ray.io/v1"},
    "*kind": {"RayJob"},
    "*metadata": {"*name": str, "namespace": str, "labels": TEXTS},
    "*spec": {
        "*entrypoint": str,
        "submissionMode": {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"},
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "*rayClusterSpec": CLUSTER,
    },
}


def problems(value: Any, schema: Schema = RAY_JOB, where: str = "RayJob") -> Iterator[str]:
    """Everything in `value` that is not as `schema` says: place, expectation, finding."""
    if isinstance(schema, dict):
        yield from _mapping(value, schema, where)
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{where}: expected a list, found {value!r}"
            return
        for number, item in enumerate(value):
            yield from problems(item, schema[0], f"{where}[{number}]")
    elif isinstance(schema, set):
        if value not in schema:
            yield f"{where}: expected one of {sorted(schema)}, found {value!r}"
    elif type(value) is not schema:
        yield f"{where}: expected {schema.__name__}, found {value!r}"


def _mapping(value: Any, schema: dict[str, Schema], where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: expected keys and values, found {value!r}"
        return
    known = {key.removeprefix("*"): inner for key, inner in schema.items()}
    for key in schema:
        if key.startswith("*") and key[1:] not in value:
            yield f"{where}.{key[1:]}: missing"
    for key, inner in value.items():
        if key not in known and "" not in known:
            yield f"{where}.{key}: no such key"
        else:
            yield from problems(inner, known.get(key, known.get("")), f"{where}.{key}")
