"""Search spaces: what is read, from where, and what a command line may change."""

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest

from components.attacks import ATTACKS, Attack
from tests.tune.spaces import FULL, parse, refusal
from tune.space.config import ExperimentConfig, section_models
from tune.space.fields import leaves
from tune.space.ranges import Choice, Interval
from tune.space.space import SearchSpace, load_space, parse_space
from tune.space.strict_yaml import read_mapping, show

PACKAGED = (
    *("ablation", "ablation_encoder", "gan", "mnist", "projector"),
    *("published", "quickstart", "robust", "robust_quickstart", "shipped_gan", "smoke", "unet"),
)
RANGE = "projector.restarts: {choice: [1, 2]}\n"


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return parse(FULL)


# --- what is read


def test_fixed_fields_ranges_and_defaults(space: SearchSpace) -> None:
    assert space.fixed["search.trials"] == 12
    assert space.fixed["attack.epsilon"] == 0.3
    assert space.changed == {"search.trials": 12}
    assert set(space.fixed) | set(space.ranges) == {key for key, leaf in leaves().items() if leaf.belongs(space.fixed)}
    assert not set(space.fixed) & set(space.ranges)
    assert space.ranges["projector.restarts"] == Choice((4, 1, 2))
    assert space.ranges["projector.steps"] == Interval(10, 60, 10)
    assert space.ranges["unet.high_level_weight"] == Interval(0.01, 10.0, log=True)


def test_removed_fields_may_stand_at_the_value_that_did_nothing() -> None:
    retired = "projector.race_from: null\nprojector.race_factor: 1.5\nprojector.compile: false\n"
    assert parse(RANGE + retired) == parse(RANGE)


def test_it_is_frozen(space: SearchSpace) -> None:
    with pytest.raises(FrozenInstanceError):
        space.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        space.fixed["search.trials"] = 1  # type: ignore[index]


def test_it_pickles(space: SearchSpace) -> None:
    copy = pickle.loads(pickle.dumps(space))
    assert copy == space
    assert (copy.name, copy.source) == ("my", "my.yaml")


def test_line_order_does_not_matter(space: SearchSpace) -> None:
    turned = parse("\n".join(reversed(FULL.strip().splitlines())))
    assert turned == space
    assert list(turned.ranges) == list(space.ranges)


def test_numbers_and_truths_are_those_of_yaml_1_2() -> None:
    text = "a: 1e-4\nb: [1.5E+3, .5, 1., -0.0, 1_000, 1:30, 010, 0x1F, 0o17]\n"
    text += (
        "c: [on, off, yes, No, true, FALSE]\nd: [~, null, none]\ne: 2024-01-01\nf: '1e-4'\ng: \"true\"\nh:\n"
    )
    assert {key: entry.value for key, entry in read_mapping(text, "x").items()} == {
        "a": 1e-4,
        "b": [1500.0, 0.5, 1.0, 0.0, "1_000", "1:30", 10, 31, 15],
        "c": ["on", "off", "yes", "No", True, False],
        "d": [None, None, "none"],
        "e": "2024-01-01",
        "f": "1e-4",
        "g": "true",
        "h": None,
    }


def test_a_small_number_without_a_point_reaches_the_config() -> None:
    space = parse(RANGE + "unet.learning_rate: 1e-4\nunet.label_weight: 0\nattack.labels: true\n")
    config = space.config({"projector.restarts": 1})
    assert config.unet.learning_rate == 1e-4
    assert isinstance(config.unet.label_weight, float)
    assert config.attack.labels == "true"


# --- names and paths


def test_packaged_spaces_by_name() -> None:
    for name in PACKAGED:
        space = load_space(name)
        assert (space.name, space.source.endswith(f"search_spaces/{name}.yaml")) == (name, True)
        assert parse_space(space.to_yaml(), name, "space.yaml") == space


def test_what_the_packaged_spaces_promise() -> None:
    always = {"projector.restarts", "projector.steps", "unet.high_level_weight"}
    assert all(always <= set(load_space(name).ranges) for name in ("quickstart", "smoke", "mnist", "published"))
    targets = {name: load_space(name).fixed["search.target"] for name in PACKAGED}
    assert targets == {
        "ablation": "defense",
        "ablation_encoder": "defense",
        "gan": "gan",
        "mnist": "defense",
        "projector": "projection",
        "published": "defense",
        "robust": "defense",
        "robust_quickstart": "defense",
        "quickstart": "defense",
        "shipped_gan": "gan",
        "smoke": "defense",
        "unet": "unet",
    }


@pytest.mark.parametrize("name", PACKAGED)
def test_every_packaged_space_builds_what_it_suggests(name: str) -> None:
    space = load_space(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        params = space.suggest(study.ask())
        assert space.contains(params)
        assert isinstance(space.config(params), ExperimentConfig)


def test_a_path_works_and_is_named_as_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spaces" / "my.yaml"
    path.parent.mkdir()
    path.write_text("\ufeff" + FULL, encoding="utf-8")  # with the mark that some editors put first
    assert load_space(path) == parse(FULL)
    monkeypatch.chdir(tmp_path)
    assert load_space("spaces/my.yaml").source == "spaces/my.yaml"
    path.write_text("projector.restarts: 0\n")
    message = "projector.restarts: expected an integer ≥ 1 and ≤ 1000, found 0 (spaces/my.yaml, line 1)"
    assert refusal(lambda: load_space("spaces/my.yaml")) == message


def test_unknown_names_are_refused_with_those_there_are(tmp_path: Path) -> None:
    known = f"space: expected one of {', '.join(PACKAGED)}, or the path of a YAML file, found "
    assert refusal(lambda: load_space("quikstart")) == (
        f"{known}'quikstart', no such file or name; did you mean quickstart?"
    )
    assert refusal(lambda: load_space("")) == f"{known}'', a folder"
    assert refusal(lambda: load_space(tmp_path)).startswith(f"{known}'{tmp_path}', a folder")
    assert refusal(lambda: load_space("x" * 5000)).endswith("no such file or name")
    assert "did you mean smoke?" in refusal(lambda: load_space("elsewhere/smok.yaml"))


def test_a_space_that_is_none_is_named() -> None:
    text = "# no\u00a0harm here\nprojector.steps: {low: 1, high: 2}\nunet.epochs:\u00a02\n"
    assert "line 3 has U+00A0, no-break space: type a plain space" in refusal(lambda: parse_space(text, "a", "a.yaml"))


def test_a_name_in_capitals_is_known() -> None:
    text = "projector.steps: {low: 1, high: 2}\nUNET.EPOCHS: 2\n"
    assert "did you mean unet.epochs?" in refusal(lambda: parse_space(text, "a", "a.yaml"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_bytes(b"data.name: caf\xe9")
    assert refusal(lambda: load_space(path)) == (
        f"expected a readable YAML file, found bytes that are not UTF-8 text ({path})"
    )
    path.write_bytes("data.name: mnist".encode("utf-16"))
    assert "found UTF-16 text, as PowerShell writes; save it as UTF-8" in refusal(lambda: load_space(path))


# --- overrides


def test_overrides_win() -> None:
    space = parse(FULL, search__trials=3, projector__restarts=2)
    assert space.fixed["search.trials"] == 3
    assert space.fixed["projector.restarts"] == 2
    assert "projector.restarts" not in space.ranges


def test_an_override_settles_the_conditions_on_it() -> None:
    held = parse(FULL, projector__distance="insensitive")
    assert held.ranges["projector.tolerance"] == Interval(0.1, 0.4)
    assert "projector.tolerance" not in parse(FULL, projector__distance="l2").ranges


def test_a_refused_override_names_the_command_line() -> None:
    message = "search.trials: expected an integer ≥ 1 and ≤ 100000, found 0 (command line)"
    assert refusal(lambda: parse(FULL, search__trials=0)) == message
    assert refusal(lambda: parse(FULL, search__trails=3)) == (
        "search.trails: expected a field of the experiment, found an unknown key; "
        "did you mean search.trials? (command line)"
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classifier.architecture", "resnt18", "found 'resnt18'; did you mean resnet18?"),
        ("defense.purifier", "smooothing", "expected one of projector, smoothing, found 'smooothing'; did you mean sm"),
        ("gan.pretrained", "mnist2", "expected one of mnist, found 'mnist2'; did you mean mnist?"),
    ],
)
def test_a_name_that_is_none_is_blamed_where_it_stands(key: str, value: str, said: str) -> None:
    """By no validator of a model, which would speak of the whole section, but of the field's own type."""
    in_file = refusal(lambda: parse(f"{FULL}{key}: {value}\n"))
    given = refusal(lambda: parse(FULL, **{key: value}))
    assert said in in_file
    assert in_file.endswith("(my.yaml, line 9)")
    assert given == in_file.replace("my.yaml, line 9", "command line")
    for models in section_models().values():
        assert not any(model.__pydantic_decorators__.field_validators for model in models)


def test_settings_that_do_not_go_together_name_the_command_line_too() -> None:
    assert refusal(lambda: parse(FULL, projector__init="bank", projector__bank_size=3)).endswith(
        " (my.yaml and command line)"
    )
    assert refusal(lambda: parse(f"{FULL}projector.bank_size: 3\n", search__trials=3)).endswith(" (my.yaml)")
    space = parse(FULL, unet__width=8)
    assert [space.where(key) for key in ("unet.width", "unet.depth", "search.trials")] == [
        "command line", "my.yaml", "my.yaml, line 3",
    ]  # fmt: skip
    assert pickle.loads(pickle.dumps(space)).places == space.places


def test_a_space_of_before_a_field_was_removed_is_read() -> None:
    retired = [
        f"{section}.{name}: {show(value)}\n"
        for section, models in section_models().items()
        for model in models
        for name, value in model.retired.items()
    ]
    assert retired
    text = parse_space("projector.steps: {low: 1, high: 9}\n", "old", "old.yaml").to_yaml()
    old = parse_space(text + "".join(retired), "old", "old.yaml")
    assert old == parse_space(text, "old", "old.yaml")


def test_a_field_that_attacks_share_has_the_default_of_the_chosen_one() -> None:
    for name, steps in (("pgd", 40), ("apgd", 50)):
        space = parse_space(f"attack.name: {name}\nunet.width: {{choice: [4, 8]}}", "x", "x.yaml")
        assert space.fixed["attack.steps"] == steps
        assert space.config({"unet.width": 4}).attack == ATTACKS[name]()
        assert "attack.steps" not in space.changed
        assert parse_space(space.to_yaml(), "x", "x.yaml") == space


def test_a_plug_in_s_field_may_share_a_name_and_be_another_one() -> None:
    class Slow(Attack):
        name: Literal["slow"] = "slow"
        steps: float = 0.5  # of the way

        def perturb(self, classifier: Any, images: Any, labels: Any, seed: int = 0) -> Any:
            return images

    with ATTACKS.scope():
        ATTACKS.register("slow")(Slow)
        text = "attack.name: slow\nattack.steps: 0.25\nunet.width: {choice: [4, 8]}"
        space = parse_space(text, "x", "x.yaml")
        assert space.config({"unet.width": 4}).attack == Slow(steps=0.25)
        assert "attack.steps: 0.25  # of the way" in space.to_yaml()
