"""The code that each stage's result follows from: digests of the functions and classes that its `build` reaches.

    make stage-code        writes stage_code.json, with which test_stage_code.py compares

Reached is what a name in the code stands for, through imports and registries, in `components` and `tune.pipeline`.
Comments, docstrings, annotations and refusals (`if …: raise …`, `assert`: they make no result) are no part of a digest;
but by an annotation the class of an argument is found.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tune.pipeline.stages import STAGES

ROOT = Path(__file__).parents[3]
FILE = Path(__file__).with_suffix(".json")
FOLLOWED = ("components", "tune.pipeline")
# These carry, check and keep what others compute. Left out: a message of theirs is no change of a result.
CARRIERS = {f"components.{name}" for name in ("config", "files", "lazy", "registry", "saved_defense")}
BY_CONTENT = {("components.datasets.dataset", "Dataset")}  # images are part of a signature themselves
SILENT = {"annotation", "returns", "kind", "type_comment", "type_params", "ctx", "lineno", "col_offset"}

Definition = tuple[str, str]  # module and name
Record = dict[str, dict[str, Any]]  # stages: version and code by name; definitions: digest by name


class _WithoutRefusals(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        binds = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test))
        refuses = not node.orelse and not binds and all(isinstance(part, ast.Raise) for part in node.body)
        return ast.Pass() if refuses else self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Pass()

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()


class Module:
    """One source file: its top-level definitions, and what the names in it stand for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.tree = name, parsed(path.read_text(encoding="utf-8"))

    @cached_property
    def definitions(self) -> dict[str, list[ast.stmt]]:
        """The statements that make each top-level name."""
        found: dict[str, list[ast.stmt]] = {}
        for node in self.tree.body:
            for name in _defined(node):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def imports(self) -> dict[str, Definition]:
        """Local name → module and name there; the name is empty for a module."""
        found: dict[str, Definition] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[alias.asname or alias.name] = (whole, "") if _file(whole) else (node.module, alias.name)
        return found

    def meaning(self, name: str) -> Definition | None:
        """The definition that a name in this file stands for, wherever it is."""
        if name in self.definitions:
            return self.name, name
        module, inner = self.imports.get(name, ("", ""))
        if not inner or not _followed(module):
            return None
        return _module(module).meaning(inner)

    def meanings(self, node: ast.AST) -> Iterator[Definition]:
        """The definitions that the names below a node stand for; but a registry that it only adds to is not read."""
        added_to = {id(part) for part in _registrations(node)}
        for part in ast.walk(node):
            if id(part) in added_to:
                continue
            if isinstance(part, ast.Name) and (found := self.meaning(part.id)):
                yield found
            if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                module, inner = self.imports.get(part.value.id, ("", "x"))
                if not inner and _followed(module) and (found := _module(module).meaning(part.attr)):
                    yield found
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and (found := self.meaning(part.value)):
                yield found  # an annotation in quotes


def parsed(text: str) -> ast.Module:
    """A source as far as results follow from it."""
    tree: ast.Module = _WithoutRefusals().visit(ast.parse(text))
    return tree


@cache
def _module(name: str) -> Module:
    path = _file(name)
    assert path is not None, name
    return Module(name, path)


def _file(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _followed(name: str) -> bool:
    return name.startswith(FOLLOWED) and name not in CARRIERS and _file(name) is not None


def _defined(node: ast.stmt) -> list[str]:
    """The top-level names that a statement makes; one that registers something makes `<its line>`."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    if isinstance(node, ast.Expr | ast.For) and _registrations(node):
        return [f"<{ast.unparse(node).splitlines()[0][:40]}>"]
    return []


def _registrations(node: ast.AST) -> list[ast.Name]:
    """The registries that a statement adds to."""
    where = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else [node]
    return [
        part.value
        for top in where
        for part in ast.walk(top)
        if isinstance(part, ast.Attribute) and part.attr == "register" and isinstance(part.value, ast.Name)
    ]


@cache
def _registered() -> dict[Definition, list[Definition]]:
    """Registry → what is registered in it."""
    found: dict[Definition, list[Definition]] = {}
    for package in ("components", "tune/pipeline"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
            for own, nodes in _module(name).definitions.items():
                for registry in {one.id for node in nodes for one in _registrations(node)}:
                    if meaning := _module(name).meaning(registry):
                        found.setdefault(meaning, []).append((name, own))
    return found


def reached(stage: str) -> set[Definition]:
    """The definitions that a stage's `build` reaches; of the stage's own class, only the methods that it calls."""
    waiting, seen = list(_method_meanings(stage)), set[Definition]()
    while waiting:
        one = waiting.pop()
        if one in seen or one in BY_CONTENT:
            continue
        seen.add(one)
        module, name = one
        waiting += _registered().get(one, [])
        for node in _module(module).definitions[name]:
            waiting += _module(module).meanings(node)
    return seen


def _methods(stage: str) -> Iterator[tuple[str, str, ast.AST]]:
    """Module, class and tree of `build` and of each method of the stage that it calls, and these call."""
    waiting, seen = ["build"], set[str]()
    classes = [kind for kind in type(STAGES[stage]).__mro__ if _followed(kind.__module__)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for kind in classes:
            (tree,) = _module(kind.__module__).definitions[kind.__name__]
            assert isinstance(tree, ast.ClassDef)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name == name:
                    yield kind.__module__, kind.__name__, node
                    waiting += [part.attr for part in ast.walk(node) if _is_own(part)]
                    break


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "super")


def _method_meanings(stage: str) -> Iterator[Definition]:
    own = {(kind.__module__, kind.__name__) for kind in type(STAGES[stage]).__mro__}
    for module, _, node in _methods(stage):
        yield from (found for found in _module(module).meanings(node) if found not in own)


def code_of(stage: str) -> dict[str, str]:
    """Digest of everything that a stage's result follows from, by `module.name`."""
    whole = {f"{module}.{kind}.{node.name}": [node] for module, kind, node in _methods(stage)}  # type: ignore[attr-defined]
    whole |= {f"{module}.{name}": _module(module).definitions[name] for module, name in reached(stage)}
    return {name: digest(nodes) for name, nodes in whole.items()}


def digest(nodes: list[ast.stmt] | list[ast.AST]) -> str:
    """Hash of code without docstrings, comments, annotations and places."""
    return hashlib.sha256(json.dumps([_plain(node) for node in nodes]).encode()).hexdigest()[:12]


def _plain(node: object) -> object:
    """A tree as lists, the same under every version of Python: `ast.dump` is not."""
    if isinstance(node, list):
        return [_plain(one) for one in node if not _is_text(one) and not isinstance(one, ast.Pass)]
    if not isinstance(node, ast.AST):
        return node if isinstance(node, str | int | float | bool | None) else repr(node)
    fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if name not in SILENT]
    return [type(node).__name__, *[[name, value] for name, value in fields if value not in (None, [])]]


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def current() -> Record:
    """Version and code of every stage of the project, as they are."""
    stages: dict[str, Any] = {}
    definitions: dict[str, str] = {}
    for name in sorted(STAGES):
        code = code_of(name)
        whole = hashlib.sha256(json.dumps(code, sort_keys=True).encode()).hexdigest()[:12]
        stages[name] = {"version": STAGES[name].version, "code": whole}
        definitions |= code
    return {"stages": stages, "definitions": dict(sorted(definitions.items()))}


def changes(recorded: Record, found: Record) -> list[str]:
    """One line for each stage whose code is not the recorded one, though its version is; or whose version is new."""
    told = []
    for name in sorted({*recorded["stages"], *found["stages"]}):
        old, new = recorded["stages"].get(name), found["stages"].get(name)
        if old is None or new is None or old["version"] != new["version"]:
            told.append(f"{name}: expected version {old and old['version']}, found {new and new['version']}")
        elif old["code"] != new["code"]:
            reach = {*code_of(name)}
            changed = [one for one in sorted(reach) if recorded["definitions"].get(one) != found["definitions"][one]]
            told.append(f"{name}: version {old['version']} as before, but changed: {', '.join(changed) or 'less code'}")
    return told


def main() -> None:
    """Writes the code down as it is, and tells what is other than before."""
    found = current()
    try:
        told = changes(json.loads(FILE.read_text()), found)
    except (FileNotFoundError, ValueError):  # two branches wrote it, and a merge left its marks
        told = [f"{FILE.name} was no record"]
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(told) or "nothing has changed")


if __name__ == "__main__":
    main()
