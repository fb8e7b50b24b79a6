"""Attacks the published procedure, plain L2 from random starts on all grey levels, by one who knows it.

    python -m benchmarks.published --data-dir DIR --images 20

Generator, U-Net and classifier are those of a shipped defense; only the projection is Defense-GAN's (Samangouei et al.
2018), with fewer restarts and steps by default: each image takes `--restarts` times `--steps` of them in every pass.
"""

from __future__ import annotations

import argparse

from benchmarks.baselines import PUBLISHED
from components.attacks.adaptive import evaluate_defense
from components.attacks.presets import PRESETS
from components.datasets.dataset import load_dataset
from components.defense import Defense
from components.pretrained import shipped_defense
from components.projector.projector import Projector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--preset", choices=list(PRESETS), default="quick")
    parser.add_argument("--defense", default="mnist", help="the shipped defense whose networks it has")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    shipped = Defense.load(shipped_defense(options.defense))
    changed = {**PUBLISHED, "precision": "float32", "restarts": options.restarts, "steps": options.steps}
    config = shipped.projector.config.model_copy(update=changed)
    projector = Projector(shipped.generator, config)  # type: ignore[arg-type]
    defense = Defense(projector, shipped.unet, shipped.classifier)
    test = load_dataset("mnist", options.data_dir).test.subset(options.images)
    found = evaluate_defense(defense, test.images, test.labels, preset=options.preset, curves=False, tell=print)
    print(found.table())


if __name__ == "__main__":
    main()
