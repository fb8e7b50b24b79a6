"""Retraining, and the look at the test images."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.attacks.presets import PRESETS
from components.datasets.dataset import Dataset
from components.defense import Defense
from components.files import read_json
from components.metrics import agreement
from components.purifiers import NoGradient
from tests.tune.executor_fixture import setting_on, tiny_config
from tests.tune.pipeline.test_adaptive_training import ENCODED
from tune.evaluation.adaptive import adaptive_images
from tune.evaluation.retraining import forget_others, retrain_seed, save_defense, settings_hash
from tune.evaluation.scores import EPSILONS
from tune.execution.seeds import final_executor
from tune.execution.trial import arrays_of
from tune.pipeline.executor import Executor
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Development
from tune.report.facts import facts_of
from tune.storage.folder import Storage


@pytest.fixture
def executor(tmp_path: Path, tiny_dataset: Dataset) -> Executor:
    final = Development.for_retraining(tiny_dataset)
    arrays = arrays_of(train=final.train)
    return final_executor(setting_on(tmp_path, tiny_dataset), arrays, final.fingerprint, tiny_config(), 0)


@pytest.fixture
def second(tmp_path: Path, tiny_dataset: Dataset) -> Executor:
    """That of the second seed, whose defense is not the one that is saved."""
    final = Development.for_retraining(tiny_dataset)
    arrays = arrays_of(train=final.train)
    return final_executor(setting_on(tmp_path, tiny_dataset), arrays, final.fingerprint, tiny_config(), 1)


def retrained(executor: Executor, dataset: Dataset, home: Storage, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """The scores of one seed, and what it was busy with."""
    seen: list[str] = []

    def note(progress: Progress) -> None:
        seen.append(progress.stage)

    return retrain_seed(executor, tiny_config(**changes), dataset.test, home, note), seen


def test_scores_are_those_of_the_saved_defense(executor: Executor, tmp_path: Path, tiny_dataset: Dataset) -> None:
    home = Storage(tmp_path / "one")
    scores, _ = retrained(executor, tiny_dataset, home)
    save_defense(executor, tiny_config(), home)
    defense = Defense.load(tmp_path / "one/best")
    test = tiny_dataset.test
    originals = defense.classifier.predict(test.images)
    assert scores["metrics"]["pso"] == agreement(originals, test.labels)
    clean = defense(test.images).argmax(1)
    assert scores["metrics"]["clean_purified"] == agreement(clean, test.labels)
    assert scores["n"] == 20
    assert scores["epsilon"]["values"] == list(EPSILONS)
    assert all(len(curve) == len(EPSILONS) for curve in scores["epsilon"].values())
    confusion = torch.tensor(scores["confusion"])
    assert confusion.sum(1).tolist() == torch.bincount(test.labels).tolist()
    assert float(confusion.diagonal().sum()) / 20 == pytest.approx(scores["metrics"]["psd"])


def test_the_pictures_are_images_with_their_labels(executor: Executor, tmp_path: Path, tiny_dataset: Dataset) -> None:
    home = Storage(tmp_path / "one")
    scores, _ = retrained(executor, tiny_dataset, home)
    with np.load(io.BytesIO((tmp_path / "one/best/seeds/0.npz").read_bytes())) as arrays:
        assert arrays["original"].shape == arrays["denoised"].shape == (10, 1, 8, 8)
        assert arrays["labels"].shape == (4, 10)
        wrong = round((1 - scores["metrics"]["psd"]) * 20)
        assert len(arrays["worst_true"]) == min(10, wrong)
        assert (arrays["worst_labels"][3] != arrays["worst_true"]).all()


def test_an_attacker_who_knows_the_defense_is_measured(
    executor: Executor, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    scores, _ = retrained(executor, tiny_dataset, Storage(tmp_path / "one"))
    known = scores["adaptive"]
    assert known["images"] == 20
    assert known["epsilon"] == tiny_config().attack.epsilon
    assert scores["metrics"]["robust"] == known["worst"] <= known["clean"] == scores["metrics"]["clean_purified"]
    assert set(known["beside"]) == {"threshold", "gan"}
    assert known["attacks"]
    assert [at for at, _ in known["over_epsilon"]] == list(PRESETS["quick"].epsilons)


def test_of_seeds_that_are_not_saved_only_what_the_report_shows_is_measured(
    second: Executor, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    scores, seen = retrained(second, tiny_dataset, Storage(tmp_path / "one"))
    known = scores["adaptive"]
    assert scores["metrics"]["robust"] == known["worst"]
    assert (known["beside"], known["over_epsilon"], known["over_steps"]) == ({}, [], [])
    assert not any("alone" in stage for stage in seen if "an attacker who knows" in stage)


def test_beside_what_is_trained_against_attacks_stands_the_classifier_trained_so(
    executor: Executor, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    against = {"unet__training": "adaptive", "unet__steps": 2, "unet__batch_size": 16, "unet__epochs": 2, **ENCODED}
    scores, seen = retrained(executor, tiny_dataset, Storage(tmp_path / "one"), **against)
    known = scores["adaptive"]
    assert set(known["beside"]) == {"threshold", "gan", "static"}
    assert 0 <= known["beside"]["static"]["worst"] <= known["beside"]["static"]["clean"] <= 1
    assert sum("a static reference" in stage for stage in seen) == 2  # as many epochs


@pytest.mark.parametrize("error", [NoGradient("mine: no gradient"), ValueError("epsilon: expected another")])
def test_only_a_missing_gradient_leaves_that_attacker_out_and_says_so(
    executor: Executor, tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, error: ValueError
) -> None:
    def refused(*words: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr("tune.evaluation.adaptive.evaluate_defense", refused)
    if not isinstance(error, NoGradient):
        with pytest.raises(ValueError, match="epsilon: expected another"):
            retrained(executor, tiny_dataset, Storage(tmp_path / "one"))
        return
    scores, _ = retrained(executor, tiny_dataset, Storage(tmp_path / "one"))
    assert scores["adaptive"] is None
    assert scores["adaptive_left_out"] == "mine: no gradient"
    assert "robust" not in scores["metrics"]


def test_dear_defenses_are_attacked_on_fewer_images() -> None:
    config = tiny_config()
    counts = []
    for restarts, steps in ((1, 1), (1, 5), (2, 5), (10, 200)):
        projector = config.projector.model_copy(update={"restarts": restarts, "steps": steps})
        counts.append(adaptive_images(config.model_copy(update={"projector": projector}), 2000))
    assert counts == [100, 60, 30, 20]


def test_a_seed_is_measured_once(executor: Executor, tmp_path: Path, tiny_dataset: Dataset) -> None:
    home = Storage(tmp_path / "one")
    scores, seen = retrained(executor, tiny_dataset, home)
    assert any(stage.startswith("measuring") for stage in seen)
    again, seen = retrained(executor, tiny_dataset, home)
    assert json.dumps(again) == json.dumps(scores)
    assert seen == []


def test_another_configuration_of_the_same_networks_is_measured_anew(
    executor: Executor, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    """An adaptive training does not depend on the number of steps, the measurement does."""
    home, against = Storage(tmp_path / "one"), {"unet__training": "adaptive", "unet__epochs": 1, **ENCODED}
    one, _ = retrained(executor, tiny_dataset, home, **against, projector__learning_rate=0.01)
    other, seen = retrained(executor, tiny_dataset, home, **against, projector__learning_rate=0.5)
    assert one["stages"] == other["stages"]
    assert any(stage.startswith("measuring") for stage in seen)
    assert json.loads((tmp_path / "one/best/seeds/0.json").read_text())["settings"] == other["settings"]


def test_a_report_has_seeds_of_one_configuration(executor: Executor, tmp_path: Path, tiny_dataset: Dataset) -> None:
    home, seeds = Storage(tmp_path / "one"), tmp_path / "one/best/seeds"
    scores, _ = retrained(executor, tiny_dataset, home)
    settings = settings_hash(tiny_config())
    before = {name: value for name, value in scores.items() if name != "settings"}
    files = {1: scores | {"seed": 1, "settings": "another"}, 2: before | {"seed": 2}, 3: scores | {"seed": 3}}
    for seed, content in files.items():
        (seeds / f"{seed}.json").write_text(json.dumps(content))
        (seeds / f"{seed}.npz").write_bytes((seeds / "0.npz").read_bytes())
    choice = {"trial": 7, "params": {}, "settings": settings}
    (tmp_path / "one/best/choice.json").write_text(json.dumps(choice))
    (tmp_path / "one/space.yaml").write_text("projector.restarts: {choice: [1, 2]}")
    facts = facts_of(home)
    assert [score.seed for score in facts.seeds] == [0, 2, 3]
    assert facts.problems == (
        "best/seeds/1.json: left out: it was measured of another configuration than that of trial 7",
    )
    forget_others(home, [0, 1, 2], settings)
    assert sorted(path.name for path in seeds.iterdir()) == ["0.json", "0.npz", "2.json", "2.npz"]


@pytest.mark.parametrize(
    ("name", "content"),
    [*(("0.json", content) for content in (b"", b"{", b"[]", b'{"stages": {}}')), ("0.npz", b""), ("0.npz", None)],
)
def test_a_damaged_measurement_is_made_again(
    executor: Executor, tmp_path: Path, tiny_dataset: Dataset, name: str, content: bytes | None
) -> None:
    home, file = Storage(tmp_path / "one"), tmp_path / "one/best/seeds" / name
    scores, _ = retrained(executor, tiny_dataset, home)
    file.write_bytes(file.read_bytes()[:-400] if content is None else content)
    again, seen = retrained(executor, tiny_dataset, home)
    assert any(stage.startswith("measuring") for stage in seen)
    assert again["metrics"] == scores["metrics"]


def test_the_defense_of_a_seed_is_saved_over_another(executor: Executor, tmp_path: Path, tiny_dataset: Dataset) -> None:
    home, saved = Storage(tmp_path / "one"), []
    for seed in (3, 4, 3):
        save_defense(replace(executor, seed=seed), tiny_config(), home)
        saved.append(read_json(tmp_path / "one/best/manifest.json")["sha256"])
        assert Defense.load(tmp_path / "one/best").projector.seed == seed
    assert saved[0] == saved[2]
    assert saved[0]["unet.safetensors"] != saved[1]["unet.safetensors"]
