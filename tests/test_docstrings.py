"""The rule for docstrings: they begin with a verb or a noun, not with a question word."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("components", "tune") for path in (ROOT / package).rglob("*.py"))
QUESTIONS = ("What", "Whether", "How", "Which", "Who", "Whose", "Whoever", "Where", "When", "Why")


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The name of every module, class and function in `tree` that has a docstring, and its first word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words:
                yield getattr(node, "name", "the module"), words[0].rstrip(",:;.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_begin_with_a_verb_or_a_noun(path: Path) -> None:
    assert not [name for name, first in docstrings(ast.parse(path.read_text())) if first in QUESTIONS]


def test_a_question_is_noticed() -> None:
    tree = ast.parse('"""Fine."""\ndef f():\n    """Whether it is so."""')
    assert [name for name, first in docstrings(tree) if first in QUESTIONS] == ["f"]
