"""On which file system a folder is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tune.storage.folder import Storage
from tune.storage.mounts import NETWORKED, existing, free_bytes, mounted

TABLE = """\
24 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 24 0:26 / /mnt/shared rw,relatime shared:5 - nfs4 10.0.0.9:/export rw,vers=4.2
31 24 0:27 / /mnt/my\\040bucket rw - fuse.mount-s3 mountpoint-s3 rw
32 30 0:28 / /mnt/shared/scratch rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "shared"),
    [
        ("/home/ubuntu/results", "ext4", False),
        ("/mnt/shared", "nfs4", True),
        ("/mnt/shared/searches", "nfs4", True),
        ("/mnt/shared/scratch/results", "tmpfs", False),
        ("/mnt/sharedness", "ext4", False),
        ("/mnt/my bucket/results", "fuse.mount-s3", True),
    ],
)
def test_the_innermost_mount_counts(tmp_path: Path, folder: str, kind: str, shared: bool) -> None:
    (tmp_path / "mountinfo").write_text(TABLE)
    assert mounted(Path(folder), tmp_path / "mountinfo") == kind
    assert kind.startswith(NETWORKED) is shared


def test_nothing_is_known_without_the_systems_table(tmp_path: Path) -> None:
    assert mounted(tmp_path, tmp_path / "absent") == ""


def test_a_folder_that_is_not_there_yet_is_where_its_parent_is(tmp_path: Path) -> None:
    assert existing(tmp_path / "a/b/c") == tmp_path


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_its_disk(tmp_path: Path) -> None:
    found = free_bytes(Storage(tmp_path / "none" / "yet"))
    assert found == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert free_bytes(Storage("s3://results?endpoint_override=http://127.0.0.1:9&region=x")) is None
