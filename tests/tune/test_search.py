"""The whole command line, once, on a search that takes seconds; and what a search must not follow from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.classifiers.defense_gan import Classifier
from components.datasets.dataset import Dataset, load_dataset
from components.files import sha256_file
from docs.recompute import disagreements, main, recomputed
from tests.tiny_networks import defense_of
from tests.tune.executor_fixture import search_here, with_test_labels
from tests.tune.tiny_search import choice, outcomes, results, run, words, write_space
from tune import search
from tune.optimizer.choice import choose
from tune.planning.call import Call
from tune.planning.experiment import Options
from tune.storage.folder import Storage
from tune.storage.record import add_time, recorded


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended."""
    folder = tmp_path_factory.mktemp("search")
    space = write_space(folder, search__trials=2, search__retrain_seeds=2)
    status, output = run(words(space, folder / "results", "--verbose"), folder / "log", 110)
    assert status == 0, output
    assert "Traceback" not in output
    return folder / "results/one"


def test_a_search_from_space_to_report(home: Path) -> None:
    assert {outcome.status for outcome in outcomes(home).values()} == {"finished"}
    report = json.loads((home / "report.json").read_text())
    assert report["search"]["finished"] == 2
    assert report["best"] == choice(home)["params"]
    assert report["saved_seed"] == choice(home)["saved_seed"] == 0
    assert {"pso", "psd", "pco", "noisy", "threshold", "psd_gan", "psd_unet"} <= report["test"].keys()
    record = json.loads((home / "record.json").read_text())
    assert record["seed"] == 0
    assert record["packages"]["ray"]
    for name in ("space.yaml", "trials.csv", "study.db", "report.md", "report.html", "validation_map.json"):
        assert (home / name).stat().st_size > 0
    assert (home / "best/manifest.json").exists()
    assert not list((home.parent / "store/.unfinished").glob("*/*"))
    for seed in (0, 1):  # trained by one task, measured by another
        work = json.loads((home / f"best/seeds/{seed}.json").read_text())["work"]
        assert all(done["built"] and not done["reused"] for stage, done in work.items() if stage != "attack"), work


def test_a_verbose_search_tells_of_its_trials_and_not_of_files_that_nobody_reads(home: Path) -> None:
    output = (home.parents[1] / "log").read_text()
    assert output.count(": finished") == 4  # two trials and two seeds; stages as short as these end between two looks
    assert "Failed to fetch metrics" not in output
    assert "result files and experiment state" not in output


def test_the_report_follows_from_the_saved_defense_and_the_data(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((home / "report.json").read_text())
    counts = recomputed(home, report)
    assert capsys.readouterr().err == "20 of 20 images, about 0 s left\n"
    assert report["test"].keys() == counts.keys() - {"images"} | {"robust", "adaptive"}
    assert list(disagreements(report, counts)) == []
    for place, seed in enumerate(report["seeds"]):
        measured = json.loads((home / f"best/seeds/{seed}.json").read_text())["metrics"]
        assert {name: score["seeds"][place] for name, score in report["test"].items() if name != "adaptive"} == measured


def test_recomputing_from_the_command_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["recompute.py", str(home)])
    monkeypatch.setattr("docs.recompute.load_dataset", lambda name, data_dir: load_dataset(home.parents[1] / name))
    assert main() == 0
    said = capsys.readouterr().out
    assert "All scores agree" in said
    assert "psd_gan" in said


@pytest.mark.parametrize("name", ["pgd", "apgd"])
def test_a_report_of_another_attack_is_not_recomputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"attack": {"name": name, "epsilon": 0.3, "labels": "true"}}))
    monkeypatch.setattr("sys.argv", ["recompute.py", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err == f"error: counts FGSM reports alone, found {name}\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "{file}: expected the report of a search, found no such file"),
        ("{", "{file}: expected JSON, found "),
        ("[]", "{file}: expected the report of a search, found other JSON"),
        ('{"dataset": "nowhere", "attack": {"name": "fgsm"}}', "data.name: expected "),
    ],
)
def test_what_cannot_be_recomputed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, content: str | None, found: str
) -> None:
    defense_of().save(tmp_path / "best")
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    monkeypatch.setattr("sys.argv", ["recompute.py", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"error: {found.format(file=tmp_path / 'report.json')}")


def test_a_defense_that_cannot_be_loaded_is_not_recomputed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    defense_of().save(tmp_path / "best")
    described = tmp_path / "best/defense.json"
    content = json.loads(described.read_text())
    content["classifier"] |= {"architecture": "mine", "weights": 64 * "0"}  # as of a plug-in that is not given
    described.write_text(json.dumps(content))
    manifest = json.loads((tmp_path / "best/manifest.json").read_text())
    manifest["sha256"]["defense.json"] = sha256_file(described)
    (tmp_path / "best/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "report.json").write_text(json.dumps({"dataset": "mnist_mini", "attack": {"name": "fgsm"}}))
    monkeypatch.setattr("sys.argv", ["recompute.py", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"error: {described}: expected its classifier mine")


@pytest.mark.parametrize(
    ("figure", "change"),
    [("seeds", lambda seeds: [seed + 0.05 for seed in seeds]), ("mean", lambda mean: mean + 0.01),
     ("std", lambda std: std + 0.01), ("ci95", lambda ends: [ends[0] - 0.01, ends[1]])],
)  # fmt: skip
def test_a_figure_that_was_changed_is_found(home: Path, figure: str, change: Callable[[Any], Any]) -> None:
    report = json.loads((home / "report.json").read_text())
    counts = recomputed(home, report)
    report["test"]["psd"][figure] = change(report["test"]["psd"][figure])
    found = list(disagreements(report, counts))
    assert found
    assert all(line.startswith("psd") for line in found)


def test_tensorboard_has_the_pictures_of_every_trial(home: Path) -> None:
    for trial in outcomes(home):
        (folder,) = home.glob(f"tensorboard/{trial:03d} *")
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
        assert {"images/validation", "projection/R × L map"} <= set(events.Tags()["tensors"])
        assert [point.step for point in events.Scalars("projection/error")] == [2, 4, 6]
        assert sum(path.stat().st_size for path in folder.iterdir()) < 50_000


def test_two_runs_of_one_seed_are_the_same(tmp_path: Path, tiny_dataset: Dataset) -> None:
    for name in ("first", "second"):
        search_here(tmp_path / name, tiny_dataset)
    assert results(tmp_path / "first/one") == results(tmp_path / "second/one")


def test_the_test_labels_change_no_choice(tmp_path: Path, tiny_dataset: Dataset) -> None:
    permuted = with_test_labels(tiny_dataset, lambda labels: labels[::-1].copy())
    assert permuted.test.labels.tolist() != tiny_dataset.test.labels.tolist()
    one, other = (
        search_here(tmp_path / name, dataset) for name, dataset in (("one", tiny_dataset), ("other", permuted))
    )
    assert results(tmp_path / "one/one") == results(tmp_path / "other/one")
    assert choose(one.outcomes()).params == choose(other.outcomes()).params


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null"])
def test_a_damaged_record_is_written_again(tmp_path: Path, content: bytes) -> None:
    home = Storage(tmp_path)
    home.write("record.json", content)
    assert recorded(home) == {}
    add_time(home, 2.0, [])
    add_time(home, 3.5, [])
    assert json.loads(home.read("record.json"))["wall_s"] == 5.5


def called(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Call:
    """The call that a search notes and repeats, from a script whose own words are none of it."""
    seen: list[Options] = []
    monkeypatch.setattr("sys.argv", ["script.py", "--mine", "7"])
    monkeypatch.setattr(search, "find_experiment", lambda *words, **flags: words)
    monkeypatch.setattr(search, "_search", lambda experiment, request, options, dry_run: seen.append(options) or 0)
    assert search.search(**arguments) == 0
    return seen[0].call


def test_a_search_is_repeated_by_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNE_STORAGE", raising=False)
    monkeypatch.setattr("tune.planning.call.interpreter", lambda: "python")
    call = called(monkeypatch, space="my space.yaml", name="mine", resume=True, trials=3, cpus_per_trial=1.0)
    assert call.command == "python -m tune.search --space 'my space.yaml' --trials 3 --name mine --resume"
    assert call.resumed == call.command
    monkeypatch.setenv("TUNE_STORAGE", "s3://one/two")
    assert called(monkeypatch).resumed == "python -m tune.search --storage s3://one/two --resume"
    monkeypatch.delenv("TUNE_STORAGE")
    assert called(monkeypatch, name="a").resumed == "python -m tune.search --name a --space quickstart --resume"
    assert called(monkeypatch, name="a", resume=True).resumed == "python -m tune.search --name a --resume"
    call = called(monkeypatch, storage="here", no_reuse=True)
    assert call.command == "python -m tune.search --storage here --no-reuse"


def test_a_search_of_a_module_is_repeated_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNE_STORAGE", raising=False)
    module = Classifier("D", (1, 8, 8), 4)
    call = called(monkeypatch, space="my.yaml", name="mine", classifier=module)
    assert call.command == "from Python: search(space='my.yaml', name='mine', classifier=module) with the same module"
    assert call.resumed.endswith("name='mine', resume=True, classifier=module) with the same module")


def test_the_environment_names_a_storage(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a file"
    place.write_text("")
    monkeypatch.setenv("TUNE_STORAGE", str(place))
    assert search.search(space=str(write_space(tmp_path)), dry_run=True) == 2
    assert f"TUNE_STORAGE: expected a folder, found the file {place}" in capsys.readouterr().err
    monkeypatch.setenv("TUNE_STORAGE", "s3://")
    assert search.search(space=str(write_space(tmp_path)), dry_run=True) == 2
    assert "error: TUNE_STORAGE: expected a bucket, as in s3://bucket" in capsys.readouterr().err
    assert search.search(space=str(write_space(tmp_path)), storage="s3://", dry_run=True) == 2
    assert "error: --storage: expected a bucket, as in s3://bucket" in capsys.readouterr().err
