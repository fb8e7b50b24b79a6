"""Takes the pictures of README.md: a search in its terminal, then TensorBoard and the report in a browser.

    python docs/screenshots.py /tmp/pictures/quickstart [--space quickstart] [--out docs/images]

Where the folder holds no report yet, the search runs first, in a terminal of its own size that is photographed as it
goes (quickstart: minutes). Where it holds one, the terminal's picture is left as it is. Needs the extra `browser`
and Chromium; TensorBoard is opened by the command that the search prints.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from tune.monitor.runs import tensorboard_command
from tune.storage.folder import Storage

COLUMNS, LINES = 118, 26  # of the photographed terminal
LARGEST = 200_000  # bytes of a picture
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
# How rich goes back to the head of what it drew last, to draw it again.
REDRAW = re.compile(rb"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
MOVES = re.compile(r"\x1b\[(?:1A|2K|\?25[lh])")
ENDED = re.compile(r"(\d+)/(\d+) trials")
TRIAL = re.compile(r"\d{3} ")


def frames(command: Sequence[str]) -> Iterator[str]:
    """Every page that a command draws in a terminal, with its colours as ANSI codes.

    Raises:
        RuntimeError: the command failed; with the end of what it said.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    drawn = b""
    while read := _read(ours):
        *whole, drawn = REDRAW.split(drawn + read)
        yield from (MOVES.sub("", page.decode(errors="replace")).replace("\r\n", "\n") for page in whole)
    os.close(ours)
    if status := process.wait():
        raise RuntimeError(f"{shlex.join(command)}: exit status {status}\n{drawn[-2000:].decode(errors='replace')}")


def _read(terminal: int) -> bytes:
    """What the terminal has to show; nothing once its last writer has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def telling(pages: Iterator[str]) -> str:
    """The latest of the pages that show most: trials that run, and half of all ended."""
    chosen, most = "", 0.0
    for page in pages:
        text = Text.from_ansi(page).plain
        if counts := ENDED.search(text):
            ended, total = map(int, counts.groups())
            bars = sum("━" in line for line in text.splitlines() if TRIAL.match(line))
            if (shown := bars + min(2 * ended / total, 1)) >= most:
                chosen, most = page, shown
    return chosen


def terminal_picture(browser: Any, page: str, title: str) -> bytes:
    """A page of the terminal as PNG, in a window with a title."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(page.strip("\n")))
    svg = re.sub(r"@font-face\s*{.*?}", "", console.export_svg(title=title), flags=re.DOTALL)  # nothing is downloaded
    with opened(browser, 1240, 800) as view:
        view.set_content(f'<body style="margin:0">{svg.replace("Fira Code", "DejaVu Sans Mono")}</body>')
        return bytes(view.locator("svg").first.screenshot())


@contextmanager
def opened(browser: Any, width: int, height: int, address: str = "") -> Iterator[Any]:
    """A page of that size, sharp enough for a screen of fine pixels."""
    view = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.5, color_scheme="light")
    view.set_default_timeout(60_000)
    if address:
        view.goto(address)
    yield view
    view.close()


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """TensorBoard's address, once it has read all runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = len([path for path in (folder / "tensorboard").iterdir() if path.is_dir()])
    command = [*shlex.split(tensorboard_command(Storage(folder))), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://localhost:{port}/"
        while _runs(address) < runs:
            if server.poll() is not None:
                raise RuntimeError(f"{shlex.join(command)}: ended with {server.returncode}")
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def _runs(address: str) -> int:
    try:
        with urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer:
            return len(re.findall(r'"(?:\d{3,}|seed \d+)[" ]', answer.read().decode()))
    except (urllib.error.URLError, ConnectionError):
        return 0


def tensorboard_pictures(browser: Any, address: str) -> Iterator[tuple[str, bytes]]:
    """Table, parallel coordinates, curves and images."""
    with opened(browser, 1800, 620, f"{address}#hparams") as view:
        view.locator("vaadin-grid-cell-content", has_text="000 ").first.wait_for()
        trial = view.locator("tf-hparams-query-pane paper-checkbox").filter(has_text=re.compile(r"^\s*trial\s*$"))
        trial.click()  # makes room for one metric more
        view.wait_for_timeout(2000)
        yield "tensorboard-table", view.screenshot()
    with opened(browser, 1500, 610, f"{address}#hparams") as view:
        view.get_by_text("Parallel Coordinates View").click()
        view.wait_for_timeout(4000)
        yield "tensorboard-parallel", view.screenshot()
    tags = "tagFilter=%5Eunet%2F%28loss%7Cpsd%29%7C%5Eprojection%2Ferror"  # ^unet/(loss|psd)|^projection/error
    with opened(browser, 1500, 600, f"{address}?{tags}#timeseries") as view:
        view.locator("card-view").first.wait_for()
        view.get_by_role("button", name="Settings").last.click()  # closes the panel
        view.wait_for_timeout(6000)
        yield "tensorboard-curves", view.screenshot()
    with opened(browser, 1500, 900, f"{address}#images") as view:
        view.locator("tf-image-loader img").first.wait_for()
        view.wait_for_timeout(3000)
        yield "tensorboard-images", view.screenshot()


def report_picture(browser: Any, folder: Path) -> bytes:
    """The head of the report, at a desktop's width."""
    with opened(browser, 1100, 1000, (folder / "report.html").resolve().as_uri()) as view:
        return bytes(view.screenshot())


def keep(out: Path, name: str, png: bytes) -> None:
    """Writes a picture with at most 256 colours, which is all that these show.

    Raises:
        ValueError: it is too large all the same.
    """
    path = out / f"{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: expected at most {LARGEST:,} bytes, found {path.stat().st_size:,}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="the experiment, STORAGE/NAME")
    words.add_argument("--space", default="quickstart", help="what is searched where the folder holds no report")
    words.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    words.add_argument("--chromium", default=shutil.which("chromium"), help="default: the one on the path")
    given = words.parse_args()
    folder, search = given.folder, ["-m", "tune.search", "--space", given.space]
    page = ""
    if not (folder / "report.html").exists():
        place = ["--storage", str(folder.parent), "--name", folder.name, "--resume"]
        page = telling(frames([sys.executable, *search, *place]))
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=ARGUMENTS)
        if page:
            keep(given.out, "live", terminal_picture(browser, page, shlex.join(["python", *search])))
        keep(given.out, "report", report_picture(browser, folder))
        keep(given.out, "examples", (folder / "figures/examples.png").read_bytes())
        with tensorboard(folder) as address:
            for name, png in tensorboard_pictures(browser, address):
                keep(given.out, name, png)
        browser.close()


if __name__ == "__main__":
    main()
