"""Signatures: hashes of everything that an artifact follows from. Equal signature = the same artifact."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Mapping
from typing import Any

_PART = re.compile(r"(.+)-\d{3,}")


def signature_of(facts: Mapping[str, Any]) -> str:
    """Hashes what a result follows from: stage, version, settings, the inputs' signatures, data and seed."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def whole_signature(folder: str) -> str:
    """The signature of an artifact's folder: one that is built in parts has `<signature>-000`, `<signature>-001`, …"""
    match = _PART.fullmatch(folder)
    return match[1] if match else folder


def signature_in(folder: str, known: Container[str]) -> str:
    """The signature of an artifact's folder, which is the folder's own name where that is one of the known."""
    return folder if folder in known else whole_signature(folder)
