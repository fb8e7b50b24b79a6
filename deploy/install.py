"""Installs what is asked for into this environment: by uv, in a third of pip's time, or where that cannot be, by pip.

    .venv/bin/python deploy/install.py -e '.[test]'

uv knows nothing of pip's settings. Those that say where packages come from are passed on; where one has no counterpart,
or uv fails for any reason, pip installs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# Byte code is compiled at first import; compiling all of torch and Ray at installation takes longer.
PIP_INSTALL = [*PIP, "install", "--no-compile"]
# pip takes the newest release of all indexes, uv that of the first index which has the package, unless it is told.
LIKE_PIP = ["--index-strategy", "unsafe-best-match"]

PASSED_ON = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "constraint": "--constraints",
    "trusted-host": "--allow-insecure-host",
}
# of no weight to what is installed, or read by uv too, from SSL_CERT_FILE and the proxies' own variables
WITHOUT_EFFECT = {
    *("cert", "config-file", "default-timeout", "disable-pip-version-check", "no-color", "no-compile", "progress-bar"),
    *("quiet", "retries", "root-user-action", "timeout", "verbose"),
}


def uv_options(settings: str) -> list[str] | None:
    """The options of uv that stand for pip's settings, as `pip config list` prints them; None where one has none."""
    options: list[str] = []
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in PASSED_ON:
            options += [part for word in ast.literal_eval(value).split() for part in (PASSED_ON[name], word)]
        elif name not in WITHOUT_EFFECT:
            return None
    return options + LIKE_PIP if "--index" in options else options


def installed_by_uv(wanted: list[str]) -> bool:
    """Returns True where uv could install it."""
    settings = _run([*PIP, "config", "list"], stdout=subprocess.PIPE)
    options = None if settings.returncode else uv_options(settings.stdout)
    if options is None:
        return False
    install = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable, *options, *wanted]
    if _run([*PIP_INSTALL, "--quiet", "uv"]).returncode or _run(install).returncode:
        print("uv could not; pip installs.", file=sys.stderr)
        return False
    return True


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, check=False, **options)  # noqa: S603  (this file's own words, and the user's)


if __name__ == "__main__":
    if not installed_by_uv(sys.argv[1:]):
        sys.exit(_run([*PIP_INSTALL, *sys.argv[1:]]).returncode)
