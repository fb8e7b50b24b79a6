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


def with_record(folder: Path, **data: str) -> None:
    """Changes what the record says of the data."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    record["data"] |= data
    path.write_text(json.dumps(record))


def test_the_test_images_decide(two: tuple[Path, Path]) -> None:
    with_record(two[0], fingerprint="cut with seed 0", test_fingerprint="the same")
    with_record(two[1], fingerprint="cut with seed 1", test_fingerprint="the same")
    space = two[1] / "space.yaml"
    space.write_text(space.read_text().replace("mnist_mini", "/elsewhere/mnist_mini"))
    text = compare(two)
    assert "Caution" not in text
    assert "cannot be told apart" in text
    with_record(two[1], fingerprint="cut with seed 0", test_fingerprint="others")
    text = compare(two)
    assert "the test images are not the same" in text
    assert "No two of the searches answer the same question" in text
    assert "cannot be told apart" not in text


def test_rows_are_named_by_the_purifier_of_all(two: tuple[Path, Path]) -> None:
    assert "\nGAN images right" in compare(two)
    with (two[1] / "space.yaml").open("a") as file:
        file.write("defense.purifier: smoothing\n")
    text = compare(two)
    assert "GAN images right" not in text
    assert "\npurifier images right" in text
    (row,) = (line for line in text.splitlines() if line.startswith("purifier  "))
    assert row.split() == ["purifier", "GAN", "median", "smoothing"]


def test_different_targets_are_not_ranked(two: tuple[Path, Path], tmp_path: Path) -> None:
    third = write_experiment(tmp_path / "third", trials=16)
    weaken(third)
    space = two[1] / "space.yaml"
    space.write_text(space.read_text().replace("search.target: defense", "search.target: unet"))
    text = compare([*two, third])
    assert "The searches differ in target" in text
    ranked = [line for line in text.splitlines() if "is clearly above" in line or "cannot be told apart" in line]
    assert len(ranked) == 1
    assert ranked[0].startswith("first, PSD")
    assert "above third" in ranked[0]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_terminal(tmp_path: Path, width: int) -> None:
    folders = [write_experiment(tmp_path / ("deep" * 20) / place / "same", trials=4, seeds=1) for place in "abcdef"]
    text = compare(folders, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "".join(text.split()).count("87.15") >= len(folders)


def test_the_command_survives_a_folder_with_a_space(tmp_path: Path) -> None:
    folders = [write_experiment(tmp_path / name, trials=4, seeds=1) for name in ("my first", "second")]
    compare(folders, out=tmp_path / "out")
    assert f"compare '{folders[0]}' {folders[1]}" in (tmp_path / "out" / "compare.md").read_text()
