from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from components.config import Config, current, expectation, explain


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


class Grown(Config):
    """A model that once had `speed`, and once lacked `polish`."""

    retired: ClassVar[Mapping[str, Any]] = {"speed": None, "turbo": False}
    steps: int = 3
    polish: int = Field(default=2, json_schema_extra={"neutral": 0})


def test_a_result_is_known_by_the_same_settings_whatever_fields_come_and_go() -> None:
    assert Grown(polish=0).identity() == {"steps": 3, "speed": None, "turbo": False}
    assert Grown().identity() == {"steps": 3, "polish": 2, "speed": None, "turbo": False}


def test_a_removed_field_may_stand_at_the_value_that_did_nothing() -> None:
    assert current(Grown, {"steps": 1, "speed": None, "turbo": False}) == {"steps": 1}
    with pytest.raises(ValueError, match=r"speed: expected null, as this field was removed, found 3"):
        current(Grown, {"speed": 3})
    with pytest.raises(ValueError, match=r"turbo: expected false, as this field was removed, found 0"):
        current(Grown, {"turbo": 0})
