"""Cut mnist_mini from MNIST: python -m components.mnist_mini.cut --source FOLDER

The same source gives the same bytes, so a new cut shows in `git diff` only if something changed.
"""

import argparse
import gzip
import hashlib
import io
from pathlib import Path

from components.datasets.idx import read_idx, to_idx
from components.datasets.idx_folder import find_files
from components.datasets.raw import stratified_indices

TRAIN, TEST, SEED = 10_000, 2_000, 0


def cut(source: Path, target: Path) -> None:
    """Write the four idx.gz files and their SHA256SUMS to `target`."""
    files = find_files(source)
    splits = (
        ("train", files.train_images, files.train_labels, TRAIN),
        ("t10k", files.t10k_images, files.t10k_labels, TEST),
    )
    sums = []
    for prefix, images_path, labels_path, n in splits:
        labels = read_idx(labels_path)
        rows = stratified_indices(labels, n, SEED)
        for kind, array in (("images-idx3", read_idx(images_path)[rows]), ("labels-idx1", labels[rows])):
            name, content = f"{prefix}-{kind}-ubyte.gz", compress(to_idx(array))
            (target / name).write_bytes(content)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    (target / "SHA256SUMS").write_text("".join(sums))


def compress(content: bytes) -> bytes:
    """gzip without a time stamp or a file name."""
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=9, mtime=0) as archive:
        archive.write(content)
    return stream.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cut mnist_mini from MNIST.")
    parser.add_argument("--source", type=Path, required=True, help="folder with MNIST's four idx(.gz) files")
    cut(parser.parse_args().source, Path(__file__).parent)
