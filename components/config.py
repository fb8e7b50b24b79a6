"""The base of every configuration model, and the words in which a bad configuration is refused."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

_NOUNS = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "array": "a list",
}
_LIMITS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))

ReadWhen: TypeAlias = Mapping[str, Mapping[str, tuple[Any, ...]]]  # field → another field → its values


class AnythingBut(tuple[Any, ...]):
    """Of `read_when`: values of another field with which a field is not read, in the place of those with which it is.

        {"threshold": {"levels": AnythingBut((None,))}}
    """


def fits(value: Any, wanted: tuple[Any, ...]) -> bool:
    """True where a field with the condition `wanted` is read, when the other field is `value`."""
    return (value in wanted) != isinstance(wanted, AnythingBut)


class Config(BaseModel):
    """One component's settings: frozen, strict (neither 1.0 nor "1" for 1), no unknown field, NaN, infinity.

    The comment behind a field is its documentation. A refused value raises `pydantic.ValidationError`, which
    `explain` puts into words.

    A field that was added later is declared with `json_schema_extra={"neutral": X}`: at X it does what was done before
    it existed, and signatures do not name it. A field that was removed stays in `retired`, with the value at which it
    did what is done now: files written before may still name it so, and signatures go on naming it.

    `read_when` names, for a field that is not always read, the values of another field of the model with which it is:
    a search of it would otherwise compare equal trials. A model inherits the entries of its bases.
    """

    retired: ClassVar[Mapping[str, Any]] = {}
    read_when: ClassVar[ReadWhen] = {}

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    def identity(self) -> dict[str, Any]:
        """The settings by which a result is known: those of `model_dump`, whatever was added or removed since."""
        fields = type(self).model_fields
        neutral = {name: extra for name, field in fields.items() if isinstance(extra := field.json_schema_extra, dict)}
        settings = {
            name: value
            for name, value in self.model_dump().items()
            if "neutral" not in neutral.get(name, {}) or value != neutral[name]["neutral"]
        }
        return {**settings, **self.retired}

    @classmethod
    def conditions(cls, name: str) -> dict[str, tuple[Any, ...]]:
        """Other field → its values with which the field `name` is read, by `read_when` of this model and its bases."""
        declared = [vars(base).get("read_when", {}).get(name, {}) for base in reversed(cls.__mro__)]
        return {other: values for found in declared for other, values in found.items()}

    @classmethod
    def retires(cls, name: str, value: Any) -> bool:
        """True where `name` is a removed field and `value` is the one at which files may still name it.

        Raises:
ValueError: it is a removed field, at another value.
        """
        if name not in cls.retired:
            return False
        if value != cls.retired[name] or isinstance(value, bool) != isinstance(cls.retired[name], bool):
            expected = {None: "null", False: "false"}.get(cls.retired[name], cls.retired[name])
            raise ValueError(f"expected {expected}, as this field was removed, found {value!r}")
        return True


def current(model: type[Config], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `model` from a file written earlier, without fields that were removed since.

    Raises:
        ValueError: a removed field at a value at which it did something, by name.
    """
    kept = {}
    for name, value in settings.items():
        try:
            if not model.retires(name, value):
                kept[name] = value
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return kept


def field_model(model: type[BaseModel], path: Iterable[str]) -> type[BaseModel] | None:
    """The model that declares the last name of `path`, seen from `model`; None if a section is unknown."""
    *sections, _ = path
    for name in sections:
        field = model.model_fields.get(name)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return None
        model = section
    return model


def expectation(model: type[BaseModel], name: str) -> str:
    """Describes the values that field `name` of `model` accepts: `an integer ≥ 1`, `one of 'l2', 'huber'`."""
    schema = model.model_json_schema()["properties"][name]
    if "expected" in schema:  # in the field's own words, by `json_schema_extra`
        return str(schema["expected"])
    return " or ".join(_words(option) for option in schema.get("anyOf", [schema]))


def _words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(repr(value) for value in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    noun = _NOUNS.get(schema.get("type", "object"), "a section of settings")
    limits = [f"{sign} {schema[key]:g}" for key, sign in _LIMITS if key in schema]
    return " ".join([noun, " and ".join(limits)]).strip()


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing remark naming the known word most like `word`, or nothing when none is close."""
    spelt = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(spelt), n=1, cutoff=0.6)
    return f"; did you mean {spelt[close[0]]}?" if close else ""


def explain(error: ValidationError, model: type[BaseModel], source: str = "") -> str:
    """Every complaint of a validation error of `model`, one line each: where, expected, found (source)."""
    where = f" ({source})" if source else ""
    return "\n".join(_complaint(detail, model) + where for detail in error.errors())


def _complaint(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    path = [str(part) for part in detail["loc"]]
    dotted = ".".join(path)
    owner = field_model(model, path) if path else None
    if detail["type"] == "extra_forbidden" and owner:
        return f"{dotted}: expected a known field, found {path[-1]!r}" + nearest(path[-1], owner.model_fields)
    if owner is None or path[-1] not in owner.model_fields or detail["type"] == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        return f"{dotted}: {message}" if dotted else message
    found = "nothing" if detail["type"] == "missing" else repr(detail["input"])
    return f"{dotted}: expected {expectation(owner, path[-1])}, found {found}"
