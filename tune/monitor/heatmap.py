"""The map of accuracy over restarts and steps, as each trial shows it in TensorBoard.

Drawn by Pillow, which a worker has loaded anyway: Matplotlib would cost each of them a second.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

CELL = (50, 38)  # pixels, width and height
LETTERS = 16  # pixels: the height of the text
MARGIN = (72, 38)  # left of the cells, for the restarts; above them, for the title
MOST = 20  # rows, and columns
BELOW = 52  # for the steps and what they are
BLUE, RED, INK, GREY = (42, 99, 163), (190, 40, 40), (30, 30, 30), (120, 120, 120)


def map_png(found: Mapping[str, Any], restarts: int, steps: int) -> bytes:
    """The map as a PNG, the trial's own pair framed in red. Of many R or L some are shown, its own among them.

    Args:
        found: "restarts", "steps" and "psd_gan", a row of shares per number of restarts, as the stage `map` has them.
        restarts: the trial's R.
        steps: the trial's L.
    """
    found = _thinned(found, restarts, steps)
    title = "GAN-only PSD in %, validation images"
    font = ImageFont.load_default(LETTERS)
    across, down = len(found["steps"]), len(found["restarts"])
    width = max(MARGIN[0] + across * CELL[0], int(font.getlength(title))) + 16
    page = Image.new("RGB", (width, MARGIN[1] + down * CELL[1] + BELOW), "white")
    draw = ImageDraw.Draw(page)
    draw.text((8, MARGIN[1] / 2), title, INK, font, anchor="lm")
    _draw_cells(draw, font, found["psd_gan"])
    for column, number in enumerate(found["steps"]):
        place = (_corner(0, column)[0] + CELL[0] / 2, _corner(down, 0)[1] + 14)
        draw.text(place, str(number), INK, font, anchor="mm")
    for row, number in enumerate(found["restarts"]):
        draw.text((MARGIN[0] - 8, _corner(row, 0)[1] + CELL[1] / 2), str(number), INK, font, anchor="rm")
    draw.text((8, MARGIN[1] + CELL[1] / 2), "R", GREY, font, anchor="lm")
    draw.text((MARGIN[0] + across * CELL[0] / 2, page.height - 14), "gradient steps L", GREY, font, anchor="mm")
    if restarts in found["restarts"] and steps in found["steps"]:
        left, top = _corner(list(found["restarts"]).index(restarts), list(found["steps"]).index(steps))
        draw.rectangle((left, top, left + CELL[0], top + CELL[1]), outline=RED, width=3)
    content = io.BytesIO()
    page.save(content, "PNG", optimize=True)
    return content.getvalue()


def _thinned(found: Mapping[str, Any], restarts: int, steps: int) -> dict[str, Any]:
    """The same map of few enough R and L to be looked at."""
    rows, columns = _places(found["restarts"], restarts), _places(found["steps"], steps)
    return {
        "restarts": [found["restarts"][row] for row in rows],
        "steps": [found["steps"][column] for column in columns],
        "psd_gan": [[found["psd_gan"][row][column] for column in columns] for row in rows],
    }


def _places(values: Sequence[int], own: int) -> list[int]:
    """The places of about `MOST` of the values, evenly: the first, the last, and the trial's own, where it is one."""
    even = {round(n * (len(values) - 1) / (MOST - 1)) for n in range(MOST)}
    return sorted(even | {place for place, number in enumerate(values) if number == own})


def _draw_cells(draw: ImageDraw.ImageDraw, font: Any, shares: Sequence[Sequence[float]]) -> None:
    known = [share for row in shares for share in row if math.isfinite(share)]
    low, spread = min(known, default=0.0), max(known, default=1.0) - min(known, default=0.0) or 1.0
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            depth = 0.04 + 0.9 * (share - low) / spread if math.isfinite(share) else 0.0
            shade = tuple(round(255 + (blue - 255) * depth) for blue in BLUE)
            left, top = _corner(row, column)
            draw.rectangle((left, top, left + CELL[0] - 1, top + CELL[1] - 1), fill=shade)
            text = f"{100 * share:.1f}" if math.isfinite(share) else "–"
            draw.text((left + CELL[0] / 2, top + CELL[1] / 2), text, "white" if depth > 0.7 else INK, font, anchor="mm")


def _corner(row: int, column: int) -> tuple[int, int]:
    return MARGIN[0] + column * CELL[0], MARGIN[1] + row * CELL[1]
