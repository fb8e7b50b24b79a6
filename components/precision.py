"""The numbers that arithmetic is done in; importing this module imports no torch."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16"]
