"""EMNIST Digits: 240,000 training and 40,000 test digits, 28×28 grey, 10 classes.

Cohen et al. 2017, arXiv:1702.05373.
"""

from functools import partial

from components.datasets.download import published_idx
from components.datasets.sources import DATASETS

DATASETS.register("emnist_digits")(
    partial(published_idx, "emnist_digits", "EMNIST", "EMNIST/raw/emnist-digits-*", family="emnist-digits-")
)
