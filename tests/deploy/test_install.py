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
global.index-url='https://me:secret@mirror.example/simple'
install.find-links='/wheels /more'
global.constraint='/etc/constraints.txt'
list.format='columns'
"""
    assert module().uv_variables(settings) == {
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_DEFAULT_INDEX": "https://me:secret@mirror.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_CONSTRAINT": "/etc/constraints.txt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_of_a_setting_in_several_places_that_one_counts_which_counts_for_pip():
    """Variables before the file's [install], and that before [global]; what is empty is not there."""
    settings = """:env:.extra-index-url='https://variable.example'
:env:.index-url=''
global.extra-index-url='https://global.example'
global.index-url='https://global.example'
install.index-url='https://install.example'
"""
    found = module().uv_variables(settings)
    assert (found["UV_INDEX"], found["UV_DEFAULT_INDEX"]) == ("https://variable.example", "https://install.example")


def test_without_settings_nothing_is_passed_on():
    assert module().uv_variables("") == {}


@pytest.mark.parametrize("setting", ["global.no-index='1'", "install.require-hashes='true'", ":env:.only-binary='all'"])
def test_a_setting_that_uv_does_not_have_leaves_it_to_pip(setting):
    assert module().uv_variables(f"global.timeout='60'\n{setting}\n") is None


def package(site: Path, name: str, record: str, **files: str) -> Path:
    """An installed package of these files and this list of them."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(f"{record}{info.name}/RECORD,,\n")
    for file, text in files.items():
        (site / f"{file}.py").write_text(text)
    return info


def test_packages_that_are_not_whole_are_forgotten(tmp_path):
    record = "whole.py,sha256=abc,2\n__pycache__/whole.pyc,,\n"
    whole = package(tmp_path, "whole", record, whole="1\n")
    package(tmp_path, "missing", "missing.py,sha256=abc,2\nlast.py,sha256=abc,2\n", missing="1\n")
    package(tmp_path, "cut_off", "cut_off.py,sha256=abc,2\n", cut_off="")
    (package(tmp_path, "begun", "") / "RECORD").unlink()
    (package(tmp_path, "empty", "") / "RECORD").write_text("")
    torn = "begun", "cut_off", "empty", "missing"
    assert module().forget_torn(tmp_path) == [f"{name}-1.0.dist-info" for name in torn]
    assert list(tmp_path.glob("*.dist-info")) == [whole]


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


def installed(
    environment: Path, wanted: Path, path: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Installs a wheel with these settings of pip alone and the programs on `path`, and imports it."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    pip = {"PIP_CONFIG_FILE": os.devnull, **{f"PIP_{name}": value for name, value in settings.items()}}
    done = subprocess.run(
        [environment / "bin" / "python", FILE, wanted],
        env={**known, "PATH": path, **pip},
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


def test_a_package_that_was_interrupted_is_installed_anew(environment, tmp_path):
    wanted = wheel(tmp_path, "interrupted")
    assert installed(environment, wanted, PREFER_BINARY="1").returncode == 0
    (file,) = environment.glob("lib/python*/site-packages/interrupted.py")
    file.unlink()
    assert installed(environment, wanted, PREFER_BINARY="1").returncode == 0  # which imports it


def program(folder: Path, text: str) -> str:
    """A folder to look for programs in, with this one as uv."""
    (file := folder / "uv").write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(folder)


def test_the_users_own_uv_installs(environment, tmp_path):
    uv = program(tmp_path, '[ "$1" = --version ] || { echo "$@"; exit 3; }')
    done = installed(environment, wheel(tmp_path, "by_own"), path=uv)
    assert done.returncode == 3
    assert done.stdout.startswith(f"pip install --python {environment}/bin/python ")


@pytest.mark.parametrize("text", ["exit 127", "#!/no/such/shell"])
def test_a_uv_that_does_not_work_is_passed_over(environment, tmp_path, text):
    uv = program(tmp_path, text)
    if text.startswith("#!"):
        (tmp_path / "uv").write_text(text)
    assert installed(environment, wheel(tmp_path, "by_other"), path=uv, PREFER_BINARY="1").returncode == 0


def test_what_neither_can_install_is_an_error(environment, tmp_path):
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    broken.write_text("no archive")
    assert installed(environment, broken, INDEX_URL=f"{tmp_path.as_uri()}/nothing", RETRIES="0").returncode != 0
