"""Command lines: refused before anything runs, and passed on exactly."""

from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tune.pretend_commands import Seen, make_purify, make_search
from tune.commands.command_line import Commands, UsageError, check, run

DEFAULTS = {
    "space": "quickstart",
    "trials": None,
    "cpus_per_trial": 1.0,
    "resume": False,
    "live": True,
    "order": "up",
    "address": None,
}


def given_by(argv: list[str]) -> dict[str, Any]:
    """What the command line changes of the defaults."""
    seen: Seen = []
    assert run(make_search(seen), argv, "prog") == 0
    (values,) = seen
    return {name: values[name] for name in DEFAULTS if values[name] != DEFAULTS[name]}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["--trials", "3"], {"trials": 3}),
        (["--trials=3"], {"trials": 3}),
        (["--trials", "0"], {"trials": 0}),  # whether 0 trials make sense is for the configuration to say
        (["--trials", "-1"], {"trials": -1}),
        (["--trials=+07"], {"trials": 7}),
        (["--cpus-per-trial", "0.5"], {"cpus_per_trial": 0.5}),
        (["--cpus_per_trial", "2"], {"cpus_per_trial": 2.0}),
        (["--cpus-per-trial", "-.5e1"], {"cpus_per_trial": -5.0}),
        (["--resume"], {"resume": True}),
        (["--resume=true"], {"resume": True}),
        (["--resume=True"], {"resume": True}),
        (["--resume=false"], {}),
        (["--resume", "false"], {}),
        (["--no-resume"], {}),
        (["--no-live"], {"live": False}),
        (["--live=false"], {"live": False}),
        (["--no_live"], {"live": False}),
        (["--space", "1e-3"], {"space": "1e-3"}),  # fire alone would make numbers, lists and None of these
        (["--space=[1,2]"], {"space": "[1,2]"}),
        (["--space", "None"], {"space": "None"}),
        (["--space=a=b"], {"space": "a=b"}),
        (["--space", 'it\'s "here"\n\\'], {"space": 'it\'s "here"\n\\'}),
        (["--space", "-5"], {"space": "-5"}),
        (["--order", "down", "--address", "auto"], {"order": "down", "address": "auto"}),
    ],
)
def test_accepted(argv: list[str], expected: dict[str, Any]) -> None:
    changed = given_by(argv)
    assert changed == expected
    assert [type(value) for value in changed.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trails", "3"], "--trails: expected a known flag, found an unknown one; did you mean --trials?"),
        (["--trial=3"], "--trial: expected a known flag, found an unknown one; did you mean --trials?"),
        (["--xyz"], "--xyz: expected a known flag, found an unknown one"),
        (["-t", "3"], "-t: expected a known flag, found an unknown one"),
        (["-trials", "3"], "-trials: expected a known flag, found an unknown one; did you mean --trials?"),
        (["--no-trials"], "--no-trials: expected a known flag, found an unknown one; did you mean --trials?"),
        (["smoke"], "expected flags, found a stray word 'smoke'"),
        (["space", "smoke"], "expected flags, found a stray word 'space'; did you mean --space?"),
        (["--resume", "zzz"], "expected flags, found a stray word 'zzz'"),
        (["--trials"], "--trials: expected an integer, found nothing"),
        (["--trials="], "--trials: expected an integer, found ''"),
        (["--trials", "--resume"], "--trials: expected an integer, found nothing"),
        (["--trials", "many"], "--trials: expected an integer, found 'many'"),
        (["--trials", "3.0"], "--trials: expected an integer, found '3.0'"),
        (["--trials", "1_000"], "--trials: expected an integer, found '1_000'"),
        (["--trials", "None"], "--trials: expected an integer, found 'None'"),
        (["--cpus-per-trial", "nan"], "--cpus-per-trial: expected a number, found 'nan'"),
        (["--cpus-per-trial", "1e999"], "--cpus-per-trial: expected a number, found '1e999'"),
        (["--resume=maybe"], "--resume: expected true or false, found 'maybe'"),
        (["--resume="], "--resume: expected true or false, found ''"),
        (["--no-resume=true"], "--no-resume: expected no value, found 'true'"),
        (["--space", ""], "--space: expected NAME_OR_PATH, found ''"),
        (["--order", "sideways"], "--order: expected one of up, down, found 'sideways'"),
        (["--trials", "3", "--trials=4"], "--trials: expected once, found again as --trials=4"),
        (["--space=a", "--space", "b"], "--space: expected once, with one NAME_OR_PATH, found again as --space"),
        (["--resume", "--no-resume"], "--resume: expected once, found again as --no-resume"),
        (["--", "--resume"], "expected flags, found a stray word '--resume'; did you mean --resume?"),
        (["-"], "expected flags, found a stray word '-'"),
    ],
)
def test_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: Seen = []
    assert run(make_search(seen), argv, "prog") == 2
    assert not seen
    captured = capsys.readouterr()
    assert captured.err == f"error: {message}\nhelp: prog --help\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["runs/a", "--limit=1"], {"folder": "runs/a", "images": (), "out": "purified", "limit": 1}),
        (
            ["--limit", "1", "a", "b", "c"],
            {"folder": "a", "images": ("b", "c"), "out": "purified", "limit": 1},
        ),
        (["--folder", "a", "--limit", "1"], {"folder": "a", "images": (), "out": "purified", "limit": 1}),
        (["007", "1e3", "--limit=1"], {"folder": "007", "images": ("1e3",), "out": "purified", "limit": 1}),
        (
            ["a", "--limit=1", "--out", "b", "--", "--limit", "-"],
            {"folder": "a", "images": ("--limit", "-"), "out": "b", "limit": 1},
        ),
    ],
)
def test_words_are_given_by_their_place(argv: list[str], expected: dict[str, Any]) -> None:
    seen: Seen = []
    assert run({"purify": make_purify(seen)}, ["purify", *argv], "prog") == 0
    assert seen == [expected]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected one of purify, store, found nothing"),
        (["prify"], "expected one of purify, store, found 'prify'; did you mean purify?"),
        (["--limit"], "expected one of purify, store, found '--limit'"),
        (["store"], "expected one of list, found nothing"),
        (["store", "lst"], "expected one of list, found 'lst'; did you mean list?"),
        (["purify", "--limit", "1"], "FOLDER: expected text, found nothing"),
        (["purify", "a"], "--limit: expected an integer, found no --limit"),
        (["purify", "a", "", "--limit", "1"], "IMAGES: expected text, found ''"),
        (["purify", "a", "--images", "b"], "--images: expected a known flag, found an unknown one"),
    ],
)
def test_refused_commands(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: Seen = []
    commands: Commands = {"purify": make_purify(seen), "store": {"list": make_search(seen)}}
    assert run(commands, argv, "prog") == 2
    assert not seen
    assert capsys.readouterr().err.startswith(f"error: {message}\n")


def test_the_commands_result_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(make_search([], status=130), [], "prog") == 130
    assert run(make_search([], status=0), [], "prog") == 0
    assert run(make_search([], status=None), [], "prog") == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""  # fire by itself prints what a function returns


@given(st.text(min_size=1), st.integers(-(10**30), 10**30), st.floats(allow_nan=False, allow_infinity=False))
def test_values_arrive_as_they_were_written(text: str, whole: int, number: float) -> None:
    argv = [f"--space={text}", f"--trials={whole}", f"--cpus-per-trial={number!r}"]
    assert {**DEFAULTS, **given_by(argv)} == {
        **DEFAULTS,
        "space": text,
        "trials": whole,
        "cpus_per_trial": number,
    }


@given(st.lists(st.text(max_size=8) | st.sampled_from(["--", "--trials", "--resume", "-h", "3"]), max_size=5))
def test_no_command_line_breaks_it(argv: list[str]) -> None:
    assert run(make_search([]), argv, "prog") in (0, 2)


@pytest.mark.parametrize(
    ("argv", "pair", "words"),
    [
        (["--pair", "a b", "7"], ("a b", 7), []),
        (["--pair=it's", "-7", "more"], ("it's", -7), ["more"]),
        (["--import", "[1]"], None, []),
    ],
)
def test_a_flag_may_take_two_words(argv: list[str], pair: tuple[str, int] | None, words: list[str]) -> None:
    seen: Seen = []

    def command(*more: str, pair: tuple[str, int] | None = None, import_: str = "") -> None:
        seen.append({"pair": pair, "more": list(more), "import": import_})

    assert run(command, argv, "prog") == 0
    assert seen == [{"pair": pair, "more": words, "import": "" if pair else "[1]"}]


def settings(*, set: Annotated[str | None, "YAML"] = None) -> None:
    """Takes settings."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "a.b: 1", "--set", "c.d: [2, 3]"], "a.b: 1, c.d: [2, 3]"),
        (["--set=a.b: 1, e.f: x,", "--set", "c.d: 2"], "a.b: 1, e.f: x, c.d: 2"),
    ],
)
def test_settings_may_be_given_again(words: list[str], expected: str) -> None:
    assert check(settings, words) == [f"--set={expected!r}"]


@pytest.mark.parametrize("block", ["{a.b: 1}", "a.b: 1\nc.d: 2"])
def test_settings_in_a_form_of_their_own_are_given_once(block: str) -> None:
    with pytest.raises(UsageError, match="--set: expected KEY: VALUE where it is given again, or all in one, found"):
        check(settings, ["--set", "e.f: 1", "--set", block])
