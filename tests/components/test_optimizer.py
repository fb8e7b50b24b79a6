"""Adam in two parts is torch's Adam."""

import copy
import io
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from components.optimizer import Adam
from components.training import drawn_from


def network() -> nn.Module:
    with drawn_from(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))


def step(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    """One step down the loss, by either of the two."""
    if isinstance(optimizer, Adam):
        optimizer.step()
        optimizer.descend(loss)
    else:
        loss.backward()
        optimizer.step()


def losses_of(net: nn.Module, optimizer: torch.optim.Adam, steps: int, seed: int = 1) -> list[float]:
    """Trains with a one-cycle schedule, whose rate and momentum change at every step."""
    schedule = OneCycleLR(optimizer, 0.01, total_steps=steps + 1)
    losses = []
    with drawn_from(seed):
        for _ in range(steps):
            loss = net(torch.randn(8, 1, 8, 8)).square().mean()
            optimizer.zero_grad()
            step(optimizer, loss)
            schedule.step()
            losses.append(float(loss.detach()))
    return losses


def test_it_steps_as_torch_does() -> None:
    mine, theirs = network(), network()
    losses = losses_of(mine, Adam(mine.parameters(), 0.01), 30)
    assert losses == pytest.approx(losses_of(theirs, torch.optim.Adam(theirs.parameters(), 0.01), 30), rel=1e-4)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_groups_have_rates_of_their_own() -> None:
    nets = network(), network()
    optimizers = []
    for net, kind in zip(nets, (Adam, torch.optim.Adam), strict=True):
        first, _, _, second = net.children()
        groups = [{"params": first.parameters(), "lr": 0.1}, {"params": second.parameters(), "lr": 0.001}]
        optimizers.append(kind(groups, 0.5, betas=(0.5, 0.99)))
    inputs = torch.ones(2, 1, 8, 8)
    for net, optimizer in zip(nets, optimizers, strict=True):
        loss = net(inputs).square().mean()
        step(optimizer, loss)
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_it_goes_on_from_what_torch_saved() -> None:
    net = network()
    theirs = torch.optim.Adam(net.parameters(), 0.01)
    losses_of(net, theirs, 5)
    buffer = io.BytesIO()
    torch.save(theirs.state_dict(), buffer)
    twin = copy.deepcopy(net)
    mine = Adam(twin.parameters(), 0.5)
    before = [state["exp_avg"].data_ptr() for state in mine.state.values()]
    mine.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    assert [state["exp_avg"].data_ptr() for state in mine.state.values()] == before  # a captured step reads them
    assert losses_of(twin, mine, 10, seed=2) == pytest.approx(losses_of(net, theirs, 10, seed=2), rel=1e-4)


@pytest.mark.parametrize("variant", ["weight_decay", "amsgrad", "maximize"])
def test_the_state_of_a_variant_is_refused(variant: str) -> None:
    net = network()
    mine, theirs = Adam(net.parameters(), 0.01), torch.optim.Adam(net.parameters(), 0.01, **{variant: True})
    with pytest.raises(ValueError, match=f"{variant}: expected the state of an Adam without it, found True"):
        mine.load_state_dict(theirs.state_dict())


def test_a_parameter_that_the_loss_does_not_need_stays() -> None:
    net = network()
    unused = nn.Parameter(torch.ones(3))
    optimizer = Adam([*net.parameters(), unused], 0.1)
    optimizer.step()
    optimizer.descend(net(torch.ones(2, 1, 8, 8)).square().mean())
    assert unused.tolist() == [1, 1, 1]


def test_a_state_from_before_the_first_step_loads() -> None:
    net = network()
    optimizer = Adam(net.parameters(), 0.1)
    losses_of(net, optimizer, 3)
    optimizer.load_state_dict(torch.optim.Adam(net.parameters(), 0.1).state_dict())
    assert all(float(state["step"]) == 0 and not state["exp_avg"].any() for state in optimizer.state.values())
    assert sorted({int(b) - int(a) for a, b in pairwise(state["step"] for state in optimizer.state.values())}) == [0]
