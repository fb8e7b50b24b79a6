"""`ray up` of the shipped cluster.yaml, for real, on one machine; only EC2 is pretended (moto, namespaces).

    python -m tests.cluster.end_to_end               # two trials that count; one to two minutes on 2 cores
    python -m tests.cluster.end_to_end --drought     # EC2 has no spot machines: on-demand ones must come
    python -m tests.cluster.end_to_end --expect report --fault-when trial --expect-object 'report.json$' \
        --command 'ray submit {yaml} tune/search.py -- --space smoke --address auto'

 1. deploy/prepare_aws.py makes security group, roles and bucket; the changed values of the yaml are printed
 2. `ray up`; clients without the token and with a wrong one are refused
 3. a job that needs GPU workers: from none to --workers; one is reclaimed in its middle; the job must finish
 4. `ray down`; no instance and no Ray process is left

Needs root, sshd, rsync, iproute2. Not proven here: that AMIs, quotas and capacity exist, that the rights
are wide enough (moto enforces none), GPUs (a GPU is a number here), the set-up commands that need the
internet, speed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tests.cluster import sandbox
from tests.cluster.machines import HOME, Machine, Mount, Network, python_mounts
from tests.cluster.pretend_aws import Cloud, environment
from tests.cluster.sandbox import Failure, say, until
from tests.cluster.story import Changes, Job, Story, parser, play
from tune.execution.gpu_errors import PRETENDED

CHECKOUT = Path(__file__).resolve().parents[2]
LAPTOP = "172.31.255.2"
TINY_JOB = "ray exec {yaml} 'cd project/tests/cluster && python tiny_job.py --storage $TUNE_STORAGE/tiny'"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    PRETENDED: "1",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "150000000",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__, TINY_JOB)
    add = made.add_argument
    add("--yaml", type=Path, default=CHECKOUT / "cluster.yaml", help="default: the shipped one")
    add(
        "--expect-object",
        action="append",
        default=[],
        metavar="REGEX",
        help="must match the name of an object in the bucket afterwards; may be given again",
    )
    add(
        "--search",
        metavar="REGEX",
        help="the job is a search: it must refuse the head's own disk, and TensorBoard must show such a run",
    )
    add("--workers", type=int, default=2, help="so many must come (default: %(default)s)")
    add("--drought", action="store_true", help="EC2 refuses every spot request")
    add("--idle-minutes", type=float, help="set idle_timeout_minutes to this, and see the idle workers go")
    return made.parse_args(argv)


def override(path: Path, idle_minutes: float | None) -> Changes:
    """The yaml with what the pretended cloud needs."""
    changes = Changes(path)
    changes.set("provider.use_internal_ips", True)  # there are no public addresses
    changes.drop_internet()
    if idle_minutes:
        changes.set("idle_timeout_minutes", idle_minutes)
    return changes


def left_over(cloud: Cloud) -> dict[str, object]:
    """Instances that are still there, and Ray processes in the whole sandbox."""
    found = {"instances": [i["InstanceId"] for i in cloud.instances()], "processes": sandbox.ray_processes()}
    return {name: things for name, things in found.items() if things}


def check_spot(cloud: Cloud, head: str) -> None:
    """Workers are spot machines, and on-demand ones only while there is a drought."""
    markets = {i.get("InstanceLifecycle", "on-demand") for i in cloud.booted if i["InstanceId"] != head}
    wanted = "on-demand" if cloud.drought.on else "spot"
    if markets != {wanted}:
        raise Failure(f"workers: {wanted} machines expected, found {sorted(markets)}")
    refused = f" after {cloud.drought.refused} refused spot requests" if cloud.drought.on else ""
    say(f"ok    all {len(cloud.booted) - 1} workers were {wanted}{refused}")


def check_object(bucket_prefix: str, pattern: str) -> None:
    import boto3

    s3 = boto3.client("s3")
    buckets = [b["Name"] for b in s3.list_buckets()["Buckets"] if b["Name"].startswith(bucket_prefix)]
    names = [
        o["Key"]
        for b in buckets
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=b)
        for o in page.get("Contents", [])
    ]
    found = [name for name in names if re.search(pattern, name)]
    if not found:
        raise Failure(f"no object matches {pattern!r}; there are {len(names)}: {names[:20]}")
    say(f"ok    on shared storage: {', '.join(found[:3])} ({len(names)} objects in all)")


def run(args: argparse.Namespace, scratch: Path) -> None:
    changes = override(args.yaml, args.idle_minutes)
    region = changes.config["provider"]["region"]
    network = Network(
        scratch, {**environment(f"http://172.31.0.1:{Cloud.PORT}", region), **QUIET}, python_mounts()
    )
    network.start()
    with Cloud(network, region) as cloud:
        cloud.drought.on = args.drought
        laptop = Machine(network, "laptop", LAPTOP, [], [Mount(HOME / "project", CHECKOUT)])
        try:
            tell(args, cloud, laptop, changes)
        finally:
            laptop.power_off()


def tell(args: argparse.Namespace, cloud: Cloud, laptop: Machine, changes: Changes) -> None:
    """The story itself, step by step."""
    story = Story(laptop, "cluster.yaml", args.logs)
    story.must(f"python deploy/prepare_aws.py --ssh-from {LAPTOP}/32", 60)
    say("ok    account prepared")
    changes.write(laptop.home / "cluster.yaml")
    story.up()
    head = cloud.instances("head")[0]
    if cloud.instances("worker"):
        raise Failure("there are workers before there is work")
    story.strangers_refused(head["PrivateIpAddress"])
    if args.search:
        story.own_disk_refused()
        if cloud.instances("worker"):
            raise Failure("there are workers for a search that was refused")
    job = Job(args.command, args.expect, args.fault_when or None, args.workers, args.job_seconds)
    output = story.job(job, lambda: [i["InstanceId"] for i in cloud.instances("worker")], cloud.reclaim)
    check_spot(cloud, head["InstanceId"])
    for pattern in args.expect_object:
        check_object(f"{changes.config['cluster_name']}-", pattern)
    if args.search:
        story.tensorboard(output, args.search)
    if args.idle_minutes:
        if not until(lambda: not cloud.instances("worker"), 60 * args.idle_minutes + 120, 1):
            raise Failure("idle workers do not go")
        say("ok    idle workers went")
    story.down(lambda: left_over(cloud), within_s=30)


if __name__ == "__main__":
    sys.exit(play(run, parse(None)))
