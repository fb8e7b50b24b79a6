"""Make what cluster.yaml expects to find in an AWS account; run it again after any change of either.

Named as the yaml names them, the bucket after its cluster_name: a security group (the nodes reach each other, SSH
comes from your address only, everything else is closed), a role with instance profile for the head (start
and end this cluster's workers), one for the workers (the bucket, nothing else), and a private bucket for
results and the store; and once per account AWS's own role for spot machines.

    python deploy/prepare_aws.py [--dry-run] [--ssh-from CIDR ...] [--yaml cluster.yaml]

What exists is left alone or brought up to date (policies, SSH rules); every change is printed. Credentials
and endpoint come from boto3's usual places, the region from the yaml. Exit: 0 done, 1 AWS refused, 2 wrong
input.
"""

import argparse
import ipaddress
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from aws_account import Account
from botocore.exceptions import BotoCoreError, ClientError

WHO_AM_I = "https://checkip.amazonaws.com"  # Amazon's own service; answers with the caller's address


class InputError(ValueError):
    """What the user gave cannot be used; the message says what was expected."""


@dataclass(frozen=True)
class Names:
    """What the yaml calls things."""

    cluster: str
    region: str
    group: str  # security group
    head: str  # instance profile and role of the head
    worker: str  # the same of the workers
    worker_types: tuple[str, ...]  # EC2 instance types that the head may launch
    images: tuple[str, ...]  # SSM parameters that name the workers' images, each with its leading /


def read_names(path: Path) -> Names:
    """The names in the yaml at `path`.

    Raises:
        InputError: the file is absent, or not an AWS cluster of the form that this script prepares.
    """
    try:
        config = yaml.safe_load(path.read_text())
        return _names(config)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: expected an AWS cluster.yaml, found no {error}") from error


def _names(config: dict[str, Any]) -> Names:
    types = {name: entry["node_config"] for name, entry in config["available_node_types"].items()}
    head = types.pop(config["head_node_type"])
    workers = {entry["IamInstanceProfile"]["Name"] for entry in types.values()}
    if len(workers) != 1:
        raise InputError(f"IamInstanceProfile: expected one name for all workers, found {sorted(workers)}")
    images = {entry["ImageId"].removeprefix("resolve:ssm:") for entry in types.values()}
    return Names(
        cluster=config["cluster_name"],
        region=config["provider"]["region"],
        group=config["provider"]["security_group"]["GroupName"],
        head=head["IamInstanceProfile"]["Name"],
        worker=workers.pop(),
        worker_types=tuple(sorted({entry["InstanceType"] for entry in types.values()})),
        images=tuple(sorted(image for image in images if image.startswith("/"))),
    )


def ssh_sources(given: list[str]) -> list[str]:
    """The networks that may use SSH: those given, else this machine's address as others see it, else none.

    Raises:
        InputError: not a network, or the whole internet.
    """
    if not given:
        given = _own_address()
    networks = []
    for text in given:
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise InputError(
                f"--ssh-from: expected a network such as 198.51.100.7/32, found {text}: {error}"
            ) from error
        if network.prefixlen < 8:
            raise InputError(f"--ssh-from: expected your own network, found {text}: too wide")
        networks.append(str(network))
    return networks


def _own_address() -> list[str]:
    try:
        with urllib.request.urlopen(WHO_AM_I, timeout=3) as answer:
            return [answer.read().decode().strip() + "/32"]
    except (OSError, ValueError) as error:
        print(f"WARNING: {WHO_AM_I}: {error}; the SSH rules are left as they are. Give --ssh-from CIDR")
        return []


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--yaml", type=Path, default=Path(__file__).parents[1] / "cluster.yaml", help="default: cluster.yaml"
    )
    parser.add_argument(
        "--ssh-from", nargs="+", default=[], metavar="CIDR", help="default: this machine's address"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Bring the account in line with the yaml; returns the exit status."""
    args = parse(argv)
    try:
        names = read_names(args.yaml)
        sources = ssh_sources(args.ssh_from)
        account = Account(boto3.Session(region_name=names.region), args.dry_run)
        group = account.security_group(names.group, sources)
        account.spot_role()
        bucket = account.bucket(f"{names.cluster}-results-{account.number}")
        account.instance_profile(names.worker, account.bucket_rights(bucket))
        launch = account.launch_rights(names.cluster, group, names.worker, names.worker_types, names.images)
        account.instance_profile(names.head, [*launch, *account.bucket_rights(bucket)])
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (BotoCoreError, ClientError) as error:
        print(f"AWS: {error}", file=sys.stderr)
        return 1
    state = "would be there" if args.dry_run else "ready"
    print(f"{state}: security group {names.group} in {names.region}, s3://{bucket}/searches")
    return 0


if __name__ == "__main__":
    sys.exit(main())
