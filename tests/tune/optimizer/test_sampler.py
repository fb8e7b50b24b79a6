"""The first points of a search cover its space, and every value that is drawn lies in its range."""

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tune.optimizer.sampler import at, spread


@given(share=st.floats(0, 1, exclude_max=True))
def test_every_share_of_a_range_is_in_it(share: float) -> None:
    kinds = (
        CategoricalDistribution(("l2", "huber", None)),
        IntDistribution(1, 7),
        IntDistribution(10, 60, step=10),
        IntDistribution(4, 64, log=True),
        FloatDistribution(-1.0, 2.0),
        FloatDistribution(0.1, 0.4, step=0.1),
        FloatDistribution(1e-3, 10.0, log=True),
        FloatDistribution(0.5, 0.5),
    )
    for kind in kinds:
        value = at(kind, share)
        optuna.trial.create_trial(params={"x": value}, distributions={"x": kind}, value=0.0)
        assert type(value) is type(kind.to_external_repr(kind.to_internal_repr(value)))


@pytest.mark.parametrize("kind", [IntDistribution(1, 4), IntDistribution(10, 40, step=10)])
def test_every_whole_number_has_its_share(kind: IntDistribution) -> None:
    values = [at(kind, index / 400) for index in range(400)]
    assert {value: values.count(value) for value in set(values)} == {at(kind, q / 4): 100 for q in range(4)}


@given(points=st.integers(1, 12), dimensions=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_first_points_are_a_latin_hypercube(points: int, dimensions: int, seed: int) -> None:
    cube = spread(points, dimensions, seed)
    assert cube.shape == (points, dimensions)
    for column in cube.T:
        assert sorted((column * points).astype(int)) == list(range(points))
    assert np.array_equal(cube, spread(points, dimensions, seed))




def test_many_first_points_take_no_gigabytes() -> None:
    cube = spread(20_000, 3, 0)
    assert sorted((cube[:, 1] * 20_000).astype(int)) == list(range(20_000))
