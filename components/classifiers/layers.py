"""Outputs inside any network: by torchvision's feature extraction where it can be traced, else by forward hooks."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.training import evaluating


class Layers(Protocol):
    """The layers of one network.

    Attributes:
        names: of the layers whose output is a tensor (N, …), in the order in which they compute.
        penultimate: the one before the logits.
    """

    names: list[str]
    penultimate: str

    def read(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """The output of a layer, (N, …), and the logits (N, classes)."""
        ...


def layers_of(network: nn.Module, images: Tensor) -> Layers:
    """The layers of `network`, which is in evaluation mode, seen on a few images (N, C, H, W).

    Raises:
        ValueError: it has no layer before the logits.
    """
    try:
        with evaluating(network):  # a tracer that fails leaves the network in training mode
            return TracedLayers(network, images)
    except Exception:  # whatever code that depends on its images makes of a tracer
        return HookedLayers(network, images)


class TracedLayers:
    """Layers by torchvision's `create_feature_extractor`: every operation of the traced graph is one."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._network = network
        self._extractors: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {}
        from torchvision.models.feature_extraction import get_graph_node_names  # takes seconds to import

        evaluated: list[str]
        self._train, evaluated = get_graph_node_names(network, suppress_diff_warning=True)
        self._logits = evaluated[-1]
        seen = self._extractor(evaluated)(images)
        if not torch.equal(seen[self._logits], network(images)):
            raise ValueError(f"{type(network).__name__}: expected a graph that computes the logits last")
        self.names = [name for name in evaluated if _is_layer(seen.get(name), images)]
        self.penultimate = self._before_logits(_Head(network, images))

    def read(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """See `Layers`."""
        if layer not in self._extractors:
            self._extractors[layer] = self._extractor([layer, self._logits])
        seen = self._extractors[layer](images)
        return seen[layer], seen[self._logits]

    def _extractor(self, names: list[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        """A module that returns the outputs of these layers; it shares the network's weights."""
        from torchvision.models.feature_extraction import create_feature_extractor

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Callable[[Tensor], dict[str, Tensor]] = create_feature_extractor(
                self._network,
                train_return_nodes=self._train[-1:],
                eval_return_nodes=list(dict.fromkeys(names)),
                suppress_diff_warning=True,
            )
        return found

    def _before_logits(self, head: _Head) -> str:
        """The operation that gives the last layer with weights its input."""
        end = self.names.index(head.name)
        for name in reversed(self.names[:end]):
            if torch.equal(self.read(head.images, name)[0], head.read):
                return name
        raise ValueError(f"{head.name}: expected a layer before it, found none")


class HookedLayers:
    """Layers by forward hooks: every submodule that is called is one."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._network = network
        self._head = _Head(network, images).name
        self.penultimate = f"input of {self._head}"
        called: dict[str, None] = {}
        handles = [
            module.register_forward_hook(_here(_note(name, called, images))) for name, module in _submodules(network)
        ]
        _run(network, images, handles)
        self.names = [*called, self.penultimate]

    def read(self, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
        """See `Layers`."""
        found: list[Tensor] = []
        if layer == self.penultimate:
            module = self._network.get_submodule(self._head)
            handle = module.register_forward_pre_hook(_here(lambda _, inputs: found.append(inputs[0])))
        else:
            module = self._network.get_submodule(layer)
            handle = module.register_forward_hook(_here(lambda _, inputs, output: found.append(output)))
        logits = _run(self._network, images, [handle])
        return found[-1], logits


class _Head:
    """The last layer with weights of its own that a network calls, and what that reads.

    Attributes:
        name: of the submodule.
        images: on which it was seen.
        read: its input.
    """

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.images = images
        calls: list[tuple[str, Tensor]] = []

        def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
                if inputs and isinstance(inputs[0], Tensor):
                    calls.append((name, inputs[0]))

            return hook

        own = [(name, module) for name, module in _submodules(network) if any(True for _ in module.parameters(False))]
        _run(network, images, [module.register_forward_pre_hook(_here(note(name))) for name, module in own])
        if not calls:
            raise ValueError("expected a submodule with weights, such as torch.nn.Linear, found none")
        self.name, self.read = calls[-1]


def _submodules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in network.named_modules() if name]


def _here(hook: Callable[..., None]) -> Callable[..., None]:
    """The hook for the passes of this thread alone: others may run the same network meanwhile."""
    own = threading.get_ident()

    def heard(*call: Any) -> None:
        if threading.get_ident() == own:
            hook(*call)

    return heard


def _note(name: str, called: dict[str, None], images: Tensor) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if _is_layer(output, images):
            called.pop(name, None)
            called[name] = None  # where a module is called twice, the last time counts

    return hook


def _is_layer(output: object, images: Tensor) -> bool:
    """True for a tensor with a row of numbers for each image."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return False
    return output.ndim >= 2 and len(output) == len(images)


def _run(network: nn.Module, images: Tensor, handles: list[Any]) -> Tensor:
    """The logits; the hooks are gone afterwards."""
    try:
        logits: Tensor = network(images)
        return logits
    finally:
        for handle in handles:
            handle.remove()
