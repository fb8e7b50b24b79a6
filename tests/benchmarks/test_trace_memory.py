"""The memory of a process is its own."""

from __future__ import annotations

import multiprocessing
import sys

import pytest

from benchmarks.trace_memory import forget_peak, peak

MB = 10**6


def memory_of_a_buffer() -> tuple[float, float, float]:
    """MB: of a fresh process, of it with 50 MB more, and once these are gone and forgotten."""
    before = peak()
    buffer = bytearray(50 * MB)
    held = peak()
    del buffer
    return before, held, forget_peak()


@pytest.mark.skipif(sys.platform != "linux", reason="its /proc tells the peak")
def test_a_peak_is_neither_the_parents_nor_an_earlier_one() -> None:
    large = bytearray(b"1") * (600 * MB)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, held, after = pool.apply(memory_of_a_buffer)
    del large
    assert before < 1000  # of torch alone
    assert 45 < held - before < 60
    assert after < before + 10
