"""Weights of a network as safetensors: nothing is unpickled, and a file is whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from components.files import write_atomic


class WeightsError(ValueError):
    """Weights that cannot be used: missing, damaged, or of another architecture."""


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes the weights of `module`, from whichever device they are on."""
    write_atomic(path, content_of(module.state_dict()))


def content_of(weights: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file with these weights, which is the same for the same weights."""
    # copies in main memory, as safetensors wants them: contiguous, and one each of what layers share
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in weights.items()})


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads safetensors into `module`.

    Raises:
        WeightsError: the file is missing, damaged, or fits another architecture.
    """
    try:
        module.load_state_dict(load(path.read_bytes()))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: expected safetensors, found no such file") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: expected safetensors, found {error}") from error
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip()
        name = type(module).__name__
        raise WeightsError(f"{path}: expected the weights of {name} as described, found {problem}") from error
