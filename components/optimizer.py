"""Adam in two parts: what changes from step to step in numbers, and what a CUDA graph can hold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015, algorithm 1), with the state and the schedules of torch's.

    `step` counts a step and writes the numbers that belong to it (rate, decay, bias corrections) into tensors on the
    parameters' device; `update` moves the parameters by operations on tensors alone, and so can be captured. State
    saved by torch's Adam can be loaded, on another device too, where it had none of its variants.
    """

    # without the wrappers that keep torch's compiler out of them, and for that import it: seconds of every process
    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)

    def __init__(self, parameters: Any, rate: float | Tensor, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(parameters, rate, betas)
        self._numbers: list[Tensor] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
            first = group["params"][0]
            self._numbers.append(torch.zeros(3, dtype=first.dtype, device=first.device))

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Counts a step and sets the numbers by which `update` goes."""
        for group, numbers in zip(self.param_groups, self._numbers, strict=True):
            for parameter in group["params"]:
                self.state[parameter]["step"] += 1
            count = float(self.state[group["params"][0]]["step"])  # on the processor, so nothing waits
            mean_decay, square_decay = map(float, group["betas"])
            rate = float(group["lr"]) / (1 - mean_decay**count)
            values = rate, (1 - square_decay**count) ** 0.5, 1 - mean_decay
            for number, value in zip(numbers, values, strict=True):
                number.fill_(value)  # not a copy, for which the processor would wait

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor]) -> None:
        """Moves the parameters, given the gradient of each in the order of the groups."""
        first = 0
        for group, numbers in zip(self.param_groups, self._numbers, strict=True):
            parameters = group["params"]
            mine = list(gradients[first : first + len(parameters)])
            first += len(parameters)
            means = [self.state[parameter]["exp_avg"] for parameter in parameters]
            squares = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
            rate, root, weight = numbers.unbind()
            change = torch._foreach_sub(mine, means)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(means, change)
            torch._foreach_mul_(squares, group["betas"][1])
            torch._foreach_addcmul_(squares, mine, mine, 1 - group["betas"][1])
            spread = torch._foreach_sqrt(squares)
            torch._foreach_div_(spread, root)
            torch._foreach_add_(spread, group["eps"])
            move = torch._foreach_div(means, spread)
            torch._foreach_mul_(move, rate)
            torch._foreach_sub_(parameters, move)

    def descend(self, loss: Tensor) -> None:
        """`update` by the gradients of a loss; of parameters that it does not depend on they are zero."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.update(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Loads into the tensors that are there: a captured step goes on using them.

        Raises:
            ValueError: the state is that of a variant, of which `update` knows nothing.
        """
        for group in state_dict["param_groups"]:
            for name in ("weight_decay", "amsgrad", "maximize"):
                if group.get(name):
                    raise ValueError(f"{name}: expected the state of an Adam without it, found {group[name]}")
        held = dict(self.state)
        inspect.unwrap(torch.optim.Adam.load_state_dict)(self, dict(state_dict))
        for parameter, mine in held.items():
            loaded = self.state.get(parameter, {})
            for name, tensor in mine.items():
                tensor.copy_(loaded[name]) if name in loaded else tensor.zero_()
            self.state[parameter] = mine
