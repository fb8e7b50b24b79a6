"""The configuration: defaults, documentation, objectives, and the README's table of fields."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tune.metrics import Target
from tune.space.config import OBJECTIVES, ExperimentConfig, SearchConfig, section_models
from tune.space.fields import Leaf, field_comments, leaves, with_table

README = Path(__file__).parents[3] / "search_spaces" / "README.md"


def test_every_default_is_valid() -> None:
    config = ExperimentConfig()
    known = {"data", "classifier", "attack", "gan", "projector", "unet", "defense", "search"}
    assert set(section_models()) >= known
    for leaf in leaves().values():
        section, name = leaf.key.split(".")
        if section in known and leaf.variants is None:
            assert getattr(config.section(section), name) == leaf.default
        assert leaf.check(leaf.default) == leaf.default


def test_config_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ExperimentConfig().search.trials = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        SearchConfig(trails=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trials", 0),
        ("trials", 1.0),
        ("trials", True),
        ("trials", "3"),
        ("retrain_seeds", 0),
        ("seed", -1),
        ("max_cost", 0),
        ("target", "attack"),
        ("early_stopping", 1),
    ],
)
def test_search_refuses(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        SearchConfig.model_validate({name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


def test_every_target_has_objectives() -> None:
    targets = SearchConfig.model_fields["target"].annotation
    assert targets == Target
    assert {target: list(metrics.items()) for target, metrics in OBJECTIVES.items()} == {
        "gan": [("clean_gan", "max")],
        "projection": [("psd_gan", "max"), ("cost", "min")],
        "unet": [("psd", "max")],
        "defense": [("psd", "max"), ("cost", "min")],
    }


def test_objectives_need_no_torch() -> None:
    code = "import sys, tune.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=README.parents[1]).returncode == 0


@pytest.mark.parametrize("leaf", leaves().values(), ids=lambda leaf: leaf.key)
def test_every_field_is_documented(leaf: Leaf) -> None:
    assert leaf.comment, f"{leaf.key}: expected a comment behind the field, which is its documentation"
    assert "section of settings" not in leaf.expected


def test_every_whole_number_has_an_end() -> None:
    """A slip of the finger, such as 10**12 epochs, would begin a search that never ends."""
    whole = [leaf for leaf in leaves().values() if leaf.number is int]
    assert len(whole) > 30
    assert [leaf.key for leaf in whole if "≤" not in leaf.expected and "<" not in leaf.expected] == []


def test_field_comments_are_read_from_the_source() -> None:
    assert field_comments(SearchConfig)["trials"] == "configurations to try"


def test_the_readme_has_every_field() -> None:
    readme = README.read_text(encoding="utf-8")
    assert readme == with_table(readme), "out of date: run python -m tune.space.fields"


def test_a_check_returns_the_value_as_the_field_holds_it() -> None:
    assert repr(leaves()["attack.epsilon"].check(1)) == "1.0"
    assert leaves()["search.max_cost"].check(None) is None


def test_a_boolean_means_the_option_of_its_name() -> None:
    """`attack.labels: true` reads as a boolean, and can only mean the option "true"."""
    assert leaves()["attack.labels"].check(True) == "true"
    with pytest.raises(ValueError, match="expected one of 'true', 'predicted', found False"):
        leaves()["attack.labels"].check(False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.3", None, True, [0.3], 10**400])
def test_a_number_is_finite_and_not_something_like_it(value: object) -> None:
    with pytest.raises(ValueError, match="expected a number ≥ 0 and ≤ 1, found "):
        leaves()["attack.epsilon"].check(value)
