"""Places that are to be written are tried before any work, and named by their flag."""

import os
from pathlib import Path

import pytest

from tune.errors import Refused
from tune.storage.folder import Storage
from tune.storage.targets import check_storage, file_to_write, folder_to_write


def test_what_can_be_written_is_taken_and_nothing_is_left_there(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("before")
    assert file_to_write(f"{tmp_path}/there.json", "--out") == tmp_path / "there.json"
    assert file_to_write(f"{tmp_path}/new/x.json", "--out") == tmp_path / "new/x.json"
    assert folder_to_write(f"{tmp_path}/new/folder", "--out") == tmp_path / "new/folder"
    check_storage(Storage(tmp_path / "results"), "--storage")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.json", "before")]


# not by permissions, which root does not have to mind
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/proc/x", "--out: expected a folder that can be written, found /proc: "),
        ("/proc/x/y", "--out: expected a folder that can be written, found /proc: "),
        ("{here}/file/x", "--out: expected a folder, found the file {here}/file"),
        ("s3://bucket/x", "--out: expected the path of a {kind}, found the address s3://bucket/x"),
        ("~nobody-here/x", "--out: ~nobody-here/x: expected the home of a user of this machine behind ~, found none"),
    ],
)
def test_what_cannot_is_refused_by_the_name_of_the_flag(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    for kind, taken in (("file", file_to_write), ("folder", folder_to_write)):
        with pytest.raises(Refused) as caught:
            taken(text.format(here=tmp_path), "--out")
        assert str(caught.value).startswith(message.format(here=tmp_path, kind=kind))


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refused, match=f"--out: expected a folder, found the file {tmp_path}/file"):
        folder_to_write(f"{tmp_path}/file", "--out")
    with pytest.raises(Refused, match=f"--out: expected a file, found the folder {tmp_path}"):
        file_to_write(str(tmp_path), "--out")
    with pytest.raises(Refused, match=f"--out: expected a file, found no plain file {tmp_path}/pipe"):
        file_to_write(f"{tmp_path}/pipe", "--out")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--out: expected a file that can be written, found .*: File name too long"):
        file_to_write(str(tmp_path / ("x" * 300)), "--out")


def test_where_a_link_leads_is_written(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("before")
    (tmp_path / "link.json").symlink_to("real.json")
    assert file_to_write(f"{tmp_path}/link.json", "--out") == tmp_path / "real.json"


@pytest.mark.parametrize("text", ["/dev/stdout", "/dev/fd/1", "/dev/x.json", "{here}/new/.."])
def test_a_device_and_a_folder_by_its_parent_are_no_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused, match="--out: expected a file, found "):
        file_to_write(text.format(here=tmp_path), "--out")
    assert list(tmp_path.iterdir()) == []
