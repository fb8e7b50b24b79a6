"""One quiet look for all charts, and their two forms: PNG for files, SVG that follows the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

# Ink and paper have a dark twin in the page; the hues, Okabe and Ito's (2008), serve the colour-blind too.
INK, MUTED, GRID, PAPER = "#1b2330", "#5c6675", "#dde1e6", "#fefefe"
BLUE, ORANGE, GREEN, RED, PINK, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#8b939e"
WRONG = "#c5221f"  # a wrong label: redder than the hues above, and bold besides

# Colour in the drawing → the page's CSS variable.
THEMED = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    RED: "--red",
    PINK: "--pink",
    GREY: "--grey",
    WRONG: "--wrong",
}

STYLE: dict[Any, Any] = {  # matplotlib types each key on its own
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "image.composite_image": False,  # merged, an image's own pixels would be resampled
}

WIDTH = 5.1  # inches: scaled to a telephone's width the text is still legible


@dataclass(frozen=True)
class Chart:
    """A finished drawing."""

    name: str  # file stem
    png: bytes
    svg: str  # an <svg> element to stand in a page; text stays text
    width: float  # inches, its natural size


@contextmanager
def drawing() -> Iterator[None]:
    """The house style, for this drawing only: nothing global is left changed."""
    with matplotlib.rc_context(STYLE):
        yield


def blank(width: float = WIDTH, height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def cells(axes: Axes, depth: np.ndarray, texts: Sequence[Sequence[str]]) -> None:
    """A table of shaded cells: one hue on the page's own paper, so that it reads in light and in dark."""
    rows, columns = depth.shape
    for row in range(rows):
        for column in range(columns):
            value = float(depth[row, column])
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=BLUE, alpha=0.04 + 0.9 * value, linewidth=0))
            ink = PAPER if value > 0.8 else INK  # by contrast with the blend below it, in both themes
            axes.text(column, row, texts[row][column], ha="center", va="center", color=ink, fontsize=8)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(labelcolor=INK)


def shades(axes: Axes, depth: np.ndarray) -> None:
    """The same without texts, as one image: for more cells than can be read."""
    pixels = np.empty((*depth.shape, 4))
    pixels[..., :3], pixels[..., 3] = to_rgb(BLUE), 0.04 + 0.9 * depth
    axes.imshow(pixels, interpolation="none")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 10]))
    axes.grid(visible=False)
    axes.tick_params(labelcolor=INK)


def render(name: str, figure: Figure) -> Chart:
    """Both forms of a drawing. Equal drawings give equal bytes: no dates, ids by name."""
    svg = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        pixels = png(figure, 200)
        figure.set_layout_engine("none")  # both forms are laid out alike; once is enough
        figure.patch.set_alpha(0)
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return Chart(name, pixels, _inline(name, svg.getvalue()), float(figure.get_figwidth()))


def png(figure: Figure, dpi: int) -> bytes:
    """The pixels of a drawing; to be called while its style holds."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def _inline(name: str, svg: str) -> str:
    """An SVG file as an element of a page: own ids, the page's colours, no fixed size, nothing outside."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    for colour, variable in THEMED.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg
