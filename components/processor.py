"""The use of the processor: memory that the allocator keeps, and work spread over torch's threads."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# mallopt(3): which sizes get pages of their own from the system, and how much freed memory goes back to it.
_TRIM, _TOP_PAD, _MMAP = -1, -2, -3
_MIB = 1 << 20


def keep_memory() -> bool:
    """Lets this process keep the memory that tensors leave, up to 512 MiB of it, for the next ones.

    GNU's allocator returns it to the system and asks again, and the system clears every page that it gives: up to
    a quarter of the time of a projection or a training whose maps are some MB large.

    Returns:
        True where the allocator was set; False on systems without GNU's C library.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # other C libraries; TypeError: Windows has no CDLL(None)
        return False
    settings = {_TRIM: 512 * _MIB, _TOP_PAD: 64 * _MIB, _MMAP: 32 * _MIB}
    return all([mallopt(which, value) == 1 for which, value in settings.items()])  # noqa: C419  (every call is made)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields work(item) in the items' order, as many at once as torch has threads, each on one of them.

    For items that are too small for a share of each operation to be worth a thread's waking. With one thread, or one
    item, `work` runs in the caller's thread with all that it has.
    """
    items, threads = list(items), torch.get_num_threads()
    if threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, what has begun is finished and no more
        torch.set_num_threads(threads)  # what the threads set is the default of threads to come, too
