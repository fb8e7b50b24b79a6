"""The report's pages: whole, with nothing from outside, and the same for the same files."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.tune.experiment_fixture import do_not_draw, write_experiment
from tune.report.writer import write_report


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete experiment with its report; for reading only."""
    folder = write_experiment(tmp_path_factory.mktemp("results") / "whole")
    write_report(folder)
    return folder


def test_all_files_are_there(written: Path) -> None:
    charts = {"stages", "examples", "worst", "epsilon", "confusion", "pareto", "history"}
    charts |= {"importance", "courses", "surface", "restarts_steps"}
    assert {path.stem for path in (written / "figures").iterdir()} == charts
    for name in ("report.json", "report.md", "report.html"):
        assert (written / name).stat().st_size > 1000


@pytest.mark.parametrize("page", ["report.md", "report.html"])
def test_the_page_says_what_a_reader_must_know(written: Path, page: str) -> None:
    text = (written / page).read_text().replace("\u00a0", " ")
    for words in (
        "Gray-box FGSM, ε = 0.3",
        "What this does not show: an adaptive (white-box) attacker",
        "92.73",
        "90.70",
        "96.63",
        "87.22",  # our PSD
        "85.84–88.59",  # across seeds
        "85.61–88.55",  # on the images
        "python -m tune.search --space quickstart --trials 24 --seed 0",
        "mnist_mini (9,000 train, 1,000 validation, 2,000 test images)",
        "On 1,000 of the 2,000 test images, drawn by a fixed seed",
        "highest validation PSD, ties to the cheaper",
        "0.1 to 0.4; only when projector.distance is insensitive",
        "on validation images, which no training of this search sees.",
        "95 %, seeds and images: ",
        "of them wrong without an attack.",
        "U-Net only: the attacked images go to the U-Net as they are, though it was trained on those",
        "19 finished, 3 stopped early, 2 failed",
    ):
        assert words in text, words


def test_a_part_of_the_defense_has_one_name_in_chart_and_table(written: Path) -> None:
    lines = (written / "report.md").read_text().splitlines()
    heads = ("GAN and U-Net", "PCO", "GAN only", "threshold at 0.5", "no defense")
    assert f"| {' | '.join(['% of test images, at ε', *heads])} |" in lines
    assert not [line for line in lines if "no U-Net" in line]


@pytest.mark.parametrize(("name", "called"), [("myNoise", "myNoise"), ("apgd", "APGD"), ("square", "Square")])
def test_an_attack_is_called_by_its_title_or_as_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, called: str
) -> None:
    do_not_draw(monkeypatch)
    folder = write_experiment(tmp_path / "mine")
    space = folder / "space.yaml"
    space.write_text(f"{space.read_text()}attack.name: {name}\n".replace("attack.name: fgsm\n", ""))
    write_report(folder)
    assert f"Gray-box {called}, ε = 0.3" in (folder / "report.md").read_text()


def test_a_pretrained_generator_may_have_seen_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_draw(monkeypatch)
    folder = write_experiment(tmp_path / "shipped")
    space = folder / "space.yaml"
    space.write_text(f"{space.read_text()}gan.pretrained: mnist\n")
    write_report(folder)
    assert "what the pretrained generator was trained on stands below" in (folder / "report.md").read_text()


class Resources(HTMLParser):
    """Everything that a browser would fetch, and every id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "srcset", "xlink:href", "data", "action"):
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")


def test_the_page_loads_nothing_from_outside(written: Path) -> None:
    page = (written / "report.html").read_text()
    found = Resources(page)
    assert [link for link in found.links if not link.startswith(("#", "data:image/png;base64,"))] == []
    assert "<script" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\(([^)]{0,2})", page)) <= {"#s", "#e", "#c", "#p", "#r", "#h", "#w", "#i"}


def test_ids_are_unique_and_links_inside_the_page_lead_somewhere(written: Path) -> None:
    found = Resources((written / "report.html").read_text())
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def test_charts_in_the_page_follow_its_theme(written: Path) -> None:
    svgs = re.findall(r"<svg.*?</svg>", (written / "report.html").read_text(), flags=re.DOTALL)
    assert len(svgs) == 11
    for svg in svgs:
        assert "var(--ink)" in svg
        assert "#1b2330" not in svg


def test_markdown_tables_are_whole_and_their_pictures_exist(written: Path) -> None:
    text = (written / "report.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table
    pictures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(pictures) == 11
    assert all((written / picture).is_file() for picture in pictures)


def test_the_same_files_give_the_same_report(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "whole")
    write_report(folder)
    assert (folder / "report.json").read_bytes() == (written / "report.json").read_bytes()
    assert (folder / "figures" / "stages.png").read_bytes() == (written / "figures" / "stages.png").read_bytes()
    pages = [(place / "report.html").read_text().replace(str(place), "") for place in (folder, written)]
    assert pages[0] == pages[1]
