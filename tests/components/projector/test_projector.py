"""The projector: one trace holds every smaller projection, and each image is projected as if it were alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from components.gan.networks import Discriminator
from components.projector.config import ProjectorConfig
from components.projector.projector import Projection, ProjectionTrace, Projector
from components.training import drawn_from, freeze, mix
from tests.tiny_networks import encoder_of, generator_of

GENERATOR = generator_of()
FOLDED = GENERATOR.folded()
ENCODER = encoder_of()
with drawn_from(1):
    DISCRIMINATOR = freeze(Discriminator(4, (1, 8, 8)).double())
    IMAGES = torch.rand(7, 1, 8, 8).double()

DISTANCES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "l2": lambda d, _: d.square().mean(),
    "huber": lambda d, t: 2 * functional.huber_loss(d, torch.zeros_like(d), delta=t),
    "insensitive": lambda d, t: (d.abs() - t).clamp(min=0).square().mean(),
}
configs = st.fixed_dictionaries(
    {
        "distance": st.sampled_from(["l2", "huber", "insensitive"]),
        "tolerance": st.sampled_from([0.05, 0.2]),
        "init": st.sampled_from(["random", "bank", "encoder"]),
        "bank_size": st.sampled_from([8, 100]),
        "optimizer": st.sampled_from(["sgd", "adam"]),
        "learning_rate": st.sampled_from([0.05, 0.5]),
        "momentum": st.sampled_from([0.0, 0.7]),
        "prior_weight": st.sampled_from([0.0, 0.01]),
        "realism_weight": st.sampled_from([0.0, 0.1]),
        "chunk": st.sampled_from([None, 1, 5, 12]),
    }
)


def projector_of(seed: int = 0, **given: Any) -> Projector:
    config = ProjectorConfig.model_validate({"restarts": 3, "steps": 4, "bank_size": 32, **given})
    return Projector(GENERATOR, config, discriminator=DISCRIMINATOR, encoder=ENCODER, seed=seed)


def assert_equal(one: Projection, other: Projection) -> None:
    torch.testing.assert_close(one.errors, other.errors)
    torch.testing.assert_close(one.latents, other.latents)
    torch.testing.assert_close(one.images, other.images)


def starts_of(image: Tensor, config: ProjectorConfig, seed: int) -> Tensor:
    """(R, latent_dim), by the definition; the bank is small enough for a look at all of it."""

    def draw(count: int, *seeds: int) -> Tensor:
        return torch.randn(count, 5, generator=torch.Generator().manual_seed(mix(*seeds))).double()

    if config.init == "random":
        return torch.cat([draw(1, seed, restart) for restart in range(config.restarts)])
    if config.init == "encoder":
        with torch.no_grad():
            guess = ENCODER(image[None])
        offsets = [torch.zeros(1, 5), *(draw(1, seed, restart) for restart in range(1, config.restarts))]
        return guess + config.spread * torch.cat(offsets).double()
    bank = draw(config.bank_size, seed)
    distance = DISTANCES[config.distance]
    order = sorted(bank, key=lambda z: float(distance(FOLDED(z[None])[0] - image, config.tolerance)))
    return torch.stack(order[: config.restarts])


def alone(image: Tensor, config: ProjectorConfig, seed: int) -> tuple[Tensor, float]:
    """Equations 1 and 2 for one image (C, H, W), one restart after another, with torch's own optimizers."""
    best: tuple[Tensor, float] | None = None
    distance = DISTANCES[config.distance]
    for start in starts_of(image, config, seed):
        z = start.clone().requires_grad_()
        optimizer: torch.optim.Optimizer = torch.optim.Adam([z], config.learning_rate)
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD([z], config.learning_rate, config.momentum)
        for _ in range(config.steps):
            x_g = FOLDED(z[None])
            loss = distance(x_g[0] - image, config.tolerance) + config.prior_weight * z.square().mean()
            loss = loss + config.realism_weight * functional.softplus(-DISCRIMINATOR(x_g))[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            error = float(distance(FOLDED(z[None])[0] - image, config.tolerance))
        if best is None or error < best[1]:
            best = z.detach(), error
    assert best is not None
    return best


@settings(max_examples=60, deadline=None)
@given(
    given_config=configs,
    restarts=st.integers(1, 6),
    steps=st.integers(1, 6),
    r=st.integers(1, 6),
    step=st.integers(1, 6),
    n=st.integers(1, 7),
    chunk=st.sampled_from([None, 1, 3, 12]),
    seed=st.integers(0, 9),
)
def test_a_trace_holds_every_smaller_projection(
    given_config: dict[str, Any], restarts: int, steps: int, r: int, step: int, n: int, chunk: int | None, seed: int
) -> None:
    r, step = min(r, restarts), min(step, steps)
    trace = projector_of(seed, **given_config, restarts=restarts, steps=steps).trace(IMAGES[:n])
    fresh = projector_of(seed, **{**given_config, "chunk": chunk}, restarts=r, steps=step)
    assert_equal(trace.select(r, step), fresh.project(IMAGES[:n]))


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_trace_of_very_many_restarts_holds_those_of_few(distance: str) -> None:
    given: dict[str, Any] = {"distance": distance, "tolerance": 0.2, "steps": 1, "bank_size": 150}
    trace = projector_of(restarts=100, **given).trace(IMAGES, [0, 1])
    assert_equal(trace.select(10, 1), projector_of(restarts=10, **given).project(IMAGES))
    assert_equal(trace.select(70, 1), projector_of(restarts=70, **given).project(IMAGES))
    assert trace.select(1, 0).errors.sum() >= trace.select(100, 0).errors.sum()


@settings(max_examples=30, deadline=None)
@given(given_config=configs, restarts=st.integers(1, 4), steps=st.integers(1, 8), seed=st.integers(0, 9))
def test_it_equals_a_plain_loop_over_images(
    given_config: dict[str, Any], restarts: int, steps: int, seed: int
) -> None:
    given_config = {**given_config, "bank_size": 8}
    projector = projector_of(seed, **given_config, restarts=restarts, steps=steps)
    projection = projector.project(IMAGES[:3])
    expected = [alone(image, projector.config, seed) for image in IMAGES[:3]]
    torch.testing.assert_close(projection.errors, torch.tensor([error for _, error in expected]).double())
    torch.testing.assert_close(projection.latents, torch.stack([latent for latent, _ in expected]))
    torch.testing.assert_close(projection.images, FOLDED(projection.latents))


@settings(max_examples=30, deadline=None)
@given(given_config=configs, order=st.permutations(range(7)), chunk=st.sampled_from([None, 1, 4, 9]))
def test_neither_neighbours_nor_batch_nor_place_matter(
    given_config: dict[str, Any], order: list[int], chunk: int | None
) -> None:
    whole = projector_of(**given_config).project(IMAGES)
    moved = projector_of(**{**given_config, "chunk": chunk}).project(IMAGES[order])
    assert_equal(moved, Projection(whole.images[order], whole.latents[order], whole.errors[order]))
    some = order[:2]
    few = projector_of(**given_config).project(IMAGES[some])
    assert_equal(few, Projection(whole.images[some], whole.latents[some], whole.errors[some]))


@settings(max_examples=15, deadline=None)
@given(parts=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_traces_of_parts_make_the_trace_of_all(parts: list[int]) -> None:
    projector = projector_of()
    images = torch.rand(sum(parts), 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    joined = ProjectionTrace.concatenate([projector.trace(part) for part in images.split(parts)])
    assert len(joined) == len(images)
    for restarts, steps in ((1, 1), (2, 4), (3, 3)):
        assert_equal(joined.select(restarts, steps), projector.trace(images).select(restarts, steps))


def test_the_more_restarts_the_smaller_the_error() -> None:
    trace = projector_of(restarts=8, init="random").trace(IMAGES)
    errors = torch.stack([trace.select(restarts, 4).errors for restarts in range(1, 9)])
    assert bool((errors.diff(dim=0) <= 0).all())
    assert float(errors[0].sum()) > float(errors[-1].sum())


def test_a_descent_descends() -> None:
    with torch.no_grad():
        images = FOLDED(torch.randn(7, 5, generator=torch.Generator().manual_seed(7)).double())
    trace = projector_of(init="random", distance="l2", learning_rate=0.05, steps=60).trace(images, [0, 60])
    assert float(trace.select(3, 60).errors.mean()) < 0.2 * float(trace.select(3, 0).errors.mean())


def test_only_restarts_that_lead_are_kept() -> None:
    trace = projector_of(restarts=50, init="random").trace(IMAGES, [4])
    assert bool(trace.leads[..., 0].all())
    assert int(trace.leads.sum()) == len(trace.latents) == len(trace.errors)
    assert len(trace.latents) < 7 * 50 / 4  # log(50) + 0.6 = 4.5 of 50 are expected


def test_no_images_are_no_trouble() -> None:
    for init in ("random", "bank"):
        projection = projector_of(init=init).project(IMAGES[:0])
        assert projection.images.shape == (0, 1, 8, 8)
        assert projection.latents.shape == (0, 5)
        assert projection.errors.shape == (0,)


def test_it_works_where_gradients_are_off_and_leaves_none() -> None:
    expected = projector_of(realism_weight=0.1).project(IMAGES)
    with torch.no_grad():
        projection = projector_of(realism_weight=0.1).project(IMAGES)
    assert_equal(projection, expected)
    asked = IMAGES.clone().requires_grad_()
    assert not projector_of().project(asked).images.requires_grad
    assert asked.grad is None
    assert all(parameter.grad is None for parameter in GENERATOR.parameters())


class Largest(TorchDispatchMode):
    """The most numbers that any operation made at once."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, made.numel() if isinstance(made, Tensor) else 0)
        return made


def test_the_bank_is_compared_with_as_many_images_at_once_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    projector, images = projector_of(init="bank", bank_size=1000, chunk=64), IMAGES.repeat(20, 1, 1, 1)
    expected = projector._starts(images)
    monkeypatch.setattr("components.projector.starts._COMPARED", 3000)
    with Largest() as largest:
        found = projector._starts(images)
    assert largest.numbers <= 1000 * 64 < 1000 * len(images)  # no more than the bank itself has
    torch.testing.assert_close(found, expected)


def test_the_generator_may_change_afterwards() -> None:
    generator = generator_of(seed=3)
    projector = Projector(generator, ProjectorConfig(restarts=1, steps=1, bank_size=8))
    before = projector.project(IMAGES)
    generator.dense[0].weight.data.zero_()
    assert_equal(projector.project(IMAGES), before)


def test_a_warmed_up_bank_serves_every_precision() -> None:
    projector = projector_of()
    projector.warm_up()
    assert_equal(projector.project(IMAGES), projector_of().project(IMAGES))
    assert projector.project(IMAGES.float()).images.dtype == torch.float32


def test_bfloat16_is_near() -> None:
    images = IMAGES.float()
    generator = generator_of().float()
    exact, rough = (
        Projector(generator, ProjectorConfig(restarts=1, steps=1, bank_size=8, precision=precision)).project(images)
        for precision in ("float32", "bfloat16")
    )
    assert rough.latents.dtype == rough.images.dtype == torch.float32
    assert float((exact.errors - rough.errors).abs().max()) < 0.05


def test_progress_counts_images() -> None:
    done: list[int] = []
    projector_of(chunk=9).trace(IMAGES, [1], progress=done.append)
    assert done == [3, 6, 7]


@pytest.mark.parametrize(
    ("restarts", "steps", "message"),
    [
        (0, 2, r"restarts: expected 1 … 3 \(what the trace holds\), found 0"),
        (4, 2, r"restarts: expected 1 … 3 \(what the trace holds\), found 4"),
        (3, 1, r"steps: expected one of \[2, 4\] \(what the trace holds\), found 1"),
    ],
)
def test_what_a_trace_does_not_hold_is_refused(restarts: int, steps: int, message: str) -> None:
    trace = projector_of().trace(IMAGES[:1], [4, 2, 2])
    assert (trace.restarts, trace.steps.tolist()) == (3, [2, 4])
    with pytest.raises(ValueError, match=message):
        trace.select(restarts, steps)


@pytest.mark.parametrize("record", [[], [-1, 2]])
def test_what_cannot_be_recorded_is_refused(record: list[int]) -> None:
    with pytest.raises(ValueError, match="record: expected step counts ≥ 0"):
        projector_of().trace(IMAGES, record)


def test_realism_needs_a_discriminator() -> None:
    with pytest.raises(ValueError, match="realism_weight: expected 0 or a discriminator"):
        Projector(GENERATOR, ProjectorConfig(realism_weight=0.1))


def test_a_restart_that_breaks_does_not_win() -> None:
    class Breaking(torch.nn.Module):
        latent_dim = 1

        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()).double())

        def folded(self) -> torch.nn.Module:
            return self

        def forward(self, z: Tensor) -> Tensor:
            return self.scale * torch.where(z > 0, z, torch.nan).view(-1, 1, 1, 1)

    config = ProjectorConfig(restarts=20, steps=1, init="random", distance="l2", learning_rate=1e-6)
    errors = Projector(Breaking(), config).project(torch.ones(2, 1, 1, 1).double()).errors
    assert bool(errors.isfinite().all())


@pytest.mark.parametrize(
    "wrong",
    [
        {"restarts": 0},
        {"steps": 0},
        {"steps": 2.0},
        {"momentum": 1.0},
        {"tolerance": -0.1},
        {"learning_rate": 0},
        {"prior_weight": -1},
        {"distance": "l1"},
        {"init": "bank", "bank_size": 3, "restarts": 4},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProjectorConfig.model_validate(wrong)


@settings(max_examples=60, deadline=None)
@given(
    given_config=configs,
    small=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    more=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    stride=st.sampled_from([1, 2]),
    n=st.integers(0, 7),
    seed=st.integers(0, 9),
)
def test_an_extended_trace_is_a_fresh_one(
    given_config: dict[str, Any],
    small: tuple[int, int],
    more: tuple[int, int],
    stride: int,
    n: int,
    seed: int,
) -> None:
    images = IMAGES[:n]
    (restarts, steps), record = small, range(0, sum(pair[1] for pair in (small, more)) + 1, stride)
    large = projector_of(seed, **given_config, restarts=restarts + more[0], steps=steps + more[1])
    earlier = projector_of(seed, **given_config, restarts=restarts, steps=steps).trace(images, range(steps + 1))
    extended = large.extend(earlier, images, [*record, steps + more[1]])
    fresh = large.trace(images, [*record, steps + more[1]])
    assert torch.equal(extended.steps, fresh.steps)
    assert torch.equal(extended.leads, fresh.leads)
    torch.testing.assert_close(extended.errors, fresh.errors)
    torch.testing.assert_close(extended.latents, fresh.latents)
    assert extended.standing is not None
    assert fresh.standing is not None
    assert extended.standing.step == fresh.standing.step
    torch.testing.assert_close(extended.standing.latents, fresh.standing.latents)
    torch.testing.assert_close(dict(extended.standing.memory), dict(fresh.standing.memory))


def test_an_extension_computes_the_difference_alone() -> None:
    given_config: dict[str, Any] = {"init": "random"}
    earlier = projector_of(**given_config, restarts=4, steps=5).trace(IMAGES, [5])
    larger = projector_of(**given_config, restarts=6, steps=8)
    counted: list[int] = []
    larger.objective.generator.register_forward_hook(lambda module, given, images: counted.append(len(images)))
    larger.extend(earlier, IMAGES, [5, 8])
    # 4 restarts from step 5 to 8, whose first evaluation was the earlier one's last; 2 new ones from the start
    assert sum(counted) == 7 * (4 * (8 - 5 + 1) + 2 * (8 + 1))


@pytest.mark.parametrize(
    ("changes", "record", "message"),
    [
        ({"restarts": 2}, None, r"expected at most 2 restarts and 4 steps, found 3 and 4"),
        ({"steps": 3}, None, r"expected at most 3 restarts and 3 steps, found 3 and 4"),
        ({}, [1, 3, 9], r"steps: expected some of \[2, 4\] \(what the trace holds\), found \[1, 3\]"),
    ],
)
def test_what_cannot_be_extended_is_refused(
    changes: dict[str, Any], record: list[int] | None, message: str
) -> None:
    trace = projector_of().trace(IMAGES, [2, 4])
    with pytest.raises(ValueError, match=message):
        projector_of(**changes).extend(trace, IMAGES, record)


def test_results_alone_cannot_be_gone_on_from() -> None:
    trace = projector_of().trace(IMAGES, [4]).at([4])
    with pytest.raises(ValueError, match="expected one that holds where its restarts stand"):
        projector_of(steps=9).extend(trace, IMAGES)
