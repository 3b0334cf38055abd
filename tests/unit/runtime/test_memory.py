"""Does memory that was freed go back to the system?"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from evenkeel_runtime.engine import memory

BLOCKS, BLOCK_BYTES = 600, 100_000  # less than glibc maps apart

libc = ctypes.CDLL(None)


@pytest.mark.skipif(not hasattr(libc, "malloc_trim"), reason="a C library that gives memory back by itself, or never")
def test_freed_memory_below_memory_in_use_goes_back() -> None:
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    places = [libc.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for place in places:
        ctypes.memset(place, 1, BLOCK_BYTES)
    kept = places.pop()
    for place in places:
        libc.free(place)
    before = _resident_bytes()
    memory.give_back()
    assert before - _resident_bytes() > BLOCKS * BLOCK_BYTES / 2
    libc.free(kept)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
