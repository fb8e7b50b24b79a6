"""The shipped cluster files hold to the audits, and each spoilt copy is caught. No cloud, no Ray."""

from __future__ import annotations

import copy
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import audits, mutations, rayjob

CHECKOUT = Path(__file__).parents[2]
LAPTOP = audits.ray_version(version("ray"))
AWS = (*audits.AWS, LAPTOP)
LOCAL = (*audits.COMMON, LAPTOP)


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CHECKOUT / name).read_text())
    return config


@pytest.fixture(scope="module")
def aws() -> dict[str, Any]:
    return load("cluster.yaml")


@pytest.fixture(scope="module")
def local() -> dict[str, Any]:
    return load("cluster.local.yaml")


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return load("deploy/kuberay-job.yaml")


def test_the_shipped_aws_file_is_clean(aws: dict[str, Any]) -> None:
    assert audits.findings(aws, AWS) == []


def test_the_shipped_local_file_is_clean(local: dict[str, Any]) -> None:
    assert audits.findings(local, LOCAL) == []


@pytest.mark.parametrize("mutation", mutations.AWS, ids=lambda mutation: mutation.name)
def test_spoilt_aws_file_is_caught(aws: dict[str, Any], mutation: mutations.Mutation) -> None:
    spoilt = copy.deepcopy(aws)
    mutation.spoil(spoilt)
    assert [finding for finding in audits.findings(spoilt, AWS) if mutation.found in finding]


@pytest.mark.parametrize("mutation", mutations.COMMON, ids=lambda mutation: mutation.name)
def test_spoilt_local_file_is_caught(local: dict[str, Any], mutation: mutations.Mutation) -> None:
    spoilt = copy.deepcopy(local)
    mutation.spoil(spoilt)
    assert [finding for finding in audits.findings(spoilt, LOCAL) if mutation.found in finding]


def test_the_local_file_has_a_place_for_each_worker(local: dict[str, Any]) -> None:
    assert local["max_workers"] == len(local["provider"]["worker_ips"])


def test_on_demand_machines_differ_from_spot_ones_in_the_market_only(aws: dict[str, Any]) -> None:
    spot, on_demand = (
        aws["available_node_types"][name]["node_config"] for name in ("gpu_spot", "gpu_on_demand")
    )
    assert {k: v for k, v in spot.items() if k != "InstanceMarketOptions"} == on_demand


def test_regions_agree(aws: dict[str, Any]) -> None:
    region = aws["provider"]["region"]
    assert re.findall(r"AWS_DEFAULT_REGION=([\w-]+)", audits.setup(aws)) == [region]
    assert all(zone.startswith(region) for zone in aws["provider"]["availability_zone"].split(","))


def test_both_files_install_the_same(aws: dict[str, Any], local: dict[str, Any]) -> None:
    installs = [[line for line in c["setup_commands"] if "/uv" in line] for c in (aws, local)]
    assert installs[0] == installs[1]
    assert aws["worker_start_ray_commands"] == local["worker_start_ray_commands"]


def test_nodes_install_nothing_that_only_tests_need(aws: dict[str, Any]) -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"--extra (\w+)", audits.setup(aws)) == ["cluster"]
    assert [re.match(r"\w+", package)[0] for package in extras["cluster"]] == ["boto3"]  # type: ignore[index]
    (all_tests,) = re.findall(r"test-all: extras := \[(.*)\]", (CHECKOUT / "Makefile").read_text())
    assert {*all_tests.split(",")} == extras.keys() - {"check"}  # else what they are for is skipped everywhere


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.local.yaml"])
def test_the_head_comment_has_the_tunnels(name: str) -> None:
    head = (CHECKOUT / name).read_text().partition("\ncluster_name")[0]
    assert f"ray dashboard {name}" in head
    assert re.search(rf"ray exec {name} --port-forward 6006 'tensorboard --host 127.0.0.1", head)


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.local.yaml"])
def test_no_hyperparameter_is_in_a_cluster_file(name: str) -> None:
    assert not re.search(
        r"\b(projector|unet|gan|classifier|attack|search)\.[a-z_]+\s*:", (CHECKOUT / name).read_text()
    )


def test_the_rayjob_has_only_known_keys(job: dict[str, Any]) -> None:
    assert list(rayjob.problems(job)) == []


def test_the_rayjob_is_as_safe_as_the_aws_file(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert head["serviceType"] == "ClusterIP"
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert job["spec"]["shutdownAfterJobFinishes"]
    assert all(group["minReplicas"] == 0 for group in cluster["workerGroupSpecs"])


def test_kubernetes_gets_the_laptops_ray(job: dict[str, Any]) -> None:
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    dockerfile = (CHECKOUT / "deploy/Dockerfile").read_text()
    assert set(re.findall(r"ray:([\d.]+)-|ray\[[a-z,]+\]==([\d.]+)", dockerfile)) == {
        (version("ray"), ""),
        ("", version("ray")),
    }


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda j: j["spec"].update(shutdownAfterJobFinished=True), "no such key"),
        (
            lambda j: j["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
            "expected str",
        ),
        (lambda j: j["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].pop("template"), "missing"),
        (lambda j: j["spec"]["rayClusterSpec"]["authOptions"].update(mode="on"), "expected one of"),
        (lambda j: j["spec"]["rayClusterSpec"].update(workerGroupSpecs={}), "expected a list"),
        (lambda j: j.update(metadata="search"), "expected keys and values"),
    ],
)
def test_a_wrong_rayjob_is_caught(job: dict[str, Any], spoil: Any, found: str) -> None:
    spoilt = copy.deepcopy(job)
    spoil(spoilt)
    assert any(found in problem for problem in rayjob.problems(spoilt))
