"""A device that does not exist, on which a forgotten `device=` fails as it would on a GPU.

Its tensors keep their numbers in main memory, say that they are elsewhere, and refuse what CUDA refuses:

    with pretending():
        images = torch.rand(2, 1, 8, 8).to(PRETEND)
        images + torch.zeros(2, 1, 8, 8)  # RuntimeError: Expected all tensors to be on the same device, …

To torch's own code they are on `meta`, which has neither streams nor memory, so autograd needs no driver.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_NAME = "privateuseone"  # torch's name for a device that others may bring; renamed, it would hide a real GPU
if not hasattr(torch, _NAME):
    _backend = types.ModuleType(f"torch.{_NAME}")
    _backend.get_amp_supported_dtype = lambda: [torch.bfloat16]  # type: ignore[attr-defined]
    _backend._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
    _backend.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]  # it draws as the processor does
    torch._register_device_module(_NAME, _backend)
PRETEND = torch.device(_NAME, 0)

_aten = torch.ops.aten
_CROSSES = {_aten.copy_.default, _aten._to_copy.default}  # may read one device and write another
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}

_READS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default, _aten.equal.default}


class Operation(NamedTuple):
    """What was done on the device: a function, its arguments, and what came of it, all in main memory."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class _Tape:
    """Where operations are written down, while somebody asks for it."""

    operations: list[Operation] | None = None
    waits = True  # whether operations may wait for the device


class PretendTensor(Tensor):
    """A tensor on the pretended device.

    Attributes:
        held: the same in main memory.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(), dtype=held.dtype, device="meta"
        )
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    @property  # type: ignore[misc]
    def device(self) -> torch.device:  # type: ignore[override]
        return PRETEND

    is_meta = False  # torch neither fills nor reads the weights of a module that are

    @property  # type: ignore[misc]
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: PretendTensor) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def __reduce_ex__(self, protocol: int) -> Any:
        """As CUDA's, it is saved with its device, and loads there unless `map_location` says otherwise."""
        state = self.held, self.dtype, str(PRETEND), self.requires_grad
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, state

    def tolist(self) -> Any:
        return self.held.tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.held!r} on {PRETEND}"


class _Pretending(TorchDispatchMode):
    """Sees also what no tensor of the device takes part in: factory functions, and the way to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


@contextmanager
def pretending() -> Iterator[None]:
    """Within the block there is that device."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(…, device=…) goes there unseen
    try:
        with _Pretending():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@contextmanager
def not_pretending() -> Iterator[None]:
    """Within the block, which is in one of `pretending`, there is none: another machine."""
    with _disable_current_modes():
        yield


@contextmanager
def taped(*, waits: bool) -> Iterator[list[Operation]]:
    """Within the block the operations on the device are noted, those within autograd included.

    Args:
        waits: False = raise where a card's result would have to be known, or copied from or to main memory, before the
            next operation can be launched.
    """
    before = _Tape.operations, _Tape.waits
    noted: list[Operation] = []
    _Tape.operations, _Tape.waits = noted, waits
    try:
        yield noted
    finally:
        _Tape.operations, _Tape.waits = before


def _compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Checks the devices, computes in main memory, and says where the results are."""
    tensors = list(_tensors((*args, *kwargs.values())))
    here = any(isinstance(value, PretendTensor) for value in tensors)
    if here and func not in _CROSSES:
        _check_devices(func, args, kwargs, tensors)
    wanted = kwargs.get("device")
    target = here if wanted is None else torch.device(wanted).type in (_NAME, "meta")
    if target and wanted is not None:
        _check_generator(kwargs)
    if func is _aten.copy_.default:
        target = isinstance(args[0], PretendTensor)
    if not (here or target):
        return func(*args, **kwargs)
    moved = {**kwargs, "device": torch.device("cpu")} if target and wanted is not None else dict(kwargs)
    if not _Tape.waits:
        _check_waits(func, args, tensors, wanted)
    noted = None if _Tape.operations is None else _mapped(_baked, (tuple(args), moved))
    held_args, held_kwargs = _mapped(_held, (tuple(args), moved))
    result = func(*held_args, **held_kwargs)
    if noted is not None and _Tape.operations is not None:
        _Tape.operations.append(Operation(func, *noted, result))
    if not target:
        return result
    known = {id(value.held): value for value in tensors if isinstance(value, PretendTensor)}
    return _mapped(lambda value: _wrapped(value, known), result)


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, and in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Arguments or results, changed also within lists, tuples and dictionaries; `tree_map` takes six times as long."""
    if isinstance(value, list | tuple):
        return type(value)([_mapped(change, one) for one in value])
    if isinstance(value, dict):
        return {key: _mapped(change, one) for key, one in value.items()}
    return change(value)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _baked(value: Any) -> Any:
    """What a kernel goes by: memory of the device, and a number in main memory as it is now."""
    return value.held if isinstance(value, PretendTensor) else value.clone() if isinstance(value, Tensor) else value


def _wrapped(value: Any, known: Mapping[int, PretendTensor]) -> Any:
    """A result as a tensor of the device: the one that was written to, or a new one."""
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else PretendTensor(value)


@cache
def _written(func: Any) -> tuple[int, ...]:
    """The places of the arguments that an operation writes to."""
    aliases = [argument.alias_info for argument in func._schema.arguments]
    return tuple(place for place, alias in enumerate(aliases) if alias is not None and alias.is_write)


def _check_devices(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """Raises as CUDA does where an operation meets tensors of both devices.

    A number in main memory, a tensor of no dimensions, may join, but nothing may be written to it. Indices in main
    memory may choose from a tensor on the device.
    """
    free: set[int] = set()
    if func in _INDEXED and isinstance(args[0], PretendTensor):
        free = {id(index) for index in args[1]}
    written = {id(args[place]) for place in _written(func) if place < len(args)} | {id(kwargs.get("out"))}
    for value in tensors:
        if isinstance(value, PretendTensor):
            continue
        joins = value.ndim == 0 and id(value) not in written
        if not (joins or id(value) in free):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {PRETEND} and "
                f"{value.device}! ({func})"
            )


def _check_waits(func: Any, args: Sequence[Any], tensors: Sequence[Tensor], wanted: Any) -> None:
    """Raises where the processor would wait for the device, or the device for main memory."""
    there = [isinstance(value, PretendTensor) for value in tensors]
    crosses = func in _CROSSES and any(there) != all(there)
    if func is _aten._to_copy.default and wanted is not None:
        crosses = (torch.device(wanted).type in (_NAME, "meta")) != any(there)
    mask = func is _aten.index.Tensor and any(one is not None and one.dtype == torch.bool for one in args[1])
    if crosses or (any(there) and (func in _READS or mask)):
        raise RuntimeError(f"operation not permitted when stream is capturing: {func}")


def _check_generator(kwargs: Mapping[str, Any]) -> None:
    generator = kwargs.get("generator")
    if generator is not None:
        found = generator.device.type
        raise RuntimeError(f"Expected a '{_NAME}' device type for generator but found '{found}'")
