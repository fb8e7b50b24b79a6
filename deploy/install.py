"""Installs what is asked for into this environment: by uv, in a third of pip's time, or where that cannot be, by pip.

    .venv/bin/python deploy/install.py -e '.[test]'

Where the user has uv, it installs with its own settings. Else pip fetches it, and as uv knows nothing of pip's
settings, those that say where packages come from are passed on; where one has no counterpart, or uv fails for any
reason, pip installs.
"""

from __future__ import annotations

import ast
import csv
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# Byte code is compiled at first import; compiling all of torch and Ray at installation takes longer.
PIP_INSTALL = [*PIP, "install", "--no-compile"]
UV_INSTALL = ["pip", "install", "--python", sys.executable]
UV = "uv>=0.5"  # which knows all variables below: an older one would take packages from elsewhere, and say nothing
# pip takes the newest release of all indexes, uv that of the first index which has the package, unless it is told.
LIKE_PIP = {"UV_INDEX_STRATEGY": "unsafe-best-match"}

# pip's setting → the variable of uv that stands for it, and what is between two values there. An address may hold a
# password, which every user of the machine could read in a command line.
PASSED_ON = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
# of no weight to what is installed, or read by uv too, from SSL_CERT_FILE and the proxies' own variables
WITHOUT_EFFECT = {
    *("cert", "config-file", "default-timeout", "disable-pip-version-check", "no-color", "no-compile", "no-input"),
    *("progress-bar", "quiet", "require-virtualenv", "retries", "root-user-action", "timeout", "verbose"),
}
SECTIONS = ("global", "install", ":env:")  # those that pip reads when it installs; each overrides those before it


def uv_variables(settings: str) -> dict[str, str] | None:
    """The variables of uv that stand for pip's settings, as `pip config list` prints them; None where one has none."""
    found: dict[str, str] = {}
    for section in SECTIONS:
        for line in settings.splitlines():
            key, _, value = line.partition("=")
            where, _, name = key.rpartition(".")
            if where == section and (words := ast.literal_eval(value)):  # pip passes over an empty one
                found[name] = words
    if not found.keys() <= PASSED_ON.keys() | WITHOUT_EFFECT:
        return None
    known = {PASSED_ON[name]: words.split() for name, words in found.items() if name in PASSED_ON}
    variables = {variable: between.join(words) for (variable, between), words in known.items()}
    return variables | LIKE_PIP if "UV_INDEX" in variables else variables


def installed_by_uv(wanted: list[str]) -> bool:
    """Returns True where uv could install it."""
    settings = _run([*PIP, "config", "list"], stdout=subprocess.PIPE)
    variables = None if settings.returncode else uv_variables(settings.stdout)
    if variables is None:
        return False
    install = [sys.executable, "-m", "uv", *UV_INSTALL, *wanted]
    if _run([*PIP_INSTALL, "--quiet", UV]).returncode or _run(install, env={**os.environ, **variables}).returncode:
        print("uv could not; pip installs.", file=sys.stderr)
        return False
    return True


def forget_torn(site: Path) -> list[str]:
    """Forgets packages of which a file is missing or cut off, so that they are installed anew; returns their folders.

    uv writes first that a package is there, and then its files: one that was stopped between is there for ever.
    """
    torn = [folder for folder in sorted(site.glob("*.dist-info")) if not _whole(folder)]
    for folder in torn:
        shutil.rmtree(folder)
    return [folder.name for folder in torn]


def _whole(folder: Path) -> bool:
    """True where every file is there that a package's list names, and the list itself is among them."""
    try:
        with (folder / "RECORD").open(encoding="utf-8", newline="") as record:
            rows = [row for row in csv.reader(record) if row and not row[0].endswith(".pyc")]
        sizes = {name: ((folder.parent / name).stat().st_size, said) for name, _, said in rows}
    except (OSError, ValueError):
        return False
    return f"{folder.name}/RECORD" in sizes and all(not said or int(said) == size for size, said in sizes.values())


def users_uv() -> str | None:
    """The user's own uv; None where there is none, or it does not work, such as the stand-in that pyenv puts there."""
    if found := shutil.which("uv"):
        with suppress(OSError):
            if _run([found, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return found
    return None


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, check=False, **options)  # noqa: S603  (this file's own words, and the user's)


def _become(command: list[str]) -> NoReturn:
    """Goes on as that command, so that Ctrl-C is its own: pip takes back what it has begun, which takes a while."""
    os.execv(command[0], command)  # noqa: S606  (likewise)


def install(wanted: list[str]) -> None:
    """Installs packages and ends this process, with the status of what installed them."""
    site = Path(sysconfig.get_path("platlib"))
    forget_torn(site)
    if own := users_uv():
        _become([own, *UV_INSTALL, *wanted])
    if not installed_by_uv(wanted):
        forget_torn(site)
        _become([*PIP_INSTALL, *wanted])


if __name__ == "__main__":
    try:
        install(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
