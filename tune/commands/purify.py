"""`python -m tune purify`: images through a saved defense, to files and a table."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.datasets.images import DARK, border, printable
from components.defense import Defense
from components.draws import chance_of, normal
from components.files import expanded, write_atomic
from components.hardware import keep_memory
from components.plugins import plugged
from components.pretrained import shipped_defense, shipped_defenses
from tune.commands.image_files import Picture, Reading, batch_of, find_pictures, png_of
from tune.commands.unfinished import check_finished
from tune.commands.units import Ticker
from tune.errors import DONE, REFUSED
from tune.monitor.console import Output
from tune.storage.folder import Storage
from tune.storage.scratch import scratch
from tune.storage.targets import folder_to_write

BATCH = 100  # images between two steps of the progress bar, and held in memory at once
SHOWN = 20  # rows of the printed table
COLUMNS = "Labels: before, of the GAN's image, after. Realism: the discriminator's score. Error: the GAN's distance."
LONGEST = 36  # characters of a file's name there
LABELS = "labels.csv"


@dataclass(frozen=True)
class Row:
    """The labels and scores of one image.

    Attributes:
        file: the image.
        label_before: the classifier's label of it.
        label_generated: of x_g, what the generator made of it.
        label: of U(x_g), the purified image.
        realism: the discriminator's score of x_g; higher is more like a training image.
        error: distance between x_g and the image, as the projector measures it.
    """

    file: str
    label_before: int
    label_generated: int
    label: int
    realism: float
    error: float


def purify_files(folder: str, images: Sequence[str], out: str, invert: bool, plugin: str | None) -> int:
    """Does what `catalogue.purify` says, with its arguments, status and errors."""
    target = folder_to_write(out, "--out")
    with plugged(plugin):
        defense = load_defense(folder)
    channels, height, width = defense.classifier.image_shape
    if channels not in (1, 3):
        raise ValueError(f"{folder}: expected a defense of images with 1 or 3 channels, found {channels}")
    reading = Reading((channels, height, width), ground_of(defense), invert)
    pictures = find_pictures(images, reading)
    if not pictures:
        return _tell_of_refused(reading.refused)
    _check_target(target, pictures, images)
    notes = [*reading.notes, *_replaced(target, pictures)]
    keep_memory()
    rows: list[Row] = []
    with _progress(len(pictures)) as advance:
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            # before its images, which are then known to be ours
            write_atomic(target / LABELS, _csv(rows, defense.class_names))
            rows += _purified(defense, batch, target)
            advance(len(batch))
    write_atomic(target / LABELS, _csv(rows, defense.class_names))
    _show(rows, target, defense.class_names)
    for note in notes:
        print(f"note: {note}")
    return _tell_of_refused(reading.refused)


def _tell_of_refused(refused: Sequence[str]) -> int:
    """Names the images that were refused; returns the exit status."""
    for reason in refused[:SHOWN]:
        print(f"error: not purified: {reason}", file=sys.stderr)
    if len(refused) > SHOWN:
        print(f"error: {len(refused) - SHOWN} more were not purified", file=sys.stderr)
    return REFUSED if refused else DONE


def saved_at(folder: str) -> Storage:
    """The place of a saved defense: an experiment's `best/`, `folder` itself, or that of a shipped one by its name."""
    if folder in shipped_defenses() and not Path(folder).exists():
        return Storage(shipped_defense(folder))
    home = Storage(folder)
    return home.child("best") if home.exists("space.yaml") or home.child("best").exists("manifest.json") else home


def load_defense(folder: str) -> Defense:
    """The defense of an experiment (its `best/`), the one saved in `folder` itself, or a shipped one by its name.

    A folder is a path or an address.

    Raises:
        DefenseError: there is none, why not yet, or it is damaged.
    """
    check_finished(Storage(folder))
    device, home = "cuda" if torch.cuda.is_available() else "cpu", saved_at(folder)
    if home.local is not None:
        return Defense.load(home.local, device)
    with scratch("defense") as copy:
        for name in home.names():
            home.download(name, copy / name)
        return Defense.load(copy, device)


def ground_of(defense: Defense) -> float | None:
    """The brightness of the ground on which the training images show something: 0, 1, or None where it varies.

    Read off what the generator makes, whose border is as dark or light as that of its training images.
    """
    generator: Any = defense.projector.networks.get("generator")
    if generator is None:
        return None
    likeness = next(generator.parameters())
    latents = normal((64, generator.latent_dim), chance_of(0))
    with torch.no_grad():
        borders = border(generator(latents.to(likeness)).float().cpu().numpy())
    low, high = np.quantile(borders, [0.05, 0.95])
    return 0.0 if high < DARK / 2 else 1.0 if low > 1 - DARK / 2 else None


def _purified(defense: Defense, batch: Sequence[Picture], target: Path) -> Iterator[Row]:
    images = batch_of(batch)
    before = defense.classifier.predict(images).tolist()
    seen = defense.inspect(images)
    columns = (before, seen.label_before.tolist(), seen.label.tolist(), seen.realism.tolist(), seen.errors.tolist())
    for picture, image, *values in zip(batch, seen.images, *columns, strict=True):
        content = io.BytesIO()
        png_of(image).save(content, "PNG")
        write_atomic(target / f"{picture.stem}.png", content.getvalue())
        yield Row(picture.name, *values)


def _check_target(target: Path, pictures: Sequence[Picture], words: Sequence[str]) -> None:
    """Nothing that was given is overwritten, nor a table that is not ours."""
    files = {Path(picture.name) for picture in pictures} | {expanded(word) for word in words}
    inputs = {_identity(path) for path in files if path.exists()}
    for picture in pictures:
        path = target / f"{picture.stem}.png"
        if path.exists() and _identity(path) in inputs:
            raise ValueError(f"--out: expected a folder without the images themselves, found {path}")
    table = target / LABELS
    if table.exists() and not table.read_bytes().startswith(_csv([]).rstrip()):
        raise ValueError(f"--out: expected a folder for purified images, found {table}, which is another table")


def _replaced(target: Path, pictures: Sequence[Picture]) -> Iterator[str]:
    """A note of the images of an earlier run that are replaced, and of those that stay without a row in the table.

    Raises:
        ValueError: images would be replaced that are not of an earlier run.
    """
    names = {f"{picture.stem}.png" for picture in pictures}
    there = {path.name for path in target.glob("*.png")} if target.exists() else set()
    if not there & names:
        return
    if not (target / LABELS).exists():
        found = printable(target / min(there & names))
        raise ValueError(f"--out: expected a new folder or one of an earlier run, with {LABELS}, found {found} alone")
    stay = f"; {len(there - names)} others stay, which {LABELS} no longer lists" if there - names else ""
    yield f"{printable(target)}: {len(there & names)} images of an earlier run were replaced{stay}"


def _identity(path: Path) -> tuple[int, int]:
    """The same for every name of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _csv(rows: Sequence[Row], class_names: Sequence[str] = ()) -> bytes:
    """The table; where classes have names, with that of the purified image in a last column."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*(field.name for field in fields(Row)), *(["class_name"] if class_names else [])])
    table.writerows([*astuple(row), *([class_names[row.label]] if class_names else [])] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")  # names of files need not be UTF-8


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal, else a line now and then; gives what moves it on."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        ticker, done = Ticker(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            ticker(f"{done} of {total} images purified")

        yield advance
        return
    columns = (TextColumn("purifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield partial(bar.advance, bar.add_task("purifying", total=total))


def _show(rows: Sequence[Row], target: Path, class_names: Sequence[str]) -> None:
    names = ("file", "before", "GAN", "after", "realism", "error")
    table = Table(*names, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows[:SHOWN]:
        before, generated, after = (
            f"{label} {class_names[label]}" if class_names else str(label)
            for label in (row.label_before, row.label_generated, row.label)
        )
        words = (_tail(printable(row.file)), before, generated, after, f"{row.realism:.2f}", f"{row.error:.4f}")
        table.add_row(*map(Text, words))  # as text: brackets are no markup
    console = Output(highlight=False, markup=False)
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"… {len(rows) - SHOWN} more in {LABELS}")
    console.print(COLUMNS, style="dim")
    changed = sum(row.label != row.label_before for row in rows)
    place = printable(target / LABELS)
    console.print(f"{len(rows)} images purified, {changed} with another label: {place}", soft_wrap=True)


def _tail(name: str) -> str:
    """The end of a long path, which tells files apart."""
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
