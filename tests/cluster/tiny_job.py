"""A search in miniature that shows what a cluster does: trials count steps, save each, say where they run."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune


def count(config: dict[str, Any]) -> None:
    """One trial: from the last saved step to the last one, `seconds` each."""
    first, saved = 0, tune.get_checkpoint()
    if saved:
        with saved.as_directory() as folder:
            first = int(Path(folder, "step").read_text()) + 1
    for step in range(first, config["steps"]):
        time.sleep(config["seconds"])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "step").write_text(str(step))
            told = {
                "step": step,
                "first": first,
                "host": socket.gethostname(),
                "gpus": len(ray.get_gpu_ids()),
            }
            tune.report(told, checkpoint=tune.Checkpoint.from_directory(folder))


class Progress(tune.Callback):
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        print(f"PROGRESS trial={trial.trial_id} step={result['step']} host={result['host']}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--storage", required=True, help="a folder that all nodes share, or s3://bucket/prefix"
    )
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="per step")
    parser.add_argument("--gpus", type=float, default=1.0, help="per trial")
    args = parser.parse_args()
    ray.init(address="auto", log_to_driver=False)
    space = {
        "trial": tune.grid_search(list(range(args.trials))),
        "steps": args.steps,
        "seconds": args.seconds,
    }
    results = tune.Tuner(
        tune.with_resources(count, {"cpu": 1, "gpu": args.gpus}),
        param_space=space,
        run_config=tune.RunConfig(
            name="tiny_job",
            storage_path=args.storage,
            callbacks=[Progress()],
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=3),
        ),
    ).fit()
    ends = [
        {key: (result.metrics or {}).get(key) for key in ("step", "first", "host", "gpus")}
        for result in (results[number] for number in range(len(results)))
    ]
    complete = not results.num_errors and all(end["step"] == args.steps - 1 for end in ends)
    print("RESULT", json.dumps({"complete": complete, "trials": ends}), flush=True)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
