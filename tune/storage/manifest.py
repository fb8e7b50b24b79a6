"""The manifest of an artifact: what it is, what was measured, the sha256 of every file, and that of all this."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any


def hash_of(manifest: Mapping[str, Any]) -> str:
    """Of a manifest without its own hash; what was measured stands there and nowhere else."""
    own = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def check_manifest(manifest: Any, stage: str, signature: str) -> None:
    """Raises ValueError, AttributeError or TypeError unless it is the manifest of that very artifact."""
    if not {"stage", "signature", "files", "metrics"} <= manifest.keys():
        raise ValueError(f"found only the keys {', '.join(manifest)}")
    if (manifest["stage"], manifest["signature"]) != (stage, signature):  # a folder that was copied or renamed
        raise ValueError(f"found that of {manifest['stage']}/{manifest['signature']}")
    for name in dict(manifest["files"]):
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(f"found a file outside its folder, {name!r}")
    expected = hash_of(manifest)
    if manifest.get("sha256", expected) != expected:  # the first stores were written without it
        raise ValueError(f"found another sha256 than {expected[:12]}…, which follows from the rest of it")
