"""The file system of a folder: its room, and whether it is a local disk or one that other machines can share."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tune.storage.folder import Storage

# File systems that other machines can have too; those of FUSE are nearly all mounted buckets and clusters.
NETWORKED = (
    "nfs", "cifs", "smb", "ceph", "lustre", "glusterfs", "gpfs", "beegfs", "orangefs", "afs", "9p", "virtiofs", "fuse.",
)  # fmt: skip


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists():
        folder = folder.parent
    return folder


def free_bytes(storage: Storage) -> int | None:
    """Room on the storage's disk; None where it has no end that could be asked for."""
    return None if storage.local is None else shutil.disk_usage(existing(storage.local)).free


def mounted(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of file system that `folder` is on, such as `ext4` or `nfs4`; empty where the system does not tell."""
    found, kind = Path(), ""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:  # see proc(5): the mount point is the fifth word, the kind the first after the dash
        place, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place.split()[4]))
        if folder.resolve().is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, rest.split()[0]
    return kind
