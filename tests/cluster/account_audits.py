"""What `ray up` and deploy/prepare_aws.py made in the account, judged: who gets in, what a node may do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import boto3

Instance = dict[str, Any]
WORLD = {"0.0.0.0/0", "::/0"}
POWERFUL = re.compile(r"FullAccess|AdministratorAccess|PowerUser")


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def open_ports(instances: list[Instance]) -> Iterator[str]:
    """Rules of the instances' security groups beyond the group itself and SSH from somewhere."""
    ids = sorted({group["GroupId"] for instance in instances for group in instance["SecurityGroups"]})
    for group in boto3.client("ec2").describe_security_groups(GroupIds=ids)["SecurityGroups"]:
        for rule in group["IpPermissions"]:
            sources = {r["CidrIp"] for r in rule["IpRanges"]} | {
                r["CidrIpv6"] for r in rule.get("Ipv6Ranges", [])
            }
            if sources & WORLD:
                yield f"{group['GroupName']}: open to {', '.join(sorted(sources & WORLD))}"
            elif sources and (rule.get("FromPort"), rule.get("ToPort")) != (22, 22):
                yield f"{group['GroupName']}: more than SSH from {', '.join(sorted(sources))}"


def documents(role: str) -> Iterator[dict[str, Any]]:
    """The statements of a role's own policies."""
    iam = boto3.client("iam")
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield from iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]


def wide_rights(instances: list[Instance]) -> Iterator[str]:
    """Rights of the instances' roles that are more than named actions on named things."""
    iam = boto3.client("iam")
    profiles = {
        i["IamInstanceProfile"]["Arn"].rsplit("/")[-1] for i in instances if i.get("IamInstanceProfile")
    }
    for profile in sorted(profiles):
        for role in iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]:
            attached = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
            for policy in attached:
                if POWERFUL.search(policy["PolicyName"]):
                    yield f"role {role['RoleName']}: {policy['PolicyName']}"
            for statement in documents(role["RoleName"]):
                yield from _wide(role["RoleName"], statement)


def _wide(role: str, statement: dict[str, Any]) -> Iterator[str]:
    for action in as_list(statement["Action"]):
        if "*" in action:
            yield f"role {role}: {action}: a whole family of actions"
        reads_only = action.split(":")[1].startswith("Describe")
        if "*" in as_list(statement["Resource"]) and not reads_only:
            yield f"role {role}: {action} on everything: {json.dumps(statement)}"


def allowed(role: str) -> dict[str, set[str]]:
    """Action to the resources that a role may use it on."""
    rights: dict[str, set[str]] = {}
    for statement in documents(role):
        for action in as_list(statement["Action"]):
            rights.setdefault(action, set()).update(as_list(statement["Resource"]))
    return rights
