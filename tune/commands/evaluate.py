"""`python -m tune evaluate`: what is left of a saved defense when the attacker knows all of it."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.table import Table

from components.adversarial_training import AdversarialConfig
from components.attacks.adaptive import evaluate_defense
from components.attacks.kept import Kept
from components.attacks.presets import PRESETS, PresetName
from components.attacks.target import Stage
from components.classifiers.base import ClassifierError
from components.classifiers.training import trainable
from components.config import explain
from components.datasets.dataset import Dataset, DataSplit, load_dataset
from components.datasets.idx import DataError
from components.defense import Defense
from components.hardware import keep_memory
from components.plugins import plugged
from components.registry import raised
from components.robustness import Robustness
from components.static_reference import static_reference
from tune.commands.output import drop_output, reader_is_gone
from tune.commands.purify import load_defense, saved_at
from tune.commands.rows_file import RowsFile
from tune.commands.units import pulse
from tune.errors import DONE, FAILED, INTERRUPTED
from tune.evaluation.adaptive import DRAW
from tune.monitor.console import Output
from tune.pipeline.unet import QUICK_LIST
from tune.report.reading import Choice, Reader
from tune.space.unread import unread_data_dir
from tune.storage.folder import Storage
from tune.storage.targets import file_to_write

IMAGES = {"quick": 200, "standard": 1000, "full": 1000}  # where the command line does not say
DEFAULTS: Mapping[str, Any] = {"data.name": "mnist_mini", "attack.epsilon": 0.3}  # of the shipped defenses
BESIDE: dict[Stage, str] = {
    "classifier": "classifier alone",
    "threshold": "threshold alone",
    "gan": "{purifier} only",
    "defense": "whole defense",
}
REFERENCE = "threshold, classifier trained on attacks"


def evaluate_saved(
    *,
    folder: str,
    attacks: PresetName,
    images: int | None,
    data: str | None,
    data_dir: str | None,
    epsilon: float | None,
    reference: int,
    curves: bool,
    seed: int,
    device: str | None,
    out: str | None,
    plugin: str | None,
) -> int:
    """Does what `catalogue.evaluate` says, with its arguments, status and errors."""
    target = None if out is None else file_to_write(out, "--out")
    with plugged(plugin) as plug_in:
        defense = load_defense(folder)
    settings = _settings_of(folder)
    epsilon = _strength(folder, settings["attack.epsilon"]) if epsilon is None else epsilon
    training = _reference_config(defense, epsilon, reference)
    if device:
        defense = _on(defense, device)
    whole_data = load_dataset(settings["data.name"], data_dir) if data is None else _loaded(data, data_dir)
    for note in unread_data_dir(data or settings["data.name"], data_dir):
        print(f"note: {note}", file=sys.stderr)
    test = _images(defense, whole_data, images or IMAGES[attacks])
    attacker, found, written = Attacker(test, epsilon, seed), dict[str, Robustness](), False
    asked = {
        "defense": hashlib.sha256(saved_at(folder).read("manifest.json")).hexdigest(),
        "plugin": plug_in and plug_in.sha256,
        "images": [whole_data.test_fingerprint, len(test)],
        "attacks": [PRESETS[attacks].model_dump(mode="json"), QUICK_LIST],
        "epsilon": epsilon,
        "seed": seed,
    }
    asked_beside = {"training": training and training.model_dump(mode="json"), "images": whole_data.fingerprint}
    rows = RowsFile(target, asked, asked_beside)
    with rows.kept():
        try:
            print(f"{len(test):,} test images of {whole_data.name}, ε = {epsilon:g}", flush=True)
            keep_memory()
            found = _by_stage(attacker, defense, attacks, curves, rows.attacks)
            written = rows.write(found)  # before what may take as long again
            if training:
                found["static"] = _reference(attacker, defense, whole_data.train, training, attacks, rows)
                written = rows.write(found)
            if written:
                rows.end()
        except OSError:
            if target is None or not reader_is_gone():
                raise
            found = {}  # nobody would read it
            return _end_unread(target, written)
        finally:  # also where the reference was interrupted
            if found:
                _show(found, _titles(defense))
    return DONE if written else FAILED


def _titles(defense: Defense) -> dict[str, str]:
    """Names of what stands in front of the classifier, by row."""
    titles = {str(stage): title.format(purifier=defense.projector.config.title) for stage, title in BESIDE.items()}
    return {**titles, "static": REFERENCE}


def _by_stage(
    attacker: Attacker, defense: Defense, attacks: PresetName, curves: bool, kept: Kept | None
) -> dict[str, Robustness]:
    """The whole defense by the list, and before it its earlier stages by the quick one."""
    titles, found = _titles(defense), dict[str, Robustness]()
    for stage in BESIDE:
        effort = (attacks, curves, kept) if stage == "defense" else ("quick",)
        found[stage] = attacker.attacked(defense, stage, titles[stage], *effort)
    return found


def _end_unread(out: Path, written: bool) -> int:
    """Ends where nobody reads the output any more, as after `2>&1 | head`; the status says that a part is missing."""
    drop_output()
    with suppress(OSError):
        missing = f"{out} has no reference" if written else f"{out} was not written"
        print(f"interrupted, as its output was closed; {missing}", file=sys.stderr)
    return INTERRUPTED


def _settings_of(folder: str) -> dict[str, Any]:
    """Data and ε of the experiment whose folder, or whose best/, it is; of another saved defense those of the shipped.

    A searched value is that of the chosen configuration.
    """
    home = Storage(folder)
    if home.uri.rstrip("/").endswith("/best"):
        home = Storage(home.uri.rstrip("/").removesuffix("/best"))
    reader = Reader(home)
    space, choice = reader.space(), reader.model("best/choice.json", Choice)
    found = {**DEFAULTS, **space, **(choice.params if choice else {})} if space else DEFAULTS
    return {key: default if isinstance(found[key], Mapping) else found[key] for key, default in DEFAULTS.items()}


def _strength(folder: str, epsilon: Any) -> float:
    """The ε of an experiment's attack, whose file anybody may have changed."""
    if type(epsilon) not in (int, float) or not 0 <= epsilon <= 1:  # True is an integer to Python
        expected = "attack.epsilon: expected a number in 0 … 1"
        raise ValueError(f"{folder}: {expected}, found {epsilon!r}; --epsilon gives another")
    return float(epsilon)


def _loaded(data: str, data_dir: str | None) -> Dataset:
    """The data set of `--data`, which errors are blamed on in place of a space's field."""
    try:
        return load_dataset(data, data_dir)
    except DataError as error:
        raise DataError(str(error).replace("data.name: ", "--data: ", 1)) from error


def _on(defense: Defense, device: str) -> Defense:
    """The defense there, once it has labelled an image: some devices take networks and cannot compute with them."""
    try:
        moved = defense.to(device)
        moved.classifier.predict(torch.zeros(1, *moved.classifier.image_shape)).tolist()
        return moved
    except (RuntimeError, AssertionError, ImportError) as error:  # which one depends on device and torch's build
        reason = (str(error).splitlines() or [raised(error)])[0].split(". ")[0]
        expected = "expected one that torch can use here, such as cpu"
        raise ValueError(f"--device: {expected}, found {device!r}: {reason}") from error


def _images(defense: Defense, data: Dataset, wanted: int) -> DataSplit:
    test = data.test
    shape, expected = tuple(test.images.shape[1:]), defense.classifier.image_shape
    if shape != expected:
        raise ValueError(f"--data: expected images of shape {expected}, found {shape} in {data.name}")
    if data.classes != defense.classifier.classes:
        raise ValueError(f"--data: expected {defense.classifier.classes} classes, found {data.classes} in {data.name}")
    return test.sample(min(wanted, len(test)), seed=DRAW)  # a folder may be in the order of its classes


@dataclass(frozen=True)
class Attacker:
    """Attacks stages of a defense on the same images, with the same ε and seed."""

    images: DataSplit
    epsilon: float
    seed: int

    def attacked(
        self,
        defense: Defense,
        stage: Stage,
        title: str,
        attacks: PresetName,
        curves: bool = False,
        kept: Kept | None = None,
    ) -> Robustness:
        """One stage by a list of attacks; with curves over ε and over steps where these are asked for."""
        began, last = time.perf_counter(), "begun"

        def tell(what: str) -> None:
            nonlocal last
            last = what
            _tell(began, f"{title}: {what}")

        with pulse(lambda: _tell(began, f"{title}: still busy; last: {last}")):
            return evaluate_defense(
                defense,
                self.images.images,
                self.images.labels,
                epsilon=self.epsilon,
                preset=attacks,
                stage=stage,
                seed=self.seed,
                curves=curves,
                tell=tell,
                kept=kept,
            )


def _reference_config(defense: Defense, epsilon: float, epochs: int) -> AdversarialConfig | None:
    """The reference's training: behind the defense's grey levels, one to three steps of attack a batch."""
    if not epochs:
        return None
    try:
        trainable(defense.classifier)
    except ClassifierError as error:
        raise ValueError(f"--reference: expected a classifier that can be trained further: {error}") from error
    levels = defense.projector.config
    threat = {"levels": levels.levels, "threshold": levels.threshold, "epsilon": epsilon}
    effort = {"epochs": epochs, "first_steps": 1, "steps": 3, "batch_size": 128, "learning_rate": 1e-3}
    try:
        return AdversarialConfig.model_validate({**threat, **effort})
    except ValidationError as error:
        raise ValueError(f"--reference: {explain(error, AdversarialConfig)}") from error


def _reference(
    attacker: Attacker,
    defense: Defense,
    train: DataSplit,
    config: AdversarialConfig,
    attacks: PresetName,
    rows: RowsFile,
) -> Robustness:
    """The classifier itself trained behind the grey levels, under the attacks of the defense."""
    began = time.perf_counter()

    def tell(what: str) -> None:
        _tell(began, f"{REFERENCE}: {what}")

    trained = static_reference(defense, train, config, attacker.seed, tell, rows.training)
    return attacker.attacked(trained, "threshold", REFERENCE, attacks, kept=rows.attacks_beside)


def _tell(began: float, sentence: str) -> None:
    print(f"{time.perf_counter() - began:6.1f} s  {sentence}", file=sys.stderr, flush=True)


def _show(found: Mapping[str, Robustness], titles: Mapping[str, str]) -> None:
    console = Output(highlight=False)
    console.print(found["defense"].table(), soft_wrap=True)
    table = Table("in front of the classifier", "clean %", "worst %", "attacks", box=None, header_style="dim")
    for stage, one in found.items():
        table.add_row(titles[stage], f"{100 * one.clean:.2f}", f"{100 * one.worst:.2f}", one.preset)
    console.print(table)
    wrong = round((1 - found["defense"].clean) * found["defense"].images)
    console.print(f"{wrong} images were wrong without an attack: counted as wrong, not attacked.", style="dim")
