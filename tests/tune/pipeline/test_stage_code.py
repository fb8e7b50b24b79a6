"""A stage whose code changed must say whether its results did: its version, or a digest that somebody renewed."""

import copy
import json

import pytest

from tests.tune.pipeline.stage_code import FILE, Record, changes, code_of, current, digest, parsed

ADVICE = """
Where results change with it, raise `version` of the stage's class in tune/pipeline: what the store holds of it is then
built again. Then, or where results stay the same to the bit (a message, a name, a faster way), write the code down:

    make stage-code
"""


@pytest.fixture(scope="module")
def found() -> Record:
    return current()


def test_code_that_changed_has_another_version(found: Record) -> None:
    told = changes(json.loads(FILE.read_text()), found)
    assert not told, "\n".join(["a stage's code is not what tests/tune/pipeline/stage_code.json says", *told, ADVICE])


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("attack", "components.attacks.pgd.PGD"),  # by the registry
        ("classifier", "components.classifiers.defense_gan.ARCHITECTURES"),  # a constant
        ("gan", "components.gan.training.GanTraining"),
        ("projection", "components.projector.descent.huber"),  # in a table of functions
        ("projection_train", "tune.pipeline.projection.ProjectionStage.build"),
        ("score_unet", "tune.pipeline.smoothing.SmoothingStages"),  # as any purifier
        ("unet", "components.adversarial_training.AdversarialTraining"),  # by a module's name
        ("unet", "components.unet.config.UNetConfig"),  # its defaults are no part of a signature
        ("unet", "components.weights.load_weights"),
    ],
)
def test_what_a_result_follows_from_is_reached(stage: str, name: str) -> None:
    assert name in code_of(stage)


def test_what_it_does_not_follow_from_is_not_reached() -> None:
    code = code_of("classifier")
    assert not [name for name in code if name.startswith(("components.gan", "components.projector", "components.unet"))]
    assert "tune.pipeline.classifier.ClassifierStage.seconds" not in code


def test_a_change_is_told_by_stage_and_name(found: Record) -> None:
    before = copy.deepcopy(found)
    before["definitions"]["components.attacks.pgd.PGD"] = "another"
    before["stages"]["attack"]["code"] = "another"
    before["stages"]["gan"]["version"] = 1
    assert changes(before, found) == [
        f"attack: version {found['stages']['attack']['version']} as before, but changed: components.attacks.pgd.PGD",
        f"gan: expected version 1, found {found['stages']['gan']['version']}",
    ]


WITHOUT = '''
def f(x):
    return 2 * x
class C:
    size = 3
'''
WITH = '''
def f(x: int) -> int:
    """Doubles."""
    if x < 0:
        raise ValueError(f"expected x ≥ 0, found {x}")
    assert x < 9
    return 2 * x  # twice
class C:
    """A class."""

    size: int = 3
'''


def of(text: str) -> str:
    return digest(parsed(text).body)


def test_words_types_and_refusals_are_no_code() -> None:
    assert of(WITHOUT.replace("size = 3", "size: int = 3")) == of(WITH)


@pytest.mark.parametrize(("old", "new"), [("2", "2.0"), ("3", "4"), ("x):", "x, y=0):"), ("2 * x", "x * 2")])
def test_a_constant_or_an_order_is_code(old: str, new: str) -> None:
    assert of(WITHOUT.replace(old, new)) != of(WITHOUT)
