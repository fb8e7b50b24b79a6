"""Whole searches on a card: shared, not used, hidden; and taken up by the other kind of machine."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.tune.tiny_search import outcomes, run, searching, write_space

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

CONTEXT = 150 << 20  # bytes of a card that a process takes at the very least: more are in use when trials are on it
OF_CLASSIFIER, OF_ALL = 0.05, 0.25  # the GAN draws other numbers on a card, and that of `smoke` has hardly learned


def asked(space: str | Path, storage: Path, *more: str) -> list[str]:
    return ["--space", str(space), "--storage", str(storage), "--name", "one", *more]


def used() -> int:
    """Bytes of the card that somebody uses."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def test_four_trials_share_a_card_and_find_what_the_processor_finds(tmp_path: Path) -> None:
    """The space `smoke` twice at once: a quarter of the card for each trial, and none."""
    before, four = used(), ("--concurrent", "4")
    card = asked("smoke", tmp_path / "card", *four, "--gpus-per-trial", "0.25")
    processor = asked("smoke", tmp_path / "processor", *four, "--gpus-per-trial", "0")
    with searching(card, tmp_path / "card.log") as one, searching(processor, tmp_path / "processor.log") as other:
        one.until(lambda: used() >= before + CONTEXT, seconds=120)
        assert one.wait(200) == 0, one.output
        assert other.wait(200) == 0, other.output
    there, here = outcomes(tmp_path / "card/one"), outcomes(tmp_path / "processor/one")
    assert sorted(there) == sorted(here) == [0, 1, 2, 3]
    assert not [outcome.error for outcome in (*there.values(), *here.values()) if outcome.error]
    began = [outcome.ended - outcome.seconds for outcome in there.values()]
    assert max(began) < min(outcome.ended for outcome in there.values()), "expected all four at once"
    both = [number for number in there if there[number].status == here[number].status == "finished"]
    compared = [number for number in both if there[number].params == here[number].params]
    assert compared, "expected a trial that both finished"
    for number in compared:
        for name, least in here[number].metrics.items():
            if name in ("pso", "noisy", "threshold"):
                assert there[number].metrics[name] == pytest.approx(least, abs=OF_CLASSIFIER), (number, name)
            elif name in ("psd", "psd_gan", "pco"):
                assert there[number].metrics[name] == pytest.approx(least, abs=OF_ALL), (number, name)


def test_a_search_goes_on_on_the_other_kind_of_machine(tmp_path: Path) -> None:
    def begun_and_resumed(name: str, first: str, second: str) -> tuple[int, str]:
        (tmp_path / name).mkdir()
        space, storage, log = write_space(tmp_path / name), tmp_path / name / "results", tmp_path / f"{name}.log"
        status, output = run(asked(space, storage, "--trials", "2", "--gpus-per-trial", first), log)
        assert status == 0, output
        return run(asked(space, storage, "--trials", "4", "--gpus-per-trial", second, "--resume"), log)

    directions = [("to_card", "0", "0.5"), ("from_card", "0.5", "0")]
    with ThreadPoolExecutor(2) as pool:
        for (name, *_), (status, output) in zip(
            directions, pool.map(lambda words: begun_and_resumed(*words), directions), strict=True
        ):
            assert status == 0, output
            found = outcomes(tmp_path / name / "results/one")
            assert sorted(found) == [0, 1, 2, 3]
            assert {outcome.status for outcome in found.values()} == {"finished"}
            shared = found[3].work["gan"]
            assert (shared["built"], shared["reused"]) == (0, 1), "expected the GAN that the other device trained"


def test_a_hidden_card_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    space = write_space(tmp_path)
    requests: Sequence[list[str]] = [
        asked(space, tmp_path / "results", "--trials", "2"),
        asked(space, tmp_path / "refused", "--gpus-per-trial", "1"),
    ]
    with searching(requests[0], tmp_path / "log") as search, searching(requests[1], tmp_path / "refused.log") as other:
        assert other.wait(60) == 2, other.output
        assert "--gpus-per-trial: expected at most the 0 GPUs of this machine" in other.output
        assert search.wait() == 0, search.output
    assert {outcome.status for outcome in outcomes(tmp_path / "results/one").values()} == {"finished"}
