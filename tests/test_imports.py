"""The import rules: components know nothing of the search, and a report needs neither torch nor Ray."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("components", "tune") for path in (ROOT / package).rglob("*.py"))
INDEPENDENT = ("gan", "projector", "unet", "classifiers")
# A room may import those before it; of the components all rooms may.
LAYERS = (
    "errors",
    "durations",
    "metrics",
    "storage",
    "space",
    "pipeline",
    "cluster",
    "optimizer",
    "monitor",
    "report",
    "evaluation",
    "planning",
    "execution",
    "commands",
    "search",
    "__main__",
)
RAY = {
    "tune/execution/session.py",
    "tune/execution/driver.py",
    "tune/execution/memory_monitor.py",
    "tune/execution/trial_callback.py",
    "tune/execution/finalist_training.py",
    "tune/execution/seeds.py",
    "tune/execution/trainings.py",
    "tune/execution/ahead.py",
    "tune/execution/ray_start.py",
    "tune/cluster/connection.py",
    "tune/cluster/leases.py",
    "tune/cluster/coordinator.py",
    "tune/cluster/line.py",
    "tune/cluster/shares.py",
    "tune/optimizer/searcher.py",
    "tune/optimizer/early_stopping.py",
    "tune/monitor/progress.py",
}
OPTUNA = {
    "tune/space/space.py",
    "tune/optimizer/searcher.py",
    "tune/optimizer/history.py",
    "tune/optimizer/study.py",
    "tune/optimizer/sampler.py",
    "tune/optimizer/stopping.py",
    "tune/optimizer/export.py",
    "tune/report/effects.py",
}
SUMMARY_WRITER = {"tune/monitor/tensorboard.py"}
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_YAML = {"unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "Loader"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(tree: ast.AST) -> set[str]:
    """Every module imported below `tree`; of `from a import b` both `a` and `a.b`, as b may be a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import, which these rules do not read"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


class _RunsAtImport(ast.NodeTransformer):
    """Leaves out imports that only a type checker sees, and functions and methods, which run later."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if "TYPE_CHECKING" in ast.dump(node.test) else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        return None


def module_level(tree: ast.Module) -> ast.Module:
    """The tree of what runs when the module is imported."""
    return ast.fix_missing_locations(_RunsAtImport().visit(tree))


def brought_along(path: Path) -> set[str]:
    """The outside packages that importing `path` imports, through whichever of our own modules."""
    seen, outside, waiting = set(), set(), [path]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        names = imports(module_level(tree_of(current)))
        waiting += [found for name in names if (found := module_file(name))]
        outside |= packages(names)
    return outside


def module_file(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def calls(tree: ast.AST) -> Iterator[tuple[str, dict[str | None, ast.expr]]]:
    """Every call below `tree`: its dotted name, and its keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: keyword.value for keyword in node.keywords}


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def imported_somewhere(path: Path) -> set[str]:
    """Our own files that `path` imports, in its functions and for a type checker too.

    Of `from a import b`, where b is a module, b alone: a package's `__init__` imports only what it is asked for.
    """
    names = imports(tree_of(path))
    modules = {name for name in names if module_file(name)}
    parents = {name.rpartition(".")[0] for name in modules}
    return {name_of(found) for name in modules - parents if (found := module_file(name)) and found != path}


def reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    """All files that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = edges[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


each_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if name_of(path).startswith("components/")], ids=name_of
)
def test_components_know_nothing_of_the_search(path: Path) -> None:
    assert not packages(imports(tree_of(path))) & {"tune", "ray", "optuna"}


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if name_of(path).startswith("tune/")], ids=name_of
)
def test_rooms_import_only_those_below_them(path: Path) -> None:
    room = name_of(path).split("/")[1].removesuffix(".py")
    if room == "__init__":
        return
    above = {f"tune.{other}" for other in LAYERS[LAYERS.index(room) + 1 :]}
    assert not {".".join(name.split(".")[:2]) for name in imports(tree_of(path))} & above


def test_what_may_import_ray_or_optuna_exists() -> None:
    assert set(map(name_of, SOURCES)) >= RAY | OPTUNA | SUMMARY_WRITER


def test_the_tree_in_the_readme_names_every_room() -> None:
    _, tree = (ROOT / "README.md").read_text().split("## The tree\n")
    named = {line.split()[0] for line in tree.split("\n## ")[0].splitlines() if line.startswith("      ")}
    rooms = {path for package in ("components", "tune") for path in (ROOT / package).iterdir() if path.is_dir()}
    assert {f"{room.name}/" for room in rooms if room.name != "__pycache__"} <= named


def ways_through_the_code() -> list[list[str]]:
    _, rest = (ROOT / "CONTRIBUTING.md").read_text().split("## Where to begin reading\n")
    return [re.findall(r"`([^`]+)`", way) for way in rest.split("\n## ")[0].split("\n- ")[1:]]


def test_the_ways_through_the_code_are_short() -> None:
    assert [len(way) for way in ways_through_the_code()] == [10, 7, 9]  # at most 12, 7 and 10


@pytest.mark.parametrize("way", ways_through_the_code(), ids=lambda way: way[-1])
def test_each_file_of_a_way_is_known_from_one_before(way: list[str]) -> None:
    for place, name in enumerate(way[1:], 1):
        assert (ROOT / name).is_file()
        if name.endswith(".j2"):
            stem, kind, _ = Path(name).name.split(".")
            writer = (ROOT / way[place - 1]).read_text()
            assert f"{stem}.{{kind}}.j2" in writer
            assert f'"{kind}"' in writer
            continue
        near = {earlier for earlier in way[:place] if linked(earlier, name) or linked(name, earlier)}
        assert near, f"{name}: expected an import by or of one of {way[:place]}"


def linked(one: str, other: str) -> bool:
    """True where one file imports the other, wherever in it."""
    module = other.removesuffix(".py").replace("/", ".")
    return any(f"{name}.".startswith(f"{module}.") for name in imports(tree_of(ROOT / one)))


def test_no_files_import_each_other() -> None:
    edges = {name_of(path): imported_somewhere(path) for path in SOURCES}
    assert not [name for name in edges if name in reachable(name, edges)]


@pytest.mark.parametrize("module", INDEPENDENT)
def test_components_do_not_import_each_other(module: str) -> None:
    others = tuple(f"components.{other}" for other in INDEPENDENT if other != module)
    for path in (ROOT / "components" / module).glob("*.py"):
        assert not [name for name in imports(tree_of(path)) if name.startswith(others)], path.name


@pytest.mark.parametrize("room", INDEPENDENT)
def test_settings_need_no_torch(room: str) -> None:
    assert not brought_along(ROOT / "components" / room / "config.py") & {"torch", "torchvision"}


@each_source
def test_only_the_search_imports_ray(path: Path) -> None:
    assert name_of(path) in RAY or "ray" not in packages(imports(tree_of(path)))


@each_source
def test_only_the_searcher_imports_optuna(path: Path) -> None:
    assert name_of(path) in OPTUNA or "optuna" not in packages(imports(tree_of(path)))


@each_source
def test_only_tracking_writes_summaries(path: Path) -> None:
    assert name_of(path) in SUMMARY_WRITER or "SummaryWriter" not in path.read_text()


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if name_of(path).startswith("tune/report")], ids=name_of
)
def test_a_report_needs_neither_torch_nor_ray(path: Path) -> None:
    assert not brought_along(path) & {"torch", "torchvision", "ray"}


@each_source
def test_nothing_is_unpickled(path: Path) -> None:
    tree = tree_of(path)
    assert not packages(imports(tree)) & UNPICKLERS
    for name, keywords in calls(tree):
        assert name != "torch.load" or is_true(keywords.get("weights_only")), (
            "torch.load without weights_only"
        )
        assert not is_true(keywords.get("allow_pickle")), f"{name} with allow_pickle"
        assert not name.endswith("read_pickle"), name


@each_source
def test_yaml_is_loaded_safely(path: Path) -> None:
    names = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert not names & UNSAFE_YAML
