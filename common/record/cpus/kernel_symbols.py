# SPDX-License-Identifier: GPL-2.0-only
"""The symbols of a kernel that was built here, by name and by address."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import islice
from pathlib import Path

from kernel.image.elf import Symbol, symbols

_MOST_UNSIZED = 4096


class KernelSymbols:
    """Link addresses of a vmlinux."""

    def __init__(self, vmlinux: Path) -> None:
        found = symbols(vmlinux.read_bytes())
        self._by_name: dict[str, Symbol] = {}
        for symbol in found:
            self._by_name.setdefault(symbol.name, symbol)
        self._code = sorted((s for s in found if s.code), key=lambda s: (s.address, s.size))
        self._starts = [s.address for s in self._code]

    def named(self, name: str) -> Symbol | None:
        """The first symbol of that name."""
        return self._by_name.get(name)

    def function_at(self, link: int) -> str | None:
        """ "function+0xoffset/0xsize" as the kernel prints it; None for what is no code."""
        at = bisect_right(self._starts, link) - 1
        if at < 0:
            return None
        symbol = self._code[at]
        following = next((s for s in islice(self._starts, at + 1, None) if s > symbol.address), 0)
        # What assembler gave no size ends at the next one, unless that is far away.
        size = symbol.size or min(max(0, following - symbol.address), _MOST_UNSIZED)
        if link - symbol.address >= max(size, 1):
            return None
        return f"{symbol.name}+{link - symbol.address:#x}/{size:#x}"


@lru_cache(maxsize=4)
def symbols_of(vmlinux: Path) -> KernelSymbols:
    """The symbols of that file, read once."""
    return KernelSymbols(vmlinux)
