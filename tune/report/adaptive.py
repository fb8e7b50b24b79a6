"""An attacker who knows the defense: attack by attack, what stands beside it, and reasons for doubt."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from components.attacks.presets import PRESETS
from components.robustness import Robustness
from tune.report.blocks import Block, Caution, Drawing, Section, Table, Text, interval, percent
from tune.report.facts import Facts
from tune.report.scores import Score
from tune.report.style import GREEN, blank, render

TITLE = "An attacker who knows the defense"
# Under AutoAttack at ε 0.3, on MNIST: robust (clean), in percent.
PUBLISHED = "96.34 (99.26), 93.96 (98.38), 92.81 (99.48) and 88.50 (98.53)"
LEFT_OUT = "Left out: the saved seed holds no adaptive attacks. `python -m tune evaluate` makes them."


def adaptive(facts: Facts) -> Section:
    known = facts.adaptive
    if known is None:
        return Section(TITLE, (Text(LEFT_OUT),))
    doubts = (Caution(f"A reason not to believe this figure: {flag}.") for flag in known.flags)
    blocks: list[Block] = [Text(_answer(known, facts.test.get("robust"))), *doubts]
    if not known.flags:
        blocks.append(Text(_unflagged(known)))
    blocks += [_attacks(known, facts), _beside(known, facts), *_courses(known)]
    return Section(TITLE, tuple(blocks))


def _answer(known: Robustness, score: Score | None) -> str:
    """The share that stays right, of the saved defense and as the mean of the seeds."""
    words = (
        f"This attacker knows classifier, purifier and U-Net, with their weights, and attacks through them with ε = "
        f"{known.epsilon:g}. Every candidate is judged by the real defense, and each image counts as right only if no "
        f"attack broke it: {percent(known.worst)} % of {known.images:,} test images ({interval(known.interval)}), of "
        f"{percent(known.clean)} % that are right without an attack. They are a sample, drawn by a fixed seed. "
    )
    if score and len(score.values) > 1:
        words += f"Mean of the seeds: {percent(score.mean)} % ({interval(score.ci95)}). "
    return words + f"The list of attacks is the {known.preset} one: another may find more."


def _unflagged(known: Robustness) -> str:
    """Says what the checks have seen, where none of them raised a doubt, and how little that may be."""
    grey = ""
    if known.grey is not None:
        left, of = known.grey
        grey = f", and at ε 0.5 a short one left {left} of the {of} images that plain grey, within reach there, breaks"
    return (
        "None of the checks for weak attacks found more than chance would give: gradients are there, queries alone do "
        f"not break more than gradients, more steps no more than fewer{grey}. With {known.images:,} images, "
        f"{_on_curves(known):,} for the courses below, that is a first look, no proof: only gross faults show."
    )


def _on_curves(known: Robustness) -> int:
    """Images that the courses over ε and over steps were measured on."""
    some = PRESETS[known.preset].curve_images if known.preset in PRESETS else known.images
    return min(some, known.images)


def _attacks(known: Robustness, facts: Facts) -> Table:
    rows = [
        (
            row.name,
            row.knows,
            row.surrogate,
            *(f"{count:,}" for count in (row.steps, row.restarts, row.eot, row.images)),
            percent(row.right),
            percent(row.worst_so_far),
        )
        for row in known.attacks
    ]
    columns = ("attack", "knows", "surrogate", "steps", "starts", "EOT", "images", "right %", "worst so far %")
    note = (
        "Each attack is made on the images that those above it left right. Steps: gradients, or queries, of each image "
        "and start. EOT: passes of which the mean is taken, where the defense is random. "
    )
    return Table(columns, rows, numbers=6, note=note + facts.switched_on)


def _beside(known: Robustness, facts: Facts) -> Table:
    levels = facts.levels or 2  # one that reduces none is set beside the plain threshold
    names = {
        "classifier": "nothing",
        "threshold": f"{levels} grey levels alone",
        "static": f"{levels} grey levels, the classifier itself trained against it",
        "gan": facts.part("psd_gan"),
    }
    shares = [(names.get(stage, stage), one["clean"], one["worst"]) for stage, one in known.beside.items()]
    shares.append((facts.part("psd"), known.clean, known.worst))
    rows = [(name, percent(clean), percent(worst), interval(known.interval_of(worst))) for name, clean, worst in shares]
    note = (
        "The same attacks and images. Strongest published networks on full MNIST under AutoAttack at ε = 0.3, robust "
        f"(clean) in %: {PUBLISHED}; they are classifiers trained to be robust, where this one stays as it is."
    )
    columns = ("in front of the classifier", "no attack %", "worst %", "95 % images")
    return Table(columns, rows, numbers=3, marked=len(rows) - 1, note=note)


def _courses(known: Robustness) -> list[Block]:
    """The courses over ε and over steps, where they have at least two points."""
    some = _on_curves(known)
    short = f"{some:,} of the images, of which one is {percent(1 / some)} points: for its course, as fewer images and "
    short += "attacks leave another share than the table above. "
    preset = PRESETS.get(known.preset)
    steps = f"{preset.curve_steps} steps of APGD" if preset else "A few steps of APGD"
    searched = f"{steps} for each ε, then as many rounds of a greedy search over grey levels, on {short}"
    alone = "APGD alone, without such a search, hence more stay right than above at the same ε "
    alone += f"({known.epsilon:g}), on {short}"
    grey = "At 0.5 plain grey is within reach: only images of the class as which that is read may then stay right."
    wanted: Sequence[tuple[str, str, Sequence[tuple[float, float]], str]] = (
        ("adaptive_epsilon", "ε of the attack (images in [0, 1])", known.over_epsilon, searched + grey),
        ("adaptive_steps", "gradient steps of the attack", known.over_steps, alone + "It should level off."),
    )
    return [
        Drawing(
            render(name, _course(label, points)),
            caption,
            ", ".join(f"{at:g}: {percent(share)} %" for at, share in points),
        )
        for name, label, points, caption in wanted
        if len(points) > 1
    ]


def _course(label: str, points: Sequence[tuple[float, float]]) -> Figure:
    """The share of images that stay right against a strength of the attack."""
    figure, axes = blank(height=2.6)
    x, y = zip(*points, strict=True)
    axes.plot(x, y, "-", color=GREEN, marker="o")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(label)
    axes.set_ylabel("images that stay right")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    return figure
