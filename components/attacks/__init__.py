"""Attacks, one file each. What a search space may name is in `ATTACKS`; `adaptive` attacks through a defense."""

from components.attacks.base import ATTACKS, Attack, attack
from components.attacks.fgsm import FGSM, AttackConfig, fgsm
from components.attacks.pgd import PGD

__all__ = ["ATTACKS", "FGSM", "PGD", "Attack", "AttackConfig", "attack", "fgsm"]
