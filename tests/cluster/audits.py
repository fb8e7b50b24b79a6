"""What a cluster.yaml of this project must be, read from the YAML alone: no cloud, no Ray, milliseconds.

An audit takes the parsed file and yields what is wrong, in words; nothing = fine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Config = dict[str, Any]
Audit = Callable[[Config], Iterator[str]]
TOKEN_MODE = re.compile(r"RAY_AUTH_MODE=['\"]?token\b")
WORLD = {"0.0.0.0/0", "::/0"}
# GiB. torch with CUDA and the environment take 12 on either image; AWS's GPU image fills about 60 by itself.
DISK = {False: 40, True: 100}


def node_types(config: Config) -> dict[str, Config]:
    return dict(config.get("available_node_types", {}))


def workers(config: Config) -> dict[str, Config]:
    return {name: entry for name, entry in node_types(config).items() if name != config.get("head_node_type")}


def is_spot(entry: Config) -> bool:
    return bool(entry["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot")


def commands(config: Config, *keys: str) -> list[str]:
    return [line for key in keys for line in config.get(key) or []]


def start(config: Config, kind: str) -> str:
    """The command with `ray start` of "head" or "worker" nodes; "" when there is none."""
    return next((line for line in commands(config, f"{kind}_start_ray_commands") if "ray start" in line), "")


def setup(config: Config) -> str:
    """Everything that runs on every node before `ray start`."""
    return "\n".join(commands(config, "initialization_commands", "setup_commands"))


# ---------------------------------------------------------------- any provider


def token(config: Config) -> Iterator[str]:
    if config.get("file_mounts", {}).get("~/.ray/auth_token") is None:
        yield "file_mounts: nothing brings ~/.ray/auth_token to the nodes; `ray up` does not"
    for kind in ("head", "worker"):
        line = start(config, kind)
        if not TOKEN_MODE.search(line.partition("ray start")[0]):
            yield f"{kind}_start_ray_commands: RAY_AUTH_MODE=token is not set in the shell of `ray start`"
    if not re.search(rf"{TOKEN_MODE.pattern}.*\.bashrc", setup(config)):
        yield "setup_commands: ~/.bashrc lacks RAY_AUTH_MODE=token, so drivers on the head are refused"
    if "chmod 600 ~/.ray/auth_token" not in setup(config):
        yield "setup_commands: other users of a node can read the token"
    if re.search(r"RAY_AUTH_TOKEN=\S", json.dumps(config)):
        yield "the token itself is written in the file"


def localhost(config: Config) -> Iterator[str]:
    if "--dashboard-host=127.0.0.1" not in start(config, "head"):
        yield "head_start_ray_commands: the dashboard is not bound to 127.0.0.1"
    exposed = re.findall(r"--(?:bind_all|host[= ]0\.0\.0\.0)", json.dumps(config))
    if exposed:
        yield f"TensorBoard listens on all addresses: {exposed[0]}"


def storage(config: Config) -> Iterator[str]:
    places = re.findall(r"TUNE_STORAGE=([^\s\"']+)", setup(config))
    if not places:
        yield "setup_commands: TUNE_STORAGE is not set: where do results live when a node goes?"
    for place in places:
        if not place.startswith(("s3://", "gs://", "/mnt/", "/srv/")):
            yield f"TUNE_STORAGE={place}: not a place that all nodes share"


def install(config: Config) -> Iterator[str]:
    if config.get("file_mounts", {}).get("~/project") != ".":
        yield "file_mounts: the checkout does not come to ~/project"
    if ".gitignore" not in config.get("rsync_filter", []):
        yield "rsync_filter: files that git ignores (environments, results) are copied to every node"
    for folder in ("**/.git", "**/.venv/**"):
        if folder not in config.get("rsync_exclude", []):
            yield f"rsync_exclude: {folder} is copied to every node"
    if "PYTHONPATH=$HOME/project" not in setup(config):
        yield "setup_commands: workers cannot import the checkout"


def ray_version(version: str) -> Audit:
    """Every node installs exactly `version` of Ray."""

    def audit(config: Config) -> Iterator[str]:
        pins = re.findall(r"ray(?:\[[a-z,]+\])?==([\w.]+)", setup(config))
        if not pins:
            yield "setup_commands: Ray's version is not pinned"
        for pin in pins:
            if pin != version:
                yield f"setup_commands: nodes get Ray {pin}, the laptop has {version}"
        if re.search(
            r"\bray(\[[a-z,]+\])?==",
            json.dumps(commands(config, "head_setup_commands", "worker_setup_commands")),
        ):
            yield "head_setup_commands, worker_setup_commands: Ray is pinned for some nodes only"

    return audit


def head_is_idle(config: Config) -> Iterator[str]:
    resources = node_types(config).get(config.get("head_node_type", ""), {}).get("resources", {})
    declared = resources.get("CPU") == 0 and resources.get("GPU") == 0
    if not declared and not {"--num-cpus=0", "--num-gpus=0"} <= set(start(config, "head").split()):
        yield "the head takes trials: its CPU and GPU are not 0"


# ---------------------------------------------------------------- AWS


def scaling(config: Config) -> Iterator[str]:
    if config.get("provider", {}).get("cache_stopped_nodes") is not False:
        yield "provider.cache_stopped_nodes: not false: idle nodes are stopped, their disks stay on the bill"
    minutes = config.get("idle_timeout_minutes")
    if not isinstance(minutes, int | float) or not 1 <= minutes <= 30:
        yield f"idle_timeout_minutes: expected 1 to 30, found {minutes}"
    for name, entry in workers(config).items():
        if entry.get("min_workers", 0) != 0:
            yield f"{name}.min_workers: {entry['min_workers']} machines are paid for without work"
        if not 0 < entry.get("max_workers", 0) <= config.get("max_workers", 0):
            yield f"{name}.max_workers: expected 1 to max_workers, found {entry.get('max_workers')}"


def spot(config: Config) -> Iterator[str]:
    types = workers(config)
    by_market = {market: [e for e in types.values() if is_spot(e) is market] for market in (True, False)}
    if not by_market[True]:
        yield "no worker type is spot"
    if not by_market[False]:
        yield "no on-demand type to fall back to"
    for name, entry in types.items():
        if is_spot(entry) != ("spot" in name):
            yield f"{name}: the name must say whether it is spot, deploy/spot_first.py goes by it"
    if len({entry["node_config"].get("InstanceType") for entry in types.values()}) > 1:
        yield "spot and on-demand machines differ: results of one search would not be comparable"
    if not re.search(
        r"RAY_enable_autoscaler_v2=0\b.*RAY_AUTOSCALER_UTILIZATION_SCORER=deploy\.spot_first\.score\b",
        start(config, "head"),
    ):
        yield "head_start_ray_commands: without v1 and the scorer the fall-back to on-demand never happens"


def images(config: Config) -> Iterator[str]:
    for name, entry in node_types(config).items():
        image = entry["node_config"].get("ImageId", "")
        if not image.startswith("resolve:ssm:/aws/service/"):
            yield f"{name}.ImageId: {image or 'none'}: ages, and is of one region; name an SSM parameter"
        disks = [
            d["Ebs"]
            for d in entry["node_config"].get("BlockDeviceMappings", [])
            if d["DeviceName"] == "/dev/sda1"
        ]
        least = DISK[name != config["head_node_type"]]
        if not disks or disks[0].get("VolumeSize", 0) < least:
            yield f"{name}: the root disk has less than {least} GiB"
        if any(disk.get("DeleteOnTermination") is False or not disk.get("Encrypted") for disk in disks):
            yield f"{name}: a disk stays behind, or is not encrypted"


def network(config: Config) -> Iterator[str]:
    group = config.get("provider", {}).get("security_group", {})
    if not group.get("GroupName"):
        yield "provider.security_group: none named: Ray makes one that lets the whole internet try SSH"
    sources = {
        r.get("CidrIp", r.get("CidrIpv6"))
        for rule in group.get("IpPermissions", [])
        for r in [*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", [])]
    }
    for source in sorted(sources & WORLD):
        yield f"provider.security_group: open to {source}"


def rights(config: Config) -> Iterator[str]:
    profiles = {}
    for name, entry in node_types(config).items():
        profile = entry["node_config"].get("IamInstanceProfile", {})
        profiles[name] = profile.get("Name") or profile.get("Arn")
        if not profiles[name]:
            yield f"{name}: no IamInstanceProfile: no storage; for the head Ray makes one with full access"
        if entry["node_config"].get("MetadataOptions", {}).get("HttpTokens") != "required":
            yield f"{name}: MetadataOptions.HttpTokens: a forwarded request can fetch the node's credentials"
    head = profiles.pop(config.get("head_node_type", ""), None)
    if head and head in profiles.values():
        yield "workers have the head's profile, and with it the right to launch machines"


COMMON: tuple[Audit, ...] = (token, localhost, storage, install, head_is_idle)
AWS: tuple[Audit, ...] = (*COMMON, scaling, spot, images, network, rights)


def findings(config: Config, audits: tuple[Audit, ...]) -> list[str]:
    return [finding for audit in audits for finding in audit(config)]
