# SPDX-License-Identifier: GPL-2.0-only
"""The frequency of the host's TSC, which is the machine's as well where QEMU emulates the CPU.

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
_LOOKS, _SECONDS, _OLD_SECONDS = 50, 0.1, 10


class _Watched:
    """The TSC from a first look on. Raises OSError where no code may be made up."""

    def __init__(self) -> None:
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._code = mmap.mmap(-1, mmap.PAGESIZE, prot=protection)
        self._code.write(_RDTSC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        self._rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
        self._first = _look(self._rdtsc)

    def khz(self) -> int:
        """Since the first look; waits until that is long enough ago.

        Where that was long ago, kernels were built meanwhile, it begins anew: of a host that is
        suspended, the clocks do not stand still alike.
        """
        if time.monotonic_ns() - self._first[0] > _OLD_SECONDS * 1e9:
            self._first = _look(self._rdtsc)
        time.sleep(max(0.0, _SECONDS - (time.monotonic_ns() - self._first[0]) / 1e9))
        last = _look(self._rdtsc)
        return round((last[1] - self._first[1]) * 1_000_000 / (last[0] - self._first[0]))


@functools.cache
def watch_tsc() -> _Watched | None:
    """Begin; None where there is no TSC to be read. There are other things to do meanwhile."""
    if platform.machine() != "x86_64":
        return None
    try:
        return _Watched()
    except OSError:
        return None


@functools.cache
def host_tsc_khz() -> int | None:
    """In kHz, to some 10^-5. None where there is no TSC, or no code may be made up."""
    watched = watch_tsc()
    return watched.khz() if watched else None


def _look(rdtsc: Callable[[], int]) -> tuple[int, int]:
    """The time in ns and the TSC, of the look in which they are nearest to each other."""
    looks = []
    for _ in range(_LOOKS):
        before, tsc, after = time.monotonic_ns(), rdtsc(), time.monotonic_ns()
        looks.append((after - before, (before + after) // 2, tsc))
    return min(looks)[1:]
