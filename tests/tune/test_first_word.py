"""What is imported before a user is told something, and by a worker: counted, as seconds depend on the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.tune.tiny_search import write_space
from tune.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "ray", "pandas", "matplotlib", "scipy", "sklearn", "pyarrow", "optuna", "numpy"}
HEAVY |= {"tensorboard", "PIL", "jinja2"}


def imported(code: str, arguments: Sequence[str] = ()) -> tuple[set[str], str]:
    """The packages that a process has imported in the end, and what it said."""
    script = (
        "import sys, runpy\n"
        "def tell():\n"
        "    print('IMPORTED', *{name.partition('.')[0] for name in sys.modules})\n"
        f"{code}\ntell()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stdout.strip().splitlines()[-1].split()
    assert last[0] == "IMPORTED"
    return set(last[1:]), done.stdout + done.stderr


SEARCH = (
    "try: runpy.run_module('tune.search', run_name='__main__', alter_sys=True)\n"
    "except SystemExit as end: print('STATUS', end.code)"
)


MAIN = "from tune.__main__ import main\nprint('STATUS', main())"


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize(
    ("word", "status", "said"),
    [("--help", 0, "usage: python -m tune"), ("--foo", 2, "--foo: expected a known flag, found an unknown one")],
)
def test_a_commands_help_and_refusal_import_nothing_heavy(command: str, word: str, status: int, said: str) -> None:
    code = MAIN if command != "search" else SEARCH  # which ends the process
    packages, output = imported(code, [word] if command == "search" else [command, word])
    assert f"STATUS {status}" in output
    assert said in output
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "mnist", "--epsilon", "1.5"], "--epsilon: expected a number in 0 … 1, found 1.5"),
        (["evaluate", "mnist", "--images", "0"], "--images: expected an integer ≥ 1, found 0"),
        (["evaluate", "mnist", "--reference", "-1"], "--reference: expected an integer ≥ 0, found -1"),
        (["evaluate", "mnist", "--attacks", "all"], "--attacks: expected one of quick, standard, full"),
        (["purify", "mnist", "a.png"], "--out: expected DIR, found no --out; for example: python -m"),
        (["store", "results", "--yes"], "--yes: expected together with --prune, found alone"),
        (["store", "results", "--verify", "--pin", "x"], "--verify: expected without --pin, found both"),
        (["store", "results", "--prune", "--older-than", "x"], "--older-than: expected a duration"),
    ],
)
def test_a_commands_refusal_of_values_imports_nothing_heavy(arguments: list[str], said: str) -> None:
    packages, output = imported(MAIN, arguments)
    assert "STATUS 2" in output
    assert f"error: {said}" in output
    assert not packages & HEAVY


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--help"], 0, "usage: python -m tune.search"),
        (["--trails", "3"], 2, "did you mean --trials?"),
        (["--trials", "many"], 2, "--trials: expected an integer"),
        (["--trials", "0"], 2, "search.trials: expected an integer ≥ 1 and ≤ 100000, found 0"),
        (["--space", "quickstrat"], 2, "did you mean quickstart?"),
        (["--set", "projector.steps: 0"], 2, "projector.steps: expected an integer ≥ 1"),
        (["--set", "unet.widht: 4"], 2, "did you mean unet.width?"),
        (["--name", "a/b"], 2, "--name: expected letters"),
        (["--cpus-per-trial", "0"], 2, "--cpus-per-trial: expected a number > 0"),
        (["--concurrent", "0"], 2, "--concurrent: expected a number ≥ 1"),
    ],
)
def test_a_refusal_imports_nothing_heavy(arguments: list[str], status: int, said: str) -> None:
    packages, output = imported(SEARCH, arguments)
    assert f"STATUS {status}" in output
    assert said in output
    assert not packages & HEAVY


def test_the_first_line_comes_before_anything_heavy(tmp_path: Path) -> None:
    space = write_space(tmp_path)
    stop = (
        "import builtins\nfound = builtins.print\n"
        "def first(*words, **options):\n"
        "    builtins.print = found\n    found(*words)\n    tell()\n    import os; sys.stdout.flush(); os._exit(0)\n"
        "builtins.print = first\n"
    )
    packages, output = imported(stop + SEARCH, ["--space", str(space), "--storage", str(tmp_path / "results")])
    assert f"new experiment {tmp_path}/results/space; reading {tmp_path}/tiny" in output
    assert not packages & (HEAVY - {"pyarrow", "numpy"})  # which the storage needs


RAY = {"ray", "pandas", "matplotlib", "tensorboard"}


def test_data_are_refused_without_ray(tmp_path: Path) -> None:
    space = str(write_space(tmp_path, data__name=tmp_path))
    packages, output = imported(SEARCH, ["--space", space, "--storage", str(tmp_path / "results")])
    assert "STATUS 2" in output
    assert f"error: {tmp_path}: expected train-images-idx3-ubyte" in output
    assert not packages & RAY


def test_a_dry_run_says_what_it_does_and_imports_neither_ray_nor_torchs_compiler(tmp_path: Path) -> None:
    words = ["--space", str(write_space(tmp_path)), "--storage", str(tmp_path / "results"), "--dry-run"]
    quick = "import tune.planning.rates\ntune.planning.rates.SECONDS = 0\n"
    packages, output = imported(
        quick + SEARCH + "\nprint('COMPILER' if {'torch._dynamo', 'scipy.stats'} & {*sys.modules} else 'NONE')", words
    )
    assert "STATUS 0" in output
    assert "NONE" in output
    for title in ("classifier", "GAN", "projection", "U-Net"):
        assert f"Measuring the speed of this machine: {title} …" in output
    assert not packages & RAY


@pytest.mark.parametrize("module", ["trial", "seeds", "finalist_training"])
def test_a_worker_imports_no_plots(module: str) -> None:
    packages, _ = imported(f"import tune.execution.{module}")
    assert not packages & {"matplotlib", "scipy", "sklearn", "optuna", "jinja2", "fire", "pandas"}


def test_coordinator_and_relay_import_ray_alone() -> None:
    packages, _ = imported("import tune.cluster.line")
    assert not packages & {"torch", "pandas", "pyarrow", "tensorboard"}


def test_a_training_imports_neither_torchs_compiler_nor_torchvision() -> None:
    code = (
        "import torch\nimport tune.execution.trial\n"
        "from components.classifiers.config import ClassifierConfig\n"
        "from components.classifiers.training import ClassifierTraining\n"
        "from components.datasets.dataset import DataSplit\n"
        "split = DataSplit(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)\n"
        "training = ClassifierTraining(ClassifierConfig(architecture='A', epochs=1), split, 2, 0)\n"
        "training.run()\ntraining.load_state_dict(training.state_dict())\n"
        "print('COMPILER' if 'torch._dynamo' in sys.modules else 'NONE')"
    )
    packages, said = imported(code)
    assert not packages & {"torchvision", "sympy"}
    assert "NONE" in said


def test_on_windows_a_search_says_one_sentence() -> None:
    packages, output = imported(
        "sys.modules['fcntl'] = None\nimport tune.search\nsys.platform = 'win32'\n"
        "try: tune.search.main()\nexcept SystemExit as end: print('STATUS', end.code)"
    )
    assert "STATUS 2" in output
    assert "error: expected Linux or macOS, found Windows" in output
    assert not packages & HEAVY


@pytest.mark.parametrize("module", ["tune", "tune.search"])
def test_where_it_is_not_installed_it_says_where_it_is(module: str) -> None:
    command = [sys.executable, "-S", "-m", module, "report", "results/quickstart"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: fire: expected this package")
    assert ". .venv/bin/activate" in done.stderr


def test_components_and_storage_import_without_file_locks() -> None:
    modules = sorted(
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for folder in ("components", "tune/storage")
        for path in (ROOT / folder).rglob("*.py")
        if "mnist_mini" not in path.parts
    )
    imported("sys.modules['fcntl'] = None  # as on Windows\n" + "\n".join(f"import {name}" for name in modules))


INTERRUPTED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *more):
        if name == "{imported}":
            os.kill(os.getpid(), signal.{signal})

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests themselves run under nohup
sys.meta_path.insert(0, Finder())
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_while_it_imports_needs_no_word() -> None:
    begun = INTERRUPTED.format(imported="tune.cluster.resources", signal="SIGINT", module="tune.search")
    done = subprocess.run([sys.executable, "-c", begun, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_whatever_interrupts_a_command_it_says_so(number: str) -> None:
    begun = INTERRUPTED.format(imported="tune.commands.purify", signal=number, module="tune")
    command = [sys.executable, "-c", begun, "evaluate", "mnist"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
