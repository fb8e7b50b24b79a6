"""Durations as text, and where they are read."""

import pytest

from tune.commands.units import age_of
from tune.durations import seconds_of
from tune.space.config import SearchConfig


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("30min", 1800), ("0.5h", 1800), (".5 h", 1800), ("2 H", 7200), ("1.5d", 129_600),
     ("1w", 604_800)],
)  # fmt: skip
def test_a_duration_is_read_alike_everywhere(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert age_of(text, "--older-than") == seconds
    assert SearchConfig(budget=text).budget == text


@pytest.mark.parametrize("text", ["", "d", "0d", "0.0h", "-3d", "inf", "1y", "3 days ago", "1e9d", "nan h", "1 2h"])
def test_what_is_none_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a duration above 0 in s, m \(or min\), h, d or w, such as 90s"):
        seconds_of(text)
    with pytest.raises(ValueError, match=r"--older-than: expected a duration above 0 in s, m \(or min\), h, d or w"):
        age_of(text, "--older-than")
    with pytest.raises(ValueError, match=r"expected a duration above 0 and up to 365d in s, m \(or min\), h, d or w"):
        SearchConfig(budget=text)


def test_a_number_alone_is_days_where_that_is_said() -> None:
    assert age_of("7", "--older-than") == 604_800
    with pytest.raises(ValueError, match="found '7'"):
        seconds_of("7")
