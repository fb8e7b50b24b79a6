"""Attacks that were interrupted: they go on where they were, and find what undisturbed ones find."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from components.attacks import campaign
from components.attacks.adaptive import evaluate_defense
from components.attacks.campaign import Campaign, Planned
from components.attacks.kept import Kept, Progress
from components.attacks.presets import PRESETS
from tests.tiny_networks import defense_of

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
FEW = {"steps": 3, "transfer_steps": 2, "greedy": 2, "square": 5, "blocks": 4, "climb": 6, "seeds": 2, "views": 2}
DEFENSE = defense_of(init="encoder", levels=2, restarts=1)
LABELS = DEFENSE(IMAGES).argmax(1)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", PRESETS["quick"].model_copy(update=FEW))


def attacked(kept: Kept | None, tell: Any = None) -> dict[str, Any]:
    found = evaluate_defense(DEFENSE, IMAGES, LABELS, preset="quick", curves=False, kept=kept, tell=tell)
    assert found.seconds is not None
    assert found.seconds > 0
    return {**found.to_json(), "seconds": None, "stands": found.stands.tolist()}


def made_until(monkeypatch: pytest.MonkeyPatch, most: int) -> list[str]:
    """The attacks that are made from now on; one more than `most` is interrupted."""
    made: list[str] = []
    make = Campaign.make

    def counted(campaign: Campaign, planned: Planned, keep: Any) -> None:
        if len(made) == most:
            raise KeyboardInterrupt
        make(campaign, planned, keep)
        made.append(planned.title)

    monkeypatch.setattr(Campaign, "make", counted)
    return made


def test_wherever_it_was_interrupted_it_finds_what_an_undisturbed_one_finds(tmp_path: Path) -> None:
    expected = attacked(None)
    path, asked = tmp_path / "kept", {"seed": 0}
    order: list[str] = []
    for _ in range(50):  # one attack, then Ctrl-C, and again
        with pytest.MonkeyPatch.context() as patch:
            made = made_until(patch, 1)
            try:
                found = attacked(Kept(path, asked))
            except KeyboardInterrupt:
                continue
            finally:
                order += made
            break
    assert found == expected
    assert len(order) == len(set(order)) > 5


def test_within_an_attack_too_only_the_part_under_way_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = attacked(None)
    monkeypatch.setattr(campaign, "images_at_once", lambda images, device: 4)
    monkeypatch.setattr(campaign, "_SAVED_EVERY", 0)
    written: list[int] = []
    write = Kept.write

    def noted(kept: Kept, progress: Progress) -> None:
        write(kept, progress)
        written.append(len(progress.made))

    monkeypatch.setattr(Kept, "write", noted)
    assert attacked(Kept(tmp_path / "undisturbed", {})) == expected
    undisturbed = written.copy()
    written.clear()

    def interrupted(kept: Kept, progress: Progress) -> None:
        noted(kept, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "write", interrupted)
    found = None
    while found is None:
        with suppress(KeyboardInterrupt):
            found = attacked(Kept(tmp_path / "kept", {}))
    assert found == expected
    assert written == undisturbed
    assert len(written) > 2 * len(set(written))


@pytest.mark.parametrize("kind", ["of something else", "torn", "flipped", "text", "absent", "a folder"])
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    expected = attacked(Kept(path, {"seed": 1 if kind == "of something else" else 0}))
    if kind == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "text":
        path.write_text("no tensors")
    elif kind in ("absent", "a folder"):
        path.unlink()
        if kind == "a folder":
            path.mkdir()
    told: list[str] = []
    assert attacked(Kept(path, {"seed": 0}), told.append) == expected
    assert not [what for what in told if "going on" in what]
    assert (kind == "a folder") == any("could not be kept" in what for what in told)


def test_all_that_were_made_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path / "kept", {})
    expected = attacked(kept)
    made = made_until(monkeypatch, 0)
    assert attacked(kept) == expected
    assert made == []
    kept.end()
    with pytest.raises(KeyboardInterrupt):
        attacked(kept)
