"""Help, and how a program names itself."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.tune.pretend_commands import Seen, make_purify, make_search
from tune.commands.command_line import Commands, run

HELP = """\
usage: prog [--space NAME_OR_PATH] [--trials N] [--cpus-per-trial X] [--resume] [--no-live]
    [--order up|down] [--address ADDRESS]

Searches a space.

Everything is written below the storage folder.

flags:
  --space NAME_OR_PATH    a name in search_spaces/, or the path of a YAML file. (default:
                          quickstart)
  --trials N              how many configurations to try: a number.
  --cpus-per-trial X      (default: 1.0)
  --resume                (default: off)
  --no-live               (default: on)
  --order up|down         (default: up)
  --address ADDRESS
  --help                  Show this and exit.

examples:
  python -m tune.search --space smoke
  python -m tune.search --trials 3   # only three
"""


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--trials", "--help"], ["--nonsense", "-h"]])
def test_help(argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "92")
    seen: Seen = []
    assert run(make_search(seen), argv, "prog") == 0
    assert not seen
    assert capsys.readouterr().out == HELP


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    commands: Commands = {"purify": make_purify([]), "store": {"list": make_search([])}}
    assert run(commands, ["--help"], "python -m tune") == 0
    assert capsys.readouterr().out == (
        "usage: python -m tune COMMAND …\n\n"
        "commands:\n"
        "  purify                  Purifies images.\n"
        "  store                   list\n\n"
        "more: python -m tune COMMAND --help\n"
    )
    assert run(commands, ["purify", "--help"], "python -m tune") == 0
    shown = capsys.readouterr().out
    assert "usage: python -m tune purify FOLDER [IMAGES …] [--out TEXT] --limit N\n" in shown
    assert "arguments:\n  FOLDER\n  IMAGES\n" in shown
    assert "--limit N               (required)\n" in shown


def test_a_signature_that_no_command_line_can_give_is_a_mistake_of_ours() -> None:
    def listed(values: list[int]) -> None: ...
    def named(**values: int) -> None: ...
    def filled(size: int = 3, *words: str) -> None: ...

    for function in (listed, named, filled):
        with pytest.raises(TypeError, match="expected"):
            run(function, [], "prog")


def test_the_program_is_named_as_it_was_started(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text(
        textwrap.dedent(
            """
            import sys
            from tune.commands.command_line import run
            def tool(size: int = 3) -> None:
                "Does it."
            sys.exit(run(tool))
            """
        )
    )
    root = Path(__file__).parents[3]
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tool", "--sise", "3"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: --sise: expected a known flag, found an unknown one; did you mean --size?\n"
        "help: python -m tool --help\n"
    )
