"""The pretended device refuses what CUDA refuses, and does what CUDA does."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from tests.pretend_accelerator import PRETEND, PretendTensor, not_pretending, pretending
from tests.tiny_networks import generator_of


@pytest.fixture(autouse=True)
def _pretending() -> Iterator[None]:
    with pretending():
        yield


def there(*shape: int) -> Tensor:
    return torch.rand(*shape).to(PRETEND)


MIXES: dict[str, Callable[[], object]] = {
    "sum": lambda: there(3) + torch.ones(3),
    "sum in place": lambda: torch.ones(3).add_(there(3)),
    "to a number in place": lambda: torch.zeros(2)[0].add_(there(1)[0]),
    "number of the device": lambda: torch.ones(3) * there(1)[0],
    "product": lambda: there(3, 3) @ torch.ones(3, 3),
    "concatenation": lambda: torch.cat([there(3), torch.ones(3)]),
    "stack": lambda: torch.stack([there(3), torch.ones(3)]),
    "where": lambda: torch.where(torch.ones(3, dtype=torch.bool), there(3), there(3)),
    "mask of the device": lambda: torch.ones(3)[there(3) > 0],
    "values to put": lambda: there(3).index_put_((torch.tensor([0]),), torch.ones(1)),
    "gather": lambda: there(3, 3).gather(1, torch.zeros(3, 3, dtype=torch.int64)),
    "layer": lambda: nn.Linear(3, 2)(there(1, 3)),
    "moved layer": lambda: nn.Linear(3, 2).to(PRETEND)(torch.ones(1, 3)),
    "loss": lambda: functional.cross_entropy(there(2, 3), torch.tensor([0, 1])),
    "generator": lambda: torch.randn(3, device=PRETEND, generator=torch.Generator()),
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_what_mixes_devices_raises(mix: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=r"same device|device type for generator"):
        mix()


def test_its_numbers_are_not_read_without_a_copy() -> None:
    with pytest.raises((TypeError, RuntimeError)):
        there(3).numpy()
    assert there(3).cpu().numpy().shape == (3,)


def test_a_number_of_the_processor_joins() -> None:
    assert torch.equal((there(3) * torch.tensor(0.0)).cpu(), torch.zeros(3))


def test_indices_of_the_processor_choose_on_the_device() -> None:
    rows = there(4, 2)
    assert torch.equal(rows[torch.tensor([2, 0])].cpu(), rows.cpu()[[2, 0]])
    assert torch.equal(rows[torch.tensor([True, False, True, False])].cpu(), rows.cpu()[::2])


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2, device=PRETEND),
        lambda: torch.tensor([1, 2], device=PRETEND),
        lambda: torch.arange(3, device=PRETEND),
        lambda: torch.randn(2, device=PRETEND),
        lambda: torch.randint(3, (2,), device=PRETEND),
        lambda: torch.zeros_like(there(2)),
        lambda: there(2).new_full((2,), 1.0),
        lambda: torch.ones(2).to(there(2)),
        lambda: there(2)[0],
    ],
)
def test_factories_make_tensors_of_the_device(make: Callable[[], Tensor]) -> None:
    made = make()
    assert isinstance(made, PretendTensor)
    assert made.device == PRETEND
    assert made.cpu().device.type == "cpu"
    assert not isinstance(made.cpu(), PretendTensor)


def test_a_view_writes_to_its_base() -> None:
    rows = torch.zeros(3, 2, device=PRETEND)
    rows[1] = 1.0
    rows.view(6)[:2] += 2.0
    assert rows.cpu().tolist() == [[2, 2], [1, 1], [0, 0]]


def test_a_generator_has_the_gradients_of_the_processor() -> None:
    # a folded generator has an autograd.Function of its own, with steps in place on views
    latents = torch.randn(3, 5, dtype=torch.float64)
    found = []
    for device in (torch.device("cpu"), PRETEND):
        z = latents.to(device).requires_grad_()
        images = copy.deepcopy(generator_of()).to(device).folded()(z)
        (gradient,) = torch.autograd.grad(images.square().sum(), z)
        found.append((images.detach().cpu(), gradient.cpu()))
    for here, elsewhere in zip(*found, strict=True):
        torch.testing.assert_close(elsewhere, here)


def test_training_moves_the_weights_as_on_the_processor() -> None:
    trained = []
    for device in (torch.device("cpu"), PRETEND):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
        network.to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
        for _ in range(3):
            with torch.autocast(device.type, torch.bfloat16, enabled=False):
                loss = functional.cross_entropy(network(images.to(device)), labels.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        assert {weight.device for weight in network.state_dict().values()} == {device}
        trained.append({name: weight.cpu() for name, weight in network.state_dict().items()})
    torch.testing.assert_close(*trained)


def test_weights_travel_as_safetensors() -> None:
    network, other = nn.Linear(3, 2).to(PRETEND), nn.Linear(3, 2).to(PRETEND)
    other.load_state_dict(load(save({name: weight.cpu() for name, weight in network.state_dict().items()})))
    assert torch.equal(other.weight.cpu(), network.weight.cpu())
    assert isinstance(other.weight, PretendTensor)


def test_a_save_loads_where_it_was_unless_told_otherwise() -> None:
    buffer = io.BytesIO()
    torch.save({"weight": there(3)}, buffer)
    load_from = lambda where: torch.load(io.BytesIO(buffer.getvalue()), map_location=where, weights_only=True)  # noqa: E731
    assert load_from(None)["weight"].device == PRETEND
    assert type(load_from("cpu")["weight"]) is Tensor


def test_another_machine_has_no_such_device() -> None:
    with not_pretending(), pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(3).to(PRETEND)
