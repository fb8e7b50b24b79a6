"""Early stopping by halves: compared at equal epochs only, and the same after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tests.tune.searches import space_of
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.storage.ledger import Outcome

GO, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def halving(first: int, epochs: int, known: Sequence[Outcome] = (), images: int | None = None) -> SuccessiveHalving:
    lengths = f"search.warmup_epochs: {first}\nunet.epochs: {epochs}"
    return SuccessiveHalving(space_of("unet", f"{lengths}\nunet.width: {{choice: [8, 16]}}"), known, images)


def told(judge: SuccessiveHalving, trial: int, epoch: int, psd: float, **more: Any) -> str:
    result: dict[str, Any] = {"trial": trial, "epoch": epoch, "psd": psd}
    params = {f"unet.{name}": value for name, value in more.items() if name != "right"}
    known = {"right": more["right"]} if "right" in more else {}
    return judge.on_trial_result(None, SimpleNamespace(config={"params": params}), {**result, **known})


def test_the_worse_half_stops() -> None:
    judge = halving(first=2, epochs=8)
    assert told(judge, 0, 2, 0.5) == GO  # the first has nobody to be worse than
    assert told(judge, 1, 2, 0.4) == STOP
    assert told(judge, 2, 2, 0.6) == GO
    assert told(judge, 3, 2, 0.45) == STOP


@pytest.mark.parametrize("epoch", [1, 3, 8])
def test_there_is_no_decision_between_rungs_or_at_the_end(epoch: int) -> None:
    judge = halving(first=2, epochs=8)
    assert told(judge, 0, epoch, 0.9) == GO
    assert told(judge, 1, epoch, 0.1) == GO


def test_trials_are_compared_at_the_same_epoch() -> None:
    judge = halving(first=2, epochs=8)
    assert told(judge, 0, 4, 0.9) == GO
    assert told(judge, 1, 2, 0.1) == GO


def test_a_resumed_search_decides_as_the_undisturbed_one() -> None:
    undisturbed = halving(first=1, epochs=4)
    values = {0: (0.5, 0.6), 1: (0.4, 0.7), 2: (0.6, 0.5), 3: (0.55, 0.65)}
    decisions = [told(undisturbed, n, epoch, value[epoch - 1]) for n, value in values.items() for epoch in (1, 2)]
    known: list[Outcome] = []
    resumed = []
    for number, value in values.items():
        judge = halving(1, 4, known)  # the driver is new at every trial
        resumed += [told(judge, number, epoch, value[epoch - 1]) for epoch in (1, 2)]
        intermediate = {str(epoch): value[epoch - 1] for epoch in (1, 2)}
        known.append(Outcome(trial=number, status="pruned", params={}, intermediate=intermediate))
    assert resumed == decisions


def test_a_trial_that_runs_again_does_not_count_twice() -> None:
    judge = halving(first=1, epochs=4)
    for _ in range(5):
        assert told(judge, 0, 1, 0.9) == GO
    assert told(judge, 1, 1, 0.5) == STOP
    assert told(judge, 2, 1, 0.7) == GO  # the better half of two is one, of three two


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"epochs": 4}, {"epochs": 8}),  # of another length, an epoch is at another place of the learning rate's course
        ({"images": 100}, {"images": 200}),
        ({"images": 100}, {}),
        ({"first_images": 10}, {"first_images": 20}),
    ],
)
def test_only_equal_fidelities_are_compared(one: dict[str, int], other: dict[str, int]) -> None:
    judge = halving(first=1, epochs=8)
    assert told(judge, 0, 1, 0.9, **one) == GO
    assert told(judge, 1, 1, 0.5, **other) == GO
    assert told(judge, 2, 1, 0.4, **other) == STOP
    assert told(judge, 3, 1, 0.8, **one) == STOP
    params = {f"unet.{name}": value for name, value in one.items()}
    known = [Outcome(trial=0, status="finished", params=params, intermediate={"1": 0.9})]
    resumed = halving(1, 8, known)
    assert told(resumed, 1, 1, 0.5, **other) == GO
    assert told(resumed, 3, 1, 0.8, **one) == STOP


def test_each_length_has_its_rungs() -> None:
    judge = halving(first=2, epochs=8)
    for epochs in (2, 4):  # none is judged after its last epoch
        assert told(judge, 0, epochs, 0.9, epochs=epochs) == GO
        assert told(judge, 1, epochs, 0.1, epochs=epochs) == GO
    assert told(judge, 2, 2, 0.9, epochs=4) == GO
    assert told(judge, 3, 2, 0.1, epochs=4) == STOP


def test_a_result_without_the_metric_is_passed_over() -> None:
    judge = halving(first=1, epochs=4)
    trial = SimpleNamespace(config={"params": {}})
    assert judge.on_trial_result(None, trial, {"trial": 0, "epoch": 1}) == GO
    assert judge.on_trial_result(None, trial, {"trial": 0}) == GO


def test_the_noise_is_that_of_pairs_where_they_are_known() -> None:
    """Half a point below on 1,000 images: noise where other images are right, none where five fewer are."""
    first, nested, other = 2**900 - 1, 2**895 - 1, (2**895 - 1) << 100
    earlier = [Outcome(trial=0, status="finished", params={}, intermediate={"1": 0.9}, right={"1": f"{first:x}"})]
    for right, decision in ((nested, STOP), (other, GO)):
        undisturbed = halving(1, 4, images=1000)
        resumed = halving(1, 4, earlier, images=1000)
        assert told(undisturbed, 0, 1, 0.9, right=f"{first:x}") == GO
        for judge in (undisturbed, resumed):
            assert told(judge, 1, 1, right.bit_count() / 1000, right=f"{right:x}") == decision


def test_of_equals_it_does_not_matter_which_came_first() -> None:
    """A promoted trial comes to a rung after trials with higher numbers, which a resumed search learns by number."""
    nested, other, own = 2**900 - 1, (2**900 - 1) << 100, 2**895 - 1
    decisions = set()
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        judge = halving(1, 4, images=1000)
        for trial in order:
            told(judge, trial, 1, 0.9, right=f"{nested if trial == 1 else other:x}")
        decisions.add(told(judge, 3, 1, 0.895, right=f"{own:x}"))
    assert decisions == {STOP}


def test_what_is_within_the_noise_of_the_images_goes_on() -> None:
    judge = halving(first=1, epochs=4, images=1000)  # a standard error of 0.0095 at 0.9
    assert told(judge, 0, 1, 0.90) == GO
    assert told(judge, 1, 1, 0.895) == GO
    assert told(judge, 2, 1, 0.88) == STOP
    exact = halving(first=1, epochs=4)
    assert told(exact, 0, 1, 0.90) == GO
    assert told(exact, 1, 1, 0.895) == STOP
