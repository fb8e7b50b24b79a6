"""Attacks, one file each. What a search space may name is in `ATTACKS`; `adaptive` attacks through a defense."""

from components.attacks.apgd import APGD
from components.attacks.base import ATTACKS, Attack, AttackError, attack
from components.attacks.fgsm import FGSM, AttackConfig, fgsm
from components.attacks.pgd import PGD
from components.attacks.square import Square

__all__ = ["APGD", "ATTACKS", "FGSM", "PGD", "Attack", "AttackConfig", "AttackError", "Square", "attack", "fgsm"]
