"""Every way to write a wrong search space, and the one message that each gets."""

import pytest

from tests.tune.spaces import parse, refusal
from tune.space.space import SpaceError, parse_space

RANGE = "projector.restarts: {choice: [1, 2]}\n"

TOLERANCE = (
    "projector.distance: {choice: [l2, insensitive]}\nprojector.tolerance: {low: 0.1, high: 0.2, when: %s}"
)

POINTS = "expected a list of mappings, such as [{projector.steps: 10}]"
BUDGET = "expected a duration above 0 and up to 365d in s, m (or min), h, d or w, such as 90s, 30m or 1.5h, or null"

# what is written: (the line that the message names, the message)
REFUSED = {
    # the file as a whole
    "": (None, "expected a mapping of dotted keys to values, found an empty file"),
    "# nothing\n": (None, "expected a mapping of dotted keys to values, found an empty file"),
    "- projector.steps\n": (None, "expected a mapping of dotted keys to values, found a list"),
    "projector.steps\n": (None, "expected a mapping of dotted keys to values, found projector.steps"),
    "a: 1\n---\nb: 2\n": (2, "not valid YAML: found another document"),
    "\tprojector.steps: 3": (1, "not valid YAML: a tab; indent with spaces"),
    "projector.steps:\n\tlow: 3": (2, "not valid YAML: a tab; indent with spaces"),
    "a: [1, 2": (1, "not valid YAML: expected ',' or ']', but got '<stream end>'"),
    "a: " + "[" * 3000: (None, "not valid YAML: brackets nested too deeply"),
    "a: \x00": (None, "not valid YAML: unacceptable character #x0000: special characters are not allowed"),
    "a: !!python/name:os.system": (
        1,
        (
            "not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'"
        ),
    ),
    "a: &x [1]\nb: *x\n": (2, "expected the value itself, found the alias *x"),
    "? [a, b]\n: 1\n": (1, "expected a key of one word, found a list or mapping"),
    "a: !!int x\n": (None, "not valid YAML: invalid literal for int() with base 10: 'x'"),
    # keys
    "projector.steps: 3\nprojector.steps: 4\n": (
        2,
        "projector.steps: expected once, found again (first on line 1)",
    ),
    "projector.steps: {low: 1, low: 2, high: 3}": (1, "low: expected once, found again (first on line 1)"),
    RANGE + "projector.step: 3": (
        2,
        (
            "projector.step: expected a field of the experiment, found an unknown key; did you mean "
            "projector.steps?"
        ),
    ),
    "projector.race_from: 3": (
        1, "projector.race_from: expected null, as this field was removed, found 3"
    ),
    "projector.compile: true": (
        1, "projector.compile: expected false, as this field was removed, found True"
    ),
    "steps: 3": (
        1,
        (
            "steps: expected a field of the experiment, found an unknown key; did you mean attack.steps or "
            "gan.steps or projector.steps or unet.steps?"
        ),
    ),
    "projector:\n  steps: 3\n": (
        1,
        "projector: expected dotted keys such as projector.restarts, found a whole section",
    ),
    "3: 4": (1, "3: expected a dotted key"),
    "on: 4": (1, "on: expected a field of the experiment, found an unknown key"),
    # how the search is done
    RANGE + "search.budget: 0": (2, f"search.budget: {BUDGET}, found 0"),
    RANGE + "search.budget: 0h": (2, f"search.budget: {BUDGET}, found '0h'"),
    RANGE + "search.budget: soon": (2, f"search.budget: {BUDGET}, found 'soon'"),
    RANGE + "search.patience: 0": (2, "search.patience: expected an integer ≥ 1 and ≤ 100000 or null, found 0"),
    RANGE + "search.patience: long": (2, "search.patience: expected an integer ≥ 1 and ≤ 100000 or null, found 'long'"),
    RANGE + "search.promotion: 1": (2, "search.promotion: expected true or false, found 1"),
    RANGE + "search.promotion: true\nsearch.target: gan": (
        2,
        "search.promotion: expected false where no U-Net is trained, found target gan",
    ),
    RANGE + "search.promotion: true\nsearch.early_stopping: false": (
        2,
        "search.promotion: expected search.early_stopping true beside it, found false",
    ),
    RANGE + "search.promotion: true\nsearch.objective: robust": (
        2,
        "search.promotion: expected search.objective psd, by which epochs are compared, found robust",
    ),
    RANGE + "search.promotion: true\nunet.epochs: {choice: [1, 2]}": (
        2,
        "search.promotion: expected unet.epochs above search.warmup_epochs (2), so that there is an epoch to be "
        "promoted from, found 2",
    ),
    RANGE + "search.sampler: best": (
        2,
        "search.sampler: expected one of 'tpe', 'gp', 'random', 'grid', 'nsga2', found 'best'",
    ),
    RANGE + "search.sampler: grid\nunet.high_level_weight: {low: 0.1, high: 1.0}": (
        2,
        "search.sampler: expected a step or a choice in every range for grid, found unet.high_level_weight without "
        "one; give it a step or a choice, or take sampler tpe",
    ),
    "search.sampler: grid\nprojector.steps: {low: 1, high: 5000}\nprojector.restarts: {low: 1, high: 5}": (
        1,
        "search.sampler: expected at most 10,000 points for grid, found 25,000; use tpe",
    ),
    "search.sampler: gp\n" + TOLERANCE % "{projector.distance: insensitive}": (
        1,
        "search.sampler: expected no range with a condition (when) for gp, found projector.tolerance with one; take "
        "sampler tpe",
    ),
    # fixed values
    "unet.width: 0": (1, "unet.width: expected an integer ≥ 1 and ≤ 1024, found 0"),
    "unet.width: 4.0": (1, "unet.width: expected an integer ≥ 1 and ≤ 1024, found 4.0"),
    "unet.width: '4'": (1, "unet.width: expected an integer ≥ 1 and ≤ 1024, found '4'"),
    "unet.width: true": (1, "unet.width: expected an integer ≥ 1 and ≤ 1024, found True"),
    "unet.width:": (1, "unet.width: expected an integer ≥ 1 and ≤ 1024, found nothing"),
    "unet.width: [8, 16]": (
        1,
        (
            "unet.width: expected an integer ≥ 1 and ≤ 1024, found [8, 16]; to search these, write "
            "{choice: [8, 16]}"
        ),
    ),
    RANGE + "unet.first_images: 1": (2, "unet.first_images: expected an integer ≥ 2 and ≤ 1e+08 or null, found 1"),
    "unet.label_weight: -1": (1, "unet.label_weight: expected a number ≥ 0, found -1"),
    "unet.label_weight: .nan": (1, "unet.label_weight: expected a number ≥ 0, found nan"),
    "unet.label_weight: 1e999": (1, "unet.label_weight: expected a number ≥ 0, found inf"),
    "data.name: 7": (1, "data.name: expected text, found 7"),
    "search.early_stopping: on": (1, "search.early_stopping: expected true or false, found 'on'"),
    "projector.distance: l1": (
        1,
        "projector.distance: expected one of 'l2', 'huber', 'insensitive', found 'l1'",
    ),
    # ranges
    "unet.width: {}": (1, "unet.width: expected {choice: [...]} or {low: ..., high: ...}, found {}"),
    "unet.width: {lo: 1, high: 2}": (
        1,
        (
            "unet.width: expected {choice: [...]} or {low: ..., high: ...}, found a field 'lo'; did you "
            "mean low?"
        ),
    ),
    "unet.width: {choice: [1], low: 2}": (
        1,
        "unet.width: expected {choice: [...]} or {low: ..., high: ...}, found both",
    ),
    "unet.width: {low: 1}": (1, "unet.width: expected both low and high, found no high"),
    "unet.width: {low: 8, high: 4}": (1, "unet.width: expected low ≤ high, found low 8 and high 4"),
    "unet.width: {low: 0, high: 4}": (1, "unet.width: low: expected an integer ≥ 1 and ≤ 1024, found 0"),
    "unet.width: {low: 1, high: 4.5}": (1, "unet.width: high: expected an integer ≥ 1 and ≤ 1024, found 4.5"),
    "gan.learning_rate: {low: null, high: 1}": (
        1,
        "gan.learning_rate: low: expected a number, found nothing",
    ),
    "gan.steps: {low: 1, high: 99999999999999999999}": (
        1,
        "gan.steps: high: expected an integer ≥ 1 and ≤ 1e+07, found 99999999999999999999",
    ),
    RANGE + "search.budget: 400d": (2, f"search.budget: {BUDGET}, found '400d'"),
    "unet.width: {choice: []}": (1, "unet.width: choice: expected at least one value, found none"),
    "unet.width: {choice: 3}": (1, "unet.width: choice: expected a list of values, found 3"),
    "unet.width: {choice: [8, 16, 8]}": (1, "unet.width: choice: expected each value once, found 8 twice"),
    "unet.label_weight: {choice: [1, 1.0]}": (
        1,
        "unet.label_weight: choice: expected each value once, found 1.0 twice",
    ),
    "unet.width: {choice: [8, [16]]}": (
        1,
        "unet.width: choice: expected an integer ≥ 1 and ≤ 1024, found [16]",
    ),
    "unet.norm: {low: l1, high: l2}": (
        1,
        "unet.norm: expected {choice: [...]} of one of 'l1', 'l2', found low and high",
    ),
    "unet.label_weight: {low: 0, high: 1, log: true}": (
        1,
        "unet.label_weight: expected low > 0 with log: true, found low 0.0",
    ),
    "unet.label_weight: {low: 0.1, high: 1, log: on}": (
        1,
        "unet.label_weight: log: expected true or false, found 'on'",
    ),
    "unet.width: {low: 1, high: 9, log: true, step: 2}": (
        1,
        "unet.width: expected step or log: true, found both",
    ),
    "unet.width: {low: 1, high: 9, step: 3}": (
        1,
        "unet.width: step: expected one that divides high − low (8), found 3",
    ),
    "unet.width: {low: 1, high: 9, step: 0}": (1, "unet.width: step: expected an integer ≥ 1, found 0"),
    "unet.label_weight: {low: 0, high: 1, step: 0.3}": (
        1,
        "unet.label_weight: step: expected one that divides high − low (1.0), found 0.3",
    ),
    "unet.label_weight: {low: 0, high: 1, step: -0.5}": (
        1,
        "unet.label_weight: step: expected a number > 0, found -0.5",
    ),
    # conditions
    "projector.steps: {low: 1, high: 9}\nsearch.points: [{projector.step: 3}]\n": (
        2,
        "search.points: expected searched parameters, found projector.step, another field; did you mean "
        "projector.steps?",
    ),
    "projector.steps: {low: 1, high: 9}\nsearch.points: [{projector.steps: 10}]\n": (
        2,
        "search.points: projector.steps: expected a value it can take, 1 to 9, found 10",
    ),
    "projector.steps: {low: 1, high: 9}\nsearch.points: [{projector.steps: few}]\n": (
        2,
        "search.points: projector.steps: expected an integer ≥ 1 and ≤ 100000, found 'few'",
    ),
    "projector.steps: {low: 1, high: 9}\nsearch.points: 3\n": (2, f"search.points: {POINTS}, found 3"),
    "projector.steps: {low: 1, high: 9}\nsearch.points: [a]\n": (2, f"search.points: {POINTS}, found ['a']"),
    "projector.steps: {low: 1, high: 9}\nsearch.points: {projector.steps: 10}\n": (
        2,
        f"search.points: {POINTS}, found {{'projector.steps': 10}}",
    ),
    RANGE + "search.trials: [3, 9]": (2, "search.trials: expected an integer ≥ 1 and ≤ 100000, found [3, 9]"),
    RANGE + "data.name: {name: mnist}": (2, "data.name: expected text, found {'name': 'mnist'}"),
    TOLERANCE % "insensitive": (
        2,
        "projector.tolerance: when: expected {other.key: value}, found 'insensitive'",
    ),
    TOLERANCE % "{projector.distance: []}": (
        2,
        "projector.tolerance: when: expected at least one value, found an empty list",
    ),
    TOLERANCE % "{projector.distance: huber}": (
        2,
        (
            "projector.tolerance: when: projector.distance: expected a value it can take, one of l2, "
            "insensitive, found 'huber'"
        ),
    ),
    TOLERANCE % "{projector.distance: l1}": (
        2,
        (
            "projector.tolerance: when: projector.distance: expected one of 'l2', 'huber', "
            "'insensitive', found 'l1'"
        ),
    ),
    TOLERANCE % "{projector.init: bank}": (
        2,
        "projector.tolerance: when: expected a searched parameter, found projector.init, a fixed one",
    ),
    TOLERANCE % "{projector.distanc: l2}": (
        2,
        (
            "projector.tolerance: when: expected a searched parameter, found projector.distanc, an "
            "unknown key; did you mean projector.distance?"
        ),
    ),
    TOLERANCE % "{projector.tolerance: 0.1}": (
        2,
        "projector.tolerance: when: expected another parameter, found itself",
    ),
    "unet.label_weight: {low: 0, high: 1}\nunet.width: {choice: [1, 2], when: {unet.label_weight: 0.5}}": (
        2,
        (
            "unet.width: when: expected a parameter that takes few values, found unet.label_weight, a "
            "continuous one"
        ),
    ),
    "unet.width: {choice: [4, 8], when: {unet.depth: 1}}\n"
    "unet.depth: {low: 1, high: 2, when: {unet.width: 4}}": (
        2,
        "unet.depth: when: expected no circle, found one through unet.depth and unet.width",
    ),
    # the search
    "search.trials: 3": (
        None,
        (
            "expected at least one parameter with a range, such as projector.steps: {low: 10, high: 60}, "
            "found nothing to search"
        ),
    ),
    "unet.width: {choice: [8]}\nunet.depth: {low: 2, high: 2}": (
        None,
        (
            "expected at least one parameter with a range, such as projector.steps: {low: 10, high: 60}, "
            "found nothing to search"
        ),
    ),
    "search.seed: {low: 0, high: 9}": (
        1,
        "search.seed: expected one value, found a range: the search cannot search itself",
    ),
    "attack.epsilon: {low: 0, high: 0.3}": (
        1,
        (
            "attack.epsilon: expected one value, found a range: results under different attacks cannot "
            "be compared"
        ),
    ),
    "search.target: gan\nunet.width: {choice: [8, 16]}": (
        2,
        "unet.width: expected a parameter that target gan depends on, found one behind it",
    ),
    "search.max_cost: 9\nprojector.restarts: {choice: [4, 2]}\nprojector.steps: {low: 5, high: 20}": (
        1,
        "search.max_cost: expected at least 10, the smallest projector.restarts × projector.steps, found 9",
    ),
    "search.cost_aware: true\nsearch.sampler: grid\nunet.width: {choice: [8, 16]}": (
        1,
        "search.cost_aware: expected false for sampler grid, whose order is drawn, found true",
    ),
    "projector.distance: {choice: [l2, insensitive]}\n"
    "projector.tolerance: {low: 0.1, high: 0.4, when: {projector.distance: insensitive}}\n"
    "search.points: [{projector.distance: l2, projector.tolerance: 0.2}]": (
        3,
        "search.points: expected projector.tolerance only beside projector.distance insensitive, found it beside l2",
    ),
    "search.target: unet\nsearch.max_cost: 9\nunet.width: {choice: [8, 16]}": (
        2,
        "search.max_cost: expected none for target unet, whose trials are not judged by cost",
    ),
    # fields that are fine by themselves
    "projector.bank_size: 3\nprojector.restarts: {choice: [1, 4]}": (
        None,
        "projector: bank_size: expected at least restarts (4), found 3, with projector.restarts: 4",
    ),
    "projector.bank_size: {choice: [2, 8]}\nprojector.restarts: {low: 1, high: 4}": (
        None,
        (
            "projector: bank_size: expected at least restarts (4), found 2, with projector.bank_size: 2, "
            "projector.restarts: 4"
        ),
    ),
    RANGE + "unet.first_images: 500\nunet.images: {choice: [400, 800]}": (
        None,
        "unet: first_images: expected at most images (400), found 500, with projector.restarts: 1, unet.images: 400",
    ),
    RANGE + "unet.first_images: 500\nunet.epochs: 1": (
        None,
        "unet: first_images: expected null for a single epoch, found 500, with projector.restarts: 1",
    ),
    RANGE + "unet.first_images: 500\nunet.training: adaptive": (
        None,
        "unet: first_images: expected null for training adaptive, found 500, with projector.restarts: 1",
    ),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:60])
def test_refused(text: str) -> None:
    line, message = REFUSED[text]
    place = "my.yaml" if line is None else f"my.yaml, line {line}"
    assert refusal(lambda: parse(text)) == f"{message} ({place})"


def test_a_search_that_has_begun_is_not_refused_for_what_is_checked_since() -> None:
    ranges = "projector.restarts: {choice: [2, 4]}\nprojector.steps: {choice: [10, 20]}\n"
    for text in (f"{ranges}search.max_cost: 5", f"{ranges}search.sampler: grid\nsearch.cost_aware: true"):
        with pytest.raises(SpaceError):
            parse(text)
        assert parse_space(text, "mine", "space.yaml", stored=True).ranges
    unet = "search.target: unet\nsearch.max_cost: 9\nunet.width: {choice: [8, 16]}"
    with pytest.raises(SpaceError, match="whose trials are not judged by cost"):  # no search has begun with that
        parse_space(unet, "mine", "space.yaml", stored=True)
