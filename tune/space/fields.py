"""The leaf fields of `ExperimentConfig`: their dotted keys, what each accepts, and what its comment says.

`python -m tune.space.fields` writes them into search_spaces/README.md.
"""

import ast
import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from components.config import AnythingBut, Config, expectation
from tune.space.config import section_models
from tune.space.strict_yaml import show


@dataclass(frozen=True)
class Leaf:
    """One field that a space may fix or search."""

    key: str  # section.field
    annotation: Any
    bounds: tuple[Any, ...]  # pydantic's metadata: Ge(1), …
    default: Any
    expected: str  # in words: `an integer ≥ 1`
    comment: str  # the comment behind the field in its model
    variants: frozenset[str] | None = None  # of its section, those that have the field; None where all have it
    # other key → its values with which it is read; none where it always is
    read_when: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)

    def belongs(self, fixed: Mapping[str, Any]) -> bool:
        """True where the variant that `fixed` names for its section has the field."""
        return self.variants is None or fixed.get(f"{self.key.split('.')[0]}.name") in self.variants

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The members of a union; the type itself where it is none."""
        union = get_origin(self.annotation) in (Union, types.UnionType)
        return get_args(self.annotation) if union else (self.annotation,)

    @property
    def number(self) -> type[int] | type[float] | None:
        """int or float where the field has a low and a high; None where its values can only be listed."""
        return next((kind for kind in (int, float) if kind in self.kinds), None)

    def check(self, value: Any) -> Any:
        """`value` as the field holds it (lists become tuples, whole numbers floats). Raises ValueError."""
        try:
            return self._adapter.validate_python(self._meant(value))
        except ValidationError as error:
            detail = error.errors()[0]
            own = str(detail.get("ctx", {}).get("error", "")) if detail["type"] == "value_error" else ""
            raise ValueError(own or f"expected {self.expected}, found {found(value)}") from error

    def _meant(self, value: Any) -> Any:
        """Undoes what YAML makes of some values: lists of tuples, a boolean of the option named "true"."""
        if isinstance(value, list | tuple):
            return tuple(map(self._meant, value))
        text = str(value).lower()
        return text if isinstance(value, bool) and text in self._options else value

    @cached_property
    def _options(self) -> tuple[Any, ...]:
        return tuple(
            option for kind in self.kinds if get_origin(kind) is Literal for option in get_args(kind)
        )

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        annotation: Any = Annotated[(self.annotation, *self.bounds)] if self.bounds else self.annotation
        return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def found(value: Any) -> str:
    """A value as an error shows it: on one line, short, and never nothing."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:76]} …"


def leaves() -> Mapping[str, Leaf]:
    """Every leaf field by dotted key, in the order of the models."""
    return _leaves(tuple(section_models().items()))


@cache
def _leaves(models: tuple[tuple[str, tuple[type[Config], ...]], ...]) -> Mapping[str, Leaf]:
    found: dict[str, Leaf] = {}
    for section, variants in models:
        names = [name_of(model) for model in variants]
        for model in variants:
            for leaf in _leaves_of(section, model, names):
                found.setdefault(leaf.key, replace(leaf, variants=_having(leaf, variants)))
    return types.MappingProxyType(found)


def leaves_with(chosen: Mapping[str, Any]) -> Mapping[str, Leaf]:
    """The same, where the variants of a section differ as the one that `SECTION.name` in `chosen` names has it."""
    names = {key: value for key, value in chosen.items() if key.endswith(".name") and isinstance(value, str)}
    return _leaves_with(tuple(section_models().items()), frozenset(names.items()))


@cache
def _leaves_with(
    models: tuple[tuple[str, tuple[type[Config], ...]], ...], chosen: frozenset[tuple[str, str]]
) -> Mapping[str, Leaf]:
    found, wanted = dict(_leaves(models)), dict(chosen)
    for section, variants in models:
        names = [name_of(model) for model in variants]
        if len(names) > 1 and wanted.get(f"{section}.name") in names:
            model = variants[names.index(wanted[f"{section}.name"])]
            own = {leaf.key: leaf for leaf in _leaves_of(section, model, names)}
            found |= {key: replace(leaf, variants=found[key].variants) for key, leaf in own.items()}
    return types.MappingProxyType(found)


def _having(leaf: Leaf, models: Sequence[type[Config]]) -> frozenset[str] | None:
    """Names of the variants of a section that have a field; None where all have it."""
    field = leaf.key.split(".")[1]
    having = frozenset(name_of(model) for model in models if field in model.model_fields)
    return having if len(having) < len(models) else None


def variant_of(section: str, name: str) -> type[Config]:
    """The config model of a section whose field `name` has this value; its only one where there is no choice."""
    models = section_models()[section]
    return next((model for model in models if name_of(model) == name), models[0])


def name_of(model: type[Config]) -> str:
    """The name by which a section chooses a config model."""
    return str(model.model_fields["name"].default) if "name" in model.model_fields else ""


def _leaves_of(section: str, model: type[Config], names: Sequence[str]) -> Iterator[Leaf]:
    comments = field_comments(model)
    declared = [vars(base).get("__annotations__", {}) for base in model.__mro__]  # what is inherited comes last
    own = sorted(model.model_fields, key=lambda name: next(n for n, names in enumerate(declared) if name in names))
    for name, field in ((name, model.model_fields[name]) for name in own):
        chooses = name == "name" and len(names) > 1
        yield Leaf(
            key=f"{section}.{name}",
            annotation=Literal[tuple(names)] if chooses else field.annotation,
            bounds=tuple(field.metadata),
            default=field.get_default(call_default_factory=True, validated_data={}),
            expected="one of " + ", ".join(map(repr, names)) if chooses else expectation(model, name),
            comment=comments.get(name, ""),
            read_when={f"{section}.{other}": values for other, values in model.conditions(name).items()},
        )


def field_comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment behind each field of `model`, its own and those that it inherits: its documentation."""
    bases = [base for base in reversed(model.__mro__) if issubclass(base, Config) and base is not Config]
    return {name: comment for base in bases for name, comment in _own_comments(base).items()}


def _own_comments(model: type[BaseModel]) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(model))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): comments.get(node.end_lineno or 0, "") for node in fields}


BEGIN, END = "<!-- fields: written by python -m tune.space.fields -->\n", "<!-- end of fields -->\n"


def table() -> str:
    """All fields as Markdown, one table per section."""
    parts = []
    for section, models in section_models().items():
        texts = "\n\n".join(inspect.getdoc(model) or "" for model in models)
        title = f"### {section}\n\n{texts}\n\n"
        head = "| key | value | default | meaning |\n|---|---|---|---|\n"
        rows = (_row(leaf, models) for leaf in leaves().values() if leaf.key.startswith(f"{section}."))
        parts.append(title + head + "".join(rows))
    return "\n".join(parts)


def _row(leaf: Leaf, models: Sequence[type[Config]]) -> str:
    default, comment = f"`{show(leaf.default)}`", leaf.comment
    for name in map(name_of, models if not leaf.key.endswith(".name") else ()):
        own = leaves_with({f"{leaf.key.split('.')[0]}.name": name})[leaf.key]
        if name in (leaf.variants or ()) and own.default != leaf.default:
            default += f", {name}: `{show(own.default)}`"
        if name in (leaf.variants or ()) and own.comment != leaf.comment:
            comment += f"; {name}: {own.comment}"
    only = f" ({', '.join(sorted(leaf.variants))} only)" if leaf.variants else ""
    for other, values in leaf.read_when.items():
        only += f" (with `{other.split('.')[1]}` {in_words(values)} only)"
    cells = (f"`{leaf.key}`", leaf.expected, default, comment + only)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def in_words(values: tuple[Any, ...]) -> str:
    """The condition of a `read_when`: `huber or insensitive`, `other than null`."""
    return ("other than " if isinstance(values, AnythingBut) else "") + " or ".join(map(show, values))


def with_table(readme: str) -> str:
    """`readme` with the table between its two marks brought up to date."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = Path(__file__).parents[2] / "search_spaces" / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"{path} is up to date\n")
