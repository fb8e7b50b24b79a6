"""The settings of the data; they can be read without torch."""

from typing import Annotated

from pydantic import Field

from components.config import Config


class DataConfig(Config):
    """The data set, and the share of its training images that is kept for validation."""

    name: str = "mnist_mini"  # a data set's name (docs/extending.md), or a folder of idx files or of images by class
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of each class's training images
