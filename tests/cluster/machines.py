"""Pretended machines: each has its own address, processes, name, home, and an sshd that takes given keys."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.sandbox import Failure, sh, until

USER = "ubuntu"
HOME = Path("/home") / USER
GATEWAY = "172.31.0.1"  # 172.31.0.0/16 is the default network of an AWS account
# Every machine has its own of these; all else is the real machine's, hence the same programs everywhere.
OWN = ("/home", "/root", "/tmp", "/opt", "/srv", "/mnt")
# What a process begins with there, instead of the variables of whoever runs the test.
BARE = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={HOME}", f"USER={USER}", "LANG=C.UTF-8", "TERM=dumb")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Mount:
    """A real folder seen at a path of the machine."""

    inside: Path
    outside: Path
    writable: bool = False


@dataclass
class Network:
    """The switch that all machines hang on, and what they have in common."""

    scratch: Path
    environment: Mapping[str, str]  # of every login shell
    mounts: Sequence[Mount] = field(default_factory=tuple)

    def start(self) -> None:
        os.makedirs("/run/netns", exist_ok=True)
        # A fixed hardware address: a bridge takes the lowest of its ports, so each new machine would change
        # it and stall all others until their caches expire, for up to 75 s.
        sh("ip", "link", "add", "switch", "address", "02:00:00:00:00:fe", "type", "bridge")
        sh("ip", "addr", "add", f"{GATEWAY}/16", "dev", "switch")
        sh("ip", "link", "set", "switch", "up")


def python_mounts() -> list[Mount]:
    """Read-only mounts that let a machine run this environment's Python, if it lives below OWN."""
    code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
    listed = json.loads(sh(sys.executable, "-I", "-c", code))
    folders = {Path(path).resolve() for path in listed if Path(path).is_dir()} | {Path(sys.prefix)}
    hidden = {folder for folder in folders if f"/{folder.parts[1]}" in OWN}
    return [Mount(f, f) for f in sorted(hidden) if not any(other in f.parents for other in hidden)]


class Machine:
    """Boots on construction; `power_off()` is sudden, as a reclaimed spot instance is."""

    def __init__(
        self, network: Network, name: str, address: str, keys: Iterable[str], mounts: Iterable[Mount] = ()
    ) -> None:
        self.name, self.address = name, address
        self._root, self._network = network.scratch / "machines" / name, network
        self._write_disk(list(keys))
        self._plug_in()
        self._boot([*network.mounts, *mounts])

    @property
    def home(self) -> Path:
        """The user's home as the real machine sees it."""
        return self._root / str(HOME).lstrip("/")

    def _file(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self._root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def _write_disk(self, keys: list[str]) -> None:
        for folder in OWN:
            (self._root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        (self._root / "tmp").chmod(0o1777)
        exports = " ".join(f"{name}={value}" for name, value in self._network.environment.items())
        self._file(f"{HOME}/.ssh/authorized_keys", "\n".join(keys) + "\n", 0o600)
        (self.home / ".ssh").chmod(0o700)
        self._file(f"{HOME}/.bashrc", f"export PATH={sys.prefix}/bin:$PATH {exports}\n")
        self._file(f"{HOME}/.profile", ". ~/.bashrc\n")
        # Number 0 under the user's name: every file has the right owner, whoever made it.
        self._file(
            "/opt/machine/passwd", f"{USER}:x:0:0::{HOME}:/bin/bash\n{Path('/etc/passwd').read_text()}"
        )
        self._file("/opt/machine/shadow", "", 0o600)
        self._file("/opt/machine/resolv.conf", "options timeout:1 attempts:1\n")
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self._root}/opt/machine/hostkey")
        options = (
            "HostKey /opt/machine/hostkey",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "PidFile none",
            "MaxStartups 50",
            "MaxSessions 50",
        )
        self._file("/opt/machine/sshd_config", "\n".join([f"ListenAddress {self.address}:22", *options, ""]))

    def _plug_in(self) -> None:
        cable = f"port{next(_numbers)}"
        sh("ip", "netns", "add", self.name)
        sh("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        sh("ip", "link", "set", cable, "master", "switch", "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address}/16", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", GATEWAY),
        ):
            sh("ip", "-n", self.name, *words)

    def _init_script(self, mounts: list[Mount]) -> str:
        lines = ["set -e", f"hostname {self.name}", "mkdir -p /run/sshd"]
        lines.append("mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm")  # Ray's object store, one per machine
        for mount in mounts:
            target = self._root / str(mount.inside).lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind '{mount.outside}' '{target}'")
            lines += [] if mount.writable else [f"mount -o remount,bind,ro '{target}'"]
        for name in ("passwd", "shadow", "resolv.conf"):
            lines.append(f"[ ! -e /etc/{name} ] || mount --bind {self._root}/opt/machine/{name} /etc/{name}")
        scratch_top = f"/{self._network.scratch.parts[1]}"
        # Last the folder that holds the scratch folder, which cannot be seen any more from then on.
        for folder in sorted(OWN, key=lambda folder: folder == scratch_top):
            lines.append(f"mount --rbind '{self._root}{folder}' {folder}")
        sshd = shutil.which("sshd")
        lines += ["cd /", f"{sshd} -D -e -f /opt/machine/sshd_config &", "while :; do wait -n || sleep 1; done", ""]
        return "\n".join(lines)

    def _boot(self, mounts: list[Mount]) -> None:
        script, console = self._root / "init.sh", self._root / "console"
        script.write_text(self._init_script(mounts))
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        words = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", *spaces, *BARE, "bash", str(script)]
        with console.open("w") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        until(lambda: self._process.poll() is not None or "listening" in console.read_text(), 15, 0.05)
        if self._process.poll() is not None or "listening" not in console.read_text():
            raise Failure(f"machine {self.name} does not boot: {console.read_text()[-600:]}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._first = int(children.read_text())

    def words(self, command: str) -> list[str]:
        """The command line, for the real machine, that runs `command` in a login shell of this one."""
        spaces = ["--net", "--mount", "--pid", "--uts", "--ipc"]
        return ["nsenter", "--target", str(self._first), *spaces, *BARE, "bash", "-lc", f"cd {HOME} && {command}"]

    def run(self, command: str, timeout_s: float) -> tuple[int, str]:
        """(exit status, output) of `command`; 124 when it took too long."""
        try:
            done = subprocess.run(
                self.words(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            return 124, f"{said}\n(not done after {timeout_s:.0f} s)"
        return done.returncode, done.stdout.decode(errors="replace")

    def power_off(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._first, signal.SIGKILL)  # first of its namespace: the kernel ends all others
        self._process.wait(15)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)
