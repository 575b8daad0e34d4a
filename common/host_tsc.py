# SPDX-License-Identifier: GPL-2.0-only
"""The frequency of this host's TSC, which is the machine's, too, where QEMU emulates the CPU.

A kernel finds it out with the PIT, whose interrupts and ports are QEMU's: on a busy host one
in some hundred boots took 2,596 MHz for 134 ("PIT calibration deviates from HPET"), and all its
times were wrong by as much. So it is told (tsc_early_khz=). Under KVM the CPU says it itself.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import time
from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_LOOKS, _SECONDS = 50, 0.1


@functools.cache
def host_tsc_khz() -> int | None:
    """In kHz, to some 10^-5. None where there is no TSC, or no code may be made up."""
    if platform.machine() != "x86_64":
        return None
    try:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    code.write(_RDTSC)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    first = _look(rdtsc)
    time.sleep(_SECONDS)
    last = _look(rdtsc)
    return round((last[1] - first[1]) * 1_000_000 / (last[0] - first[0]))


def _look(rdtsc: Callable[[], int]) -> tuple[int, int]:
    """The time in ns and the TSC, of the look in which they are nearest to each other."""
    looks = []
    for _ in range(_LOOKS):
        before, tsc, after = time.monotonic_ns(), rdtsc(), time.monotonic_ns()
        looks.append((after - before, (before + after) // 2, tsc))
    return min(looks)[1:]
