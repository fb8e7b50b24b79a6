from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from components.config import Config, expectation, explain


class Inner(Config):
    steps: Annotated[int, Field(ge=1, le=9)] = 3
    distance: Literal["l2", "huber"] = "l2"
    tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None


class Outer(Config):
    inner: Inner = Inner()
    name: str


def complaint(values: dict[str, Any], source: str = "") -> str:
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({"name": "a", **values})
    return explain(refused.value, Outer, source)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "inner.steps: expected an integer ≥ 1 and ≤ 9, found 0"),
        ({"steps": 2.0}, "inner.steps: expected an integer ≥ 1 and ≤ 9, found 2.0"),
        ({"steps": True}, "inner.steps: expected an integer ≥ 1 and ≤ 9, found True"),
        ({"steps": "3"}, "inner.steps: expected an integer ≥ 1 and ≤ 9, found '3'"),
        ({"distance": "l3"}, "inner.distance: expected one of 'l2', 'huber', found 'l3'"),
        ({"tolerance": float("nan")}, "inner.tolerance: expected a number > 0 and < 1 or null, found nan"),
        ({"stpes": 2}, "inner.stpes: expected a known field, found 'stpes'; did you mean steps?"),
        ({"x": 2}, "inner.x: expected a known field, found 'x'"),
    ],
)
def test_complaints_say_where_expected_and_found(values: dict[str, Any], message: str) -> None:
    assert complaint({"inner": values}) == message


def test_complaints_name_their_source_one_line_each() -> None:
    lines = complaint({"inner": {"steps": 0, "distance": "l3"}}, "my.yaml").splitlines()
    assert [line.endswith(" (my.yaml)") for line in lines] == [True, True]


def test_a_section_that_is_none_and_a_missing_field() -> None:
    assert complaint({"inner": 3}) == "inner: expected a section of settings, found 3"
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({})
    assert explain(refused.value, Outer) == "name: expected text, found nothing"


def test_whole_numbers_may_stand_for_real_ones_and_nothing_changes_later() -> None:
    config = Inner(steps=9)
    assert expectation(Inner, "steps") == "an integer ≥ 1 and ≤ 9"
    with pytest.raises(ValidationError):
        config.steps = 2  # type: ignore[misc]
