"""The commands that a user is told to copy."""

import sys
from pathlib import Path

import pytest

from tune.planning.call import interpreter, resumed


def placed(file: Path, what: Path) -> Path:
    """A link to a program, and the folders that it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(what)
    return file


def test_this_interpreter_is_named_as_short_as_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "usr" / "python3.14"
    system.parent.mkdir()
    system.touch(mode=0o755)
    common = placed(tmp_path / "usr" / "python", system)
    own = placed(tmp_path / "work" / ".venv" / "bin" / "python3", system)
    short = placed(own.with_name("python"), system)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "executable", str(own))
    for path, expected in (
        (short.parent, "python"),
        (common.parent, ".venv/bin/python3"),  # the same file, and yet without the packages
        (tmp_path, ".venv/bin/python3"),
    ):
        monkeypatch.setenv("PATH", str(path))
        assert interpreter() == expected
    monkeypatch.chdir(tmp_path / "usr")
    assert interpreter() == str(own)
    monkeypatch.setattr(sys, "executable", str(system))
    monkeypatch.setenv("PATH", str(common.parent))
    assert interpreter() == "python"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python -m tune.search", "'/my env/python' -m tune.search --resume"),
        ("python -m tune.search --resume --trials 3", "'/my env/python' -m tune.search --resume --trials 3"),
        ("from Python: search(classifier=module) with the same module",) * 2,
    ],
)
def test_a_command_is_turned_into_one_that_goes_on(
    command: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.planning.call.interpreter", lambda: "/my env/python")
    assert resumed(command).startswith(expected)
    assert "resume" in resumed(command)
