"""Temporary folders: gone after use, and after the death of who used them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tune.storage.scratch import scratch

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, time
from tune.storage.scratch import scratch
with scratch("test") as folder:
    (folder / "large").write_bytes(b"0" * 1000)
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /tmp of the test's own, for this process and those that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_after_the_block(temporary: Path) -> None:
    with scratch("one") as one, scratch("two") as two:
        (one / "file").write_text("content")
        assert one.parent == two.parent == temporary
        assert "one" in one.name
    assert list(temporary.iterdir()) == []
    with pytest.raises(ValueError, match="as it must"), scratch("three"):
        raise ValueError("as it must")
    assert list(temporary.iterdir()) == []


def test_that_of_a_killed_process_is_removed_by_the_next_and_a_living_ones_is_not(temporary: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLDER]
    holders = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        dead, alive = (Path(holder.stdout.readline().strip()) for holder in holders)  # type: ignore[union-attr]
        assert dead.exists()
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert (dead / "large").exists()
        with scratch("next"):
            assert not dead.exists()
            assert (alive / "large").exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def test_folders_of_others_are_left_alone(temporary: Path) -> None:
    (temporary / "unet-abc").mkdir()
    (temporary / "latent-defense-scratch-file").touch()
    with scratch("one"):
        pass
    assert sorted(path.name for path in temporary.iterdir()) == ["latent-defense-scratch-file", "unet-abc"]
