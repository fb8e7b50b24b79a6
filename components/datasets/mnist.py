"""MNIST and the sets published in its format, each of 10 classes of 28×28 grey images.

MNIST: LeCun et al. 1998. Fashion-MNIST: Xiao et al. 2017, arXiv:1708.07747. KMNIST: Clanuwat et al. 2018,
arXiv:1812.01718. mnist_mini is a part of MNIST that comes with this project.
"""

from functools import partial
from pathlib import Path

from components.datasets.download import published_idx
from components.datasets.idx_folder import find_files, read_files
from components.datasets.raw import RawData
from components.datasets.sources import DATASETS, Embedded

_EMBEDDED = Path(__file__).parents[1] / "mnist_mini"


@DATASETS.register("mnist_mini")
@Embedded
def _mnist_mini() -> RawData:
    return read_files(find_files(_EMBEDDED), classes=10)


for _name, _class in {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}.items():
    DATASETS.register(_name)(partial(published_idx, _name, _class, f"{_class}/raw/*.gz"))
