"""Attacks through a defense: in the ball, judged by the real one, worst case per image, and flagged where in doubt."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from components.attacks import bits
from components.attacks.adaptive import evaluate_defense, plan
from components.attacks.apgd import APGD
from components.attacks.bpda import BPDA
from components.attacks.campaign import Campaign
from components.attacks.climb import climb
from components.attacks.eot import EOT
from components.attacks.fgsm import FGSM
from components.attacks.losses import TargetedDLR, cross_entropy, dlr, input_gradient, log_odds, margin
from components.attacks.pgd import PGD
from components.attacks.presets import PRESETS
from components.attacks.target import Target, target_of
from components.datasets.dataset import load_dataset
from components.defense import Defense
from components.hardware import CPU_IMAGES
from components.pretrained import shipped_defense
from components.robustness import Robustness
from components.squeezing import squeezed_with_gradient
from components.training import drawn_from
from tests.ambient import AMBIENT
from tests.tiny import tiny_split
from tests.tiny_networks import defense_of

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
SMALL = PRESETS["quick"].model_copy(
    update={
        "origins": ("best so far", "image", "random"), "blocks": 10, "climb": 30, "square": 10, "views": 4, "dlr": True,
        "targets": 2, "seeds": 2, "curve_images": 4, "step_counts": (10, 20), "transfer_steps": 5, "steps": 6,
        "greedy": 6, "screened": False, "epsilons": (0.5,),
    }
)  # fmt: skip


@pytest.fixture(autouse=True)
def _small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", SMALL)


class Learned(nn.Module):
    """A classifier that has learned tiny digits, behind something that hides its gradient, or nothing."""

    def __init__(self, hides: bool = False, probabilities: bool = False, noise: float = 0.0) -> None:
        super().__init__()
        self.hides, self.probabilities, self.noise = hides, probabilities, noise
        with drawn_from(0):
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
            images, labels = digits(200)
            optimizer = torch.optim.Adam(self.net.parameters(), 0.01)
            for _ in range(60):
                optimizer.zero_grad()
                functional.cross_entropy(self.net(images), labels).backward()
                optimizer.step()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        if self.noise:
            images = images + self.noise * torch.randn_like(images)
        if self.hides:
            images = (images * 16).round() / 16
        logits: Tensor = self.net(images)
        return logits.softmax(1) if self.probabilities else logits


class Thresholded(nn.Module):
    """The same behind two grey levels, differentiable straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Learned()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(squeezed_with_gradient(images, 2))
        return logits


def digits(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    raw = tiny_split(n, seed=seed)
    return torch.from_numpy(raw.images).float() / 255, torch.from_numpy(raw.labels).long()


@settings(max_examples=15, deadline=None)
@given(
    epsilon=st.floats(0, 1),
    levels=st.integers(2, 5),
    threshold=st.none() | st.floats(0.05, 0.45),
    seed=st.integers(0, 9),
)
def test_levels_are_realised_within_the_ball(epsilon: float, levels: int, threshold: float | None, seed: int) -> None:
    cells = bits.Cells(IMAGES.double(), epsilon, levels, threshold)
    low, high = cells.low, cells.high
    own = cells.levels_of(cells.images)
    assert bool((low <= own).all())
    assert bool((own <= high).all())
    assert torch.equal(cells.realised(own), cells.images)
    for wanted in (low, high, bits.random_levels(cells, seed)):
        made = cells.realised(wanted)
        assert float((made - cells.images).abs().max()) <= epsilon + 1e-9
        assert 0 <= float(made.min()) <= float(made.max()) <= 1
        assert torch.equal(cells.levels_of(made), wanted)


def test_two_levels_leave_only_the_pixels_between_to_the_attacker() -> None:
    cells = bits.Cells(IMAGES, 0.3, 2, None)
    free = cells.low != cells.high
    assert torch.equal(free, (IMAGES > 0.2) & (IMAGES <= 0.8))


@pytest.mark.parametrize("stage", ["classifier", "threshold", "gan", "defense"])
def test_every_candidate_is_in_the_ball_and_judged_by_the_real_model(stage: str) -> None:
    defense = defense_of(init="encoder", levels=2, restarts=1)
    labels = defense(IMAGES).argmax(1)
    campaign = Campaign(target_of(defense, stage), IMAGES, labels, 0.3, 0, lambda _: None)  # type: ignore[arg-type]
    for planned in plan(campaign, SMALL):
        campaign.make(planned)
    assert float((campaign.worst - IMAGES).abs().max()) <= 0.3 + 1e-6
    wrong = campaign.target.judge(campaign.worst).argmax(1) != labels
    assert torch.equal(wrong, ~campaign.stands)
    stood_in = {row.name: row.surrogate for row in campaign.rows if row.name.startswith("transferred")}
    named = {
        "transferred APGD from the classifier": "none",
        "transferred APGD from the classifier and the grey levels": "straight_through",
        "transferred APGD from all but the U-Net": "straight_through, encoder",
    }
    assert stood_in.items() <= named.items()
    shares = [row.worst_so_far for row in campaign.rows]
    assert shares == sorted(shares, reverse=True)


def test_a_unet_cannot_hide_the_way_through_the_purifier() -> None:
    """Its gradient may be masked; that of the purifier in front of it is tried as well."""
    target = target_of(defense_of(init="encoder", levels=2, restarts=1))
    source = target.sources["all but the U-Net"]
    gradient, logits = input_gradient(source, IMAGES, torch.zeros(8).long(), margin)
    assert bool(gradient.flatten(1).abs().sum(1).gt(0).all())
    torch.testing.assert_close(logits, next(iter(target_of(target.model.defense, "gan").views.values()))(IMAGES))  # type: ignore[arg-type]
    assert "all but the U-Net" not in target_of(target.model.defense, "gan").sources  # type: ignore[arg-type]


def test_images_already_wrong_are_counted_and_not_attacked() -> None:
    defense = defense_of(init="encoder", levels=2)
    labels = defense(IMAGES).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    found = evaluate_defense(defense, IMAGES, labels, preset="quick", curves=False)
    assert found.clean == 5 / 8
    assert found.attacks[0].images == 5
    assert not found.stands[:3].any()
    assert found.to_json()["images"] == 8
    assert Robustness.model_validate(found.to_json()).model_dump() == found.model_dump()  # what a report reads
    assert "worst case at ε 0.3" in found.table()


def test_greedy_search_finds_what_trying_every_level_finds_or_near_it() -> None:
    """On few free pixels all combinations can be tried; the search is never better, and must not be blind."""
    model = Thresholded()
    images, labels = digits(8)
    images = images.round()
    images[..., 3, 2:8] = 0.5
    target = Target(model, {"straight_through": model}, levels=2)
    cells = target.cells(images, 0.3)
    assert cells is not None
    best = torch.full((8,), -torch.inf)
    for number in range(64):
        levels = cells.levels_of(images)
        levels[..., 3, 2:8] = torch.tensor([float(number >> place & 1) for place in range(6)])
        best = torch.maximum(best, margin(target.judge(cells.realised(levels)), labels))
    view = next(iter(target.views.values()))
    found = bits.greedy(target.judge, view, cells, labels, cells.levels_of(images), 12)[1]
    clean = margin(target.judge(images), labels)
    assert bool((found <= best + 1e-5).all())
    assert float((found - clean).sum()) >= 0.5 * float((best - clean).sum())
    queried = bits.blocks(target.judge, cells, labels, cells.levels_of(images), 300, 0)[1]
    assert float((queried - clean).sum()) >= 0.5 * float((best - clean).sum())


def test_greedy_search_ends_where_nothing_is_left_to_change() -> None:
    images, labels = digits(4)
    images, asked = images.round(), []
    images[:2, :, 3, 2:5] = 0.5  # three free pixels in two of the images, none in the others
    model, cells = Thresholded(), bits.Cells(images, 0.3, 2, None)

    def judge(images: Tensor) -> Tensor:
        asked.append(len(images))
        logits: Tensor = model(images)
        return logits

    bits.greedy(judge, model, cells, labels, cells.levels_of(images), 100)
    assert asked[:2] == [4, 5 * 4]  # all images, then five changes of each
    assert len(asked) <= 8
    assert set(asked[2:]) <= {5, 10}


class Peaked(nn.Module):
    """Misreads images whose first pixel is near a third, between black and white."""

    def forward(self, images: Tensor) -> Tensor:
        near = 0.1 - (squeezed_with_gradient(images, 4)[:, 0, 0, 0] - 1 / 3).square()
        return torch.stack([-near, near - 0.05], 1)


def test_a_level_between_the_ends_is_found() -> None:
    """A straight line from black leads to white, as far away; the next level is the place."""
    model, images = Peaked(), torch.zeros(2, 1, 8, 8)
    cells, labels = bits.Cells(images, 1.0, 4, None), torch.tensor([0, 0])
    start = cells.levels_of(images)
    assert bool((margin(model(images), labels) < margin(model(torch.full_like(images, 1 / 3)), labels)).all())
    made, widest = bits.greedy(model, model, cells, labels, start, 1)
    assert cells.levels_of(made)[:, 0, 0, 0].tolist() == [1, 1]
    assert bool((widest > margin(model(images), labels)).all())


def test_what_a_stand_in_chooses_is_kept_only_if_the_real_model_confirms_it() -> None:
    """A stand-in that has learned other classes leads astray: nothing may be lost by it."""
    model, images = Thresholded(), digits(20)[0]
    labels = digits(20)[1]
    cells = bits.Cells(images, 0.3, 2, None)
    start = cells.levels_of(images)
    before = margin(model(cells.realised(start)), labels)
    for view in (model, lambda_of(lambda images: model(images).roll(1, 1))):
        made, widest = bits.greedy(model, view, cells, labels, start, 6, screened=True)
        torch.testing.assert_close(widest, margin(model(made), labels))
        assert bool((widest >= before).all())
    assert float((made - images).abs().max()) <= 0.3 + 1e-6


def lambda_of(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A function as a module."""

    class Called(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return function(images)

    return Called()


def test_an_honest_model_is_not_flagged_and_a_masked_one_is() -> None:
    images, labels = digits(60, seed=1)
    honest = evaluate_defense(Learned(), images, labels, epsilon=0.3, preset="quick")
    assert honest.clean > 0.9
    assert honest.flags == ()
    masked = evaluate_defense(Learned(hides=True, noise=0.02), images, labels, epsilon=0.3, preset="quick")
    assert any("gradient" in flag for flag in masked.flags)


def test_probabilities_in_place_of_logits_are_flagged() -> None:
    images, labels = digits(20)
    found = evaluate_defense(Learned(probabilities=True), images, labels, preset="quick", curves=False)
    assert any("probabilities" in flag for flag in found.flags)


@pytest.mark.parametrize(
    ("logits", "clean"),
    [([0.0, 0.0, 0.0, 0.0], 0.25), ([torch.nan, 0.0, 0.0, 0.0], 0.0)],
    ids=["all equal", "NaN"],
)
def test_an_answer_without_a_best_class_is_no_right_answer(logits: list[float], clean: float) -> None:
    """A model that says nothing is right only where the label is the one that its argmax happens to give."""
    model = lambda_of(lambda images: images.flatten(1)[:, :1] * 0 + torch.tensor(logits))
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8) % 4
    found = evaluate_defense(model, images, labels, preset="quick", curves=False)
    assert (found.clean, found.worst) == (clean, clean)


class Widening(nn.Module):
    """Answers in double precision, whatever it is asked in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Learned()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits.double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "model",
    [Learned, Widening, lambda: defense_of(init="encoder", levels=2, restarts=1)],
    ids=["module", "widening", "defense"],
)
def test_a_model_of_any_precision_is_attacked(
    model: Callable[[], nn.Module], dtype: torch.dtype, given: torch.dtype
) -> None:
    attacked = model().to(dtype)
    images = IMAGES.to(given)
    labels = attacked(images.to(dtype)).argmax(1)
    found = evaluate_defense(attacked, images, labels, epsilon=0.02, preset="quick", curves=False)
    assert found.clean == 1
    assert {"APGD cross-entropy", "Square"} <= {row.name for row in found.attacks}  # some stand to the last


def test_a_model_is_never_given_more_images_than_fit_at_once() -> None:
    """Nor by the judge, which is asked about all of them."""
    learned, given = Learned(), list[int]()

    def counted(images: Tensor) -> Tensor:
        given.append(len(images))
        logits: Tensor = learned(images)
        return logits

    images, labels = digits(CPU_IMAGES + 50)
    found = evaluate_defense(lambda_of(counted), images, labels, preset="quick", curves=False)
    assert found.images == len(images)
    assert max(given) == CPU_IMAGES
    torch.testing.assert_close(found.clean, float((learned(images).argmax(1) == labels).double().mean()))


@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_the_caller_set_for_all_of_torch_changes_nothing(ambient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {"transfer_steps": 2, "steps": 3, "greedy": 2, "climb": 5, "blocks": 3, "square": 3, "step_counts": (2,)}
    monkeypatch.setitem(PRESETS, "quick", SMALL.model_copy(update=fewer))
    defense = defense_of(init="encoder", levels=3, restarts=1)
    labels = defense(IMAGES).argmax(1)

    def made() -> Robustness:
        return evaluate_defense(defense, IMAGES, labels, preset="quick").model_copy(update={"seconds": 0.0})

    expected = made()
    with AMBIENT[ambient]():
        assert made().to_json() == expected.to_json()


def test_random_models_are_attacked_through_their_mean() -> None:
    images, labels = digits(20)
    found = evaluate_defense(Learned(noise=0.3), images, labels, preset="quick", curves=False)
    assert {row.eot for row in found.attacks if row.name.startswith("APGD")} == {SMALL.draws}


def test_bpda_has_the_values_of_one_and_the_gradient_of_the_other() -> None:
    hard, soft = Learned(hides=True), Learned()
    images, labels = digits(5)
    both = BPDA(hard, soft)
    torch.testing.assert_close(both(images), hard(images))
    torch.testing.assert_close(
        input_gradient(both, images, labels, lambda logits, _: logits[:, 0])[0],
        input_gradient(soft, images, labels, lambda logits, _: logits[:, 0])[0],
    )
    assert float(input_gradient(hard, images, labels, margin)[0].abs().max()) == 0


def test_eot_is_the_mean() -> None:
    images, _ = digits(5)
    torch.testing.assert_close(EOT(Learned(), 3)(images), Learned()(images))


def test_losses_are_their_formulas() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0])
    assert margin(logits, labels).tolist() == [-2]
    assert dlr(logits, labels).tolist() == pytest.approx([-2 / 3])
    assert TargetedDLR(torch.tensor([2]))(logits, labels).tolist() == pytest.approx([-3 / 3.5])


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"epsilon": 1.5}, "epsilon: expected a number in 0 … 1, found 1.5"), ({"n": 0}, "images: expected at least one")],
)
def test_what_cannot_be_attacked_is_refused(changed: dict[str, float], message: str) -> None:
    n = int(changed.pop("n", 8))
    with pytest.raises(ValueError, match=message):
        evaluate_defense(defense_of(), IMAGES[:n], torch.zeros(n).long(), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": IMAGES * 255}, r"images: expected values in \[0, 1\], found .* … 25"),
        ({"images": IMAGES * float("nan")}, "found nan … nan"),
        ({"labels": torch.zeros(8)}, "labels: expected int64, found torch.float32"),
        ({"labels": torch.arange(8)}, "labels: expected 0 … 3, as the model has 4 logits, found 0 … 7"),
        ({"labels": -torch.arange(8)}, "found -7 … 0"),
        ({"preset": "fancy"}, "preset: expected one of quick, standard, full, found 'fancy'"),
        ({"stage": "unet"}, "stage: expected one of classifier, threshold, gan, defense, found 'unet'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_an_attack_also_of_a_plain_module(
    changed: dict[str, Any], message: str
) -> None:
    given = {"images": IMAGES, "labels": torch.zeros(8, dtype=torch.int64), "preset": "quick", **changed}
    with pytest.raises(ValueError, match=message):
        evaluate_defense(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), **given)


def test_images_may_leave_the_range_by_rounding() -> None:
    """As those of a defense may, which clamps them."""
    defense, images = defense_of(init="encoder", levels=2, restarts=1), IMAGES.clone()
    images[0, 0, 0, :2] = torch.tensor([-5e-5, 1 + 5e-5])
    labels = defense(images).argmax(1)
    assert evaluate_defense(defense, images, labels, preset="quick", curves=False).clean == 1


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "epsilon", "most"), [("classifier", 0.3, 0.005), ("defense", 0.5, 0.05)])
def test_the_attacks_are_strong(stage: str, epsilon: float, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SMALL.model_copy(update={"steps": 30, "greedy": 20, "seeds": 1, "views": 1, "targets": 0, "square": 0})
    monkeypatch.setitem(PRESETS, "quick", steps)
    defense, test = Defense.load(shipped_defense("mnist")), load_dataset("mnist_mini").test
    images, labels = test.images[:200], test.labels[:200]
    found = evaluate_defense(defense, images, labels, epsilon=epsilon, preset="quick", stage=stage, curves=False)  # type: ignore[arg-type]
    assert found.worst <= most


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_shipped_defense_is_honest_and_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {"views": 1, "seeds": 1, "targets": 0, "curve_images": 20, "origins": ("best so far",), "epsilons": (0.5,)}
    monkeypatch.setitem(PRESETS, "quick", SMALL.model_copy(update=fewer))
    defense, test = Defense.load(shipped_defense("mnist")), load_dataset("mnist_mini").test.sample(100, seed=0)
    found = evaluate_defense(defense, test.images, test.labels, preset="quick")
    assert 0.7 < found.worst < 0.99
    assert found.flags == ()


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_a_network_that_is_sure_hides_no_gradient(scale: float) -> None:
    """Larger logits change no label; the cross-entropy's gradient would be rounded to zero."""
    images, labels = digits(60)
    plain = Learned()
    sure = lambda_of(lambda images: scale * plain(images))
    for attack in (FGSM(epsilon=0.1), PGD(epsilon=0.1, steps=3), APGD(epsilon=0.1, steps=5)):
        expected = attack.perturb(plain, images, labels)
        made = attack.perturb(sure, images, labels)
        moved = (made != images).flatten(1).any(1)
        assert bool(moved.all()), attack.name
        right, left = ((plain(x).argmax(1) == labels).sum() for x in (expected, made))
        assert abs(int(right) - int(left)) <= 1, attack.name


def test_log_odds_are_the_cross_entropy_s() -> None:
    logits, labels = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 5
    expected = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(functional.softplus(log_odds(logits, labels)), expected)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_two_classes_have_a_ratio_that_can_be_raised() -> None:
    logits, labels = torch.tensor([[3.0, 1.0], [0.5, 2.0]]).requires_grad_(), torch.tensor([0, 1])
    for loss in (dlr, TargetedDLR(1 - labels)):
        (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), logits)
        assert bool((gradient != 0).all())
        torch.testing.assert_close(loss(logits, labels), torch.tensor([-2.0, -1.5]))


def test_what_carries_over_best_is_kept_of_a_transferred_attack() -> None:
    images, labels = digits(40)
    source, judge = Learned(), Learned()
    with torch.no_grad():
        judge.net[1].weight.add_(0.3 * torch.randn(32, 64, generator=torch.Generator().manual_seed(5)))
    config = APGD(epsilon=0.15, steps=12)
    by_source = margin(judge(config.through(source, images, labels, 0)), labels)
    by_judge = margin(judge(config.through(source, images, labels, 0, judge=judge)), labels)
    assert bool((by_judge >= by_source - 1e-6).all())
    assert bool((by_judge > by_source + 1e-6).any())


class TestClimb:
    """Steepest ascent over single changes of level."""

    def climbed(self, images: Tensor, labels: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        cells = bits.Cells(images, 0.3, 2, None)
        return climb(model, model, cells, labels, cells.levels_of(images), 500, 100)  # type: ignore[arg-type]

    def test_a_single_change_that_breaks_an_image_is_found_whatever_the_gradient_says(self) -> None:
        """The gradient prefers another pixel, beside which the right one does not help."""
        images = torch.zeros(1, 1, 8, 8)
        images[0, 0, 0, :2] = 0.4

        def logits(images: Tensor) -> Tensor:
            seen = squeezed_with_gradient(images, 2)[:, 0, 0, :2]
            wrong = 2 * seen[:, 0] + 1.5 * seen[:, 1] - 1 - 8 * seen[:, 0]
            return torch.stack([torch.zeros_like(wrong), wrong], 1)

        made, widest = self.climbed(images, torch.zeros(1).long(), lambda_of(logits))
        assert float(widest) == 0.5
        assert bits.Cells(images, 0.3, 2, None).levels_of(made)[0, 0, 0, :2].tolist() == [0, 1]

    def test_a_pair_is_tried_where_no_single_change_helps(self) -> None:
        images = torch.zeros(2, 1, 8, 8)
        images[:, 0, 3, :4] = 0.4

        def logits(images: Tensor) -> Tensor:
            seen = squeezed_with_gradient(images, 2)[:, 0, 3]
            both = seen[:, 1] * seen[:, 2]
            return torch.stack([torch.zeros_like(both), 3 * both - seen.sum(1) * 0.2 - 1], 1)

        _, widest = self.climbed(images, torch.zeros(2).long(), lambda_of(logits))
        assert widest.tolist() == pytest.approx([1.6, 1.6])

    def test_it_finds_what_trying_every_level_finds_or_near_it(self) -> None:
        model, (images, labels) = Thresholded(), digits(8)
        images = images.round()
        images[..., 3, 2:8] = 0.5
        cells, best = bits.Cells(images, 0.3, 2, None), torch.full((8,), -torch.inf)
        for number in range(64):
            levels = cells.levels_of(images)
            levels[..., 3, 2:8] = torch.tensor([float(number >> place & 1) for place in range(6)])
            best = torch.maximum(best, margin(model(cells.realised(levels)), labels).detach())
        clean, (made, found) = margin(model(images), labels).detach(), self.climbed(images, labels, model)
        assert bool((found <= best + 1e-5).all())
        assert float((found.detach() - clean).sum()) >= 0.9 * float((best.clamp(max=0) - clean).clamp(min=0).sum())
        torch.testing.assert_close(found, margin(model(made), labels))

    def test_more_changes_than_may_be_tried_are_chosen_by_the_view(self) -> None:
        model, (images, labels) = Thresholded(), digits(6)
        cells, asked = bits.Cells(images, 0.3, 4, None), []

        def judge(images: Tensor) -> Tensor:
            asked.append(len(images))
            logits: Tensor = model(images)
            return logits

        start = cells.levels_of(images)
        made, widest = climb(judge, model, cells, labels, start, 40, 9)
        assert sum(asked[1:]) <= 6 * (40 + 66)
        assert bool((widest >= margin(model(images), labels)).all())
        assert float((made - images).abs().max()) <= 0.3 + 1e-6


@pytest.mark.parametrize(("width", "title"), [(64, "every single change"), (3, "the best of 3 single changes")])
def test_changes_that_a_gradient_chose_are_no_queries(width: int, title: str) -> None:
    defense = defense_of(init="encoder", levels=2, restarts=1)
    campaign = Campaign(target_of(defense), IMAGES, defense(IMAGES).argmax(1), 0.3, 0, lambda _: None)
    (found,) = [one for one in plan(campaign, SMALL.model_copy(update={"width": width})) if "single" in one.name]
    assert found.name.startswith(title)
    assert found.gradient == (width == 3)


@pytest.mark.parametrize("origin", ["random", "blocks"])
def test_what_is_drawn_for_an_image_does_not_depend_on_the_others(origin: str) -> None:
    model, (images, labels) = Thresholded(), digits(6)

    def made(index: slice) -> Tensor:
        cells = bits.Cells(images[index], 0.3, 2, None)
        if origin == "random":
            return cells.realised(bits.random_levels(cells, 3))
        return bits.blocks(model, cells, labels[index], cells.levels_of(images[index]), 20, 3)[0]

    assert torch.equal(made(slice(0, 6))[3:4], made(slice(3, 4)))
