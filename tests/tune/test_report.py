"""The report of a synthetic experiment: right figures, nothing from outside, no piece it cannot spare."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from typing import IO, Any

import pytest
from matplotlib.figure import Figure

from components.intervals import t_interval, wilson
from tests.tune.experiment_fixture import IMAGES, write_experiment
from tune.choice import choose
from tune.ledger import Ledger
from tune.report import write_report
from tune.storage import Storage

NAMES = ["pso", "psd", "pco", "noisy", "threshold", "psd_gan", "psd_unet", "clean_purified", "attacked_label"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete experiment with its report; for reading only."""
    folder = write_experiment(tmp_path_factory.mktemp("results") / "whole")
    write_report(folder)
    return folder


@pytest.fixture
def drawn() -> None:
    """For a test that looks at what was drawn."""


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are made, but not drawn, which takes seconds; `written` is drawn once for all."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", _blank)


def _blank(figure: Figure, file: IO[Any], format: str, **kwargs: Any) -> None:
    file.write(b"" if format == "png" else '<svg viewBox="0 0 1 1"></svg>')


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "whole"))


@pytest.fixture(scope="session")
def report(written: Path) -> dict[str, Any]:
    return json.loads((written / "report.json").read_text())


def rebuilt(folder: Path) -> dict[str, Any]:
    write_report(folder)
    return json.loads((folder / "report.json").read_text())


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def seed_file(folder: Path, seed: int = 0) -> Path:
    return folder / "best" / "seeds" / f"{seed}.json"


def test_all_files_are_there(written: Path) -> None:
    charts = {"stages", "examples", "worst", "epsilon", "confusion", "pareto", "history"}
    charts |= {"importance", "parallel", "restarts_steps"}
    assert {path.stem for path in (written / "figures").iterdir()} == charts
    for name in ("report.json", "report.md", "report.html"):
        assert (written / name).stat().st_size > 1000


def test_where_the_report_is_gets_returned(folder: Path) -> None:
    assert write_report(folder) == str(folder / "report.html")
    assert write_report(Storage(folder)) == str(folder / "report.html")


def test_every_promised_field(report: dict[str, Any]) -> None:
    assert report["dataset"] == "mnist_mini"
    assert report["attack"]["name"] == "fgsm"
    assert report["attack"]["epsilon"] == 0.3
    assert set(NAMES) <= set(report["test"])
    for name in NAMES:
        score = report["test"][name]
        assert score["mean"] == mean(score["seeds"])
        assert score["std"] == stdev(score["seeds"])
        assert score["ci95"] == list(t_interval(score["seeds"]))
        assert 0 <= score["ci95"][0] <= score["mean"] <= score["ci95"][1] <= 1
    search = report["search"]
    assert (search["trials"], search["finished"], search["failed"], search["pruned"]) == (24, 19, 2, 3)
    assert search["wall_s"] == 587.3
    assert search["stages_built"] == {"classifier": 1, "gan": 1, "projection": 3, "unet": 24}
    assert search["stages_reused"] == {"classifier": 23, "gan": 23, "projection": 21, "unet": 0}


def test_values_are_those_of_the_files_to_the_last_digit(report: dict[str, Any], written: Path) -> None:
    files = [json.loads(seed_file(written, seed).read_text()) for seed in (0, 1, 2)]
    for name in NAMES:
        assert report["test"][name]["seeds"] == [file["metrics"][name] for file in files]


def test_the_second_interval_is_on_the_images_of_the_median_seed(report: dict[str, Any]) -> None:
    assert report["median_seed"] == 0  # its PSD lies between those of seeds 2 and 1
    correct = round(report["test"]["psd"]["seeds"][0] * IMAGES)
    assert report["test"]["psd"]["wilson95"] == list(wilson(correct, IMAGES))


def test_the_best_is_the_one_that_the_rule_names(report: dict[str, Any], written: Path) -> None:
    best = choose(Ledger(Storage(written)).outcomes(), "defense")
    assert report["choice"]["trial"] == best.trial
    assert report["best"] == best.params
    assert best.trial in [point["trial"] for point in report["choice"]["pareto_front"]]


def test_failures_are_counted_and_named(report: dict[str, Any], written: Path) -> None:
    assert [failure["trial"] for failure in report["failures"]] == [5, 17]
    for page in ("report.md", "report.html"):
        assert "loss is not finite (nan) in epoch 3" in (written / page).read_text()


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
        "highest validation PSD, ties to the cheaper",
        "0.1 to 0.4; only when projector.distance is insensitive",
    ):
        assert words in text, words


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
    assert len(svgs) == 10
    for svg in svgs:
        assert "var(--ink)" in svg
        assert "#1b2330" not in svg


def test_markdown_tables_are_whole_and_their_pictures_exist(written: Path) -> None:
    text = (written / "report.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table
    pictures = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(pictures) == 10
    assert all((written / picture).is_file() for picture in pictures)


def test_text_from_a_trial_is_text_in_the_page(folder: Path) -> None:
    edit(
        folder / "trials" / "005.json",
        lambda o: o.update(error="ValueError: <script>alert(1)</script> | `x`"),
    )
    write_report(folder)
    page = (folder / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | <code>x</code>" in page
    assert r"ValueError: <script>alert(1)</script> \| `x`" in (folder / "report.md").read_text()


@pytest.mark.usefixtures("drawn")
def test_the_same_files_give_the_same_report(folder: Path, written: Path) -> None:
    write_report(folder)
    assert (folder / "report.json").read_bytes() == (written / "report.json").read_bytes()
    assert (folder / "figures" / "stages.png").read_bytes() == (
        written / "figures" / "stages.png"
    ).read_bytes()
    pages = [(place / "report.html").read_text().replace(str(place), "") for place in (folder, written)]
    assert pages[0] == pages[1]


def test_one_edited_score_changes_that_score_alone(folder: Path, report: dict[str, Any]) -> None:
    edit(seed_file(folder, 1), lambda s: s["metrics"].update(clean_purified=0.5))
    changed = rebuilt(folder)
    assert changed["test"]["clean_purified"]["seeds"][1] == 0.5
    del changed["test"]["clean_purified"], changed["gain"], changed["cautions"]
    expected = json.loads(json.dumps(report))
    del expected["test"]["clean_purified"], expected["gain"], expected["cautions"]
    assert changed == expected


def test_a_trial_more_does_not_touch_the_test_scores(folder: Path, report: dict[str, Any]) -> None:
    extra = Ledger(Storage(folder)).outcome(13)
    assert extra is not None
    better = {**extra.metrics, "psd": 0.99}
    Ledger(Storage(folder)).record(extra.model_copy(update={"trial": 24, "metrics": better}))
    changed = rebuilt(folder)
    assert changed["test"] == report["test"]
    assert changed["search"]["finished"] == 20
    assert changed["choice"]["trial"] == 13  # what was retrained
    assert any("would now be trial 24" in caution for caution in changed["cautions"])


def test_no_warning_where_psd_is_clearly_above(report: dict[str, Any]) -> None:
    assert not [caution for caution in report["cautions"] if "not clearly above" in caution]


@pytest.mark.parametrize(("rival", "words"), [("threshold", "threshold at 0.5"), ("psd_gan", "GAN only")])
def test_a_warning_where_a_simpler_defense_is_as_good(folder: Path, rival: str, words: str) -> None:
    for seed in (0, 1, 2):
        edit(seed_file(folder, seed), lambda s: s["metrics"].update({rival: s["metrics"]["psd"] - 0.004}))
    found = [caution for caution in rebuilt(folder)["cautions"] if "not clearly above" in caution]
    assert len(found) == 1
    assert words in found[0]
    assert found[0] in (folder / "report.md").read_text()


def test_a_single_seed_has_the_interval_on_its_images(tmp_path: Path) -> None:
    changed = rebuilt(write_experiment(tmp_path / "one", seeds=1))
    score = changed["test"]["psd"]
    assert score["ci95"] == score["wilson95"] == list(wilson(round(score["mean"] * IMAGES), IMAGES))
    assert score["std"] == 0
    assert any("One seed only" in caution for caution in changed["cautions"])


@pytest.mark.parametrize("target", ["gan", "projection", "unet"])
def test_a_part_searched_alone_names_the_best_without_test_scores(tmp_path: Path, target: str) -> None:
    folder = write_experiment(tmp_path / target, target=target, trials=12)
    changed = rebuilt(folder)
    best = choose(Ledger(Storage(folder)).outcomes(), target)  # type: ignore[arg-type]
    assert changed["test"] == {}
    assert changed["choice"]["trial"] == best.trial
    text = (folder / "report.md").read_text()
    assert f"Trial {best.trial} is the best of" in text
    assert "This report covers the search alone" in text


@pytest.mark.parametrize(
    "piece",
    [
        "record.json",
        "space.yaml",
        "validation_map.json",
        "best/choice.json",
        "best/seeds/0.npz",
        "best/seeds/0.json",
        "best/seeds",
        "best",
        "trials/013.json",
        "trials",
    ],
)
def test_a_missing_piece_is_left_out(folder: Path, report: dict[str, Any], piece: str) -> None:
    path = folder / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert set(rebuilt(folder)) == set(report)


PIECES = [
    "record.json",
    "space.yaml",
    "validation_map.json",
    "best/choice.json",
    "best/seeds/0.json",
    "best/seeds/0.npz",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("content", [b"{", b"[1]"], ids=repr)
def test_a_torn_piece_is_named_and_left_out(folder: Path, piece: str, content: bytes) -> None:
    (folder / piece).write_bytes(content)
    assert any(Path(piece).name in caution for caution in rebuilt(folder)["cautions"])


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"{}"], ids=repr)
def test_a_report_survives_all_pieces_torn(folder: Path, report: dict[str, Any], content: bytes) -> None:
    for piece in PIECES:
        (folder / piece).write_bytes(content)
    assert set(rebuilt(folder)) == set(report)


@pytest.mark.parametrize(
    "wrong",
    [
        {"confusion": [[1, 2], [3]]},
        {"confusion": [1, 2]},
        {"epsilon": {"values": [0, 0.1], "psd": [0.5]}},
        {"epsilon": {}},
        {"epsilon": [1]},
        {"metrics": {}},
        {"metrics": {"psd": "high"}},
        {"metrics": None},
        {"seconds": None},
        {"n": 0},
        {"n": "many"},
    ],
    ids=str,
)
def test_a_seed_with_a_wrong_field_does_not_stop_the_report(folder: Path, wrong: dict[str, Any]) -> None:
    edit(seed_file(folder), lambda score: score.update(wrong))
    rebuilt(folder)


def test_a_metric_that_is_not_finite_is_left_out_and_named(folder: Path) -> None:
    path = seed_file(folder, 2)
    path.write_text(re.sub(r'"pco": [0-9.]+', '"pco": NaN', path.read_text(), count=1))
    changed = rebuilt(folder)
    assert "pco" not in changed["test"]
    assert any("pco" in caution and "2.json" in caution for caution in changed["cautions"])


def test_a_search_of_which_nothing_finished(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "none", trials=0, seeds=0)
    Ledger(Storage(folder)).record(Ledger(Storage(write_experiment(tmp_path / "x", trials=6))).outcomes()[5])
    changed = rebuilt(folder)
    assert changed["search"]["failed"] == 1
    assert changed["best"] == {}
    assert "No trial has finished yet" in (folder / "report.md").read_text()


def test_a_folder_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an experiment's folder"):
        write_report(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_report_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    """Run in a process of its own, which tells what it has imported."""
    folder = write_experiment(tmp_path / "small", trials=3, seeds=0)
    code = (
        "import sys\n"
        "from tune.report import write_report\n"
        "from tune.compare import compare\n"
        "write_report(sys.argv[1]); compare([sys.argv[1], sys.argv[1]])\n"
        "print({'torch', 'ray'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")
