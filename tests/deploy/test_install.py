"""What `make` installs by: uv with pip's settings, or pip."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "deploy" / "install.py"


def module():
    spec = importlib.util.spec_from_file_location("install", FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_settings_that_say_where_packages_come_from_are_passed_on():
    settings = """:env:.disable-pip-version-check='1'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.index-url='https://mirror.example/simple'
install.find-links='/wheels'
global.constraint='/etc/constraints.txt'
"""
    assert module().uv_options(settings) == [
        "--index", "https://one.example/simple", "--index", "https://two.example/simple",
        "--default-index", "https://mirror.example/simple", "--find-links", "/wheels",
        "--constraints", "/etc/constraints.txt", "--index-strategy", "unsafe-best-match",
    ]  # fmt: skip


def test_without_settings_nothing_is_passed_on():
    assert module().uv_options("") == []


@pytest.mark.parametrize("setting", ["global.no-index='1'", "install.require-hashes='true'", ":env:.only-binary='all'"])
def test_a_setting_that_uv_does_not_have_leaves_it_to_pip(setting):
    assert module().uv_options(f"global.timeout='60'\n{setting}\n") is None


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """An empty virtual environment with pip."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


def wheel(folder: Path, name: str) -> Path:
    """A package of one line."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "here = True\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def installed(environment: Path, wanted: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Installs a wheel with these settings of pip alone, and imports it."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    done = subprocess.run(
        [environment / "bin" / "python", FILE, wanted],
        env={**known, "PIP_CONFIG_FILE": os.devnull, **{f"PIP_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 0:
        subprocess.run([environment / "bin" / "python", "-c", f"import {wanted.name.split('-')[0]}"], check=True)
    return done


def test_pip_installs_where_its_settings_have_no_counterpart(environment, tmp_path):
    done = installed(environment, wheel(tmp_path, "by_pip"), PREFER_BINARY="1")
    assert done.returncode == 0, done.stderr
    assert "uv" not in done.stdout + done.stderr


def test_pip_installs_where_uv_cannot_be_had(environment, tmp_path):
    done = installed(environment, wheel(tmp_path, "by_itself"), INDEX_URL=f"{tmp_path.as_uri()}/nothing", RETRIES="0")
    assert done.returncode == 0, done.stderr
    assert "pip installs" in done.stderr


def test_what_neither_can_install_is_an_error(environment, tmp_path):
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    broken.write_text("no archive")
    assert installed(environment, broken, INDEX_URL=f"{tmp_path.as_uri()}/nothing", RETRIES="0").returncode != 0
