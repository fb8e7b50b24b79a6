"""Images that look like a defense's, drawn without one: seven-segment digits, clean, attacked and cleaned."""

from __future__ import annotations

import io

import numpy as np

# Digits on seven segments: top, upper left and right, middle, lower left and right, bottom.
_SEGMENTS = (
    "1110111",
    "0010010",
    "1011101",
    "1011011",
    "0111010",
    "1101011",
    "1101111",
    "1010010",
    "1111111",
    "1111011",
)
_STROKES = (
    (2, 3, 4, 11),
    (2, 8, 3, 4),
    (2, 8, 11, 12),
    (7, 8, 4, 11),
    (8, 14, 3, 4),
    (8, 14, 11, 12),
    (13, 14, 4, 11),
)


def images(seed: int, count: int = 10, wrong: int = 8) -> bytes:
    """The npz of a seed's images, 16 × 16."""
    rng = np.random.default_rng(seed)
    true, worst = np.arange(count) % 10, np.arange(wrong) % 10
    labels = np.stack([true, (true + 3) % 10, true, true])
    labels[2, 4], labels[2:, 8] = 9, 3
    arrays = {**_rows(true, rng), "true": true, "labels": labels}
    off = (worst + 5) % 10
    arrays |= {f"worst_{name}": rows for name, rows in _rows(worst, rng).items()}
    arrays |= {"worst_true": worst, "worst_labels": np.stack([worst, off, off, off])}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _rows(labels: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    clean = np.stack([digit(int(label)) for label in labels])[:, None]
    attacked = np.clip(clean + 0.3 * np.sign(rng.normal(size=clean.shape)), 0, 1)
    soft = np.clip(0.85 * clean + 0.1 * np.roll(clean, 1, axis=-1), 0, 1)
    rows = {"original": clean, "attacked": attacked, "gan": soft, "denoised": 0.95 * clean}
    return {name: np.round(255 * row).astype(np.uint8) for name, row in rows.items()}


def digit(label: int) -> np.ndarray:
    image = np.zeros((16, 16))
    for lit, (top, bottom, left, right) in zip(_SEGMENTS[label], _STROKES, strict=True):
        if lit == "1":
            image[top : bottom + 1, left : right + 1] = 1.0
    return image
