"""Ranges and settings that no trial would read."""

import pytest

from tune.space.reading import FOLDER
from tune.space.space import load_space, parse_space
from tune.space.unread import unread, unread_data_dir

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
    "projector.threshold: {low: 0.3, high: 0.4}": "projector.threshold … projector.levels other than null, found null",
    "defense.purifier: smoothing\nsmoothing.threshold: {low: 0.3, high: 0.4}": (
        "smoothing.threshold … smoothing.levels other than null, found null"
    ),
    "gan.encoder_width: {choice: [8, 16]}": "gan.encoder_width … gan.encoder_steps other than 0, found 0",
    "gan.encoder_levels: {choice: [null, 2]}": "gan.encoder_levels … gan.encoder_steps other than 0, found 0",
    "projector.init: encoder\ngan.encoder_steps: 9\nprojector.restarts: 1\nprojector.spread: {low: 0.1, high: 1.0}": (
        "projector.spread … projector.restarts other than 1, found 1"
    ),
    "classifier.weights: mine.safetensors\nclassifier.learning_rate: {low: 0.1, high: 1.0}": (
        "classifier.learning_rate … classifier.weights null, found mine.safetensors"
    ),
    "unet.high_level_weight: 0.0\nunet.norm: {choice: [l1, l2]}": (
        "unet.norm … unet.high_level_weight other than 0.0, found 0.0"
    ),
}
SEARCHED = "projector.steps: {low: 1, high: 9}\n"
ADAPTIVE = f"{SEARCHED}gan.pretrained: mnist\nprojector.init: encoder\nunet.training: adaptive\n"
SET = {
    f"{SEARCHED}gan.pretrained: mnist\ngan.steps: 9": "gan.steps is set to 9 … gan.pretrained null, found mnist",
    f"{SEARCHED}projector.threshold: 0.3": (
        "projector.threshold is set to 0.3 … projector.levels other than null, found null"
    ),
    f"{ADAPTIVE}projector.bank_size: 99": "projector.bank_size is set to 99 … projector.init bank, found encoder",
    f"{ADAPTIVE}unet.layer: conv1": "unet.layer is set to conv1 … unet.training attacked, found adaptive",
    f"{ADAPTIVE}unet.norm: l2": "unet.norm is set to l2 … unet.training attacked, found adaptive",
    f"{ADAPTIVE}unet.attacked: 0.0\nunet.steps: 5": "unet.steps is set to 5 … unet.attacked other than 0.0, found 0.0",
    f"{SEARCHED}search.robust_images: 7": (
        "search.robust_images is set to 7 … search.objective robust or both, found psd"
    ),
    f"{SEARCHED}search.finalists: 1\nsearch.finalist_seeds: 5": (
        "search.finalist_seeds is set to 5 … search.finalists other than 1, found 1"
    ),
    f"{SEARCHED}search.objective: both\nsearch.warmup_epochs: 1": (
        "search.warmup_epochs is set to 1 … search.objective psd, found both"
    ),
    f"{SEARCHED}smoothing.window: 5": "smoothing.window is set to 5 … defense.purifier smoothing, found projector",
    f"{SEARCHED}search.target: projection\nunet.width: 4": "unet.width is set to 4 … target projection has no U-Net",
    "gan.width: {choice: [8, 16]}\nsearch.target: gan\nprojector.steps: 9": (
        "projector.steps is set to 9 … target gan has no purifier"
    ),
    "gan.width: {choice: [8, 16]}\nsearch.target: gan\nattack.epsilon: 0.1": (
        "attack.epsilon is set to 0.1 … target gan has no attack"
    ),
    "gan.width: {choice: [8, 16]}\nsearch.target: gan\nsearch.retrain_seeds: 9": (
        "search.retrain_seeds is set to 9 … search.target unet or defense, found gan"
    ),
}


@pytest.mark.parametrize("text", SET)
def test_what_is_set_and_not_read_is_named(text: str) -> None:
    (sentence,) = unread(parse_space(text, "mine", "mine.yaml"))
    start, reason = SET[text].split(" … ")
    assert sentence.startswith(f"{start}, and no trial reads it: ")
    assert sentence.endswith(reason)


def test_a_setting_on_the_command_line_is_named() -> None:
    assert not list(unread(load_space("quickstart")))
    (sentence,) = unread(load_space("quickstart", {"gan.steps": 20000}))
    assert sentence.startswith("gan.steps is set to 20000, and no trial reads it")


def test_a_default_that_is_written_out_is_not_named() -> None:
    space = parse_space(f"{SEARCHED}gan.pretrained: mnist\nsearch.robust_images: 100", "mine", "mine.yaml")
    assert not list(unread(space))
    assert not list(unread(parse_space(space.to_yaml(), "mine", "space.yaml")))


@pytest.mark.parametrize("text", UNREAD)
def test_named(text: str) -> None:
    (sentence,) = unread(parse_space(text, "mine", "mine.yaml"))
    key, reason = UNREAD[text].split(" … ")
    assert sentence.startswith(f"{key} is searched, and no trial reads it: ")
    assert sentence.endswith(reason)


def test_points_without_a_trial_are_counted() -> None:
    text = f"{SEARCHED}search.points: [{{projector.steps: 1}}, {{projector.steps: 2}}, {{projector.steps: 3}}]\n"
    assert not list(unread(parse_space(f"{text}search.trials: 3", "mine", "mine.yaml")))
    (sentence,) = unread(parse_space(f"{text}search.trials: 1", "mine", "mine.yaml"))
    assert sentence == "search.points has 3 points, of which the last 2 are not tried: search.trials is 1"


def test_what_some_trial_reads_is_not_named() -> None:
    text = "projector.init: {choice: [encoder, bank]}\nprojector.spread: {low: 0.1, high: 1.0}\ngan.encoder_steps: 9"
    assert not list(unread(parse_space(text, "mine", "mine.yaml")))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_shipped_spaces_have_none(name: str) -> None:
    assert not list(unread(load_space(name)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mnist_mini", "mnist_mini comes with the project"), ("my/images", "my/images is a folder itself")],
)
def test_a_data_folder_that_is_not_read_is_named(name: str, reason: str) -> None:
    (sentence,) = unread_data_dir(name, "/data")
    assert sentence == f"--data-dir is set to /data, and nothing is read there: data.name {reason}"
    assert not list(unread_data_dir(name, None))
    assert not list(unread_data_dir("mnist", "/data"))
