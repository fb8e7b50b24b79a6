"""The head of the report: the answer, and every reason to doubt it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune.metrics import title_of
from tune.report.blocks import Block, Caution, Text, Tile, Tiles
from tune.report.data import Experiment
from tune.report.scores import Score, doubts, interval, percent

Test = Mapping[str, Score]

MEANING = (
    "PSO is the share of the originals that the classifier labels correctly; PSD the share of the denoised images that "
    "it labels correctly; PCO the share of the denoised images that it labels as it labels their original."
)


def attack(experiment: Experiment) -> str:
    name, epsilon = experiment.setting("attack.name") or "fgsm", experiment.setting("attack.epsilon")
    return str(name).upper() + ("" if epsilon is None else f", ε = {epsilon:g}")


def variants(experiment: Experiment) -> list[str]:
    """Names the settings that go beyond the published method."""
    on = []
    if levels := experiment.setting("projector.levels"):
        on.append(f"images are reduced to {levels} grey levels before they are projected")
    if read := _READ.get(str(experiment.setting("unet.input"))):
        on.append(f"the U-Net reads {read}")
    if experiment.setting("attack.labels") == "predicted":
        on.append("the attack starts from predicted labels")
    return on


def switched_on(experiment: Experiment) -> str:
    """A sentence that names the variants, for the note of every table of scores; empty where there are none."""
    on = "; ".join(variants(experiment))
    return on and f"Variants on: {on}."


def circumstances(experiment: Experiment) -> str:
    """The attack and the variants."""
    return f"Gray-box {attack(experiment)}. {switched_on(experiment)}".rstrip()


_READ = {
    "both": "x_g and the attacked image",
    "attacked": "the attacked image alone, and no x_g",
}


def head(experiment: Experiment, test: Test) -> list[Block]:
    """The answer first: the figures, one sentence, and every reason for doubt."""
    blocks: list[Block] = [Tiles(_tiles(experiment, test))] if test else []
    blocks.append(Text(_verdict(experiment, test)))
    if test:
        blocks.append(Text(MEANING))
    blocks += [Caution(text) for text in cautions(experiment, test)]
    return blocks


def _tiles(experiment: Experiment, test: Test) -> list[Tile]:
    sought = {"robust": "attacked through the defense"} if "robust" in experiment.objectives else {}
    names = sought | {
        "psd": "PSD: attacked, defended",
        "noisy": "attacked, undefended",
        "pso": "PSO: originals",
        "pco": "PCO: as the original",
    }
    known = {name: label for name, label in names.items() if name in test}
    return [
        Tile(label, f"{percent(test[n].mean)} %", f"95 %: {interval(test[n].widest)}") for n, label in known.items()
    ]


def _verdict(experiment: Experiment, test: Test) -> str:
    best = experiment.best
    if best is None:
        return "No trial has finished yet, so there is no best configuration."
    if "psd" in test and "noisy" in test and experiment.median:
        seeds = f"{len(experiment.seeds)} seeds" if len(experiment.seeds) > 1 else "one seed"
        return (
            f"Of {experiment.median.images:,} test images of "
            f"{experiment.setting('data.name') or 'the data'}, attacked with {attack(experiment)} (gray-box: "
            "the attacker knows the classifier, not the defense), the classifier alone gets "
            f"{percent(test['noisy'].mean)} % right. Behind the defense it gets {percent(test['psd'].mean)} "
            f"% right (mean of {seeds}, trained with the configuration of trial {best.trial})."
        )
    metric = next(iter(experiment.objectives))
    return (
        f"Trial {best.trial} is the best of {len(experiment.finished)} finished trials, with a validation "
        f"{title_of(metric)} of {percent(best.metrics[metric])} %. This report covers the search "
        "alone: the folder holds no test scores."
    )


def cautions(experiment: Experiment, test: Test) -> list[str]:
    """Everything that a reader should know before believing the figures."""
    found = doubts(experiment, test)
    if len(experiment.seeds) == 1 and test:
        found.append("One seed only: the intervals say how well the images tell its score, not how seeds differ.")
    if test and "psd" not in test:
        found.append("The seeds' test scores lack PSD.")
    if (settled := experiment.ruled) and experiment.best and settled.trial != experiment.best.trial:
        found.append(
            f"best/choice.json names trial {experiment.best.trial}; by its own rule it would now be trial "
            f"{settled.trial}. Trials were added since, or the choice was made by hand."
        )
    if _dirty(experiment.record):
        found.append("The code had uncommitted changes when the search began: the commit alone is not enough.")
    if failed := experiment.with_status("failed"):
        found.append(f"{len(failed)} of {len(experiment.outcomes)} trials failed; the reasons are under Failures.")
    return [*found, *(f"Not read: {problem}" for problem in experiment.problems)]


def _dirty(record: Mapping[str, Any]) -> bool:
    git = record.get("git")
    return record.get("dirty") is True or (isinstance(git, Mapping) and git.get("dirty") is True)
