"""Search spaces: what is suggested, what a trial can take, and the space written and read back."""

from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from components.config import Config
from tests.tune.spaces import FULL, parse, refusal
from tune.space.config import section_models
from tune.space.fields import leaves
from tune.space.space import SearchSpace, SpaceError, parse_settings, parse_space
from tune.space.strict_yaml import read_mapping, show


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return parse(FULL)


# --- what is suggested


def test_a_condition_that_does_not_hold_leaves_the_parameter_out(space: SearchSpace) -> None:
    params = {
        "projector.restarts": 2,
        "projector.steps": 30,
        "unet.high_level_weight": 0.5,
        "projector.tolerance": 0.15,
    }
    off = space.suggest(FixedTrial({**params, "projector.distance": "l2"}))  # type: ignore[arg-type]
    on = space.suggest(FixedTrial({**params, "projector.distance": "insensitive"}))  # type: ignore[arg-type]
    assert "projector.tolerance" not in off
    assert on == {**params, "projector.distance": "insensitive"}
    assert space.config(off).projector.tolerance == leaves()["projector.tolerance"].default
    assert space.config(on).projector.tolerance == 0.15


def test_conditions_may_stand_on_conditions() -> None:
    space = parse(
        "projector.momentum: {low: 0, high: 0.9, when: {projector.optimizer: sgd}}\n"
        "projector.optimizer: {choice: [sgd, adam], when: {projector.init: random}}\n"
        "projector.init: {choice: [random, bank]}\n"
    )
    assert list(space.ranges) == ["projector.init", "projector.optimizer", "projector.momentum"]
    assert not space.applies(
        "projector.momentum", {"projector.init": "bank"}
    )  # the optimizer is adam by default
    assert space.applies("projector.momentum", {"projector.init": "random", "projector.optimizer": "sgd"})


def test_suggestions_follow_from_the_seed_alone(space: SearchSpace) -> None:
    def draw(space: SearchSpace) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=7))
        return [space.suggest(study.ask()) for _ in range(5)]

    turned = parse("\n".join(reversed(FULL.strip().splitlines())))
    assert draw(space) == draw(turned)


def test_stepped_numbers_are_the_decimals_of_the_file() -> None:
    space = parse("unet.label_weight: {low: 0.1, high: 0.7, step: 0.1}\n")
    assert space.values("unet.label_weight") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {space.suggest(study.ask())["unet.label_weight"] for _ in range(100)}
    assert drawn == set(space.values("unet.label_weight") or ())


def test_distributions_are_those_that_suggest_asks_for(space: SearchSpace) -> None:
    trial = optuna.create_study().ask()
    params = space.suggest(trial)
    assert trial.distributions == {key: space.distribution(key) for key in params}


def test_contains(space: SearchSpace) -> None:
    inside = {
        "projector.restarts": 2,
        "projector.steps": 30,
        "unet.high_level_weight": 0.5,
        "projector.distance": "l2",
    }
    assert space.contains(inside)
    assert not space.contains({**inside, "projector.steps": 35})
    assert not space.contains({**inside, "projector.steps": 30.0})
    assert not space.contains({**inside, "projector.tolerance": 0.2})
    assert not space.contains({**inside, "projector.distance": "huber"})
    assert not space.contains({**inside, "unet.width": 8})
    assert not space.contains({})


def test_bound_and_values(space: SearchSpace) -> None:
    assert [space.bound(key) for key in ("projector.restarts", "projector.steps", "unet.epochs")] == [
        4,
        60,
        leaves()["unet.epochs"].default,
    ]
    assert space.values("projector.restarts") == (1, 2, 4)
    assert space.values("projector.steps") == (10, 20, 30, 40, 50, 60)
    assert space.values("unet.high_level_weight") is None
    assert space.bound("unet.high_level_weight") == 10.0
    assert space.values("unet.epochs") == (leaves()["unet.epochs"].default,)
    assert space.values("projector.distance") == ("insensitive", "l2")


def test_the_default_counts_where_a_condition_can_leave_a_parameter_out() -> None:
    space = parse(
        "projector.init: {choice: [random, bank]}\n"
        "projector.restarts: {choice: [1, 2], when: {projector.init: random}}\n"
        "gan.learning_rate: {choice: [0.1, 0.2], when: {projector.init: random}}\n"
    )
    assert space.bound("projector.restarts") == 4
    assert space.values("projector.restarts") == (1, 2, 4)
    assert space.values("gan.learning_rate") == (None, 0.1, 0.2)
    assert space.bound("gan.learning_rate") == 0.2


def test_more_values_than_can_be_listed_are_continuous() -> None:
    space = parse("gan.steps: {low: 1, high: 1000000}\n")
    assert space.values("gan.steps") is None
    assert space.bound("gan.steps") == 1_000_000


def test_asking_for_what_is_not_there(space: SearchSpace) -> None:
    assert refusal(lambda: space.values("projector.step")) == (
        "projector.step: expected a field; did you mean projector.steps?"
    )
    assert refusal(lambda: space.bound("projector.distance")) == (
        "projector.distance: expected a field with numbers, found ('insensitive', 'l2') (my.yaml, line 7)"
    )
    assert refusal(lambda: space.config({"unet.width": 8})) == (
        "unet.width: expected a searched parameter, found another (my.yaml)"
    )
    assert refusal(lambda: space.config({"projector.restarts": 0})) == (
        "projector.restarts: expected an integer ≥ 1 and ≤ 1000, found 0 (my.yaml, line 4)"
    )


def test_config_builds_every_section(space: SearchSpace) -> None:
    config = space.config({"projector.steps": 20})
    assert config.projector.steps == 20
    assert config.search.trials == 12
    assert all(isinstance(getattr(config, name), Config) for name in section_models() if name not in config.others)


# --- written and read back


def test_the_resolved_space_is_plain_yaml_with_every_field(space: SearchSpace) -> None:
    text = space.to_yaml()
    assert parse_space(text, "other", "space.yaml") == space
    assert list(yaml.safe_load(text)) == [key for key, leaf in leaves().items() if leaf.belongs(space.fixed)]
    assert "projector.steps: {low: 10, high: 60, step: 10}  # " in text


texts = st.text(min_size=1).filter(lambda text: all(c.isprintable() or ord(c) < 0xD800 for c in text))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts


@given(st.dictionaries(texts, scalars | st.lists(scalars)))
def test_any_value_reads_back_as_it_was(values: dict[str, Any]) -> None:
    text = "".join(f"? {show(key)}\n: {show(value)}  # note\n" for key, value in values.items())
    read = {key: entry.value for key, entry in read_mapping(text or "{}", "x").items()}
    assert read == values
    assert [type(value) for value in read.values()] == [type(value) for value in values.values()]


weights = st.floats(0, 1e6, allow_subnormal=False)
pairs = st.tuples(weights, weights).map(sorted)
float_ranges = pairs.map(lambda ends: {"low": ends[0], "high": ends[1]}) | pairs.map(
    lambda ends: {"low": ends[0] + 1e-6, "high": ends[1] + 1e-6, "log": True}
)
int_ranges = st.tuples(st.integers(1, 20), st.integers(0, 40), st.integers(1, 3)).map(
    lambda drawn: {"low": drawn[0], "high": drawn[0] + drawn[1] * drawn[2], "step": drawn[2]}
)
choices = st.lists(st.sampled_from(["l2", "huber", "insensitive"]), min_size=2, unique=True)


@settings(deadline=None)  # the first example imports Optuna
@given(
    names=texts,
    steps=int_ranges,
    weight=float_ranges | weights,
    distances=choices,
    tolerance=st.floats(0, 1),
    target=st.sampled_from(["unet", "defense"]),
    seed=st.integers(0, 99),
)
def test_a_space_and_its_yaml_are_equal(
    names: str,
    steps: dict[str, int],
    weight: Any,
    distances: list[str],
    tolerance: float,
    target: str,
    seed: int,
) -> None:
    written = {
        "data.name": names,
        "search.target": target,
        "projector.steps": steps,
        "projector.restarts": {"choice": [1, 2]},
        "unet.high_level_weight": weight,
        "projector.distance": {"choice": distances},
        "projector.tolerance": {"low": 0.0, "high": tolerance, "when": {"projector.distance": distances[1:]}},
    }
    space = parse("".join(f"{key}: {show(value)}\n" for key, value in written.items()))
    assert parse(space.to_yaml()) == space
    assert parse_space(space.to_yaml(), "x", "x").to_yaml() == space.to_yaml()
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    params = space.suggest(trial)
    assert space.contains(params)
    assert space.config(params).data.name == names
    assert params.get("projector.steps") in (space.values("projector.steps") or ())


def test_points_are_held_to_the_fields_they_name() -> None:
    text = "unet.label_weight: {low: 0.0, high: 2.0}\nsearch.points: [{unet.label_weight: 1}, {}]\n"
    space = parse_space(text, "some", "some.yaml")
    assert space.fixed["search.points"] == ({"unet.label_weight": 1.0}, {})
    assert parse_space(space.to_yaml(), "same", "same.yaml") == space
    assert space.config({"unet.label_weight": 1.0}).search.points == space.fixed["search.points"]


def test_settings_of_the_command_line_are_yaml() -> None:
    assert parse_settings("unet.epochs: 2, unet.images: null") == {"unet.epochs": 2, "unet.images": None}
    assert parse_settings("{projector.steps: {choice: [1, 2]}}") == {"projector.steps": {"choice": [1, 2]}}
    assert parse_settings("unet.epochs: 2\nunet.width: 8  # of a file\n") == {"unet.epochs": 2, "unet.width": 8}
    with pytest.raises(SpaceError, match="--set"):
        parse_settings("unet.epochs: [2")
    with pytest.raises(SpaceError, match="write KEY: VALUE, and commas between several"):
        parse_settings("unet.epochs: 2; unet.width: 8")


def test_a_setting_in_quotes_twice_is_told_to_leave_them_out() -> None:
    with pytest.raises(SpaceError, match=r"--set: expected unet\.epochs: 2, found it in quotes of its own"):
        parse_settings("'unet.epochs: 2'")


@pytest.mark.parametrize("text", ["unet.epochs=2", "unet.epochs 2", "unet.epochs:2", "unet.epochs = 2, unet.width = 8"])
def test_a_setting_without_a_colon_is_shown_with_one(text: str) -> None:
    with pytest.raises(SpaceError, match=r"--set: expected a colon and a space .*, as in unet\.epochs: 2, found 'unet"):
        parse_settings(text)
