"""Efforts of the adaptive attacks: quick, standard and full. Importing this module imports no torch."""

from __future__ import annotations

from typing import Literal

from components.config import Config

PresetName = Literal["quick", "standard", "full"]
Origin = Literal["image", "best so far", "random"]


class Preset(Config):
    """Effort of each kind of attack."""

    transfer_steps: int  # of APGD on the undefended and on the thresholded classifier
    steps: int  # of APGD through the defense
    seeds: int  # of everything that is random
    views: int  # surrogates through which APGD is run
    dlr: bool  # whether APGD is run on the difference of logits ratio, too
    targets: int  # classes of the targeted one; 0 = not run
    greedy: int  # rounds of the greedy search over grey levels
    screened: bool  # whether a stand-in chooses which change of a round the real defense checks
    climb: int  # queries of the search by every single change of level; 0 = not run
    width: int  # most changes of which it tries one after the other before it makes the best
    blocks: int  # queries of the search by random blocks of levels; 0 = not run
    origins: tuple[Origin, ...]  # where the searches over levels begin
    square: int  # queries of the square attack; 0 = not run
    draws: int  # passes of which a random model's mean is taken
    curve_images: int  # on which the curves are measured
    curve_steps: int  # of the attack on each point of the curve over ε
    epsilons: tuple[float, ...]
    step_counts: tuple[int, ...]


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        transfer_steps=3, steps=4, seeds=1, views=1, dlr=False, targets=0, greedy=12, screened=True, climb=0, width=16,
        blocks=0, square=5, draws=4, origins=("random",), curve_images=20, curve_steps=4,
        epsilons=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), step_counts=(1, 2, 4, 8),
    ),
    "standard": Preset(
        transfer_steps=20, steps=40, seeds=2, views=2, dlr=True, targets=3, greedy=40, screened=False, climb=600,
        width=100, blocks=150, square=100, draws=10, origins=("best so far", "image", "random"), curve_images=300,
        curve_steps=15, epsilons=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), step_counts=(5, 10, 20, 40, 80),
    ),
    "full": Preset(
        transfer_steps=50, steps=100, seeds=3, views=4, dlr=True, targets=9, greedy=100, screened=False, climb=3000,
        width=400, blocks=2000, square=2000, draws=20, origins=("best so far", "image", "random"), curve_images=500,
        curve_steps=30, epsilons=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), step_counts=(5, 10, 20, 40, 80, 160),
    ),
}  # fmt: skip
