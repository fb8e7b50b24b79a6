"""What a search ran with: enough to run it again, and to see why another run differs."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.datasets.dataset import Dataset

PACKAGES = ("torch", "torchvision", "ray", "optuna", "tensorboard", "numpy", "pydantic", "safetensors")


def reproducibility(arguments: list[str], seed: int, dataset: Dataset) -> dict[str, Any]:
    """Command, seed, code, packages, machine and data of a search."""
    return {
        "command": f"python -m tune.search {shlex.join(arguments)}".strip(),
        "seed": seed,
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": {"system": platform.platform(), "processor": _processor()},
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "test_fingerprint": dataset.test_fingerprint,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.held_out),
        },
    }


def _git() -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it; nothing where this is not a checkout."""
    commit = _output("git", "rev-parse", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_output("git", "status", "--porcelain"))}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
