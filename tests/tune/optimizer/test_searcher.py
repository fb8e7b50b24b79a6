"""The searcher: its suggestions follow from the ledger, and from nothing that a killed driver takes along."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray import cloudpickle

from tests.tune.searches import RANGES, SAMPLERS, TARGETS, judge, made, run, space_of, space_params, visible
from tune.optimizer.searcher import LedgerSearcher, WarmStart
from tune.optimizer.stopping import StopRules
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

# Without conditions and continuous ranges, so that every sampler can do it.
LISTED = """
projector.restarts: {choice: [1, 2, 4]}
projector.steps: {low: 10, high: 60, step: 10}
unet.high_level_weight: {choice: [0.01, 0.1, 1.0, 10.0]}
"""
ROOT = Path(__file__).parents[3]


class TestResuming:
    """A searcher made from the ledger goes on as the one that was killed would have."""

    @pytest.mark.parametrize("target", TARGETS)
    def test_after_any_number_of_trials(self, tmp_path: Path, target: str) -> None:
        searcher, ledger = made(tmp_path / "undisturbed", space_of(target))
        run(searcher, ledger)
        expected = ledger.proposals()
        assert len(expected) == 14
        for known in range(14):
            folder = tmp_path / f"{known}"
            for outcome in ledger.outcomes()[:known]:
                Ledger(Storage(folder)).record(outcome)
            resumed, _ = made(folder, space_of(target))
            assert resumed.suggest("ray") == {"trial": known, "params": expected[known]}

    @settings(max_examples=15, deadline=None)
    @given(
        kills=st.sets(st.integers(0, 11)),
        seed=st.integers(0, 2**32 - 1),
        target=st.sampled_from(TARGETS),
        max_cost=st.none() | st.integers(10, 240),
        startup=st.integers(1, 9),
        order=st.permutations(sorted(space_params())),
    )
    def test_whatever_the_seed_and_however_often_killed(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        kills: set[int],
        order: list[str],
        target: str,
        **options: Any,
    ) -> None:
        options["trials"] = 12
        searcher, ledger = made(tmp_path_factory.mktemp("whole"), space_of(target), **options)
        run(searcher, ledger)
        broken = tmp_path_factory.mktemp("broken")
        whole = space_of(target)
        shuffled = replace(whole, ranges={key: whole.ranges[key] for key in [*order, "projector.tolerance"]})
        for kill in [*sorted(kills), None]:
            resumed, again = made(broken, shuffled, **options)
            run(resumed, again, stop=kill)
        assert again.proposals() == ledger.proposals()
        assert again.outcomes() == ledger.outcomes()
        assert visible(resumed) == visible(searcher) == visible(made(broken, shuffled, **options)[0])

    @pytest.mark.parametrize("target", TARGETS)
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_with_each_sampler(self, tmp_path: Path, sampler: str, target: str) -> None:
        space = space_of(target, f"search.sampler: {sampler}\n{LISTED}")
        trials = 8 if sampler == "gp" else 16  # each of its proposals takes a second
        options = {"trials": trials, "startup": 4}
        searcher, ledger = made(tmp_path / "whole", space, **options)
        run(searcher, ledger)
        for kill in (2, trials - 3, None):
            resumed, again = made(tmp_path / "broken", space, **options)
            run(resumed, again, stop=kill)
        assert again.proposals() == ledger.proposals()
        assert len(ledger.proposals()) == trials

    def test_an_interrupted_trial_comes_first_and_unchanged(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=4)
        proposed = ledger.proposals()[4]
        resumed, again = made(tmp_path)
        assert resumed.reissued == [4]
        assert resumed.suggest("a") == {"trial": 4, "params": proposed}
        assert resumed.suggest("b")["trial"] == 5
        assert sorted(again.proposals()) == [0, 1, 2, 3, 4, 5]

    def test_a_proposal_is_on_disk_before_it_is_handed_out(self, tmp_path: Path) -> None:
        searcher, _ = made(tmp_path)
        config = searcher.suggest("ray")
        assert json.loads((tmp_path / "proposals" / "000.json").read_text()) == config

    def test_each_file_is_read_once_and_no_folder_is_listed_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rules = StopRules(space_of("unet", f"search.budget: 9d\nsearch.patience: 99\n{RANGES}"), 1000)
        made(tmp_path)
        run(*made(tmp_path, rules.space), stop=7)
        asked: list[str] = []
        for method in ("read", "names"):
            original = getattr(Storage, method)

            def counted(self: Storage, *names: str, of: Any = original, method: str = method) -> Any:
                asked.append(f"{method} {'/'.join([self.uri.rpartition('/')[2], *names])}")
                return of(self, *names)

            monkeypatch.setattr(Storage, method, counted)
        searcher, _ = made(tmp_path, rules.space, rules=rules)
        workers = Ledger(Storage(tmp_path))  # reads nothing, and writes what the searcher has to read
        run(searcher, workers)
        expected = [f"read trials/{number:03d}.json" for number in range(14)]
        expected += [f"read proposals/{number:03d}.json" for number in range(8)]
        assert sorted(asked) == sorted([*expected, "names trials", "names proposals"])

    def test_finished_trials_never_run_again(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger)
        resumed, _ = made(tmp_path)
        assert resumed.suggest("ray") == LedgerSearcher.FINISHED

    def test_more_trials_can_be_asked_for(self, tmp_path: Path) -> None:
        run(*made(tmp_path / "a", trials=5))
        run(*made(tmp_path / "a", trials=9))
        run(*made(tmp_path / "b", trials=9))
        assert made(tmp_path / "a")[1].proposals() == made(tmp_path / "b")[1].proposals()

    def test_fewer_trials_leave_what_there_is(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=6)
        assert made(tmp_path, trials=4)[0].suggest("ray") == LedgerSearcher.FINISHED
        assert len(ledger.outcomes()) == 6

    def test_a_lost_record_is_made_up_for(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=9)
        for folder in ("trials", "proposals"):
            (tmp_path / folder / "003.json").write_bytes(b"{")
        resumed, again = made(tmp_path)
        handed_out: list[int] = []
        run(resumed, again, lambda trial, params: handed_out.append(trial) or judge(trial, params))
        assert handed_out == [9, 3, 10, 11, 12, 13], "expected each once: Tune is told beforehand how many there are"
        assert [outcome.trial for outcome in again.outcomes()] == list(range(14))
        assert visible(resumed) == visible(made(tmp_path)[0])

    def test_an_outcome_alone_is_enough(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=5)
        (tmp_path / "proposals" / "002.json").unlink()
        assert made(tmp_path)[0].reissued == [5]
        assert visible(made(tmp_path)[0]) == visible(searcher)

    def test_rays_own_state_is_not_used(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path / "search")
        run(searcher, ledger, stop=5)
        searcher.save(str(tmp_path / "state.pkl"))
        assert not (tmp_path / "state.pkl").exists()
        before = visible(searcher)
        searcher.restore(str(tmp_path / "state.pkl"))
        assert visible(searcher) == before
        searcher.save_to_dir(str(tmp_path / "search"))
        assert sorted(os.listdir(tmp_path / "search")) == ["proposals", "trials"]

    def test_ray_may_pickle_it(self, tmp_path: Path) -> None:
        searcher, ledger = made(tmp_path)
        run(searcher, ledger, stop=9)
        assert visible(cloudpickle.loads(cloudpickle.dumps(searcher))) == visible(searcher)


class TestPoints:
    """Points that are known to be worth a trial come first."""

    def test_they_come_first_and_may_leave_parameters_open(self, tmp_path: Path) -> None:
        points = [space_params(), {"projector.steps": 60, "projector.distance": "insensitive"}]
        searcher, ledger = made(tmp_path, points=points)
        run(searcher, ledger, stop=3)
        assert ledger.proposals()[0] == space_params()
        assert points[1].items() <= ledger.proposals()[1].items()
        assert space_of().contains(ledger.proposals()[1])
        run(*made(tmp_path, points=points))
        assert len(ledger.proposals()) == 14

    @pytest.mark.parametrize("key", ["projector.steps", "projector.step"])
    def test_one_outside_the_space_is_refused(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(ValueError, match=rf"points\[1\]\.{key}: expected a value of the space, found 7"):
            made(tmp_path, points=[{}, {key: 7}])


class TestWarmStart:
    """Other experiments' outcomes are learned from, and are no trials of this one."""

    def test_what_fits_is_used_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        searcher, other = made(tmp_path / "other", trials=10)
        run(searcher, other)
        misfits = ({"gan.width": 8}, {"psd": 1, "cost": 1}), (space_params(), {"psd": 1})
        for trial, (params, metrics) in enumerate(misfits, 10):
            other.record(Outcome(trial=trial, status="finished", params=params, metrics=metrics))
        warm, ledger = made(tmp_path / "new", warm_start=[other], trials=3)
        assert warm.warm_started == {other.uri: WarmStart(used=7, left_out=2)}
        run(warm, ledger)
        assert [outcome.trial for outcome in ledger.outcomes()] == [0, 1, 2]
        sources = [trial.user_attrs.get("warm_start") for trial in warm.study.trials]
        assert sources == [other.uri] * 7 + [None] * 3

    def test_parameters_fixed_here_to_the_same_value_fit(self, tmp_path: Path) -> None:
        searcher, other = made(tmp_path / "other", trials=12)
        run(searcher, other, lambda trial, params: judge(0, params))
        alike = sum(outcome.params["projector.restarts"] == 2 for outcome in other.outcomes())
        narrow = space_of("defense", RANGES.replace("{choice: [1, 2, 4]}", "2"))
        warm, _ = made(tmp_path / "new", narrow, warm_start=[other])
        assert 0 < alike < 12
        assert warm.warm_started[other.uri] == WarmStart(alike, 12 - alike)

    def test_it_changes_the_suggestions_and_resumes_alike(self, tmp_path: Path) -> None:
        searcher, other = made(tmp_path / "other", trials=20)
        run(searcher, other)
        warm, ledger = made(tmp_path / "warm", warm_start=[other])
        run(warm, ledger)
        cold, plain = made(tmp_path / "cold")
        run(cold, plain)
        assert ledger.proposals() != plain.proposals()
        for kill in (0, 5, None):
            resumed, again = made(tmp_path / "resumed", warm_start=[other])
            run(resumed, again, stop=kill)
        assert again.proposals() == ledger.proposals()

    def test_an_experiment_that_is_not_there_teaches_nothing(self, tmp_path: Path) -> None:
        nothing = Ledger(Storage(tmp_path / "nothing"))
        assert made(tmp_path / "new", warm_start=[nothing])[0].warm_started == {nothing.uri: WarmStart(0, 0)}


DRIVER = """
import sys, time
import ray
from ray import tune
from tune.storage.ledger import Ledger, Outcome
from tune.optimizer.searcher import LedgerSearcher
from tune.space.space import parse_space
from tune.storage.folder import Storage

storage, space = Storage(sys.argv[1]), parse_space(sys.argv[2], "small", "small.yaml")
ledger = Ledger(storage)


def trial(config, ledger):
    time.sleep(0.2)
    if config["trial"] == 1:
        ledger.record(Outcome(**config, status="failed", error="ValueError: as it must"))
        raise ValueError("as it must")
    psd = 1 / (1 + config["params"]["unet.high_level_weight"])
    ledger.record(Outcome(**config, status="finished", metrics={"psd": psd}))
    tune.report({"psd": psd})


ray.init("local", num_cpus=1, object_store_memory=80_000_000, include_dashboard=False, logging_level="ERROR")
searcher = LedgerSearcher(space, ledger, trials=6, seed=1, startup=2)
tune.Tuner(
    tune.with_parameters(trial, ledger=ledger),
    tune_config=tune.TuneConfig(search_alg=searcher, num_samples=6, max_concurrent_trials=1),
    run_config=tune.RunConfig(storage_path=sys.argv[3], name="ray", verbose=0),
).fit()
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_real_search_whose_driver_is_killed(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    text = f"search.target: unet\n{RANGES}"

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "driver.py", str(tmp_path / name), text, str(tmp_path / f"{name}-ray")]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
        )

    assert start("whole").wait(150) == 0
    killed = start("killed")
    ledger = Ledger(Storage(tmp_path / "killed"))
    for _ in range(1500):
        if len(ledger.outcomes()) >= 3 or killed.poll() is not None:
            break
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    first = {outcome.trial: outcome for outcome in ledger.outcomes()}
    assert 3 <= len(first) < 6, "it was to be killed half-way"
    assert start("killed").wait(150) == 0
    whole, resumed = Ledger(Storage(tmp_path / "whole")), Ledger(Storage(tmp_path / "killed"))
    assert [outcome.trial for outcome in resumed.outcomes()] == list(range(6))
    assert resumed.outcomes() == whole.outcomes()
    assert [outcome.status for outcome in resumed.outcomes()].count("failed") == 1
    assert all(resumed.outcome(number) == outcome for number, outcome in first.items())
