"""How to see an experiment, as it is printed."""

from __future__ import annotations

import shlex
from pathlib import Path

from tune.monitor.runs import tensorboard_command, viewing_commands
from tune.storage.folder import Storage


def test_one_command_on_one_machine(tmp_path: Path) -> None:
    home = Storage(tmp_path / "one")
    assert viewing_commands(home, None) == f"TensorBoard: {tensorboard_command(home)}"


def test_a_cluster_also_has_a_tunnel(tmp_path: Path) -> None:
    home = Storage(tmp_path / "my results" / "one")
    here, tunnel = viewing_commands(home, "auto").splitlines()
    assert here.endswith(tensorboard_command(home))
    words = shlex.split(tunnel.partition("http://localhost:6006: ")[2])
    assert words[:5] == ["ray", "exec", "YOUR.yaml", "--port-forward", "6006"]
    assert words[5:] == [tensorboard_command(home)]  # one word, whatever is in the path
