"""TensorBoard's runs: what they are called, and the command that shows them. Needs no TensorBoard itself."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tune.storage.folder import Storage

SHORT = {"projector.restarts": "R", "projector.steps": "L", "unet.high_level_weight": "λ"}
SEED = "seed"  # begins the names of retrained seeds' runs
LONGEST_NAME = 80  # characters of a run's name; TensorBoard's list shows about 40


def run_name(trial: int, params: Mapping[str, Any], seed: int | None = None) -> str:
    """The run's folder, and its name in TensorBoard: `012 R4 L60 λ0.3`; a seed's: `seed 1 of 012 R4 L60 λ0.3`.

    Pure, and safe as a path. R, L and λ come first; a name that grows too long loses its last parameters.
    """
    order = list(SHORT)
    keys = sorted(params, key=lambda key: (order.index(key) if key in SHORT else len(order), key))
    name = f"{trial:03d}" if seed is None else f"{SEED} {seed} of {trial:03d}"
    for part in (_short(key, params[key]) for key in keys):
        if len(name) + 1 + len(part) > LONGEST_NAME:
            break
        name += f" {part}"
    return name


def _short(key: str, value: Any) -> str:
    """`R4`; `ulr0.001` for `unet.learning_rate`; `huber` for `projector.distance`; `ge-off` for a switch."""
    letters = SHORT.get(key) or "".join(word[0] for word in re.split(r"\W|_", key) if word)
    if isinstance(value, bool):
        return f"{letters}-{'on' if value else 'off'}"
    if isinstance(value, int | float):
        return f"{letters}{_brief(value)}"
    return re.sub(r"[^\w.+-]+", "-", str(value)) if value else f"{letters}-none"


def _brief(value: int | float) -> str:
    """Two digits where they do: the trial's number tells runs apart, and the table has the exact value."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"


def viewing_commands(experiment: Storage, address: str | None) -> str:
    """The commands that show the experiment; on a cluster (`address`) also from the user's own machine."""
    command = tensorboard_command(experiment)
    if address is None:
        return f"TensorBoard: {command}"
    # which file the cluster was started from is known to nobody on it
    tunnel = f"ray exec YOUR.yaml --port-forward 6006 {shlex.quote(command)}"
    return (
        f"TensorBoard, on this node ({socket.gethostname()}): {command}\n"
        f"TensorBoard, from the machine that ran `ray up`, through a tunnel to http://localhost:6006: {tunnel}"
    )


def tensorboard_command(experiment: Storage) -> str:
    """The command that opens the experiment in this interpreter's own TensorBoard, quoted for a shell."""
    runs = experiment.child("tensorboard")
    logdir, environment = (str(runs.local), []) if runs.local else _remote(runs.uri)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "localhost"]
    return shlex.join([*environment, *command])


def _remote(uri: str) -> tuple[str, list[str]]:
    """The address as TensorBoard takes it: unquoted, an S3-compatible server named in the environment."""
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    endpoint = options.get("endpoint_override", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    environment = ["env", f"S3_ENDPOINT={endpoint}"] if endpoint else []
    return f"{parts.scheme}://{parts.netloc}{unquote(parts.path)}", environment
