"""The registry of extensions."""

import pytest

from components.registry import Registry


def test_entries_stand_under_their_names_in_order() -> None:
    numbers: Registry[int] = Registry("number.name")
    for name, value in (("two", 2), ("one", 1)):
        numbers.register(name)(value)
    assert dict(numbers) == {"two": 2, "one": 1}
    assert list(numbers) == ["two", "one"]
    assert "one" in numbers
    assert "three" not in numbers


def test_a_taken_name_is_refused_with_the_file_that_has_it() -> None:
    kinds: Registry[type] = Registry("attack.name")
    kinds.register("fgsm")(Registry)
    with pytest.raises(ValueError, match=r"expected a new name, found 'fgsm', which .*registry\.py defines"):
        kinds.register("fgsm")(int)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    kinds: Registry[int] = Registry("attack.name")
    kinds.register("fgsm")(1)
    with pytest.raises(KeyError, match=r"attack\.name: expected one of fgsm, found 'fgms'; did you mean fgsm\?"):
        kinds["fgms"]
