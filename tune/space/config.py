"""One experiment's complete configuration: a section for each component, and one for the search itself."""

from typing import Any, Literal

from pydantic import Field

from components.attacks.fgsm import AttackConfig
from components.classifiers.defense_gan import ClassifierConfig
from components.config import Config
from components.datasets.dataset import DataConfig
from components.gan.gan import GanConfig
from components.projector.projector import ProjectorConfig
from components.unet.unet import UNetConfig
from tune.metrics import OBJECTIVES, Direction, Target

__all__ = ["OBJECTIVES", "Direction", "ExperimentConfig", "Sampler", "SearchConfig", "Target"]

Sampler = Literal["tpe", "gp", "random", "grid", "nsga2"]
_BUDGET: dict[str, Any] = {"neutral": None, "expected": "a duration above 0 such as 90s, 30m or 2h, or null"}


class SearchConfig(Config):
    """What is searched for, and how long."""

    target: Target = "defense"  # the part that is judged; those before it are built, those after it are not
    trials: int = Field(default=20, ge=1)  # configurations to try
    startup_trials: int = Field(default=8, ge=1)  # of these, drawn at random before results guide the rest
    sampler: Sampler = Field(default="tpe", json_schema_extra={"neutral": "tpe"})  # what proposes trials; of Optuna
    points: tuple[dict[str, Any], ...] = ()  # parameters of the first trials, which are not left to chance
    seed: int = Field(default=0, ge=0, le=10**9)  # of the suggestions and of every training
    max_cost: int | None = Field(default=None, ge=1)  # largest restarts × steps of "best"; null = any
    budget: str | None = Field(
        default=None, pattern=r"^[1-9]\d*(\.\d+)?[smhd]$", json_schema_extra=_BUDGET
    )  # no trial begins once trials have run for as long by the clock, such as 30m or 2h; null = no limit
    patience: int | None = Field(
        default=None, ge=1, json_schema_extra={"neutral": None}
    )  # ends after as many trials in a row without a gain beyond the noise; null = never
    terminator: bool = Field(
        default=False, json_schema_extra={"neutral": False}
    )  # ends once Optuna's bound on what is left to gain lies below the noise
    early_stopping: bool = True  # stop a U-Net early that is worse than others were after as many epochs
    warmup_epochs: int = Field(default=2, ge=1)  # U-Net epochs before early stopping may judge
    retries: int = Field(default=2, ge=0)  # further attempts for a trial whose worker died
    retrain_seeds: int = Field(default=3, ge=1)  # trainings of the best one, averaged in the report


class ExperimentConfig(Config):
    """Everything that a trial's result follows from. Each section is the config model of one component."""

    data: DataConfig = DataConfig()  # the images
    classifier: ClassifierConfig = ClassifierConfig()  # the network to defend
    attack: AttackConfig = AttackConfig()  # what it is defended against
    gan: GanConfig = GanConfig()  # generator and discriminator
    projector: ProjectorConfig = ProjectorConfig()  # image → nearest generated image
    unet: UNetConfig = UNetConfig()  # generated image → denoised image
    search: SearchConfig = SearchConfig()  # the search itself
