"""Files of weights that a search is given, by the name that its space gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.files import expanded, plain, sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WeightsFile:
    """Weights as safetensors, wherever they lie.

    Attributes:
        name: as the space has it.
        sha256: of the file.
        fetch: gives its content.
    """

    name: str
    sha256: str
    fetch: Callable[[], bytes]

    def read(self) -> bytes:
        """The content.

        Raises:
            ValueError: it is another by now.
            OSError: it cannot be read.
        """
        content = self.fetch()
        if (found := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise ValueError(
                f"classifier.weights: {self.name}: expected sha256 {self.sha256[:12]}…, as when the search began, "
                f"found {found[:12]}…"
            )
        return content


_PROVIDED: dict[str, WeightsFile] = {}


def provide(file: WeightsFile) -> None:
    """Lets `file` stand for its name in this process, as on a node that has not the file itself."""
    _PROVIDED[file.name] = file


@contextmanager
def providing() -> Iterator[None]:
    """Within the block files may be provided; then only those of before are."""
    before = dict(_PROVIDED)
    try:
        yield
    finally:
        _PROVIDED.clear()
        _PROVIDED.update(before)


def file_of(name: str) -> WeightsFile:
    """The file that a space names: as provided, or the one of that path.

    Raises:
        ValueError: there is none that could be read.
    """
    if name in _PROVIDED:
        return _PROVIDED[name]
    path = expanded(name)
    try:
        return WeightsFile(name, sha256_file(plain(path)), path.read_bytes)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"classifier.weights: expected a safetensors file, found {name}: {reason}") from error


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network, by name.

    Raises:
        ClassifierError: its state holds something else, which a file of weights could not.
    """
    from torch import Tensor

    from components.classifiers.base import ClassifierError

    state = dict(network.state_dict())
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ClassifierError(
                f"{type(network).__name__}: expected a state of tensors alone, as safetensors keeps it, "
                f"found {type(value).__name__} in {name}; let get_extra_state return a tensor"
            )
    return state


def packed(network: nn.Module) -> bytes:
    """The weights of a network as the content of a safetensors file, which is the same for the same weights."""
    from components.weights import content_of

    return content_of(tensors_of(network))


def put_weights(network: nn.Module, content: bytes, where: str) -> None:
    """Reads the content of a safetensors file into `network`.

    Args:
        network: what the weights must fit, tensor by tensor.
        content: of the file.
        where: what to call it.

    Raises:
        ValueError: it is no such file, or has the weights of another network, or some that are no finite numbers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(content)
    except SafetensorError as error:
        pickled = content.startswith((b"PK", b"\x80"))  # as torch.save writes, of now and of before 1.6
        reason = "a file of torch.save; write it again by safetensors.torch.save_file" if pickled else error
        raise ValueError(f"{where}: expected safetensors, found {reason}") from error
    expected = tensors_of(network)
    problems = [f"no {name}" for name in expected if name not in found]
    problems += [f"an unknown {name}" for name in found if name not in expected]
    for name in (name for name in expected if name in found):
        if (wanted := tuple(expected[name].shape)) != (shape := tuple(found[name].shape)):
            problems.append(f"{name} of {shape} where {wanted} belongs")
        elif found[name].is_floating_point() != expected[name].is_floating_point():
            problems.append(f"{name} of {_kind(found[name])} where {_kind(expected[name])} belongs")
        elif not found[name].to(expected[name].dtype).isfinite().all():
            problems.append(f"{name} with NaN or infinity")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        hint = f"; every name begins with {prefix!r}: leave it out" if (prefix := _prefix(found, expected)) else ""
        raise ValueError(f"{where}: expected the weights of {type(network).__name__}, found {problems[0]}{more}{hint}")
    network.load_state_dict(found)


def _prefix(found: Collection[str], expected: Collection[str]) -> str:
    """Finds what names have before those expected, such as DataParallel's `module.`; nothing where it is not that."""
    prefix = min(found, default="").removesuffix(min(expected))
    return prefix if {f"{prefix}{name}" for name in expected} == set(found) else ""


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
