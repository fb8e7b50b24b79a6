"""The life of a cluster, seen from the laptop: up, strangers refused, a job with a fault, down."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import sandbox
from tests.cluster.machines import Machine
from tests.cluster.sandbox import Failure, memory_mib, say, until

# Set-up commands that need the internet; the machines here share this environment's packages instead.
NEEDS_INTERNET = re.compile(r"/uv\b")
OBSERVED = "python -c 'import socket; socket.create_connection((\"{address}\", {port}), 3)'"
RUNS = "python -c 'import urllib.request as u; print(u.urlopen(\"http://localhost:6006/data/runs\").read().decode())'"
AT_WORK = r"PROGRESS |: \w+ started on "  # what a trial says first, tiny_job's or a search's


def parser(description: str | None, command: str) -> argparse.ArgumentParser:
    """The flags that every story has; `command` is what it runs where no other is given."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--command", default=command, help="typed on the laptop; {yaml} stands for the file (default: tiny_job.py)")
    add("--expect", default='"complete": true', metavar="REGEX", help="must match the job's output")
    add(
        "--fault-when",
        default=r"PROGRESS trial=\S+ step=4 host=(?P<host>\S+)",
        metavar="REGEX",
        help="break a worker when the job's output matches; a group `host` names which ('' = no fault)",
    )
    add("--job-seconds", type=float, default=300, help="default: %(default)s")
    add("--logs", type=Path, metavar="FOLDER", help="keep the output of ray up, the job and ray down")
    return made


def play(run: Callable[[argparse.Namespace, Path], None], args: argparse.Namespace) -> int:
    """Plays a story in a sandbox and says how it ended, with the memory that it took; returns the exit status."""
    scratch = sandbox.enter(args.job_seconds + 600)
    memory = Memory()
    memory.start()
    try:
        run(args, scratch)
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    say(f"peak memory of everything: {memory.peak_mib:.0f} MiB")
    say("PASSED")
    return 0


@dataclass(frozen=True)
class Job:
    """What to run on the cluster, and what must come of it."""

    command: str  # typed on the laptop; {yaml} stands for the cluster's file
    expect: str  # regular expression that its output must match
    fault_when: str | None  # break a worker when the output matches; a group `host` names which
    workers: int  # so many must have come
    limit_s: float


class Memory(threading.Thread):
    """The most memory that all of it took, looked at every three seconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0

    def run(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, memory_mib())
            time.sleep(3)


class Changes:
    """A cluster.yaml, and the few values changed in it for the pretended machines."""

    def __init__(self, path: Path) -> None:
        self.config: dict[str, Any] = yaml.safe_load(path.read_text())
        self.made: list[str] = []

    def set(self, dotted: str, value: Any) -> None:
        *parents, last = dotted.split(".")
        place = self.config
        for key in parents:
            place = place[key]
        if place.get(last) != value:
            self.made.append(f"{dotted}: {json.dumps(place.get(last))} -> {json.dumps(value)}")
            place[last] = value

    def drop_internet(self) -> None:
        for line in [line for line in self.config["setup_commands"] if NEEDS_INTERNET.search(line)]:
            self.config["setup_commands"].remove(line)
            self.made.append(f"setup_commands, left out: {line}")

    def write(self, path: Path) -> None:
        print("changed in the yaml, and nothing else:", *self.made, sep="\n    ", flush=True)
        path.write_text(yaml.safe_dump(self.config, sort_keys=False, width=10_000))


class Story:
    """Steps that raise Failure when they did not really happen. `config` lies in the laptop's home."""

    def __init__(self, laptop: Machine, config: str, logs: Path | None, environment: str = "") -> None:
        self._laptop, self._config, self._logs, self._environment = laptop, config, logs, environment

    def on_laptop(self, command: str, limit_s: float, log: str | None = None) -> tuple[int, str]:
        """Type a command in the checkout: (exit status, output)."""
        status, output = self._laptop.run(f"cd project && {self._environment} {command}", limit_s)
        if log:
            self._keep(log, output)
        return status, output

    def must(self, command: str, limit_s: float, log: str | None = None) -> str:
        status, output = self.on_laptop(command, limit_s, log)
        if status:
            raise Failure(f"{command}: exit status {status}\n{output[-4000:]}")
        return output

    def _keep(self, name: str, text: str) -> None:
        if self._logs:
            self._logs.mkdir(parents=True, exist_ok=True)
            (self._logs / name).write_text(text)

    def up(self) -> None:
        self.must("ray get-auth-token --generate", 60)
        self.must(f"ray up -y --no-config-cache ~/{self._config}", 300, "up.log")
        say("ok    ray up")

    def strangers_refused(self, head: str) -> None:
        """The head answers to the right token, refuses none and a wrong one, and shows no dashboard."""
        ask = f"RAY_gcs_rpc_server_connect_timeout_s=5 ray status --address {head}:6379"
        output = self.must(f"RAY_AUTH_MODE=token {ask}", 60)
        if "Resources" not in output:
            raise Failure(f"a client with the right token got no answer:\n{output[-1500:]}")
        wrong = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'0' * 64}"
        for who, settings in (("no token", ""), ("a wrong token", wrong)):
            _, output = self.on_laptop(f"HOME=/tmp/stranger {settings} {ask}", 60, f"{who}.log")
            if "Resources" in output or not re.search(r"authenticat", output, re.IGNORECASE):
                raise Failure(f"a client with {who} was not refused:\n{output[-1500:]}")
        for port, what in ((8265, "dashboard"), (6006, "TensorBoard")):
            if self.on_laptop(OBSERVED.format(address=head, port=port), 30)[0] == 0:
                raise Failure(f"the {what} (port {port}) answers to other machines")
        say(
            "ok    the token is needed: none and a wrong one refused; dashboard and TensorBoard not reachable"
        )

    def own_disk_refused(self) -> None:
        """A search whose results would be on the head's own disk does not begin."""
        search = "cd project && python -m tune.search --space smoke --address auto --storage ~/results"
        status, output = self.on_laptop(f"ray exec ~/{self._config} '{search}'", 120, "refused.log")
        if "--storage: expected a folder that all nodes share" not in output or not status:
            raise Failure(f"a search was not refused the head's own disk:\n{output[-1500:]}")
        say("ok    a folder on the head's own disk is refused")

    def job(self, job: Job, workers: Callable[[], list[str]], break_one: Callable[[str], None]) -> str:
        """Run the job, break a worker in its middle, and return its output when all is as it should be."""
        command = job.command.replace("{yaml}", f"~/{self._config}")
        run = _Run(self._laptop, f"cd project && {self._environment} {command}")
        most, at_first, broken, end = 0, None, "", time.monotonic() + job.limit_s
        while run.alive() and time.monotonic() < end:
            present = workers()
            most = max(most, len(present))
            if at_first is None and re.search(AT_WORK, run.output):
                at_first = len(present)
            hit = None if broken or not job.fault_when else re.search(job.fault_when, run.output)
            if hit and len(present) >= job.workers:
                broken = _victim(hit.groupdict(), present)
                break_one(broken)
                say(f"      FAULT: {broken} is gone")
            time.sleep(0.5)
        text = run.stop()
        self._keep("job.log", text)
        self._judge(job, run.status, text, at_first or 0, broken)
        for line in re.findall(r"^(?:RESULT|Cluster:) .*$", text, re.MULTILINE):
            say("     ", line)
        spite = f", in spite of losing {broken}" if broken else ""
        say(f"ok    job done; {at_first} workers came at once, {most} at most{spite}")
        return text

    @staticmethod
    def _judge(job: Job, status: int | None, text: str, at_first: int, broken: str) -> None:
        problems = {
            f"the job was not done after {job.limit_s:.0f} s": status is None,
            f"the job's exit status is {status}": bool(status),
            f"{at_first} workers were there or booting when the first trial began, not {job.workers}": at_first
            < job.workers,
            f"nothing matched {job.fault_when!r}, so no worker was broken": bool(job.fault_when)
            and not broken,
            f"the output does not match {job.expect!r}": not re.search(job.expect, text),
        }
        for problem, there in problems.items():
            if there:
                raise Failure(f"{problem}\n{text[-3000:]}")

    def tensorboard(self, output: str, expected: str) -> None:
        """TensorBoard on the head, by the command that the search printed for the laptop, shows a run."""
        printed = re.findall(r"through a tunnel to http://localhost:6006: (ray exec .*?)\s*$", output, re.MULTILINE)
        if not printed:
            raise Failure(f"the search printed no command for TensorBoard:\n{output[-1500:]}")
        command = printed[-1].replace(" YOUR.yaml ", f" ~/{self._config} ", 1)
        run = _Run(self._laptop, f"cd project && {command}", "tensorboard.log")
        until(lambda: not run.alive() or re.search(expected, self.on_laptop(RUNS, 30)[1]), 90, 1)
        found = self.on_laptop(RUNS, 30)[1]
        said = run.stop()
        if not re.search(expected, found):
            raise Failure(f"TensorBoard shows no run like {expected!r}: {found[-500:]}\n{said[-1500:]}")
        say(f"ok    TensorBoard by the command that was printed: {found.strip()[:100]}")

    def down(self, left_over: Callable[[], Mapping[str, Any]], within_s: float) -> None:
        """`ray down`, after which `left_over()` (kind: what is left) must soon be empty."""
        self.must(f"ray down -y ~/{self._config}", 180, "down.log")
        if not until(lambda: not left_over(), within_s, 1):
            raise Failure(f"after ray down there is still: {left_over()}")
        say("ok    ray down: nothing is left")


def _victim(named: dict[str, str], present: list[str]) -> str:
    host = named.get("host", "")
    return host if host in present else present[0]


class _Run:
    """A command on the laptop whose output can be read while it runs."""

    def __init__(self, laptop: Machine, command: str, log: str = "job.log") -> None:
        self._path = laptop.home / log
        with self._path.open("wb") as log:
            self._process = subprocess.Popen(
                laptop.words(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._path.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """Exit status; None when it had to be stopped."""
        return None if self._stopped else self._process.returncode

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> str:
        """Everything that it said."""
        self._stopped = self.alive()
        if self._stopped:
            self._process.kill()
        self._process.wait(10)
        return self.output
