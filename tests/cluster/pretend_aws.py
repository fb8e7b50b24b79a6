"""moto as EC2, IAM, STS and S3, close enough for Ray: and machines that come and go with its instances."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

from tests.cluster.machines import GATEWAY, Machine, Network
from tests.cluster.sandbox import say

Instance = dict[str, Any]


def environment(url: str, region: str) -> dict[str, str]:
    """What points boto3, pyarrow and Ray at the pretended cloud."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",  # there is none to ask, and asking takes seconds
    }


class SpotDrought:
    """While `on`, EC2 has no spot capacity."""

    def __init__(self) -> None:
        self.on = False
        self.refused = 0


def start_moto(address: str, port: int, region: str) -> SpotDrought:
    """moto's server in a thread (port 0: any free one); this process and its children then talk to it."""
    os.environ.update(MOTO_IAM_LOAD_MANAGED_POLICIES="true", MOTO_EC2_LOAD_DEFAULT_AMIS="true")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    drought = _more_like_ec2()
    server = ThreadedMotoServer(address, port, verbose=False)
    server.start()
    os.environ.update(environment(f"http://{address}:{server.get_host_and_port()[1]}", region))
    return drought


def _more_like_ec2() -> SpotDrought:
    """Ray asks for 1 to n machines: EC2 gives n when it can, moto 1. And EC2 can be out of spot machines."""
    from moto.ec2.exceptions import EC2ClientError
    from moto.ec2.responses.instances import InstanceResponse

    drought, original = SpotDrought(), InstanceResponse.run_instances

    def run_instances(self: Any) -> Any:
        spot = self._get_param("InstanceMarketOptions.MarketType") == "spot"
        if drought.on and spot:
            drought.refused += 1
            raise EC2ClientError(
                "InsufficientInstanceCapacity", "There is no Spot capacity available (pretended)."
            )
        get = self._get_param
        self._get_param = lambda key, *a, **kw: get("MaxCount" if key == "MinCount" else key, *a, **kw)
        return original(self)

    setattr(InstanceResponse, "run_instances", run_instances)  # noqa: B010 — a method, so mypy forbids =
    return drought


class Cloud:
    """Every instance that the API calls pending or running is a machine; use as a context manager."""

    PORT = 5000

    def __init__(self, network: Network, region: str) -> None:
        self._network, self._region, self._stopping = network, region, threading.Event()
        self.machines: dict[str, Machine] = {}
        self.booted: list[Instance] = []

    def __enter__(self) -> Cloud:
        self.drought = start_moto(GATEWAY, self.PORT, self._region)
        import boto3

        self._ec2 = boto3.client("ec2")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._watcher.join(20)
        for machine in self.machines.values():
            machine.power_off()

    def instances(self, kind: str | None = None) -> list[Instance]:
        """Living instances; `kind`: "head" or "worker", as Ray tags them."""
        found = [i for r in self._ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        alive = [i for i in found if i["State"]["Name"] in ("pending", "running")]
        return [
            i for i in alive if kind is None or {"Key": "ray-node-type", "Value": kind} in i.get("Tags", [])
        ]

    def reclaim(self, instance_id: str) -> None:
        """EC2 takes a spot instance back, without the two minutes' notice."""
        self._ec2.terminate_instances(InstanceIds=[instance_id])

    def _watch(self) -> None:
        while not self._stopping.wait(0.5):
            try:
                self._step({instance["InstanceId"]: instance for instance in self.instances()})
            except Exception as error:  # else `ray up` would wait in vain for a machine that cannot boot
                print(f"FAILED: pretended cloud: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)

    def _step(self, alive: dict[str, Instance]) -> None:
        for name in self.machines.keys() - alive.keys():
            self.machines.pop(name).power_off()
            say("cloud: off ", name)
        for name in alive.keys() - self.machines.keys():
            instance = alive[name]
            keys = self._ec2.describe_key_pairs(KeyNames=[instance["KeyName"]], IncludePublicKey=True)[
                "KeyPairs"
            ]
            public = [key["PublicKey"] for key in keys]
            self.machines[name] = Machine(self._network, name, instance["PrivateIpAddress"], public)
            self.booted.append(instance)
            market = instance.get("InstanceLifecycle", "on-demand")
            say("cloud: boot", name, instance["PrivateIpAddress"], instance["InstanceType"], market)
