"""Ranges that no trial would read."""

import pytest

from tune.space.reading import FOLDER
from tune.space.space import load_space, parse_space
from tune.space.unread import unread

UNREAD = {
    "search.target: gan\nprojector.steps: {low: 1, high: 9}": "projector.steps … target gan has no purifier",
    "smoothing.window: {choice: [1, 3]}": "smoothing.window … defense.purifier smoothing, found projector",
    "defense.purifier: smoothing\nprojector.steps: {low: 1, high: 9}": (
        "projector.steps … defense.purifier projector, found smoothing"
    ),
    "gan.pretrained: mnist\ngan.steps: {choice: [100, 200]}": "gan.steps … gan.pretrained null, found mnist",
    "projector.init: {choice: [random, bank]}\nprojector.spread: {low: 0.1, high: 1.0}": (
        "projector.spread … projector.init encoder, found bank and random"
    ),
    "projector.distance: l2\nprojector.tolerance: {low: 0.1, high: 0.4}": (
        "projector.tolerance … projector.distance huber or insensitive, found l2"
    ),
    "unet.weight_decay: {low: 0.01, high: 0.1}": "unet.weight_decay … unet.training adaptive, found attacked",
}


@pytest.mark.parametrize("text", UNREAD)
def test_named(text: str) -> None:
    (sentence,) = unread(parse_space(text, "mine", "mine.yaml"))
    key, reason = UNREAD[text].split(" … ")
    assert sentence.startswith(f"{key} is searched, and no trial reads it: ")
    assert sentence.endswith(reason)


def test_what_some_trial_reads_is_not_named() -> None:
    text = "projector.init: {choice: [encoder, bank]}\nprojector.spread: {low: 0.1, high: 1.0}\ngan.encoder_steps: 9"
    assert not list(unread(parse_space(text, "mine", "mine.yaml")))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_shipped_spaces_have_none(name: str) -> None:
    assert not list(unread(load_space(name)))
