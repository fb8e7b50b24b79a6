"""One experiment's complete configuration: a section for each component, and one for the search itself."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from components import catalogue  # noqa: F401  (its purifiers have sections)
from components.attacks import ATTACKS, FGSM, Attack
from components.classifiers.config import ClassifierConfig
from components.config import AnythingBut, Config, ReadWhen
from components.datasets.config import DataConfig
from components.gan.config import GanConfig
from components.projector.config import ProjectorConfig
from components.purifiers import PURIFIERS, DefenseConfig, PurifierConfig
from components.unet.config import UNetConfig
from tune.durations import DAY, UNITS, seconds_of
from tune.metrics import DEFENSE_TARGETS, OBJECTIVES, Direction, Objective, Target, objectives_of

__all__ = ["OBJECTIVES", "Direction", "ExperimentConfig", "Sampler", "SearchConfig", "Target"]

Sampler = Literal["tpe", "gp", "random", "grid", "nsga2"]
_TRAINS: dict[str, tuple[Any, ...]] = {"target": DEFENSE_TARGETS}  # those that train a U-Net
_BY_EPOCH = {**_TRAINS, "objective": ("psd",)}  # an epoch measures PSD alone
_LONGEST = 365 * DAY
_DURATION = f"a duration above 0 and up to 365d in {UNITS}, such as 90s, 30m or 1.5h, or null"
_BUDGET: dict[str, Any] = {"neutral": None, "expected": _DURATION}


def _bounded(duration: str | None) -> str | None:
    with suppress(ValueError):
        if duration is None or seconds_of(duration) <= _LONGEST:
            return duration
    raise ValueError(f"expected {_DURATION}, found {(duration or '')[:40]!r}")


class SearchConfig(Config):
    """Settings of the search itself."""

    read_when: ClassVar[ReadWhen] = {
        "robust_images": {"objective": ("robust", "both")},
        "early_stopping": _BY_EPOCH,
        "warmup_epochs": {**_BY_EPOCH, "early_stopping": (True,)},
        "finalists": _TRAINS,
        "finalist_seeds": {**_TRAINS, "finalists": AnythingBut((1,))},
        "retrain_seeds": _TRAINS,
    }

    target: Target = "defense"  # the part that is judged; those before it are built, those after it are not
    objective: Objective = Field(
        default="psd", json_schema_extra={"neutral": "psd"}
    )  # robust: right against an attacker who knows the defense; both: robust, then psd; targets unet and defense
    robust_images: int = Field(
        default=100, ge=1, le=10**6, json_schema_extra={"neutral": 100}
    )  # validation images that such an attacker is given, by the quick list; where objective is not psd
    trials: int = Field(default=20, ge=1, le=10**5)  # configurations to try
    startup_trials: int = Field(default=8, ge=1, le=10**5)  # of these, spread evenly before results guide the rest
    sampler: Sampler = Field(
        default="tpe", json_schema_extra={"neutral": "tpe"}
    )  # what proposes trials: one of Optuna's, or for grid every point in a random order
    points: tuple[dict[str, Any], ...] = Field(
        default=(), json_schema_extra={"expected": "a list of mappings, such as [{projector.steps: 10}]"}
    )  # parameters of the first trials, which are not left to chance
    seed: int = Field(default=0, ge=0, le=10**9)  # of the suggestions and of every training
    max_cost: int | None = Field(default=None, ge=1, le=10**8)  # largest restarts × steps of "best"; null = any
    cost_aware: bool = Field(
        default=False, json_schema_extra={"neutral": False}
    )  # rank what the sampler draws by expected improvement per second that no stored stage saves
    budget: Annotated[str | None, AfterValidator(_bounded)] = Field(
        default=None, json_schema_extra=_BUDGET
    )  # no trial begins once trials have run for as long by the clock, such as 30m or 2h; null = no limit
    patience: int | None = Field(
        default=None, ge=1, le=10**5, json_schema_extra={"neutral": None}
    )  # ends after as many trials in a row without a gain beyond the noise; null = never
    terminator: bool = Field(
        default=False, json_schema_extra={"neutral": False}
    )  # ends once Optuna's bound on what is left to gain lies below the noise
    early_stopping: bool = True  # stop a U-Net early that is worse than others were after as many epochs
    promotion: bool = Field(
        default=False, json_schema_extra={"neutral": False}
    )  # what is worse is set aside, and goes on where it was once it is among the better half
    warmup_epochs: int = Field(default=2, ge=1, le=10_000)  # U-Net epochs before early stopping may judge
    retries: int = Field(default=2, ge=0, le=100)  # further attempts for a trial or training whose worker died
    finalists: int = Field(
        default=3, ge=1, le=10**5, json_schema_extra={"neutral": 1}
    )  # the best so many are trained with further seeds before one is chosen; 1 = the search's own score decides
    finalist_seeds: int = Field(
        default=3, ge=1, le=100, json_schema_extra={"neutral": 3}
    )  # at most, the search's own included: what can be told from the best gets no further one; 1 = only that one
    retrain_seeds: int = Field(default=3, ge=1, le=1000)  # trainings of the best one, averaged in the report

    @property
    def objectives(self) -> Mapping[str, Direction]:
        """Metrics that trials are judged by; the first decides."""
        return objectives_of(self.target, self.objective)


class ExperimentConfig(Config):
    """Everything that a trial's result follows from. Each section holds the settings of one component."""

    data: DataConfig = DataConfig()  # the images
    classifier: ClassifierConfig = ClassifierConfig()  # the network to defend
    attack: SerializeAsAny[Attack] = FGSM()  # the attack that it is defended against
    gan: GanConfig = GanConfig()  # generator and discriminator
    projector: ProjectorConfig = ProjectorConfig()  # image → nearest generated image
    unet: UNetConfig = UNetConfig()  # generated image → denoised image
    defense: DefenseConfig = DefenseConfig()  # which parts it has
    search: SearchConfig = SearchConfig()  # the search itself
    others: Mapping[str, SerializeAsAny[PurifierConfig]] = Field(default_factory=dict)  # further purifiers

    @model_validator(mode="after")
    def _adaptive_training_has_an_encoder(self) -> "ExperimentConfig":
        reads = (self.defense.purifier, self.projector.init, self.unet.input)
        if self.unet.training == "adaptive" and reads != ("projector", "encoder", "generated"):
            expected = "expected purifier projector, projector.init encoder and unet.input generated"
            raise ValueError(f"unet.training: adaptive: {expected}, found {', '.join(reads)}")
        return self

    def section(self, name: str) -> Config:
        """The settings of one section of a search space."""
        found: Config = self.others[name] if name in self.others else getattr(self, name)
        return found


class Fidelity(NamedTuple):
    """The length of a U-Net's training: trials are compared after the same epoch of trainings of equal length."""

    epochs: int
    images: int | None
    first_images: int | None


FIDELITY = tuple(f"unet.{name}" for name in Fidelity._fields)


def stops_early(fixed: Mapping[str, Any]) -> bool:
    """True where a U-Net may be stopped after an epoch, given a space's fixed fields by dotted key.

    An epoch measures PSD, by which the most robust may be the worst.
    """
    by_epoch = all(fixed[f"search.{name}"] in values for name, values in _BY_EPOCH.items())
    return by_epoch and bool(fixed["search.early_stopping"])


def rungs(first: int, epochs: int) -> list[int]:
    """Epochs of a U-Net after which early stopping decides: `first`, twice as many and so on, but not the last."""
    found = []
    while first < epochs:
        found.append(first)
        first *= 2
    return found


def section_models() -> dict[str, tuple[type[Config], ...]]:
    """Sections of a search space, each with its config model, or with all among which its field `name` chooses.

    What a plug-in has registered is among them.
    """
    fields = {name: field for name, field in ExperimentConfig.model_fields.items() if name != "others"}
    models = {name: (type(field.default),) for name, field in fields.items()}
    search = models.pop("search")
    others = {name: (model,) for name, model in PURIFIERS.items() if name not in models}
    attacks = dict.fromkeys([*models["attack"], *ATTACKS.values()])  # the default first, in whatever order they came
    return {**models, "attack": tuple(attacks), **others, "search": search}
