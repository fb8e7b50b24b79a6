"""A campaign of attacks on some images: which of them still stand, and what to think of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from components.attacks.flags import Count, Evidence, Seeds, reasons
from components.attacks.kept import Begun, Kept, Progress
from components.attacks.losses import input_gradient, margin, misread
from components.attacks.presets import PresetName
from components.attacks.target import Target
from components.hardware import images_at_once
from components.purifiers import NoGradient
from components.robustness import AttackResult, Robustness

Tell = Callable[[str], None]
Made = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # images, labels, their places, seed → candidates
_LOOKED_AT = 100  # images whose gradients are looked at
_SAVED_EVERY = 20  # seconds: a shorter part of an attack is not worth a file of its own
_INSIDE = 1 / 512  # half a grey level of 256
Curve = Sequence[tuple[float, Tensor]]  # of a short attack: its ε or steps, and bool (n,), the images it leaves right


class Attacked(Robustness):
    """The accuracy that remains, and which images these are.

    Attributes:
        stands: bool (N,): right without an attack and after every one; not kept in files.
        candidates: (N, C, H, W): the most harmful of all that was tried on each image, by the margin; likewise.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    stands: Tensor = Field(exclude=True, repr=False)
    candidates: Tensor = Field(exclude=True, repr=False)


@dataclass(frozen=True)
class Planned:
    """An attack to be made: its row's facts, and how candidates are made with one seed.

    Attributes:
        passes: of the model, that an image takes with one seed, a gradient counted as three: to reckon the time left.
        carried: whether it comes from another model than the one under attack.
    """

    name: str
    knows: str
    surrogate: str
    steps: int
    seeds: int
    make: Made
    passes: int
    gradient: bool = True
    draws: int = 1  # passes of which the mean is taken
    carried: bool = False

    @property
    def title(self) -> str:
        """Its name and its surrogate, which no other of the list has both."""
        return f"{self.name} ({self.surrogate})"


@dataclass(frozen=True)
class Outcome:
    """Images that an attack broke, and those that only one of its seeds broke."""

    planned: Planned
    broken: int
    by_one: int


class Campaign:
    """The images under attack: which still stand, and the most harmful candidate of each.

    Args:
        target: what is attacked.
        images, labels, epsilon, seed, tell: as `evaluate_defense`.

    Raises:
        ValueError: a label that is no class of the target.
    """

    def __init__(
        self, target: Target, images: Tensor, labels: Tensor, epsilon: float, seed: int, tell: Tell
    ) -> None:
        self._began, self._before = time.perf_counter(), 0.0  # seconds of what was interrupted
        self.target, self.images, self.labels = target, images, labels
        self.epsilon, self.seed, self.tell = epsilon, seed, tell
        self.logits = target.judge(images)
        _check_labels(labels, self.logits.shape[1])
        self.margins = margin(self.logits, labels)
        self.worst = images.clone()
        self.clean = ~misread(self.logits, labels)  # those already wrong are counted and not attacked
        self.stands = self.clean.clone()
        self.rows: list[AttackResult] = []
        self.outcomes: list[Outcome] = []
        self._begun: Begun | None = None  # taken over from what was interrupted
        self._saved = self._began

    @property
    def most_changes(self) -> int:
        """The largest number of single changes of level that one image has; 0 where levels are not reduced."""
        cells = self.target.cells(self.images, self.epsilon)
        return 0 if cells is None else int((cells.high - cells.low).flatten(1).sum(1).max())

    @property
    def seconds(self) -> float:
        """The time that it has taken, with what was done before an interruption."""
        return self._before + time.perf_counter() - self._began

    def make_all(self, planned: Sequence[Planned], kept: Kept | None = None) -> None:
        """Makes one attack after the other, and says before each how long the rest may take.

        Where `kept` has the progress of the same attacks on the same images it goes on after them.
        """
        before = self._restored(planned, kept) if kept else 0
        began, done = time.perf_counter(), 0
        for number, one in enumerate(planned[before:], before + 1):
            standing = int(self.stands.sum())
            rest = standing * sum(each.seeds * each.passes for each in planned[number - 1 :])
            spent = time.perf_counter() - began
            left = f", about {_minutes(spent / done * rest)} left" if done and rest else ""
            self.tell(f"attack {number} of {len(planned)}, {one.name}, on {standing} images{left}")
            self.make(one, partial(self._keep, planned[: number - 1], kept) if kept else None)
            done += standing * one.seeds * one.passes
            if kept:
                self._keep(planned[:number], kept)

    def _keep(self, made: Sequence[Planned], kept: Kept, begun: Begun | None = None) -> None:
        if begun and time.perf_counter() - self._saved < _SAVED_EVERY:
            return
        places = {id(one): place for place, one in enumerate(made)}
        outcomes = tuple((places[id(one.planned)], one.broken, one.by_one) for one in self.outcomes)
        names, found = tuple(one.title for one in made), (self.worst, self.margins, self.stands)
        try:
            kept.write(Progress(names, tuple(self.rows), outcomes, *found, self.seconds, begun))
        except OSError as error:  # such as a full disk, which ends nothing
            self.tell(f"the attacks so far could not be kept: {kept.path}: {error.strerror}")
        self._saved = time.perf_counter()

    def _restored(self, planned: Sequence[Planned], kept: Kept) -> int:
        """Takes over the progress that is kept; the number of attacks made, 0 where there is nothing to go on with."""
        found = kept.read()
        if found is None or found.made != tuple(one.title for one in planned[: len(found.made)]):
            return 0
        device = self.images.device
        self.worst, self.margins, self.stands = (
            tensor.to(device) for tensor in (found.worst, found.margins, found.stands)
        )
        self.rows, self._before = list(found.rows), found.seconds
        self.outcomes = [Outcome(planned[place], broken, by_one) for place, broken, by_one in found.outcomes]
        self._begun = found.begun.to(device) if found.begun else None
        self.tell(f"going on after {len(found.made)} of {len(planned)} attacks, kept in {kept.path}")
        return len(found.made)

    def make(self, planned: Planned, keep: Callable[[Begun], None] | None = None) -> None:
        """Makes an attack with each of its seeds on the images that stand, and notes what it leaves.

        Args:
            planned: the attack.
            keep: called after each part of it.
        """
        begun, self._begun = self._begun or Begun(self.stands.nonzero().squeeze(1)), None
        index, left_by, before = begun.index, begun.left_by, len(begun.index)
        if not before:
            return
        at_once = images_at_once(self.images, self.images.device)
        while len(left_by) < planned.seeds:
            done, for_seed = sum(map(len, begun.made)), self.seed + len(left_by)
            for part in (index[place : place + at_once] for place in range(done, before, at_once)):
                begun.made.append(planned.make(self.images[part], self.labels[part], part, for_seed))
                if keep:
                    keep(begun)
            left_by.append(self._judged(index, torch.cat(begun.made)))
            begun.made = []
        left = int(self.stands.sum())
        by_one = torch.stack(left_by).logical_not().sum(0) == 1
        self.outcomes.append(Outcome(planned, before - left, int(by_one.sum())))
        row = AttackResult(
            name=planned.name,
            knows=planned.knows,
            surrogate=planned.surrogate,
            steps=planned.steps,
            restarts=planned.seeds,
            eot=planned.draws,
            images=before,
            right=left / before,
            worst_so_far=left / len(self.images),
            seeds=tuple(float(one.double().mean()) for one in left_by),
        )
        self.rows.append(row)
        self.tell(f"{planned.title}: {before - left} of {before} broken, {left} stand")

    def _judged(self, index: Tensor, candidates: Tensor) -> Tensor:
        """Judges candidates for the images at `index`; bool (n,), those that they leave right."""
        images = self.images[index]
        low, high = (images - self.epsilon).clamp(min=0), (images + self.epsilon).clamp(max=1)
        candidates = torch.minimum(torch.maximum(candidates, low), high)
        logits = self.target.judge(candidates)
        margins, wrong = margin(logits, self.labels[index]), misread(logits, self.labels[index])
        # one that breaks an image is kept also where logits are equal or NaN, and no margin says so
        better = (margins > self.margins[index]) | (wrong & self.stands[index])
        self.worst[index[better]], self.margins[index[better]] = candidates[better], margins[better]
        self.stands[index[wrong]] = False
        return ~wrong

    def result(self, over_epsilon: Curve, over_steps: Curve, preset: PresetName) -> Attacked:
        """The accuracy that remains under all attacks together, with the reasons not to believe it."""
        escaped = self._escaped(over_epsilon)
        again = self.target.judge(self.images).argmax(1)
        dead, bounded = _poor_gradients(self)
        evidence = Evidence(
            self.logits,
            broken=(self._broken(by_gradient=True), self._broken(by_gradient=False)),
            dead=dead,
            bounded=bounded,
            unsteady=float((again != self.logits.argmax(1)).double().mean()),
            escaped=escaped or (0, 0),
            over_steps=[left for _, left in over_steps],
            seeds=self._seeds(),
        )
        return Attacked(
            images=len(self.images),
            epsilon=self.epsilon,
            clean=float(self.clean.double().mean()),
            worst=int(self.stands.sum()) / len(self.images),
            attacks=tuple(self.rows),
            flags=reasons(evidence),
            over_epsilon=_shares(over_epsilon),
            over_steps=tuple((int(steps), share) for steps, share in _shares(over_steps)),
            grey=escaped,
            preset=preset,
            seconds=self.seconds,
            stands=self.stands.cpu(),
            candidates=self.worst.cpu(),
        )

    def _broken(self, by_gradient: bool) -> int:
        """Images broken by gradients through the model itself, not one it was built from; or by queries alone."""
        return sum(
            outcome.broken
            for outcome in self.outcomes
            if outcome.planned.gradient == by_gradient and not outcome.planned.carried
        )

    def _seeds(self) -> list[Seeds]:
        later = [sum(after.broken for after in self.outcomes[place:]) for place in range(1, len(self.outcomes) + 1)]
        return [
            Seeds(outcome.planned.name, outcome.planned.seeds, outcome.by_one, broken)
            for outcome, broken in zip(self.outcomes, later, strict=True)
        ]

    def _escaped(self, over_epsilon: Curve) -> Count | None:
        """Of the images that at ε 0.5 would be misread as plain grey ones, those that the attack left right."""
        left = [left for epsilon, left in over_epsilon if epsilon == 0.5]
        if not left:
            return None
        grey = self.target.judge(torch.full_like(self.images[:1], 0.5)).argmax(1)
        within_reach = self.labels[: len(left[0])] != grey
        return int((left[0] & within_reach).sum()), int(within_reach.sum())


def _check_labels(labels: Tensor, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels: expected 0 … {classes - 1}, as the model has {classes} logits, found {low} … {high}")


def _poor_gradients(campaign: Campaign) -> tuple[Count, Count]:
    """Of some images, those whose gradient through the best view is poor: none, and none where a pixel is 0 or 1.

    Returns:
        Images whose gradient is zero, NaN or infinite, all where there is none; and images where the pixels of exactly
        0 or 1 have none, though they have one where they are moved inwards.
    """
    _, view = next(iter(campaign.target.views.items()))
    images, labels = campaign.images[:_LOOKED_AT], campaign.labels[:_LOOKED_AT]
    at_bounds = (images == 0) | (images == 1)

    def reached(images: Tensor) -> Tensor:
        gradient, _ = input_gradient(view, images, labels, margin)
        return torch.where(gradient.flatten(1).isfinite().all(1).view(-1, 1, 1, 1), gradient != 0, False)

    try:
        at = reached(images)
        missing = at_bounds.flatten(1).any(1) & ~(at & at_bounds).flatten(1).any(1)
        if bool(missing.any()):
            missing &= (reached(images.clamp(_INSIDE, 1 - _INSIDE)) & at_bounds).flatten(1).any(1)
    except NoGradient:
        return (len(images), len(images)), (0, len(images))
    return (int((~at.flatten(1).any(1)).sum()), len(images)), (int(missing.sum()), len(images))


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _shares(curve: Curve) -> tuple[tuple[float, float], ...]:
    return tuple((place, float(left.double().mean())) for place, left in curve)
