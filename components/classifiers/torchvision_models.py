"""torchvision's classification networks by name, such as `resnet18`, for images of any size that they can take.

A grey image is repeated in three channels, so that each network, and weights for it, are as published. Images are
neither enlarged nor normalised: a network that reduces small images to nothing is refused.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.classifiers.victim import Victim

# a decorator, perhaps with a name, and the function that it names otherwise
_REGISTERED = re.compile(r'^@register_model\((?:name="(\w+)")?\).*?^def (\w+)\(', re.MULTILINE | re.DOTALL)


@cache
def names() -> tuple[str, ...]:
    """The names of `torchvision.models.list_models(module=torchvision.models)`, sorted.

    Read from the source of the installed package, as importing it takes seconds.
    """
    spec = find_spec("torchvision")
    assert spec is not None, "torchvision is a dependency"
    assert spec.origin is not None, "torchvision is a package"
    found = set()
    for path in (Path(spec.origin).parent / "models").glob("*.py"):
        for name, function in _REGISTERED.findall(path.read_text(encoding="utf-8")):
            found.add(name or function)
    return tuple(sorted(found))


def build(name: str, image_shape: tuple[int, ...], classes: int) -> Victim:
    """The untrained network of that name. Raises whatever torchvision does where it cannot take such images."""
    from torchvision.models import get_model

    from components.classifiers.victim import Victim
    from components.layout import channels_last

    sizes = {"image_size": image_shape[1]} if name.startswith("vit_") else {}
    network = channels_last(get_model(name, weights=None, num_classes=classes, **sizes))
    return Victim(network, image_shape, classes, mean=(0.0,) * 3)  # three means: grey images become colours
