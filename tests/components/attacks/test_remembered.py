"""Remembered answers: the same attacks with fewer questions, and none where an answer follows from more than levels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from components.attacks import remembered
from components.attacks.adaptive import evaluate_defense, plan
from components.attacks.apgd import APGD
from components.attacks.campaign import Campaign
from components.attacks.losses import TargetedDLR, input_gradient, log_odds, margin
from components.attacks.presets import PRESETS
from components.attacks.remembered import Remembered, answers_of, gradients_of, grey_of
from components.attacks.square import Square
from components.attacks.target import Part, Target, target_of
from components.defense import Defense
from components.purifiers import Surrogates
from tests.tiny_networks import defense_of

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
LABELS = torch.arange(8) % 4
ROWS = torch.arange(8)


def defense(**settings: Any) -> Defense:
    """In double precision: in single, an answer differs in its last digit by the images that are asked beside it."""
    return defense_of(**{"init": "encoder", "levels": 2, "restarts": 1, **settings}).double()


@contextmanager
def counted(whole: Defense) -> Iterator[list[int]]:
    """The number of images of each pass through the classifier."""
    passes = list[int]()
    hook = whole.classifier.register_forward_hook(lambda _, __, logits: passes.append(len(logits)))
    yield passes
    hook.remove()


@contextmanager
def forgetting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(remembered, "grey_of", lambda _: None)
        patch.setattr("components.attacks.target.grey_of", lambda _: None)
        yield


@pytest.mark.parametrize("loss", [log_odds, TargetedDLR(LABELS.flip(0))], ids=["ce", "targeted"])
@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("squeezing", ["straight_through", "sigmoid"])
@pytest.mark.parametrize("descent", ["encoder", "unrolled"])
def test_a_remembered_gradient_is_that_of_the_model(loss: Any, levels: int, squeezing: Any, descent: Any) -> None:
    """Asked in another order, about images of the same levels, it is found without asking."""
    whole = defense(levels=levels, threshold=0.4 if levels == 3 else None)
    view = Part(whole, "defense", Surrogates(squeezing, descent, exact=False))
    gradients = gradients_of(view, LABELS, loss)
    gradients(IMAGES, ROWS)
    grey = view.grey
    assert grey is not None
    other = (IMAGES + 0.002).clamp(max=1)  # of the same levels, but where the surrogate may be steeper
    same = torch.tensor([one == two for one, two in zip(grey.keys(IMAGES), grey.keys(other), strict=True)])
    other, rows = other[same].flip(0), ROWS[same].flip(0)
    assert len(rows) >= 4
    with counted(whole) as passes:
        found = gradients(other, rows)
        assert not passes
    towards = TargetedDLR(loss.targets[rows]) if isinstance(loss, TargetedDLR) else loss
    for one, expected in zip(found, input_gradient(view, other, LABELS[rows], towards), strict=True):
        torch.testing.assert_close(one, expected)


def test_an_answer_of_one_row_is_not_given_to_another() -> None:
    """Labels differ where levels are the same; logits follow from the levels alone."""
    view = next(iter(target_of(defense()).views.values()))
    images = IMAGES[:1].repeat(8, 1, 1, 1)
    gradient, _ = gradients_of(view, LABELS, margin)(images, ROWS)
    torch.testing.assert_close(gradient, input_gradient(view, images, LABELS, margin)[0])
    assert not torch.equal(gradient[0], gradient[1])
    answers = answers_of(view)
    torch.testing.assert_close(answers(images), view(images).detach())


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_apgd_finds_the_same_and_asks_less(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = defense()
    view = next(iter(target_of(whole).views.values()))
    config, found, asked = APGD(epsilon=0.3, steps=40, loss=loss, restarts=2), [], []
    for with_memory in (True, False):
        with counted(whole) as passes:
            if with_memory:
                found.append(config.perturb(view, IMAGES, LABELS))
            else:
                with forgetting(monkeypatch):
                    found.append(config.perturb(view, IMAGES, LABELS))
        asked.append(sum(passes))
    torch.testing.assert_close(found[0], found[1])
    assert asked[0] < 0.9 * asked[1]


def test_all_attacks_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    preset = PRESETS["standard"].model_copy(
        update={"steps": 8, "transfer_steps": 5, "square": 60, "blocks": 60, "climb": 60, "greedy": 8, "seeds": 1}
    )

    def campaign() -> tuple[Campaign, int]:
        whole = defense()
        labels = whole(IMAGES).argmax(1)
        made = Campaign(target_of(whole), IMAGES, labels, 0.3, 0, lambda _: None)
        with counted(whole) as passes:
            made.make_all(list(plan(made, preset)))
        return made, sum(passes)

    with_memory, fewer = campaign()
    with forgetting(monkeypatch):
        without, more = campaign()
    assert torch.equal(with_memory.stands, without.stands)
    assert [(row.name, row.right, row.seeds) for row in with_memory.rows] == [
        (row.name, row.right, row.seeds) for row in without.rows
    ]
    assert fewer < 0.8 * more


@pytest.mark.parametrize(
    ("part", "levels"),
    [
        (lambda: Part(defense(), "defense"), 2),
        (lambda: Part(defense(levels=None), "threshold"), 2),
        (lambda: Part(defense(levels=4), "gan"), 4),
        (lambda: Part(defense(), "classifier"), None),
        (lambda: Part(defense(levels=None), "defense"), None),
        (lambda: Part(defense_of(reads="both", init="encoder", levels=2), "defense"), None),
        (lambda: Part(defense_of(reads="both", init="encoder", levels=2), "gan"), 2),
    ],
    ids=["whole", "plain threshold", "GAN", "classifier", "no levels", "U-Net reads the image", "GAN of such"],
)
def test_only_what_sees_levels_alone_is_remembered(part: Callable[[], Part], levels: int | None) -> None:
    grey = grey_of(part())
    assert (None if grey is None else grey.levels) == levels


def test_a_random_model_is_asked_every_time() -> None:
    whole = defense()
    drawn: Target = target_of(whole)
    whole.classifier.forward = lambda images: torch.rand(len(images), 4)  # type: ignore[method-assign]
    from components.attacks.target import with_draws

    answers = with_draws(drawn, IMAGES, 3).remembering()
    assert not torch.equal(answers(IMAGES), answers(IMAGES))


def test_a_query_that_shows_nothing_new_is_not_asked() -> None:
    """Of squares most change no level."""
    whole = defense()
    target = target_of(whole)
    with counted(whole) as passes:
        made = Square(queries=100).perturb(target.remembering(), IMAGES, LABELS)
    plain = Square(queries=100).perturb(target.model, IMAGES, LABELS)
    torch.testing.assert_close(margin(target.judge(made), LABELS), margin(target.judge(plain), LABELS))
    assert sum(passes) < 0.8 * 100 * len(IMAGES)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    grey, asked = Part(defense(), "defense").grey, list[int]()

    def ask(images: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        asked.append(len(images))
        return (images.flatten(1).sum(1).float(),)

    monkeypatch.setattr(remembered, "_MOST", 8 * 4 - 1)  # bytes: fewer than eight answers
    asking = Remembered(ask, grey, by_row=False)
    for _ in range(3):
        (answers,) = asking(IMAGES, ROWS)
        torch.testing.assert_close(answers, IMAGES.flatten(1).sum(1).float())
    assert asked == [8, 8, 8]


def test_nothing_is_asked_about_no_images() -> None:
    whole = defense()
    found = evaluate_defense(whole, IMAGES[:1], (whole(IMAGES[:1]).argmax(1) + 1) % 4, preset="quick", curves=False)
    assert found.clean == 0
