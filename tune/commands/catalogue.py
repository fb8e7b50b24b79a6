"""The commands of `python -m tune`: words, flags and help. What does the work is imported once they fit.

So help and refusals wait for neither torch nor the charts of reports, which take seconds to import.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from components.attacks.presets import PresetName
from tune.commands.units import age_of, size_of
from tune.errors import DONE

_WRITING = {"--pin", "--unpin", "--import"}  # --prune does so with --yes alone, --verify where it finds damage


def report(folder: Annotated[str, "FOLDER"]) -> int:
    """Writes an experiment's report again, from its files alone.

    A file that is missing or damaged is left out; a damaged one is named, in the report and here. The status is 0 all
    the same, as a report was written.

    Args:
        folder: the experiment, STORAGE/NAME; a path or an s3:// address.

    Examples:
        python -m tune report results/quickstart
    """
    from tune.report.told import told
    from tune.report.writer import write_report
    from tune.storage.folder import Storage
    from tune.storage.targets import check_storage

    home = Storage(folder)
    if home.folders():  # of a folder without any `write_report` says that it is no experiment
        check_storage(home, "FOLDER")
    write_report(home)
    print(told(home))
    return DONE


def compare(*folders: Annotated[str, "FOLDER"], out: Annotated[str | None, "DIR"] = None) -> int:
    """Sets several searches side by side, from their files alone.

    Args:
        folders: the experiments, two or more.
        out: where to write compare.html and compare.md too.

    Examples:
        python -m tune compare results/quickstart results/mnist --out comparison
    """
    from tune.report import comparison
    from tune.storage.folder import Storage
    from tune.storage.targets import check_storage

    if out is not None:
        check_storage(Storage(out), "--out")
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
    print(comparison.compare(folders, out, width))
    return DONE


def purify(
    folder: str,
    *images: str,
    out: Annotated[str, "DIR"],
    invert: bool = False,
    plugin: Annotated[str | None, "FILE.py"] = None,
) -> int:
    """Purifies image files with a saved defense, and tabulates their labels before and after.

    Args:
        folder: an experiment's folder, whose best/ is used, a saved defense's, or a shipped one: mnist_robust or mnist.
        images: image or idx files, or folders of image files, of the size the defense was trained on.
        out: where the purified images and labels.csv go; images of an earlier run are replaced there, and counted.
        invert: take dark for light, for dark digits on light paper where the training images are light on dark.
        plugin: the Python file with the classifier that the defense was made for, where it has one; it is run.

    Examples:
        python -m tune purify results/quickstart attacked/ --out purified
        python -m tune purify mnist attacked/ --out purified    a defense that comes with the project

    Returns:
        The exit status: 2 where images were refused, which stderr names; the others, if any, are purified.

    Raises:
        ValueError: no defense, an image that is missing, or a folder that cannot be written; nothing was written.
    """
    from tune.commands.purify import purify_files

    return purify_files(folder, images, out, invert, plugin)


def evaluate(
    folder: str,
    *,
    attacks: PresetName = "quick",
    images: int | None = None,
    data: str | None = None,
    data_dir: Annotated[str | None, "DIR"] = None,
    epsilon: float | None = None,
    reference: Annotated[int, "EPOCHS"] = 0,
    curves: bool = True,
    seed: int = 0,
    device: str | None = None,
    out: Annotated[str | None, "FILE.json"] = None,
    plugin: Annotated[str | None, "FILE.py"] = None,
) -> int:
    """Attacks a saved defense in every known way, by an attacker who knows all of it.

    Args:
        folder: an experiment's folder, whose best/ is used, a saved defense's, or a shipped one: mnist_robust or mnist.
        attacks: how much is tried: quick takes a minute or two, full takes hours on a processor.
        images: how many test images, drawn by a fixed seed; 200 where quick, else 1000.
        data: whose test images, by name or folder; where none is given, the experiment's own, else mnist_mini.
        data_dir: where a named data set is.
        epsilon: radius of the L∞ ball, on images in [0, 1]; where none is given, the experiment's own, else 0.3.
        reference: also train the classifier itself against the attacker for so many epochs, behind the grey levels
            alone, and attack that by the same list: what a defense without a purifier is worth.
        curves: leave out how accuracy falls over ε and over steps, and the flags that are read off these.
        seed: of all random starts.
        device: where to compute; a GPU where there is one.
        out: where to write the rows, as JSON; the attacks made so far, and the epochs of the reference, are kept beside
            it, as FILE.json.*, until all is measured, so that the same command goes on after Ctrl-C.
        plugin: the Python file with the classifier that the defense was made for, where it has one; it is run.

    Examples:
        python -m tune evaluate mnist
        python -m tune evaluate results/quickstart --attacks standard --images 500 --out adaptive.json
        python -m tune evaluate mnist_robust --reference 4

    Returns:
        The exit status: 1 where the rows were shown, but could not be written after all.

    Raises:
        ValueError: no defense, ε outside [0, 1], images that it was not trained for, a reference of a classifier
            that cannot be trained, or a file that cannot be written; nothing was attacked.
    """
    given = dict(locals())
    if epsilon is not None and not 0 <= epsilon <= 1:
        raise ValueError(f"--epsilon: expected a number in 0 … 1, found {epsilon:g}")
    if images is not None and images < 1:
        raise ValueError(f"--images: expected an integer ≥ 1, found {images}")
    if reference < 0:
        raise ValueError(f"--reference: expected an integer ≥ 0, found {reference}")
    from tune.commands.evaluate import evaluate_saved

    return evaluate_saved(**given)


def store(
    storage: Annotated[str, "STORAGE"],
    *,
    prune: bool = False,
    older_than: Annotated[str | None, "AGE"] = None,
    max_size: Annotated[str | None, "SIZE"] = None,
    yes: bool = False,
    pin: Annotated[str | None, "EXPERIMENT"] = None,
    unpin: Annotated[str | None, "EXPERIMENT"] = None,
    verify: bool = False,
    why: Annotated[tuple[str, int] | None, "EXPERIMENT TRIAL"] = None,
    export: Annotated[str | None, "FILE.tar"] = None,
    used_by: Annotated[str | None, "EXPERIMENT"] = None,
    import_: Annotated[str | None, "FILE.tar"] = None,
) -> int:
    """Lists what searches built and share, with its users; with --prune removes what no experiment uses.

    One thing at a time: without a flag the list, else one of --prune, --pin, --unpin, --verify, --why, --export and
    --import. What no experiment uses and nobody pinned may be pruned; an experiment whose folder is gone uses nothing.

    Args:
        storage: folder or s3:// address with experiments and their store/.
        prune: show what no experiment uses; unfinished trainings and the quarantine only with --older-than.
        older_than: of these, only what was made longer ago: 30m, 12h, 30d, 2w; a bare number is days.
        max_size: of these, the oldest, until the store is no larger: 10GB, 500MB.
        yes: remove what --prune shows.
        pin: keep what this experiment's report came from (its chosen trial and every retrained seed), also when
            the experiment's folder is gone.
        unpin: undo that; by the experiment's name or address.
        verify: read every file and compare it with its manifest; what is wrong goes to store/.quarantine, where no
            search finds it, and is built again when it is needed. Status 1 where anything was.
        why: for each stage that this trial built, what differs from the nearest artifact that was there before.
        export: copy artifacts to a new tar file, for another storage.
        used_by: export only what this experiment uses, or has pinned.
        import_: check a whole tar file, and copy what this store has not. As with code, import from whom you trust:
            hashes prove that it came as it was sent.

    Examples:
        python -m tune store results
        python -m tune store results --prune --older-than 30d --max-size 10GB
        python -m tune store results --verify
        python -m tune store results --why quickstart 7
        python -m tune store results --export mnist.tar --used-by mnist
        python -m tune store s3://bucket/searches --import mnist.tar

    Raises:
        ValueError: no store there, flags that do not go together, uses that cannot be told, a file that is no export
            or cannot be written, or a search that is running in this storage, which may use anything.
    """
    chosen = {
        flag: value
        for flag, value in {
            "--prune": prune, "--pin": pin, "--unpin": unpin, "--verify": verify, "--why": why,
            "--export": export, "--import": import_,
        }.items()
        if value
    }  # fmt: skip
    _check_together([*chosen], {"--yes": yes or None, "--older-than": older_than, "--max-size": max_size}, used_by)
    age = None if older_than is None else age_of(older_than, "--older-than")
    size = None if max_size is None else size_of(max_size, "--max-size")
    from tune.commands import store as listing
    from tune.commands import store_care
    from tune.storage.folder import Storage
    from tune.storage.targets import check_storage

    place = Storage(storage)
    if "--import" not in chosen and "store" not in place.folders():  # an import may begin a storage
        raise ValueError(f"{place.uri}: expected a storage with a folder store/, found none")
    things: dict[str, Callable[[Any], int]] = {
        "--prune": lambda _: listing.prune(place, age, size, yes),
        "--pin": partial(store_care.pin_experiment, place),
        "--unpin": partial(store_care.unpin_experiment, place),
        "--verify": lambda _: store_care.verify(place),
        "--why": lambda words: store_care.explain(place, *words),
        "--export": lambda file: store_care.export_from(place, file, used_by),
        "--import": partial(store_care.import_into, place),
    }
    for flag, value in chosen.items():
        if flag in _WRITING or yes:
            check_storage(place.child("store"), flag)
        return things[flag](value)
    return listing.list_all(place)


def _check_together(chosen: Sequence[str], of_prune: Mapping[str, Any], used_by: str | None) -> None:
    if len(chosen) > 1:
        raise ValueError(f"{chosen[1]}: expected without {chosen[0]}, found both")
    found = chosen[0] if chosen else "alone"
    for flag, value in of_prune.items():
        if value is not None and chosen != ["--prune"]:
            raise ValueError(f"{flag}: expected together with --prune, found {found}")
    if used_by is not None and chosen != ["--export"]:
        raise ValueError(f"--used-by: expected together with --export, found {found}")
