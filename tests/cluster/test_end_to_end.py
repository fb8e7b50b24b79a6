"""Whole lives of a cluster on one machine, from the shipped files; a minute or two each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import sandbox

pytest.importorskip("moto")
pytest.importorskip("boto3")

reason = sandbox.why_not()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(reason is not None, reason=str(reason)),
]
CHECKOUT = Path(__file__).parents[2]


def passes(module: str, *options: str) -> str:
    """Output of a story that must end well."""
    words = [sys.executable, "-m", f"tests.cluster.{module}", *options]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=850)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_aws_with_a_reclaimed_spot_worker() -> None:
    output = passes("end_to_end", "--expect-object", "tiny_job/.*json")
    assert "in spite of losing i-" in output
    assert "nothing is left" in output


def test_a_search_on_aws_with_a_reclaimed_spot_worker() -> None:
    """Submitted from the laptop as documented: it finds its storage, and asks for all the workers that it can use."""
    command = "ray submit {yaml} tune/search.py -- --space smoke --address auto --gpus-per-trial 0.5 --verbose"
    options = {
        "--job-seconds": "600",
        "--command": command,
        "--expect": "report",
        "--expect-object": r"smoke/trials/003\.json$",
        "--search": r"003 R\d",
        "--fault-when": r": gan started on (?P<host>\S+)",  # every trial needs it
    }
    flat = [word for pair in options.items() for word in pair]
    output = passes("end_to_end", *flat, "--expect-object", r"smoke/report\.html$")
    assert "in spite of losing i-" in output
    assert "4 trials at once" in output


def test_aws_without_spot_capacity() -> None:
    assert "workers were on-demand" in passes("end_to_end", "--drought", "--fault-when", "")


def test_machines_of_ones_own() -> None:
    assert "in spite of losing worker-" in passes("on_premises")
