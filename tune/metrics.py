"""What the trials of each target are judged by. Free of torch, so that a report can be built without it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Target = Literal["gan", "projection", "unet", "defense"]
Direction = Literal["max", "min"]

# Measured on validation images. The first objective decides, ties go to the next. Cost is generator gradient
# evaluations per image (restarts times steps): an exact count, where seconds depend on the machine.
OBJECTIVES: Mapping[Target, Mapping[str, Direction]] = MappingProxyType(
    {
        "gan": MappingProxyType({"clean_gan": "max"}),
        "projection": MappingProxyType({"psd_gan": "max", "cost": "min"}),
        "unet": MappingProxyType({"psd": "max"}),
        "defense": MappingProxyType({"psd": "max", "cost": "min"}),
    }
)
