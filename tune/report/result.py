"""Sections on the question, the threat model and the result on the test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tune.metrics import title_of
from tune.report.blocks import (
    Block,
    Caution,
    Drawing,
    Section,
    Table,
    Text,
    interval,
    percent,
    points,
    seeds_interval,
    value,
)
from tune.report.facts import Facts
from tune.report.scores import PARTS, PUBLISHED, Score
from tune.report.style import BLUE, GREEN, GREY, GRID, INK, ORANGE, PINK, blank, render

HUES = {"pso": GRID, "noisy": GREY, "threshold": ORANGE, "psd_gan": BLUE, "psd_unet": PINK, "psd": GREEN}

LABELS = {
    "true": " It starts from the true label, which a network that has learned this attack may read from the image.",
    "predicted": " It starts from the label that the classifier predicts, mostly the true one, which a network that "
    "has learned this attack may read from the image.",
}


def asked(facts: Facts) -> Section:
    trials = facts.setting("search.trials")
    sentence = f"The search's target was {facts.searched}"
    sentence += f", in {trials} trials." if trials else "."
    goals = " and ".join(
        f"{'higher' if d == 'max' else 'lower'} {title_of(m)}" for m, d in facts.objectives.items()
    )
    seen = ", which no training of this search sees"
    if facts.setting("gan.pretrained"):
        seen += "; what the pretrained generator was trained on stands below, and may have them in it"
    blocks: list[Block] = [Text(f"{sentence} It sought {goals} on validation images{seen}.")]
    blocks += [Text(str(note)) for note in facts.record.get("notes") or ()]
    blocks += _warm_start(facts.record.get("warm_start"))
    if facts.ranges:
        chosen = facts.best_params
        rows = [(f"`{k}`", _range(r), value(chosen[k]) if k in chosen else "–") for k, r in facts.ranges.items()]
        blocks.append(Table(("searched parameter", "range", "chosen"), rows))
    return Section("What was asked", (*blocks, *_data(facts)))


def _warm_start(noted: Any) -> list[Block]:
    """Names the experiments that the search learned from; empty where there are none, or the note is damaged."""
    if not isinstance(noted, Mapping):
        return []
    sources = [
        f"{source.get('used')} finished trials of `{uri}` ({source.get('left_out')} more do not fit this space)"
        for uri, source in noted.items()
        if isinstance(source, Mapping)
    ]
    words = "Warm start: before its first trial the search knew " + ", and ".join(sources)
    return [Text(words + ". They are no trials of this search, and cannot be chosen.")] if sources else []


def _range(description: Mapping[str, Any]) -> str:
    if "choice" in description:
        words = ", ".join(map(value, description["choice"]))
    else:
        words = f"{value(description.get('low'))} to {value(description.get('high'))}"
        words += f" in steps of {value(description['step'])}" if description.get("step") else ""
        words += ", logarithmic" if description.get("log") else ""
    conditions = (f"{key} is {_either(wanted)}" for key, wanted in (description.get("when") or {}).items())
    return words + "".join(f"; only when {condition}" for condition in conditions)


def _either(wanted: Any) -> str:
    return " or ".join(map(value, wanted)) if isinstance(wanted, list | tuple) else value(wanted)


def _data(facts: Facts) -> list[Block]:
    name = facts.setting("data.name")
    if not name:
        return []
    words = f"Data: {name}{_counts(facts.data)}. "
    words += "Trials were judged on validation images cut from its training part."
    if facts.saved:
        words += (
            f" The best configuration was then trained again on training and validation images together, and "
            f"{facts.saved.images:,} held-out test images were read once, after everything was decided."
        )
    return [Text(words)]


def _counts(data: Mapping[str, Any]) -> str:
    parts = [f"{data[part]:,} {part}" for part in ("train", "validation", "test") if isinstance(data.get(part), int)]
    return f" ({', '.join(parts)} images)" if parts else ""


def threat(facts: Facts) -> Section:
    """The section on the attacker whom PSD is about, and on those whom it leaves open."""
    source = LABELS.get(str(facts.setting("attack.labels")), "")
    return Section(
        "Threat model",
        (
            Text(
                f"Gray-box {facts.attack}. The attacker {facts.attack_type.attacker}.{source} The attacker does "
                "not know that a defense stands in front of the classifier, and computes nothing through it."
            ),
            Caution(_not_shown(facts)),
        ),
    )


def _not_shown(facts: Facts) -> str:
    """A caution that says which attackers PSD leaves open, and where the report has an answer."""
    history = (
        "Purifying images has lost much of its strength to adaptive attacks (Athalye, Carlini, Wagner: Obfuscated "
        "gradients give a false sense of security, ICML 2018). Read PSD as accuracy under this one attack, not as "
        "robustness."
    )
    known = facts.adaptive
    if known is None:
        return (
            "What this does not show: an adaptive (white-box) attacker, who knows the defense too and attacks through "
            f"it (BPDA, EOT), nor {facts.attack_type.not_tried}, other norms or transferred attacks. {history}"
        )
    return (
        f"{history} An attacker who knows the defense too, and attacks through it, leaves {percent(known.worst)} % of "
        f"{known.images:,} test images right ({interval(known.interval)}), by the {known.preset} list of attacks under "
        "“An attacker who knows the defense”. Longer attacks may leave fewer. Not covered: other norms than L∞, other "
        "changes of an image, and more queries than are named there."
    )


def table(facts: Facts) -> Section:
    wanted = ("pso", "psd", "pco", "clean_purified", "clean_gan", "attacked_label", "robust")
    names = [name for name in wanted if name in facts.test]
    rows = [_row(facts.row(name), facts.test[name], PUBLISHED.get(name)) for name in names]
    columns = ("% of test images", "mean", "std", "95 % seeds", "95 % images", "published", "each seed")
    seeds = ", ".join(str(score.seed) for score in facts.seeds)
    saved = facts.saved.seed if facts.saved else "–"
    note = (
        f"Seeds: {seeds}. 95 % seeds: Student's t interval of the mean over seeds, the chance in training; "
        "of a single seed, the Wilson interval; same: all seeds agree. 95 % images: Wilson interval on the "
        f"test images for seed {saved}, whose defense is the one saved; the chance in which "
        f"images were drawn. {facts.circumstances}{_sampled(facts)}"
    )
    place = Text(_setting_beside(facts))
    marked = names.index("psd") if "psd" in names else None
    return Section("Result", (Table(columns, rows, numbers=6, marked=marked, note=note), place))


def _sampled(facts: Facts) -> str:
    """On which images the worst case was measured, which is not on all."""
    known = facts.adaptive
    return f" The worst case is on {known.images:,} of the test images, drawn by a fixed seed." if known else ""


def _row(label: str, score: Score, published: float | None) -> tuple[str, ...]:
    each = ", ".join(percent(v) for v in score.values)
    std = percent(score.std) if len(score.values) > 1 else "–"
    ends = (seeds_interval(score), interval(score.wilson95))
    return (label, percent(score.mean), std, *ends, percent(published), each)


def _setting_beside(facts: Facts) -> str:
    published = "The published figures are for MNIST, 60,000 training and 10,000 test images, FGSM with ε = 0.3"
    published_here = {"data.name": "mnist", "attack.name": "fgsm", "attack.epsilon": 0.3}
    if all(facts.setting(key) == value for key, value in published_here.items()):
        return published + ": the setting of this search."
    return (
        published + f"; this search had {facts.setting('data.name')} and {facts.attack}. Compare with care."
    )


def stages(facts: Facts) -> Section:
    rows = []
    for name in PARTS:
        if name in facts.test:
            score, more = facts.test[name], facts.gain(name)
            ahead = "–" if name == "psd" or more is None else points(more)
            ends = (seeds_interval(score), interval(score.wilson95))
            rows.append((facts.part(name), percent(score.mean), *ends, ahead))
    columns = ("attacked images behind", "% right", "95 % seeds", "95 % images", "both ahead by")
    note = f"Both ahead by: {facts.part('psd')} above it in percentage points, compared seed by seed; "
    note += "mean and 95 % interval. "
    if "psd_unet" in facts.test:
        note += f"{facts.part('psd_unet')}: the attacked images go to the U-Net as they are, though it was trained on "
        note += f"those that the {facts.purifier} makes. "
    note += facts.circumstances
    if facts.levels:
        note += f" Every row with the {facts.purifier} contains the reduction of grey levels; the threshold is two "
        note += "levels alone."
    chart = Drawing(
        render("stages", _bars(facts)),
        "Accuracy on the originals, and on attacked images behind each part of the defense. "
        "Whiskers: both 95 % intervals, from the lowest end to the highest.",
        "Bars: " + "; ".join(f"{row[0]} {row[1]} %" for row in rows),
    )
    return Section("Each stage's part", (chart, Table(columns, rows, numbers=4, note=note)))


def _bars(facts: Facts) -> Figure:
    """Each stage's part: accuracy on attacked images, below that on originals, with widest intervals."""
    bars = {"pso": "originals", **{name: f"attacked, {facts.part(name)}" for name in PARTS}}
    names = [name for name in bars if name in facts.test]
    figure, axes = blank(height=0.62 + 0.36 * len(names))
    for place, name in enumerate(names):
        score = facts.test[name]
        low, high = score.widest
        axes.barh(place, score.mean, color=HUES[name], height=0.58)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=7)
        axes.text(max(high, score.mean) + 0.015, place, f"{percent(score.mean)} %", va="center")
    axes.set_yticks(range(len(names)), [bars[name] for name in names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.16)
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("correctly classified test images")
    return figure
