"""The few of many trials that are kept: bounded, whatever order they ended in, and enough for TPE's best."""

import random

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import create_trial

from tune.optimizer.history import History
from tune.optimizer.selection import Selection

LOSSES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60)


def kept(selection: Selection, trials: int) -> set[int]:
    return {number for number in range(trials) if number in selection}


@given(losses=LOSSES, seed=st.integers(0, 99))
def test_the_order_in_which_trials_end_does_not_matter(losses: list[tuple[int, int]], seed: int) -> None:
    numbers = list(range(len(losses)))
    found = []
    for order in (numbers, random.Random(seed).sample(numbers, len(numbers))):
        selection, out = Selection(best=3, latest=4, sample=5), set()
        for number in order:
            left_out = selection.add(number, losses[number])
            assert out.isdisjoint(left_out), "left out twice"
            out |= set(left_out)
        assert kept(selection, len(numbers)) == set(numbers) - out
        found.append(out)
    assert found[0] == found[1]


@given(losses=LOSSES, seed=st.integers(0, 99))
def test_what_a_trial_is_known_by_later_counts_as_if_it_always_had_been(
    losses: list[tuple[int, int]], seed: int
) -> None:
    chance, direct, later = random.Random(seed), Selection(best=3, latest=4, sample=5), Selection(3, 4, 5)
    waiting = []
    for number, loss in enumerate(losses):
        direct.add(number, loss)
        if chance.random() < 0.5:
            later.add(number)
            waiting.append(number)
        else:
            later.add(number, loss)
    for number in chance.sample(waiting, len(waiting)):
        there = number in later
        left_out = later.add(number, losses[number], again=True)
        assert (number in later) != (number in left_out)
        assert there or number in left_out or number in later
    assert kept(later, len(losses)) == kept(direct, len(losses))


def test_the_best_and_the_latest_stay() -> None:
    values = [random.Random(n).random() for n in range(500)]
    selection = Selection(best=10, latest=20, sample=0)
    for number, value in enumerate(values):
        selection.add(number, (value,))
    best = sorted(range(500), key=values.__getitem__)[:10]
    assert kept(selection, 500) == {*best, *range(480, 500)}


def test_the_sample_is_spread_over_all() -> None:
    selection = Selection(best=0, latest=0, sample=100)
    for number in range(1000):
        selection.add(number)
    assert len(selection) == 100
    quarters = [sum(number // 250 == quarter for number in kept(selection, 1000)) for quarter in range(4)]
    assert min(quarters) > 10


def test_it_is_as_large_after_ten_times_as_many_trials() -> None:
    selection, sizes = Selection(best=10, latest=20, sample=30), {}
    numbers = random.Random(0)
    for number in range(3000):
        selection.add(number, (numbers.random(), numbers.random()))
        sizes[number + 1] = len(selection)
    assert sizes[3000] < 2 * sizes[300]


def test_kinds_are_not_compared() -> None:
    selection = Selection(best=1, latest=0, sample=0)
    assert selection.add(0, (1.0,), "pruned") == []
    assert selection.add(1, (0.0, 0.0), "complete") == []
    assert selection.add(2, (2.0,), "pruned") == [2]
    assert selection.add(3, (0.5,), "pruned") == [0]


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_tpe_finds_the_same_trials_good_as_among_all(directions: list[str]) -> None:
    study = optuna.create_study(directions=directions)
    selection, numbers, trials = Selection(best=25, latest=50, sample=50), random.Random(1), []
    for number in range(600):
        values = [numbers.random() for _ in directions]
        trials.append(create_trial(values=values))
        trials[-1].number = number
        signs = (1.0 if direction == "minimize" else -1.0 for direction in directions)
        selection.add(number, tuple(sign * value for sign, value in zip(signs, values, strict=True)))
    selected = [trial for trial in trials if trial.number in selection]
    among_all, among_selected = (_split_trials(study, some, 25)[0] for some in (trials, selected))
    assert [trial.number for trial in among_selected] == [trial.number for trial in among_all]


def test_what_is_forgotten_is_not_seen_and_what_is_withdrawn_was_never_there() -> None:
    history = History()
    study = optuna.create_study(storage=history, sampler=optuna.samplers.TPESampler(n_startup_trials=1, seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    history.forget(2)
    draft = study.ask()
    study.tell(draft, state=optuna.trial.TrialState.FAIL)
    history.withdraw()
    assert [trial.number for trial in study.get_trials()] == [0, 1, 3, 4]
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert study.get_trials()[-1].number == 5
    assert len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 5
