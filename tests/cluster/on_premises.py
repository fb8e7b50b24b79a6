"""`ray up` of the shipped cluster.local.yaml, for real: three machines and one shared folder.

    python -m tests.cluster.on_premises

The machines' addresses are put in; `ray up`; strangers refused; a job, and a machine switched off in its
middle; `ray down`, after which no Ray process is left on the others. Needs what end_to_end.py needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster import sandbox
from tests.cluster.end_to_end import CHECKOUT, LAPTOP, QUIET
from tests.cluster.machines import HOME, Machine, Mount, Network, python_mounts
from tests.cluster.sandbox import Failure, say, sh
from tests.cluster.story import Changes, Job, Story, parser, play

ADDRESSES = {"head": "172.31.1.10", "worker-1": "172.31.1.11", "worker-2": "172.31.1.12"}
SHARED = Path("/mnt/shared")
# The machines have no GPU to find; a trial that wants a whole machine's cores goes to a machine of its own.
TINY_JOB = "ray exec {yaml} 'cd project/tests/cluster && python tiny_job.py --storage $TUNE_STORAGE/tiny --gpus 0'"


def override() -> Changes:
    """The yaml with the pretended machines in the place of the user's."""
    changes = Changes(CHECKOUT / "cluster.local.yaml")
    head, *workers = ADDRESSES.values()
    changes.set("provider.head_ip", head)
    changes.set("provider.worker_ips", workers)
    changes.drop_internet()
    return changes


def key_pair(scratch: Path) -> tuple[str, str]:
    """A private and a public ssh key."""
    path = scratch / "id_ed25519"
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    return path.read_text(), path.with_suffix(".pub").read_text()


def run(args: argparse.Namespace, scratch: Path) -> None:
    (scratch / "shared").mkdir()
    mounts = [*python_mounts(), Mount(SHARED, scratch / "shared", writable=True)]
    network = Network(scratch, QUIET, mounts)
    network.start()
    private, public = key_pair(scratch)
    laptop = Machine(network, "laptop", LAPTOP, [], [Mount(HOME / "project", CHECKOUT)])
    (laptop.home / ".ssh/id_ed25519").write_text(private)
    (laptop.home / ".ssh/id_ed25519").chmod(0o600)
    machines = {name: Machine(network, name, address, [public]) for name, address in ADDRESSES.items()}
    try:
        tell(args, laptop, machines)
    finally:
        for machine in (laptop, *machines.values()):
            machine.power_off()
    found = sorted(path.name for path in (scratch / "shared").rglob("*.json"))
    if not found:
        raise Failure("nothing was written to the shared folder")
    say(f"ok    on the shared folder: {found[0]} and {len(found) - 1} more")


def tell(args: argparse.Namespace, laptop: Machine, machines: dict[str, Machine]) -> None:
    """The story itself, step by step."""
    story = Story(laptop, "cluster.yaml", args.logs)
    override().write(laptop.home / "cluster.yaml")
    story.up()
    story.strangers_refused(ADDRESSES["head"])

    def switch_off(name: str) -> None:
        machines.pop(name).power_off()

    job = Job(args.command, args.expect, args.fault_when or None, workers=2, limit_s=args.job_seconds)
    story.job(job, lambda: [name for name in machines if name != "head"], switch_off)
    # `ray down` ends Ray on the head only; workers give up once they have not heard from it for a minute.
    story.down(lambda: {name: name for name in sandbox.ray_processes()}, within_s=120)


if __name__ == "__main__":
    sys.exit(play(run, parser(__doc__, TINY_JOB).parse_args()))
