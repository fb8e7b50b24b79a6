"""Durations as people write them: `90s`, `30m` or `30 min`, `1.5h`, `2d`, `1w`."""

import re

DAY = 86_400.0  # seconds
UNITS = "s, m (or min), h, d or w"  # in messages
AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15}) ?([A-Za-z]*)")  # a number and its unit, also of a size
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}


def seconds_of(text: str, unit: str = "") -> float:
    """A duration in seconds, above 0.

    Args:
        text: a number and its unit, in letters of either case.
        unit: of a number without one; where empty, each needs its own.

    Raises:
        ValueError: it is none, or 0.
    """
    match = AMOUNT.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS.get((match[2] or unit).lower(), 0.0) if match else 0.0
    if seconds <= 0:
        raise ValueError(f"expected a duration above 0 in {UNITS}, such as 90s, 30m or 1.5h, found {text[:40]!r}")
    return seconds
