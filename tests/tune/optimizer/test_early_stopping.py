"""Early stopping by halves: compared at equal epochs only, and the same after a resume."""

from __future__ import annotations

from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tune.optimizer.early_stopping import SuccessiveHalving
from tune.storage.ledger import Outcome

GO, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def told(halving: SuccessiveHalving, trial: int, epoch: int, psd: float) -> str:
    result: dict[str, Any] = {"trial": trial, "epoch": epoch, "psd": psd}
    return halving.on_trial_result(None, None, result)


def test_the_worse_half_stops() -> None:
    halving = SuccessiveHalving("psd", first=2, epochs=8)
    assert told(halving, 0, 2, 0.5) == GO  # the first has nobody to be worse than
    assert told(halving, 1, 2, 0.4) == STOP
    assert told(halving, 2, 2, 0.6) == GO
    assert told(halving, 3, 2, 0.45) == STOP


@pytest.mark.parametrize("epoch", [1, 3, 8])
def test_there_is_no_decision_between_rungs_or_at_the_end(epoch: int) -> None:
    halving = SuccessiveHalving("psd", first=2, epochs=8)
    assert told(halving, 0, epoch, 0.9) == GO
    assert told(halving, 1, epoch, 0.1) == GO


def test_trials_are_compared_at_the_same_epoch() -> None:
    halving = SuccessiveHalving("psd", first=2, epochs=8)
    assert told(halving, 0, 4, 0.9) == GO
    assert told(halving, 1, 2, 0.1) == GO


def test_a_resumed_search_decides_as_the_undisturbed_one() -> None:
    undisturbed = SuccessiveHalving("psd", first=1, epochs=4)
    values = {0: (0.5, 0.6), 1: (0.4, 0.7), 2: (0.6, 0.5), 3: (0.55, 0.65)}
    decisions = [told(undisturbed, n, epoch, value[epoch - 1]) for n, value in values.items() for epoch in (1, 2)]
    known: list[Outcome] = []
    resumed = []
    for number, value in values.items():
        halving = SuccessiveHalving("psd", 1, 4, known)  # the driver is new at every trial
        resumed += [told(halving, number, epoch, value[epoch - 1]) for epoch in (1, 2)]
        intermediate = {str(epoch): value[epoch - 1] for epoch in (1, 2)}
        known.append(Outcome(trial=number, status="pruned", params={}, intermediate=intermediate))
    assert resumed == decisions


def test_a_trial_that_runs_again_does_not_count_twice() -> None:
    halving = SuccessiveHalving("psd", first=1, epochs=4)
    for _ in range(5):
        assert told(halving, 0, 1, 0.9) == GO
    assert told(halving, 1, 1, 0.5) == STOP
    assert told(halving, 2, 1, 0.7) == GO  # the better half of two is one, of three two


def test_a_result_without_the_metric_is_passed_over() -> None:
    halving = SuccessiveHalving("psd", first=1, epochs=4)
    assert halving.on_trial_result(None, None, {"trial": 0, "epoch": 1}) == GO
    assert halving.on_trial_result(None, None, {"trial": 0}) == GO


def test_the_noise_is_that_of_pairs_where_they_are_known() -> None:
    """Half a point below on 1,000 images: noise where other images are right, none where five fewer are."""
    first, nested, other = 2**900 - 1, 2**895 - 1, (2**895 - 1) << 100
    earlier = [Outcome(trial=0, status="finished", params={}, intermediate={"1": 0.9}, right={"1": f"{first:x}"})]
    for right, decision in ((nested, STOP), (other, GO)):
        undisturbed = SuccessiveHalving("psd", 1, 4, images=1000)
        resumed = SuccessiveHalving("psd", 1, 4, earlier, images=1000)
        one, two = (
            {"trial": number, "epoch": 1, "psd": bits.bit_count() / 1000, "right": f"{bits:x}"}
            for number, bits in enumerate((first, right))
        )
        assert undisturbed.on_trial_result(None, None, one) == GO
        assert undisturbed.on_trial_result(None, None, two) == decision
        assert resumed.on_trial_result(None, None, two) == decision


def test_what_is_within_the_noise_of_the_images_goes_on() -> None:
    halving = SuccessiveHalving("psd", first=1, epochs=4, images=1000)  # a standard error of 0.0095 at 0.9
    assert told(halving, 0, 1, 0.90) == GO
    assert told(halving, 1, 1, 0.895) == GO
    assert told(halving, 2, 1, 0.88) == STOP
    exact = SuccessiveHalving("psd", first=1, epochs=4)
    assert told(exact, 0, 1, 0.90) == GO
    assert told(exact, 1, 1, 0.895) == STOP
