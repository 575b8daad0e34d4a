# SPDX-License-Identifier: GPL-2.0-only
"""x86-64 page tables, walked in the machine's RAM from outside.

Formats are those of the Intel SDM, volume 3A, 4.5 (4-level and 5-level paging); AMD's are alike.
A walk never raises: what it leads to may be anything, because CR3 may be a guest's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.record.stored_file import U64, Strict

PRESENT, LARGE = 1, 1 << 7
_ADDRESS = 0x000F_FFFF_FFFF_F000
START_MAP = 0xFFFF_FFFF_8000_0000
"""Where Linux maps its image: __START_KERNEL_map of arch/x86/include/asm/page_64_types.h."""
_PMD = 2 << 20


class Ram(Protocol):
    """Guest-physical memory. `read` raises ValueError where there is none."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at guest-physical `address`."""


class Walk(Strict):
    """The page-table walk from a root to the physical address of a virtual one."""

    virtual: U64
    entries: tuple[tuple[U64, U64], ...]
    """Physical address and value of each entry read, from the top."""
    physical: U64 | None
    """None where nothing is mapped."""

    def read(self, address: int, length: int) -> bytes:
        """RAM of which nothing is known but these entries. Raises ValueError elsewhere."""
        entries = dict(self.entries)
        if length != 8 or address not in entries:
            raise ValueError(f"{address:#x} is not recorded")
        return (entries[address] & (1 << 64) - 1).to_bytes(8, "little")


def walk(ram: Ram, root: int, virtual: int, *, levels: int = 4) -> Walk:
    """Follow the tables from `root` (CR3) for `virtual`; `levels` is 5 with CR4.LA57."""
    entries: list[tuple[int, int]] = []
    table = root & _ADDRESS
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        at = table + 8 * (virtual >> shift & 0x1FF)
        value = _entry(ram, at)
        if value is None:
            break
        entries.append((at, value))
        if not value & PRESENT:
            break
        if level == 1 or (level in (2, 3) and value & LARGE):
            inside = (1 << shift) - 1
            physical = (value & _ADDRESS & ~inside) | (virtual & inside)
            return Walk(virtual=virtual, entries=tuple(entries), physical=physical)
        table = value & _ADDRESS
    return Walk(virtual=virtual, entries=tuple(entries), physical=None)


def image_start(ram: Ram, root: int, *, levels: int = 4) -> int | None:
    """Where the kernel's image begins: the first 2 MiB that are mapped above START_MAP.

    A kernel unmaps what is not its image there (arch/x86/boot/startup/map_kernel.c:
    __startup_64), so this is its _text, wherever KASLR has put it.
    """
    path = walk(ram, root, START_MAP, levels=levels)
    if len(path.entries) < levels - 1 or not path.entries[levels - 3][1] & PRESENT:
        return None
    if path.entries[levels - 3][1] & LARGE:
        return None
    table = path.entries[levels - 2][0] & ~0xFFF
    try:
        entries = ram.read(table, 4096)
    except ValueError:
        return None
    for index in range(512):
        if entries[8 * index] & PRESENT:
            return START_MAP + index * _PMD
    return None


def read_virtual(
    ram: Ram, lead: Callable[[int], int | None], virtual: int, length: int
) -> bytes | None:
    """Bytes by virtual address, across pages; None where something of it is not mapped.

    `lead` gives the physical address of a virtual one.
    """
    found = b""
    while len(found) < length:
        at = virtual + len(found)
        physical = lead(at)
        if physical is None:
            return None
        try:
            found += ram.read(physical, min(length - len(found), 4096 - at % 4096))
        except ValueError:
            return None
    return found


def _entry(ram: Ram, address: int) -> int | None:
    try:
        return int.from_bytes(ram.read(address, 8), "little")
    except ValueError:
        return None
