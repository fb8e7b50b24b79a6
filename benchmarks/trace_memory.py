"""The memory that a trace takes: measured on a part, and by a formula for all of it."""

from __future__ import annotations

import multiprocessing
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from components.gan.pair import Pair
from components.pretrained import shipped_folder
from components.projector.config import ProjectorConfig
from components.projector.projector import ProjectionTrace, Projector
from tune.pipeline.stage import Stage

RESTARTS, STEPS, IMAGES = 20, 200, 60_000
MEASURED = 60  # images of the part that is measured


def memory_rows() -> list[dict[str, Any]]:
    """Each measured in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        with context.Pool(1) as pool:
            built = pool.apply(_build, (folder, torch.get_num_threads()))
        with context.Pool(1) as pool:
            read = pool.apply(_read, (folder,))
    latent_dim, leads = built["latent_dim"], built["leads"]
    # per image and step: a flag per restart, and latent, error of each restart that leads
    kept = STEPS * (RESTARTS + leads * 4 * (latent_dim + 1))
    part = Stage.part_images * kept
    # what is built beside what is kept, and a part that is there twice while its chunks are joined
    building = built["before"] + 2 * part / 1e6 + (built["grown"] - 2 * built["kept"] / 1e6)
    chosen = IMAGES * 4 * (28 * 28 + latent_dim + 1) / 1e6
    reading = read["before"] + part / 1e6 + 2 * chosen + read["grown"]
    return [
        {"what": "restarts that lead, of 20, on average (log 20 + 0.58 = 3.57 in theory)", "measured": leads},
        {"what": "kept per image, kB", "measured": built["kept"] / MEASURED / 1e3, "by formula": kept / 1e3},
        {"what": f"peak while a part of {Stage.part_images} images is built, MB", "by formula": building},
        {"what": f"peak while {MEASURED} images are built, MB", "measured": built["before"] + built["grown"]},
        {"what": f"peak while (R, L) is read for {IMAGES:,} images, part by part, MB", "by formula": reading},
        {"what": f"on disk for {IMAGES:,} images, MB", "by formula": IMAGES * kept / 1e6},
    ]


def _build(folder: str, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    pair = Pair.load(shipped_folder("mnist"))
    generator, encoder = pair.generator, pair.encoder
    projector = Projector(generator, ProjectorConfig(restarts=RESTARTS, steps=STEPS), encoder=encoder)
    projector.warm_up()
    projector.trace(torch.rand(2, 1, 28, 28), [1])
    before = forget_peak()
    trace = projector.trace(torch.rand(MEASURED, 1, 28, 28))
    kept = {"steps": trace.steps, "leads": trace.leads, "latents": trace.latents, "errors": trace.errors}
    grown = peak() - before
    save_file(kept, Path(folder) / "trace.safetensors")
    size = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    leads = float(trace.leads.float().sum(2).mean())
    return {"before": before, "grown": grown, "kept": size, "leads": leads, "latent_dim": generator.latent_dim}


def _read(folder: str) -> dict[str, float]:
    generator = Pair.load(shipped_folder("mnist")).generator
    projector = Projector(generator, ProjectorConfig(restarts=RESTARTS, steps=STEPS))
    projector.render(torch.zeros(512, generator.latent_dim))
    before = forget_peak()
    ProjectionTrace(**load_file(Path(folder) / "trace.safetensors"), render=projector.render).select(RESTARTS, STEPS)
    return {"before": before, "grown": peak() - before}


def forget_peak() -> float:
    """Memory of this process now, MB, from which its peak counts from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> float:
    """Most memory of this process so far, MB.

    Not `ru_maxrss`: that of a process begins with the memory of the one that started it.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6
