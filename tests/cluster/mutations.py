"""Ways to spoil cluster.yaml that look harmless in a diff, and a word of the finding that must name each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Mutation:
    """`spoil` changes a parsed cluster.yaml in place; a finding must then contain `found`."""

    name: str
    spoil: Callable[[Config], object]
    found: str


def node(config: Config, name: str) -> Config:
    types: dict[str, dict[str, Config]] = config["available_node_types"]
    return types[name]["node_config"]


def replace(key: str, old: str, new: str) -> Callable[[Config], None]:
    """Replace text in every command of the list `key`; one that changes nothing is a mistake in this file."""

    def spoil(config: Config) -> None:
        before = list(config[key])
        config[key] = [line.replace(old, new) for line in before]
        assert config[key] != before, f"{key} has no {old!r}"

    return spoil


def without_network(config: Config) -> None:
    del config["provider"]["security_group"]


def open_to_the_world(config: Config) -> None:
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    config["provider"]["security_group"]["IpPermissions"] = [rule]


def small_disk(config: Config) -> None:
    node(config, "gpu_spot")["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] = 30


HEAD, WORKER, SETUP = "head_start_ray_commands", "worker_start_ray_commands", "setup_commands"

# Those that hold for any provider.
COMMON = (
    Mutation(
        "head starts without a token",
        replace(HEAD, "RAY_AUTH_MODE=token ", ""),
        "head_start_ray_commands: RAY_AUTH",
    ),
    Mutation(
        "workers start without a token",
        replace(WORKER, "RAY_AUTH_MODE=token", "X=1"),
        "worker_start_ray_commands",
    ),
    Mutation(
        "token stays on the laptop", lambda c: c["file_mounts"].pop("~/.ray/auth_token"), "nothing brings"
    ),
    Mutation("token readable by others", replace(SETUP, "chmod 600", "chmod 644"), "other users"),
    Mutation("drivers have no token", replace(SETUP, "RAY_AUTH_MODE=token", ""), "drivers on the head"),
    Mutation("dashboard for everyone", replace(HEAD, "host=127.0.0.1", "host=0.0.0.0"), "dashboard"),
    Mutation(
        "results on a node's own disk", replace(SETUP, "TUNE_STORAGE=", "TUNE_STORAGE=/tmp/"), "not a place"
    ),
    Mutation("no storage at all", replace(SETUP, "TUNE_STORAGE=", "OTHER="), "TUNE_STORAGE is not set"),
    Mutation("another Ray on the nodes", replace(SETUP, "==2.60.0", "==2.59.0"), "nodes get Ray 2.59.0"),
    Mutation("any Ray on the nodes", replace(SETUP, "==2.60.0", ""), "not pinned"),
    Mutation(
        "checkout not copied", lambda c: c["file_mounts"].pop("~/project"), "the checkout does not come"
    ),
    Mutation("environment copied", lambda c: c["rsync_exclude"].remove("**/.venv/**"), "**/.venv/**"),
    Mutation("results copied", lambda c: c.pop("rsync_filter"), "git ignores"),
)

AWS = (
    *COMMON,
    Mutation(
        "head takes trials", lambda c: c["available_node_types"]["head"].pop("resources"), "head takes trials"
    ),
    Mutation("idle nodes stopped", lambda c: c["provider"].pop("cache_stopped_nodes"), "disks stay"),
    Mutation("idle nodes for ever", lambda c: c.update(idle_timeout_minutes=100_000), "idle_timeout_minutes"),
    Mutation(
        "workers without work",
        lambda c: c["available_node_types"]["gpu_spot"].update(min_workers=1),
        "without work",
    ),
    Mutation(
        "nothing is spot",
        lambda c: node(c, "gpu_spot").pop("InstanceMarketOptions"),
        "no worker type is spot",
    ),
    Mutation("no on-demand type", lambda c: c["available_node_types"].pop("gpu_on_demand"), "fall back"),
    Mutation("fall-back never used", replace(HEAD, "RAY_enable_autoscaler_v2=0", ""), "never happens"),
    Mutation(
        "image that ages", lambda c: node(c, "gpu_spot").update(ImageId="ami-0a2b85e15b7c0ac34"), "ages"
    ),
    Mutation("disk too small", small_disk, "root disk"),
    Mutation("Ray's own security group", without_network, "lets the whole internet"),
    Mutation("SSH from everywhere", open_to_the_world, "open to 0.0.0.0/0"),
    Mutation(
        "Ray's own full-access role", lambda c: node(c, "head").pop("IamInstanceProfile"), "full access"
    ),
    Mutation(
        "workers may launch",
        lambda c: node(c, "gpu_spot")["IamInstanceProfile"].update(Name="gan-unet-head"),
        "right to",
    ),
    Mutation(
        "metadata by any request", lambda c: node(c, "gpu_spot").update(MetadataOptions={}), "credentials"
    ),
)
