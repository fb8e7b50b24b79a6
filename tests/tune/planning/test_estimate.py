"""What a search will need, counted before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import search_here, tiny_config, tiny_space
from tune.evaluation.adaptive import adaptive_images
from tune.pipeline.recipe import Bounds, Development, Recipe, bounds_of
from tune.pipeline.stage import Rate, Rates, Workload
from tune.pipeline.stages import STAGES
from tune.planning.dry_run import Row
from tune.planning.estimate import DRAWN, Counted, count, draw
from tune.planning.rates import _timed, measure, seconds_of_attacks, seconds_of_reference
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome


def counted(storage: Path, dataset: Dataset, trials: int = 3) -> Counted:
    space = tiny_space(search__trials=trials)
    place = Storage(storage)
    return count(space, dataset, place, place.child("one"), bounds_of(space))


def needed(found: Counted) -> dict[str, tuple[int, int]]:
    """Stage → artifacts needed and held."""
    return {artifacts.stage: (len(artifacts.recipes), len(artifacts.held)) for artifacts in found.search}


def test_an_empty_store_holds_nothing(tmp_path: Path, tiny_dataset: Dataset) -> None:
    found = needed(counted(tmp_path, tiny_dataset))
    assert found["projection"] == (1, 0)  # one serves every R and L
    assert found["unet"] == (3, 0)
    assert not (tmp_path / "store").exists()


def test_what_is_built_is_found(tmp_path: Path, tiny_dataset: Dataset) -> None:
    empty = counted(tmp_path, tiny_dataset, 5).bytes()
    search_here(tmp_path, tiny_dataset)
    found = counted(tmp_path, tiny_dataset, 5)
    assert needed(found)["projection"] == (1, 1)
    assert needed(found)["unet"] == (2, 0)  # of the two trials that are left
    assert found.bytes() < empty


def test_the_estimate_is_what_is_written(tmp_path: Path, tiny_dataset: Dataset) -> None:
    found = counted(tmp_path, tiny_dataset)
    search_here(tmp_path, tiny_dataset)
    written = sum(path.stat().st_size for path in (tmp_path / "store").rglob("*.safetensors"))
    during = found.bytes() - 3 * 100_000
    assert written / 3 < during < 3 * written


def test_the_first_configurations_are_those_of_the_search(tmp_path: Path, tiny_dataset: Dataset) -> None:
    space = tiny_space()
    drawn, left, trials = draw(space, Ledger(Storage(tmp_path / "none")))
    ledger = search_here(tmp_path, tiny_dataset, space)
    assert left == trials == len(drawn)
    assert drawn[:2] == [ledger.proposals()[0], ledger.proposals()[1]]
    rest, left, _ = draw(space, ledger)
    assert left == trials - len(ledger.outcomes())
    assert not [params for params in rest if params in drawn[: len(ledger.outcomes())]]


def test_more_trials_than_are_drawn_are_taken_to_be_like_them(tmp_path: Path, tiny_dataset: Dataset) -> None:
    some, many = (counted(tmp_path, tiny_dataset, trials).bytes() for trials in (64, 6400))
    assert 20 < many / some < 100


def test_all_trials_that_are_left_are_counted(tmp_path: Path, tiny_dataset: Dataset) -> None:
    """Also of a search of which more trials have ended than are drawn."""
    place, space = Storage(tmp_path), tiny_space(search__trials=200)
    ledger = Ledger(place.child("one"))
    for number, params in enumerate(draw(space, ledger)[0]):
        ledger.record(Outcome(trial=number, status="failed", params=params, error="no"))
    found = count(space, tiny_dataset, place, place.child("one"), bounds_of(space))
    units = next(artifacts for artifacts in found.search if artifacts.stage == "unet")
    assert len(units.missing) * units.times == pytest.approx(200 - DRAWN, rel=0.05)


def test_of_a_search_whose_trials_have_ended_its_own_are_typical(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place, space = Storage(tmp_path), tiny_space(search__trials=3, search__finalists=2, search__finalist_seeds=2)
    ledger = Ledger(place.child("one"))
    for number in range(3):
        params = {**draw(space, ledger)[0][0], "projector.restarts": 2, "projector.steps": 6}
        metrics = {"psd": 0.5 + number / 10, "cost": 12}
        ledger.record(Outcome(trial=number, status="finished", params=params, metrics=metrics))
    found = count(space, tiny_dataset, place, place.child("one"), bounds_of(space))
    assert found.search == []
    assert (found.typical.config.projector.restarts, found.typical.config.projector.steps) == (2, 6)
    best = {recipe.config.unet.high_level_weight for recipe in
            next(a for a in found.finalists if a.stage == "unet").recipes.values()}  # fmt: skip
    assert best == {outcome.params["unet.high_level_weight"] for outcome in ledger.outcomes()[1:]}
    further = {artifacts.stage: artifacts for artifacts in found.finalists}
    assert "map" not in further
    (projection,) = further["projection_train"].missing
    assert projection.bounds == Bounds([2], [6]), "more than the finalists need"


def test_what_few_choices_share_is_not_multiplied(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place = Storage(tmp_path)
    space = tiny_space(search__trials=1000, gan__loss={"choice": ["nonsaturating", "wgan_gp"]})
    found = {a.stage: a for a in count(space, tiny_dataset, place, place.child("one"), bounds_of(space)).search}
    assert [len(found[name].recipes) * found[name].times for name in ("gan", "projection")] == [2, 2]
    assert len(found["unet"].recipes) * found["unet"].times > 900


def test_a_small_space_has_no_more_trials_than_points(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place = Storage(tmp_path)
    ranges = {"projector__restarts": {"choice": [1, 2]}, "projector__steps": 2, "unet__high_level_weight": 1.0}
    space = tiny_space(search__trials=100, **ranges)
    assert count(space, tiny_dataset, place, place.child("one"), bounds_of(space)).trials == 2


def test_further_seeds_of_the_finalists_are_counted(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place = Storage(tmp_path)

    def needed(**changes: int) -> dict[str, int]:
        space = tiny_space(search__trials=5, **changes)
        found = count(space, tiny_dataset, place, place.child("one"), bounds_of(space))
        return {artifacts.stage: len(artifacts.recipes) for artifacts in found.finalists}

    assert needed(search__finalists=1) == needed(search__finalists=3, search__finalist_seeds=1) == {}
    two = needed(search__finalists=2, search__finalist_seeds=3)
    assert (two["gan"], two["classifier"], two["unet"]) == (2, 2, 4)


def test_trials_that_share_nothing_need_everything(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place, space = Storage(tmp_path), tiny_space(search__trials=5)
    found = count(space, tiny_dataset, place, place.child("one"), bounds_of(space), reuse=False)
    assert {artifacts.stage: len(artifacts.missing) for artifacts in found.search}["gan"] == 5
    assert found.finalists == []


def test_every_kind_of_work_has_a_rate(tmp_path: Path, tiny_dataset: Dataset) -> None:
    place = Storage(tmp_path)
    purifiers = {"choice": ["projector", "smoothing"]}
    for kinds in ({"gan__encoder_steps": {"choice": [0, 20]}}, {"defense__purifier": purifiers}):
        space = tiny_space(search__trials=8, **kinds)
        found = count(space, tiny_dataset, place, place.child("one"), bounds_of(space))
        rates = measure(found.kinds, torch.device("cpu"), seconds=0.0)
        assert all(artifacts.seconds(rates) >= 0 for artifacts in (*found.search, *found.final))


ADAPTIVE: dict[str, object] = {
    "projector__init": "encoder", "gan__encoder_steps": 5, "unet__training": "adaptive", "unet__input": "generated",
}  # fmt: skip


def recipe_of(dataset: Dataset, bounds: Bounds | None = None, **changes: object) -> Recipe:
    return Recipe(tiny_config(**changes), bounds or Bounds([1, 2], [2, 4]), Development.for_search(dataset), 0)


def measured(dataset: Dataset, **changes: object) -> Rates:
    return measure([recipe_of(dataset, **changes)], torch.device("cpu"), seconds=0.01)


def test_rates_are_measured(tiny_dataset: Dataset) -> None:
    rates = measured(tiny_dataset)
    assert set(rates) == {"classifier", "gan", "projection", "unet", "attack"}  # there is no encoder to train
    assert all(rate.seconds > 0 for rate in rates.values())
    assert measured(tiny_dataset, projector__init="encoder")["projection"].seconds > 0
    assert measured(tiny_dataset, gan__encoder_steps=9)["encoder"].seconds > 0


def test_time_follows_the_counts(tiny_dataset: Dataset) -> None:
    speeds = {"classifier": 1.0, "gan": 2.0, "encoder": 5.0, "projection": 3.0, "unet": 4.0}
    rates = {name: Rate(name, "image", seconds) for name, seconds in speeds.items()}
    recipe = recipe_of(tiny_dataset, Bounds([1, 4], [5, 10]))
    assert STAGES["classifier"].seconds(recipe, rates) == 3 * 32
    assert STAGES["projection_train"].seconds(recipe, rates) == 32 * 4 * 10 * 3
    assert STAGES["map"].seconds(recipe, rates) == 0
    assert STAGES["score_unet"].seconds(recipe, rates) == 0


def test_attacks_are_counted_by_their_images(tiny_dataset: Dataset) -> None:
    rates = {name: Rate(name, "image", seconds) for name, seconds in {"classifier": 1.0, "attack": 7.0}.items()}
    robust = recipe_of(tiny_dataset, search__objective="robust", search__robust_images=5)
    assert STAGES["score_unet"].seconds(robust, rates) == 7 * 5
    more = recipe_of(tiny_dataset, search__objective="robust", search__robust_images=10**6)
    assert STAGES["score_unet"].seconds(more, rates) == 7 * len(tiny_dataset.validation)
    assert seconds_of_attacks(robust, 1000, 3, rates) == 7 * adaptive_images(robust.config, 1000) * (3 + 2)


def test_a_static_reference_is_counted_where_it_is_trained(tiny_dataset: Dataset) -> None:
    rates = {"classifier": Rate("classifier", "image", 2.0)}
    assert seconds_of_reference(recipe_of(tiny_dataset), rates) == 0
    recipe = recipe_of(tiny_dataset, **ADAPTIVE, unet__epochs=4, unet__first_steps=1, unet__steps=3, unet__attacked=0.5)
    assert seconds_of_reference(recipe, rates) == 2 * 32 * 4 * (1 + 0.5 * 2)


def test_of_an_adaptive_training_one_batch_is_measured(tiny_dataset: Dataset) -> None:
    for settings, batches in (({}, 4), (ADAPTIVE, 1)):
        recipe = recipe_of(tiny_dataset, **settings, unet__batch_size=8)
        (work,) = STAGES["unet"].workloads(recipe, torch.device("cpu"), batches=4)
        assert work.units == 8 * batches


@pytest.mark.parametrize(("slow", "rounds"), [(0.0, 1), (100.0, 2)])
def test_a_slow_round_is_not_repeated(slow: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.planning.rates.SLOW", slow)
    done: list[int] = []
    assert _timed(Workload("x", "x", "image", 1, lambda: done.append(1)), 0.0) >= 0
    assert len(done) == rounds


@pytest.mark.parametrize(("parts", "concurrent", "wall"), [(1, 4, 100), (4, 4, 25), (5, 4, 40), (0, 4, 0)])
def test_a_stage_has_no_more_workers_than_parts(parts: int, concurrent: int, wall: float) -> None:
    assert Row("unet", parts, 0, "", 100.0, parts).wall(concurrent) == pytest.approx(wall)


@pytest.mark.parametrize(
    "changes",
    [
        {"projector__init": "random"},
        {"projector__init": "encoder", "gan__encoder_steps": 5},
        {"projector__realism_weight": 0.1},
        {"unet__input": "both"},
    ],
)
def test_every_kind_of_projector_has_a_rate(tiny_dataset: Dataset, changes: dict[str, object]) -> None:
    assert measured(tiny_dataset, **changes)["projection"].seconds > 0
