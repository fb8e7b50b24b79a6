"""Ray that is slow to start, a cluster that is not there, and which storage one can share."""

from __future__ import annotations

import inspect
import socket
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import ray

from tune.cluster import connection, own_ray
from tune.cluster.connection import unshared
from tune.cluster.resources import NodeKind, Nodes
from tune.errors import Refused
from tune.storage.folder import Storage

HERE = {"NodeID": "here", "NodeManagerHostname": "head", "Resources": {}}
OTHER = {"NodeID": "there", "NodeManagerHostname": "worker-1", "Resources": {}}
GROWING = Nodes([NodeKind({})], growth=[NodeKind({"CPU": 4}, most=8)], most=8)


def answered_here(others: list[Any], function: Any, *words: Any) -> list[Any]:
    return [(node["NodeManagerHostname"], function(*words)) for node in others]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A cluster of this node, which can grow; what others are asked is answered here."""
    found = [HERE]
    monkeypatch.setattr(connection, "_alive", lambda: found)
    monkeypatch.setattr(connection, "nodes", lambda: GROWING)
    monkeypatch.setattr(connection, "on_each", answered_here)
    context = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    return found


@pytest.mark.parametrize(("kind", "refused"), [("ext4", True), ("tmpfs", True), ("", True), ("nfs4", False)])
def test_a_disk_of_the_head_is_refused_while_no_worker_is_there(
    tmp_path: Path, nodes: list[Any], monkeypatch: pytest.MonkeyPatch, kind: str, refused: bool
) -> None:
    monkeypatch.setattr(connection, "mounted", lambda folder: kind)
    place = tmp_path / "not/there/yet"
    if refused:
        with pytest.raises(Refused, match=r"expected a folder that all nodes share .* which workers will not see"):
            connection.check_shared(Storage(place))
    else:
        connection.check_shared(Storage(place))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (("/nowhere", "of-the-driver"), "which worker-1 does not see$"),
        (("/proc/self", "status"), r"which worker-1 cannot write: .*/proc/self/of-"),
        (("/proc/self", "fd"), r"which worker-1 cannot read: .*/proc/self/fd"),
    ],
)
def test_a_node_that_does_not_share_the_folder_is_named(
    tmp_path: Path, nodes: list[Any], monkeypatch: pytest.MonkeyPatch, seen: tuple[str, str], said: str
) -> None:
    nodes.append(OTHER)
    monkeypatch.setattr(connection, "unshared", lambda uri, name: unshared(*seen))  # what is mounted there in its place
    with pytest.raises(Refused, match=rf"expected a folder that all nodes share .* found {tmp_path}, {said}"):
        connection.check_shared(Storage(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_node_without_the_keys_of_the_bucket_is_named(
    bucket: str, nodes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.append(OTHER)
    place = Storage(bucket).child("shared")
    connection.check_shared(place)
    denied = OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied")

    def elsewhere(uri: str, name: str) -> str | None:
        with monkeypatch.context() as patched:
            patched.setattr(Storage, "write", mock.Mock(side_effect=denied))
            return unshared(uri, name)

    monkeypatch.setattr(connection, "unshared", elsewhere)
    with pytest.raises(Refused, match=r"found s3://results/search/shared.*, which worker-1 cannot write: .*ACCESS_DE"):
        connection.check_shared(place)
    assert place.folders() == place.names() == []


def test_a_node_that_does_not_answer_is_named(
    tmp_path: Path, nodes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.append(OTHER)
    late = ray.exceptions.GetTimeoutError("no answer within 60 s")
    monkeypatch.setattr(connection, "on_each", lambda others, *asked: [("worker-1", late)])
    with pytest.raises(Refused, match=r"which worker-1 did not try \(no answer within 60 s\)"):
        connection.check_shared(Storage(tmp_path))


def test_a_folder_that_every_node_may_write_is_taken(tmp_path: Path, nodes: list[Any]) -> None:
    nodes.append(OTHER)
    connection.check_shared(Storage(tmp_path / "not/there/yet"))
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_stays_alone_has_its_own_disk(
    tmp_path: Path, nodes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "nodes", lambda: Nodes([NodeKind({"CPU": 4})]))
    connection.check_shared(Storage(tmp_path))


def test_ray_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError("not yet"), RuntimeError("not yet"), {"node": 1}])

    def look(address: str, node: str) -> Any:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(connection.services, "get_node", look)
    with connection._with_patience():
        assert connection.services.get_node("address", "node") == {"node": 1}
    assert connection.services.get_node is look


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(Exception("The current node timed out during startup."), TimeoutError), (ValueError("x"), ValueError)],
)
def test_a_ray_that_does_not_start_in_time_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception]
) -> None:
    def init(**options: Any) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(seen, match=str(raised)):
        connection._start({})


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was asked"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Refused, match=f"--address: expected a running Ray cluster, found none at {address}: "):
            connection._join(address, {})


def test_this_ray_is_the_release_whose_inside_is_known() -> None:
    own_ray.check_ray("/tmp")
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (wanted,) = (name for name in project["dependencies"] if name.startswith("ray["))
    assert wanted == f"ray[tune]=={own_ray.RAY}.*"  # pip refuses others
    # what is replaced at the start on one machine: its names and parameters
    assert list(inspect.signature(connection.services.resolve_ip_for_localhost).parameters) == ["host"]
    assert list(inspect.signature(connection.services.get_node).parameters)[:2] == ["gcs_address", "node_id"]
    assert "_node_ip_address" in inspect.getsource(ray.init)


@pytest.mark.parametrize("version", ["2.61.0", "2.59.1", "2.6.0", "3.0.0"])
def test_another_release_of_ray_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(own_ray, "version", lambda name: version)
    with pytest.raises(Refused, match=f"ray: expected release 2.60, .* found {version}"):
        own_ray.check_ray("/tmp")


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/" + "x" * 99)
    said = rf"^{name}: expected a folder whose path has at most \d\d characters.* found 100"
    with pytest.raises(Refused, match=said):
        own_ray.check_ray()
    room = own_ray._LONGEST - len(own_ray._SOCKET) - 1
    monkeypatch.setenv(name, "/" + "x" * (room - 1))
    own_ray.check_ray()
    monkeypatch.setenv(name, "/" + "x" * room)
    with pytest.raises(Refused, match=f"at most {room} characters"):
        own_ray.check_ray()
