"""The shipped AWS file up to the point where machines would boot, with moto as AWS.

Ray's schema, its bootstrap, EC2's own check of every key, and what is then in the account.
"""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("moto")
pytest.importorskip("boto3")
import boto3

from tests.cluster import account_audits, pretend_aws

pytestmark = pytest.mark.cluster
CHECKOUT = Path(__file__).parents[2]
LAPTOP = "198.51.100.7/32"
Config = dict[str, Any]


@pytest.fixture(scope="module")
def config() -> Config:
    loaded: Config = yaml.safe_load((CHECKOUT / "cluster.yaml").read_text())
    return loaded


def prepare(*options: str) -> str:
    words = [sys.executable, "deploy/prepare_aws.py", *options]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True, scope="module")
def account(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A new account, prepared as the documentation says; its number."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()  # Ray writes its key pair there
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "MOTO_IAM_LOAD_MANAGED_POLICIES", "MOTO_EC2_LOAD_DEFAULT_AMIS"):
            patch.setenv(name, str(home))  # recorded, so that all of it is undone
        for name, value in pretend_aws.environment("http://nowhere", "nowhere").items():
            patch.setenv(name, value)
        pretend_aws.start_moto("127.0.0.1", 0, config["provider"]["region"])
        prepare("--ssh-from", LAPTOP)
        yield boto3.client("sts").get_caller_identity()["Account"]


def bootstrap(config: Config) -> Config:
    """What `ray up` makes of the file, in the account and in the configuration."""
    import ray.autoscaler._private.aws.config as aws_config
    from ray.autoscaler._private.commands import _bootstrap_config

    # It waits 15 s for IAM, twice.
    vars(aws_config)["time"] = types.SimpleNamespace(sleep=lambda seconds: None)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    made: Config = _bootstrap_config(copy.deepcopy(config), no_config_cache=True)
    return made


def create(config: Config) -> dict[str, Any]:
    """One instance of each node type, as EC2 describes it; they are gone afterwards."""
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_USER_NODE_TYPE

    provider, made = _get_node_provider(config["provider"], config["cluster_name"]), {}
    for name, entry in config["available_node_types"].items():
        head = name == config["head_node_type"]
        node = {**(config["head_node"] if head else {}), **entry["node_config"]}
        tags = {TAG_RAY_NODE_KIND: "head" if head else "worker", TAG_RAY_USER_NODE_TYPE: name}
        provider.create_node(node, tags, 1)
        ids = provider.non_terminated_nodes({TAG_RAY_USER_NODE_TYPE: name})
        found = boto3.client("ec2").describe_instances(InstanceIds=ids)
        made[name] = found["Reservations"][0]["Instances"][0]
    provider.terminate_nodes([instance["InstanceId"] for instance in made.values()])
    assert provider.non_terminated_nodes({}) == []
    return made


@pytest.fixture(scope="module")
def instances(config: Config) -> dict[str, Any]:
    return create(bootstrap(config))


def test_ray_validates_it(config: Config) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled = prepare_config(copy.deepcopy(config))
    for entry in filled["available_node_types"].values():
        entry.setdefault("resources", {})  # `ray up` looks them up before it validates
    validate_config(filled)


def test_resources_come_from_the_instance_type(config: Config) -> None:
    resources = {name: e["resources"] for name, e in bootstrap(config)["available_node_types"].items()}
    assert (resources["head"]["CPU"], resources["head"]["GPU"]) == (0, 0)
    assert resources["gpu_spot"] == resources["gpu_on_demand"]
    assert (resources["gpu_spot"]["CPU"], resources["gpu_spot"]["GPU"]) == (4, 1)


def test_machines_are_created_as_meant(instances: dict[str, Any]) -> None:
    markets = {name: instance.get("InstanceLifecycle") for name, instance in instances.items()}
    assert markets == {"head": None, "gpu_spot": "spot", "gpu_on_demand": None}
    assert {i["ImageId"].split("/")[0] for i in instances.values()} == {"resolve:ssm:"}


def test_nobody_gets_in_but_the_laptop(instances: dict[str, Any]) -> None:
    assert list(account_audits.open_ports(list(instances.values()))) == []


def test_rights_are_named_one_by_one(instances: dict[str, Any]) -> None:
    assert list(account_audits.wide_rights(list(instances.values()))) == []


def test_workers_may_use_the_bucket_and_nothing_else(account: str) -> None:
    bucket = f"arn:aws:s3:::gan-unet-results-{account}"
    rights = account_audits.allowed("gan-unet-worker")
    assert set().union(*rights.values()) == {bucket, f"{bucket}/*"}
    assert all(action.startswith("s3:") for action in rights)


def test_the_head_may_hand_on_the_workers_role_only(account: str) -> None:
    assert account_audits.allowed("gan-unet-head")["iam:PassRole"] == {
        f"arn:aws:iam::{account}:role/gan-unet-worker"
    }


def test_the_bucket_is_not_public(account: str) -> None:
    s3 = boto3.client("s3")
    block = s3.get_public_access_block(Bucket=f"gan-unet-results-{account}")["PublicAccessBlockConfiguration"]
    assert all(block.values())


def test_preparing_twice_changes_nothing() -> None:
    assert prepare("--ssh-from", LAPTOP).splitlines()[:-1] == []


def test_ssh_follows_the_laptop() -> None:
    elsewhere = "198.51.100.9/32"
    assert prepare("--dry-run", "--ssh-from", elsewhere).count("would do") == 2
    assert "SSH from 198.51.100.9/32" in prepare("--ssh-from", elsewhere)
    assert "removed: SSH from 198.51.100.9/32" in prepare("--ssh-from", LAPTOP)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--ssh-from", "0.0.0.0/0"], "too wide"),
        (["--ssh-from", "here"], "expected a network"),
        (["--ssh-from", LAPTOP, "--yaml", "cluster.local.yaml"], "expected an AWS cluster.yaml"),
        (["--ssh-from", LAPTOP, "--yaml", "absent.yaml"], "No such file"),
    ],
)
def test_wrong_input_is_refused(options: list[str], found: str) -> None:
    words = [sys.executable, "deploy/prepare_aws.py", *options]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert found in done.stderr


def test_without_a_group_of_its_own_ray_would_open_ssh_to_all(config: Config) -> None:
    spoilt = copy.deepcopy(config)
    del spoilt["provider"]["security_group"]
    spoilt["cluster_name"] = "open"
    assert any(
        "open to" in finding
        for finding in account_audits.open_ports(list(create(bootstrap(spoilt)).values()))
    )


def test_without_a_profile_ray_would_make_a_role_with_full_access(config: Config) -> None:
    spoilt = copy.deepcopy(config)
    del spoilt["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]
    findings = list(account_audits.wide_rights(list(create(bootstrap(spoilt)).values())))
    assert any("FullAccess" in finding for finding in findings)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(max_worker=8),
        lambda c: c["available_node_types"]["gpu_spot"].update(min_workers="none"),
        lambda c: c.update(head_node_type="heads"),
    ],
    ids=["misspelt key", "text for a number", "no such head type"],
)
def test_ray_refuses_a_wrong_file(config: Config, spoil: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    spoilt = copy.deepcopy(config)
    spoil(spoilt)
    with pytest.raises(Exception):  # noqa: B017, PT011 — jsonschema, ValueError or click, as the case may be
        validate_config(prepare_config(spoilt))


def test_ec2_refuses_a_misspelt_node_key(config: Config) -> None:
    spoilt = copy.deepcopy(config)
    spoilt["available_node_types"]["gpu_spot"]["node_config"]["InstanceMarketOption"] = {"MarketType": "spot"}
    with pytest.raises(Exception, match="InstanceMarketOption"):
        create(bootstrap(spoilt))
