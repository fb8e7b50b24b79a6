"""`python -m tune`: its commands, quick help, and errors in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tune.experiment_fixture import write_experiment
from tune import __main__ as entry
from tune.commands.help import summary
from tune.commands.types import Later

ROOT = Path(__file__).parents[2]


def test_help_names_every_command_without_importing_them() -> None:
    code = (
        "import sys; from tune.__main__ import main; status = main(['--help']);"
        "heavy = {'torch', 'ray', 'optuna', 'matplotlib', 'pyarrow'} & set(sys.modules);"
        "sys.exit(f'{heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("search", "report", "compare", "purify", "evaluate", "store"):
        assert f"\n  {name} " in done.stdout


def test_the_table_says_of_a_search_what_its_docstring_says() -> None:
    command = entry.COMMANDS["search"]
    assert isinstance(command, Later)
    assert summary(command) == summary(command.load())


@pytest.mark.parametrize("name", ["report", "compare", "purify", "evaluate", "store"])
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: python -m tune {name}" in shown
    assert summary(entry.COMMANDS[name]) in " ".join(shown.split())


def test_report_and_compare_work_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (str(write_experiment(tmp_path / name, trials=4, seeds=0)) for name in ("one", "two"))
    assert entry.main(["report", one]) == 0
    answer, *doubts, place = capsys.readouterr().out.splitlines()
    assert answer.startswith("Trial 2 is the best of 4 finished trials")
    assert (doubts, place) == ([], f"{one}/report.html")
    assert entry.main(["compare", one, two, "--out", str(tmp_path / "both")]) == 0
    assert "one" in capsys.readouterr().out
    assert (tmp_path / "both" / "compare.html").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "expected one of search, report, compare, purify, evaluate, store, found nothing"),
        (["serch"], "evaluate, store, found 'serch'; did you mean search?"),
        (["report"], "FOLDER: expected text, found nothing; for example: python -m tune report results/quickstart"),
        (["report", "{none}"], "{none}"),
        (["compare", "{none}"], "FOLDER: expected at least two searches to compare, found 1"),
        (["compare", "{none}", "{none}"], "{none}"),
        (["compare", "{none}", "{none}", "--out", "/proc/x"], "--out: expected a folder that can be written, found "),
        (["purify", "{none}", "a.png"], "--out: expected DIR, found no --out; for example: python -m tune purify "),
        (["purify", "{none}", "a.png", "--out", "{none}"], "{none}: expected a saved defense, found no such folder"),
        (["evaluate", "{none}"], "{none}: expected a saved defense, found no such folder"),
        (["evaluate", "mnist", "--epsilon", "1.5"], "--epsilon: expected a number in 0 … 1, found 1.5"),
        (["evaluate", "mnist", "--images", "0"], "--images: expected an integer ≥ 1, found 0"),
        (["evaluate", "mnist", "--attacks", "all"], "--attacks: expected one of quick, standard, full, found 'all'"),
        (["store", "{none}"], "{none}: expected a storage with a folder store/, found none"),
        (["store", "{none}", "--yes"], "--yes: expected together with --prune, found alone"),
        (["report", __file__], f"{__file__}: expected a folder, found a file"),
        (["compare", __file__, __file__], f"{__file__}: expected a folder, found a file"),
        (["report", "/proc"], "FOLDER: expected a folder that can be written, found /proc: "),
        (["store", __file__], f"{__file__}: expected a folder, found a file"),
        (["store", "ftp:x://y"], "storage: expected a folder or an address like s3://bucket/folder"),
    ],
)
def test_refusals_are_one_line_and_status_2(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = str(tmp_path / "none")
    assert entry.main([word.replace("{none}", none) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message.replace("{none}", none) in captured.err.splitlines()[0]
    assert not Path(none).exists()


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "No space left on device"), 1), (KeyboardInterrupt(), 130), (ValueError("x"), 2)]
)
def test_failures_have_a_status_of_their_own(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: str) -> int:
        raise error

    monkeypatch.setitem(entry.COMMANDS, "report", fail)
    assert entry.main(["report", "x"]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_search_is_handed_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.search.main", lambda: sys.exit(" ".join(sys.argv[1:])))
    monkeypatch.setattr(sys, "argv", ["python -m tune", "search", "--space", "smoke"])
    with pytest.raises(SystemExit, match=r"^--space smoke$"):
        entry.main()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["tune", "--help"], 0),
        (["tune", "compare", "{one}", "{one}"], 0),
        (["tune.search", "--help"], 0),
        (["tune.search", "--storage", "{one}/..", "--dry-run"], 0),  # of which the first line is enough here
        (["tune.search", "--storage", "{one}/.."], 130),
    ],
)
def test_each_command_ends_quietly_where_nobody_reads_it(words: list[str], status: int, tmp_path: Path) -> None:
    one = str(write_experiment(tmp_path / "one", trials=4, seeds=0))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", *(word.replace("{one}", one) for word in words)],
        cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == status
    if status == 0:
        assert done.stderr == ""
    else:
        assert done.stderr.startswith("interrupted, as its output was closed; nothing that was saved is lost. To go on")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_of_any_encoding_is_written(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tune.search", "--help"],
        cwd=ROOT, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert "restarts × steps".encode(encoding, "replace") in b" ".join(done.stdout.split())


def test_a_command_without_output_works() -> None:
    done = subprocess.run(
        f"{sys.executable} -m tune store nowhere >&-", shell=True, cwd=ROOT, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("-m tune.search --help > /dev/full", 1, "error: [Errno 28] No space left on device"),
        ("-m tune report --help > /dev/full", 1, "error: [Errno 28] No space left on device"),
        ("-OO -m tune.search --help", 2, "error: expected Python with docstrings, which help and Ray read, found -OO"),
    ],
)
def test_what_the_interpreter_cannot_do_is_one_line(command: str, status: int, said: str) -> None:
    done = subprocess.run(
        f"{sys.executable} {command}", shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr.splitlines()[0][: len(said)]) == (status, said)
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tune", "nonsense"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("help: python -m tune --help\n")
