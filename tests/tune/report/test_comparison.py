"""Several searches side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tune.experiment_fixture import write_experiment
from tune.report.comparison import compare
from tune.storage.folder import Storage


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    return write_experiment(tmp_path / "first"), write_experiment(tmp_path / "second", trials=16)


def weaken(folder: Path) -> None:
    """Takes ten points of PSD from every seed."""
    for path in (folder / "best" / "seeds").glob("*.json"):
        score = json.loads(path.read_text())
        score["metrics"]["psd"] -= 0.1
        path.write_text(json.dumps(score))


def test_every_search_has_a_column_and_its_own_figures(two: tuple[Path, Path]) -> None:
    weaken(two[1])
    text = compare(two)
    row = next(line for line in text.splitlines() if line.startswith("PSD, denoised images right"))
    assert "87.22 (85.61–88.59)" in row
    assert "77.22 (75.26–78.94)" in row
    finished = next(line for line in text.splitlines() if line.startswith("finished"))
    assert finished.split() == ["finished", "19", "13"]


def test_a_clear_difference_is_called_one(two: tuple[Path, Path]) -> None:
    weaken(two[1])
    assert "first, PSD 87.22 % (85.61–88.59), is clearly above second" in compare(two)


def test_overlapping_intervals_are_no_difference(two: tuple[Path, Path]) -> None:
    assert "cannot be told apart: their 95 % intervals overlap" in compare(two)


def test_lines_are_aligned(two: tuple[Path, Path]) -> None:
    for block in compare(two).split("\n\n"):
        lines = block.splitlines()
        if len(lines) > 2 and set(lines[1]) == {"─", " "}:
            cells = [line for line in lines if not line.startswith(("In brackets", "Searched by"))]
            assert len({len(line) for line in cells}) == 1


def test_different_data_is_pointed_out(two: tuple[Path, Path]) -> None:
    space = two[1] / "space.yaml"
    space.write_text(space.read_text().replace("mnist_mini", "kmnist"))
    text = compare(two)
    assert "Caution: The searches differ in data" in text
    assert "kmnist" in text


def test_other_images_under_the_same_name_are_pointed_out(two: tuple[Path, Path]) -> None:
    record = two[1] / "record.json"
    record.write_text(record.read_text().replace("9f9f", "0000"))
    assert "differ in the data's fingerprint" in compare(two)


def test_searches_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [write_experiment(tmp_path / place / "same", trials=4, seeds=1) for place in ("a", "b")]
    text = compare(folders)
    assert all(str(folder) in text for folder in folders)


def test_targets_without_test_scores_compare_too(tmp_path: Path) -> None:
    folders = [write_experiment(tmp_path / target, target=target, trials=6) for target in ("gan", "unet")]
    text = compare(folders)
    assert "None of the searches has test scores." in text
    assert "The searches differ in target" in text


def test_the_pages_are_written(two: tuple[Path, Path], tmp_path: Path) -> None:
    compare([Storage(two[0]), str(two[1])], out=tmp_path / "out")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "first · second" in page
    assert "<svg" in page
    assert "(figures/compare.png)" in (tmp_path / "out" / "compare.md").read_text()
    assert (tmp_path / "out" / "figures" / "compare.png").is_file()
    assert not (two[0] / "report.html").exists()


def test_one_search_is_nothing_to_compare(two: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="expected at least two searches to compare, found 1"):
        compare([two[0]])


def test_a_folder_that_is_no_experiment_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        compare([two[0], tmp_path / "nothing"])
