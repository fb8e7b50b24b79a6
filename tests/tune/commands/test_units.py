"""Sizes and times as text, read and written."""

import time

import pytest

from tune.commands.units import pulse, size_of, time_text


@pytest.mark.parametrize(
    ("text", "size"),
    [("1B", 1), ("500MB", 500_000_000), ("10 gb", 10**10), ("1.5kB", 1500), ("2 KiB", 2048), ("1TiB", 1024**4)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert size_of(text, "--max-size") == size


@pytest.mark.parametrize("text", ["", "10", "GB", "-1GB", "0GB", "0.1B", "1e3MB", "nan GB", "10XB", "10 G B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--max-size: expected a size above 0 with its unit"):
        size_of(text, "--max-size")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (3600, "1.0 h"), (46.5 * 3600, "46.5 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_a_long_work_is_said_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pulse(lambda: print("still busy"), seconds=0.01):
        time.sleep(0.2)
    told = capsys.readouterr().out
    assert told.count("still busy\n") >= 2
    time.sleep(0.05)
    assert capsys.readouterr().out == ""
