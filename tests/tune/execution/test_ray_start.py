"""Lines about Ray's start and end: where one is started, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from tune.cluster.resources import Request
from tune.execution import ray_start
from tune.execution.ray_start import running_ray
from tune.storage.folder import Storage


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray, but a word when it would start and when it would end."""

    @contextmanager
    def connect(address: str | None, *, verbose: bool = False) -> Iterator[None]:
        print("begin")
        yield
        print("end")

    monkeypatch.setattr(ray_start, "connect", connect)
    for name in ("check_ray", "resources_here", "_of_cluster", "check_shared", "_check_user_code", "start_coordinator"):
        monkeypatch.setattr(ray_start, name, mock.Mock())
    monkeypatch.delenv(ray_start.UNKEPT, raising=False)


@pytest.mark.parametrize(
    ("address", "quiet", "expected"),
    [
        (None, False, ["Starting Ray on this machine …", "begin", "runs", "Stopping Ray …", "end"]),
        (None, True, ["begin", "runs", "end"]),
        ("auto", False, ["begin", "runs", "end"]),
    ],
)
def test_the_start_and_the_end_of_an_own_ray_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str | None, quiet: bool, expected: list[str]
) -> None:
    with running_ray(mock.Mock(home=Storage(tmp_path)), Request(1.0, None, None, address), quiet=quiet):
        print("runs")
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("kept", [True, False])
def test_where_byte_code_is_not_kept_the_slow_start_has_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setenv(ray_start.UNKEPT, "1")
    compiled = tmp_path / "torch.pyc"
    if kept:
        compiled.touch()
    monkeypatch.setattr(ray_start, "find_spec", lambda name: mock.Mock(cached=str(compiled)))
    with running_ray(mock.Mock(home=Storage(tmp_path)), Request(1.0, None, None, None)):
        pass
    assert ("PYTHONDONTWRITEBYTECODE is set: each process compiles" in capsys.readouterr().out) is not kept
