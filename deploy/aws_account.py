"""The steps of prepare_aws.py: each looks first, then makes or mends what is missing, and says so."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import boto3
from botocore.exceptions import ClientError

Statement = dict[str, Any]
POLICY = "2012-10-17"  # the version of the policy language, not a date to update
SPOT = "spot.amazonaws.com"
# The nodes of one cluster are told from all other machines by this tag; Ray sets it when it launches them.
TAG = "ray-cluster-name"


def missing(call: Callable[..., Any], *codes: str, **arguments: Any) -> bool:
    """Whether `call` fails with one of the error `codes`; other errors pass."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] in codes:
            return True
        raise
    return False


def allow(actions: Sequence[str], resources: str | Sequence[str], **condition: Any) -> Statement:
    statement: Statement = {"Effect": "Allow", "Action": list(actions), "Resource": resources}
    return {**statement, "Condition": condition} if condition else statement


class Account:
    """One AWS account in one region. With `dry_run` nothing is changed; what would be is printed."""

    def __init__(self, session: boto3.Session, dry_run: bool) -> None:
        self._region = session.region_name
        self._ec2, self._iam, self._s3 = (session.client(name) for name in ("ec2", "iam", "s3"))
        self._sts, self._dry_run = session.client("sts"), dry_run

    @cached_property
    def number(self) -> str:
        """The account's twelve digits."""
        return str(self._sts.get_caller_identity()["Account"])

    def _change(self, what: str, call: Callable[..., Any], **arguments: Any) -> Any:
        print(f"{'would do: ' if self._dry_run else ''}{what}")
        return None if self._dry_run else call(**arguments)

    # ------------------------------------------------------------------ network

    def security_group(self, name: str, ssh_sources: Sequence[str]) -> str:
        """The group's id. Open inside the group; SSH from `ssh_sources`, or as before if there are none."""
        vpcs = self._ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        vpc = vpcs[0]["VpcId"]
        found = self._find_group(name, vpc)
        if found is None:
            text = "Ray nodes: open to each other, SSH from the owner"
            self._change(
                f"security group {name} in {vpc}",
                self._ec2.create_security_group,
                GroupName=name,
                Description=text,
                VpcId=vpc,
            )
            found = self._find_group(name, vpc)
        if found is None:  # dry run
            return "sg-to-be-made"
        self._inside_rule(found)
        self._ssh_rules(found, ssh_sources)
        return str(found["GroupId"])

    def _find_group(self, name: str, vpc: str) -> dict[str, Any] | None:
        filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
        groups = self._ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
        return groups[0] if groups else None

    def _inside_rule(self, group: dict[str, Any]) -> None:
        own = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}
        if any(rule["IpProtocol"] == "-1" and rule["UserIdGroupPairs"] for rule in group["IpPermissions"]):
            return
        self._change(
            "  rule: everything between the nodes",
            self._ec2.authorize_security_group_ingress,
            GroupId=group["GroupId"],
            IpPermissions=[own],
        )

    def _ssh_rules(self, group: dict[str, Any], sources: Sequence[str]) -> None:
        ssh = [rule for rule in group["IpPermissions"] if rule.get("FromPort") == 22]
        present = {entry["CidrIp"] for rule in ssh for entry in rule["IpRanges"]}
        for cidr in sorted(set(sources) - present):
            self._change(
                f"  rule: SSH from {cidr}",
                self._ec2.authorize_security_group_ingress,
                GroupId=group["GroupId"],
                IpPermissions=[_ssh(cidr)],
            )
        for cidr in sorted(present - set(sources)) if sources else []:
            self._change(
                f"  rule removed: SSH from {cidr}",
                self._ec2.revoke_security_group_ingress,
                GroupId=group["GroupId"],
                IpPermissions=[_ssh(cidr)],
            )

    # ------------------------------------------------------------------ rights

    def bucket_rights(self, bucket: str) -> list[Statement]:
        """Read, write and delete objects of one bucket (pyarrow also ends its broken multipart uploads)."""
        objects = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        return [
            allow(["s3:ListBucket"], f"arn:aws:s3:::{bucket}"),
            allow(objects, f"arn:aws:s3:::{bucket}/*"),
        ]

    def launch_rights(
        self, cluster: str, group: str, worker: str, types: Sequence[str], images: Sequence[str]
    ) -> list[Statement]:
        """What the autoscaler on the head calls, for this cluster's workers only.

        DescribeInstances knows no narrower resource than "*" (AWS service authorization reference, Amazon
        EC2).
        """
        ec2, iam = f"arn:aws:ec2:{self._region}:{self.number}", f"arn:aws:iam::{self.number}"
        instances, own = f"{ec2}:instance/*", {f"aws:ResourceTag/{TAG}": cluster}
        kinds = ("subnet", "network-interface", "volume", "key-pair", "spot-instances-request")
        parts = [f"{ec2}:{kind}/*" for kind in kinds]
        parts += [f"{ec2}:security-group/{group}", f"arn:aws:ec2:{self._region}::image/*"]
        wanted = {"ec2:InstanceType": list(types), f"aws:RequestTag/{TAG}": cluster}
        profile = {"ec2:InstanceProfile": f"{iam}:instance-profile/{worker}"}
        return [
            allow(["ec2:DescribeInstances"], "*"),
            allow(["ec2:RunInstances"], instances, StringEquals=wanted, ArnEquals=profile),
            allow(["ec2:RunInstances"], parts),
            allow(["ec2:CreateTags"], instances, StringEquals={"ec2:CreateAction": "RunInstances"}),
            allow(["ec2:CreateTags", "ec2:TerminateInstances"], instances, StringEquals=own),
            allow(
                ["iam:PassRole"],
                f"{iam}:role/{worker}",
                StringEquals={"iam:PassedToService": "ec2.amazonaws.com"},
            ),
            # EC2 looks the image's parameter up with the rights of whoever launches.
            allow(
                ["ssm:GetParameters"], [f"arn:aws:ssm:{self._region}::parameter{image}" for image in images]
            ),
        ]

    def instance_profile(self, name: str, statements: list[Statement]) -> None:
        """A role that EC2 instances can take, with exactly these rights, and the profile of the same name."""
        if missing(self._iam.get_role, "NoSuchEntity", RoleName=name):
            principal = {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
            trust = json.dumps({"Version": POLICY, "Statement": [principal]})
            self._change(f"role {name}", self._iam.create_role, RoleName=name, AssumeRolePolicyDocument=trust)
        policy = {"Version": POLICY, "Statement": statements}
        if self._policy(name) != policy:
            self._change(
                f"  rights of role {name}",
                self._iam.put_role_policy,
                RoleName=name,
                PolicyName=name,
                PolicyDocument=json.dumps(policy),
            )
        if missing(self._iam.get_instance_profile, "NoSuchEntity", InstanceProfileName=name):
            self._change(
                f"  instance profile {name}", self._iam.create_instance_profile, InstanceProfileName=name
            )
            self._change(
                f"  instance profile {name} gets role {name}",
                self._iam.add_role_to_instance_profile,
                InstanceProfileName=name,
                RoleName=name,
            )

    def _policy(self, role: str) -> Any:
        if missing(self._iam.get_role_policy, "NoSuchEntity", RoleName=role, PolicyName=role):
            return None
        return self._iam.get_role_policy(RoleName=role, PolicyName=role)["PolicyDocument"]

    def spot_role(self) -> None:
        """EC2's own role for spot requests: made here, or the head would need the right to make roles."""
        if not self._iam.list_roles(PathPrefix=f"/aws-service-role/{SPOT}/")["Roles"]:
            self._change(f"service role of {SPOT}", self._iam.create_service_linked_role, AWSServiceName=SPOT)

    # ------------------------------------------------------------------ storage

    def bucket(self, name: str) -> str:
        """A bucket that is never public; S3 encrypts it by itself."""
        if missing(self._s3.head_bucket, "404", "NoSuchBucket", Bucket=name):
            # us-east-1 is the default place and must not be named.
            place = (
                {}
                if self._region == "us-east-1"
                else {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            )
            self._change(f"bucket {name}", self._s3.create_bucket, Bucket=name, **place)
            flags = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
            self._change(
                "  no public access, whatever a policy says",
                self._s3.put_public_access_block,
                Bucket=name,
                PublicAccessBlockConfiguration=dict.fromkeys(flags, True),
            )
            rule = {
                "ID": "broken-uploads",
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
            }
            self._change(
                "  parts of broken uploads go after a week",
                self._s3.put_bucket_lifecycle_configuration,
                Bucket=name,
                LifecycleConfiguration={"Rules": [rule]},
            )
        return name


def _ssh(cidr: str) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]}
