"""The report of a synthetic experiment: the right figures, and every reason for doubt."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from components.intervals import t_interval, wilson
from tests.tune.experiment_fixture import IMAGES, do_not_draw, edit, rebuilt, seed_file, write_experiment, write_json
from tune.optimizer.choice import choose
from tune.report.comparison import compare
from tune.report.told import told
from tune.report.writer import write_report
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

NAMES = ["pso", "psd", "pco", "noisy", "threshold", "psd_gan", "psd_unet", "clean_purified", "attacked_label"]


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_draw(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete experiment with its report, its charts not drawn; for reading only."""
    folder = write_experiment(tmp_path_factory.mktemp("results") / "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        do_not_draw(monkeypatch)
        write_report(folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(written, tmp_path / "whole"))


@pytest.fixture(scope="module")
def report(written: Path) -> dict[str, Any]:
    return json.loads((written / "report.json").read_text())


def test_what_a_warm_start_taught_is_told(folder: Path) -> None:
    note = {"/results/first": {"used": 12, "left_out": 3}}
    edit(folder / "record.json", lambda record: record.update(warm_start=note))
    write_report(folder)
    said = (folder / "report.md").read_text()
    assert "the search knew 12 finished trials of `/results/first` (3 more do not fit this space)" in said


def test_promotions_are_told(folder: Path) -> None:
    with (folder / "space.yaml").open("a") as file:
        file.write("search.promotion: true\n")

    def promoted(record: dict[str, Any]) -> None:
        record.update(earlier=[[0.0, 1.0]])

    for trial in (9, 3, 4):
        edit(folder / f"trials/{trial:03d}.json", promoted)
    write_report(folder)
    said = (folder / "report.md").read_text()
    assert "Promoted were 3 of 5 that had been set aside: 2 finished, 1 stopped early." in said
    assert "Set aside for good, because others were better after as many epochs: 009, 014, 021." in said
    assert json.loads((folder / "report.json").read_text())["search"]["promoted"] == 3


FIRST, SECOND = 13, 7  # the two best trials of the synthetic experiment


def test_finalists_are_shown_and_decide(folder: Path) -> None:
    rows = [
        {"trial": trial, "searched": 0.88, "scores": {"0": 0.88, "1": mean, "2": mean}, "mean": mean, "fresh": mean,
         "behind": behind, "error": 0.004, "equal": equal}
        for trial, mean, behind, equal in ((FIRST, 0.87, 0.0, True), (SECOND, 0.868, 0.002, True))
    ]  # fmt: skip
    write_json(Storage(folder), "finalists.json", {"chosen": SECOND, "best": FIRST, "finalists": rows})
    edit(folder / "best" / "choice.json", lambda choice: choice.update(trial=SECOND))
    report = rebuilt(folder)
    assert report["finalists"]["chosen"] == SECOND
    assert not [caution for caution in report["cautions"] if "by its own rule" in caution]
    text = (folder / "report.md").read_text()
    assert f"The search had found 88.00 % for trial {SECOND}; with the 2 seeds" in text
    assert "They differ by 1.20 points." in text
    assert "0.20 ± 0.40" in text
    assert "| finalists |" not in text  # as in files of before
    edit(folder / "finalists.json", lambda found: found.update(seconds={"gan": 540.0, "unet": 60.0}))
    write_report(folder)
    table = [line for line in (folder / "report.md").read_text().splitlines() if line.startswith("|")]
    cells = {row[1]: row for line in table if len(row := [cell.strip(" *") for cell in line.split("|")]) == 9}
    column = [cells[name][6] for name in ("stage", "gan", "projection", "all")]
    assert column == ["finalists", "9.0 min", "–", "10.0 min"]


def test_variants_are_named_under_every_table_of_scores(folder: Path) -> None:
    assert "Variants on" not in (folder / "report.md").read_text()
    space = folder / "space.yaml"
    with_labels = space.read_text().replace("attack.labels: 'true'", "attack.labels: predicted")
    space.write_text(with_labels + "projector.levels: 2\nunet.input: both\n")
    write_report(folder)
    named = "Variants on: images are reduced to 2 grey levels before the GAN; the U-Net reads x_g and the attacked "
    named += "image; the attack starts from predicted labels."
    assert (folder / "report.md").read_text().count(named) == 4  # result, stages, strength of the attack, classes


def test_another_purifier_has_its_own_settings_and_name(folder: Path) -> None:
    with (folder / "space.yaml").open("a") as file:
        file.write("defense.purifier: smoothing\nsmoothing.levels: 4\nprojector.levels: 2\n")
    write_report(folder)
    said = (folder / "report.md").read_text()
    assert "Variants on: images are reduced to 4 grey levels before the median smoothing." in said
    assert "Every row with the median smoothing contains the reduction of grey levels" in said
    assert "c the median smoothing's image" in said
    assert re.search(r"Of 10 images right: .*, median smoothing \d+, denoised", said)
    without_map = "".join(part for part in said.split("\n## ") if not part.startswith("Restarts and steps"))
    assert not re.search(r"\bGAN\b", without_map)


@pytest.mark.parametrize(("attack", "does", "not_tried", "published"), [
    ("fgsm", "moves every pixel once", "attacks of many steps (PGD), query attacks, other norms", True),
    ("pgd", "in steps along the sign of its gradient", "nor query attacks, other norms", False),
    ("square", "changes random squares", "nor attacks by gradients (FGSM, PGD), other norms", False),
    ("of_a_plugin", "in the L∞ ball of radius ε", "nor other attacks on the classifier, other norms", False),
])  # fmt: skip
def test_the_threat_is_that_of_the_attack(
    folder: Path, attack: str, does: str, not_tried: str, published: bool
) -> None:
    space = folder / "space.yaml"
    text = space.read_text().replace("attack.name: fgsm", f"attack.name: {attack}")
    space.write_text(text.replace("data.name: mnist_mini ", "data.name: mnist "))
    write_report(folder)
    said = (folder / "report.md").read_text()
    assert does in said
    assert not_tried in said
    assert ("moves every pixel once" in said) == (attack == "fgsm")
    assert ("the setting of this search" in said) == published


@pytest.mark.parametrize("damaged", [None, [], "x", {"/results/first": 3}, {"/results/first": {}}])
def test_a_damaged_note_of_a_warm_start_does_not_stop_the_report(folder: Path, damaged: Any) -> None:
    edit(folder / "record.json", lambda record: record.update(warm_start=damaged))
    assert write_report(folder)


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


@pytest.mark.parametrize(("recorded", "shown", "said"), [
    (20.0, 18_000.0, "By the clock: at least 5.0 h, as a session that was killed, or runs still, has not recorded"),
    (None, 18_000.0, "By the clock: at least 5.0 h, as a session that was killed, or runs still, has not recorded"),
    (18_360.0, 18_360.0, "By the clock: 5.1 h. "),
])  # fmt: skip
def test_the_time_of_a_session_that_was_killed_counts(
    folder: Path, recorded: float | None, shown: float, said: str
) -> None:
    edit(folder / "record.json", lambda record: record.update(wall_s=recorded))
    edit(folder / "trials/000.json", lambda trial: trial.update(seconds=18_000.0, ended=1_800_000_000.0))
    write_report(folder)
    assert json.loads((folder / "report.json").read_text())["search"]["wall_s"] == shown
    assert said in (folder / "report.md").read_text()
    beside = compare([folder, folder]).splitlines()
    (row,) = (line.split() for line in beside if line.startswith("by the clock"))
    assert row[3:] == 2 * (["5.0", "h"] if shown == 18_000.0 else ["5.1", "h"])


def test_values_are_those_of_the_files_to_the_last_digit(report: dict[str, Any], written: Path) -> None:
    files = [json.loads(seed_file(written, seed).read_text()) for seed in (0, 1, 2)]
    for name in NAMES:
        assert report["test"][name]["seeds"] == [file["metrics"][name] for file in files]


def test_the_second_interval_is_on_the_images_of_the_saved_seed(report: dict[str, Any]) -> None:
    assert report["saved_seed"] == 0
    correct = round(report["test"]["psd"]["seeds"][0] * IMAGES)
    assert report["test"]["psd"]["wilson95"] == list(wilson(correct, IMAGES))


def test_another_seed_was_saved_where_the_choice_says_so(folder: Path) -> None:
    edit(folder / "best/choice.json", lambda choice: choice.update(median_seed=2))  # as experiments of before name it
    write_report(folder)
    assert json.loads((folder / "report.json").read_text())["saved_seed"] == 2
    assert "the first seed" not in (folder / "report.md").read_text()


def test_the_best_is_the_one_that_the_rule_names(report: dict[str, Any], written: Path) -> None:
    best = choose(Ledger(Storage(written)).outcomes(), "defense")
    assert report["choice"]["trial"] == best.trial
    assert report["best"] == best.params
    assert best.trial in [point["trial"] for point in report["choice"]["pareto_front"]]


def test_failures_are_counted_and_named(report: dict[str, Any], written: Path) -> None:
    assert [failure["trial"] for failure in report["failures"]] == [5, 17]
    for page in ("report.md", "report.html"):
        assert "loss is not finite (nan) in epoch 3" in (written / page).read_text()


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


def test_a_terminal_is_told_the_result_and_every_doubt(folder: Path, report: dict[str, Any]) -> None:
    *lines, place = told(Storage(folder)).splitlines()
    assert place == str(folder / "report.html")
    assert f"Behind the defense it gets {100 * report['test']['psd']['mean']:.2f} % right" in lines[0]
    assert lines[1:] == [f"Caution: {caution}" for caution in report["cautions"]]
    (folder / "report.json").write_text("{torn")
    assert told(Storage(folder)) == place


def test_no_warning_where_psd_is_clearly_above(report: dict[str, Any]) -> None:
    assert not [caution for caution in report["cautions"] if "not clearly above" in caution]


def test_no_warning_where_each_seed_is_above_by_more_than_the_images_make(folder: Path) -> None:
    """The intervals overlap, as seeds differ more than a seed's two defenses do."""
    for seed, ours in enumerate((0.85, 0.90, 0.95)):
        edit(seed_file(folder, seed), lambda s, ours=ours: s["metrics"].update(psd=ours, psd_gan=ours - 0.1))
    found = rebuilt(folder)
    assert found["test"]["psd"]["ci95"][0] < found["test"]["psd_gan"]["ci95"][1]
    assert not [caution for caution in found["cautions"] if "not clearly above GAN only" in caution]


@pytest.mark.parametrize(("rival", "words"), [("threshold", "threshold at 0.5"), ("psd_gan", "GAN only")])
def test_a_warning_where_a_simpler_defense_is_as_good(folder: Path, rival: str, words: str) -> None:
    for seed in (0, 1, 2):
        edit(seed_file(folder, seed), lambda s: s["metrics"].update({rival: s["metrics"]["psd"] - 0.004}))
    found = [caution for caution in rebuilt(folder)["cautions"] if "not clearly above" in caution]
    assert len(found) == 1
    assert words in found[0]
    assert "Compared seed by seed, the difference is +0.40 (+0.40 to +0.40) points; the choice of images" in found[0]
    assert found[0] in (folder / "report.md").read_text()


def test_a_warning_where_a_simpler_defense_is_better(folder: Path) -> None:
    for seed in (0, 1, 2):
        edit(seed_file(folder, seed), lambda s: s["metrics"].update(threshold=0.95))
    found = [caution for caution in rebuilt(folder)["cautions"] if "is below threshold at 0.5" in caution]
    assert len(found) == 1
    assert "The simpler defense may serve better." in found[0]


@pytest.mark.parametrize(("dirty", "said"), [(True, True), (False, False), (None, False)])
def test_a_dirty_checkout_is_pointed_out(folder: Path, dirty: bool | None, said: bool) -> None:
    edit(folder / "record.json", lambda record: record.update(git={"commit": "ab", "dirty": dirty}))
    assert any("uncommitted changes" in caution for caution in rebuilt(folder)["cautions"]) == said


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


def test_a_folder_that_is_no_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an experiment's folder"):
        write_report(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_report_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    """Run in a process of its own, which tells what it has imported."""
    folder = write_experiment(tmp_path / "small", trials=3, seeds=0)
    code = (
        "import sys\n"
        "from tune.report.writer import write_report\n"
        "from tune.report.comparison import compare\n"
        "write_report(sys.argv[1]); compare([sys.argv[1], sys.argv[1]])\n"
        "print({'torch', 'ray'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "set()\n", "")
