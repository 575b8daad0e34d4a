# SPDX-License-Identifier: GPL-2.0-only
"""VT-d's tables in legacy mode, read in the machine's RAM as the IOMMU reads them.

Root table, context table, second-stage page table: "Intel Virtualization Technology for
Directed I/O", sections 9.1, 9.3 and 9.8. `read` gives bytes at a physical address of the
machine. Nothing here asks the kernel under test.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]

_PAGE = 4096
_PAIR = struct.Struct("<QQ")
_PRESENT = 1
_READ_WRITE, _WRITE = 3, 2
_LARGE = 1 << 7
_ADDRESS = 0x000F_FFFF_FFFF_F000
_MULTI_LEVEL = 0
# Room for 16 GiB in small pages; what has been overwritten may lead anywhere.
_MOST_PAGES = 8192


@dataclass(frozen=True)
class ContextEntry:
    """What the IOMMU knows of a device; `table` is where its context table is."""

    table: int
    low: int
    high: int

    @property
    def top(self) -> int:
        """Physical address of the page table's top."""
        return self.low & _ADDRESS

    @property
    def levels(self) -> int:
        """Levels of the page table: 3 for 39 bits, 4 for 48."""
        return (self.high & 7) + 2

    @property
    def domain(self) -> int:
        """Domain ID, by which the IOMMU's caches tell page tables apart."""
        return self.high >> 8 & 0xFFFF

    @property
    def translates(self) -> bool:
        """True when requests go through the page table."""
        return self.low >> 2 & 3 == _MULTI_LEVEL


@dataclass(frozen=True)
class Leaf:
    """A piece of memory that a page table maps."""

    iova: int
    physical: int
    size: int
    writable: bool = True


@dataclass(frozen=True)
class PageTable:
    """All of a page table: the pages it consists of, and what it maps, in their order."""

    pages: tuple[int, ...]
    leaves: tuple[Leaf, ...]
    sha256: str
    """Of the address and content of each page of it."""


def context_entry(read: Read, root: int, bdf: str) -> ContextEntry | None:
    """The entry of the device at `bdf` ("01:00.0"), None when the IOMMU blocks it."""
    bus, _, devfn = bdf.partition(":")
    slot, _, function = devfn.partition(".")
    pointer = _word(read, root + int(bus, 16) * 16)
    if not pointer & _PRESENT:
        return None
    table = pointer & _ADDRESS
    at = table + (int(slot, 16) << 3 | int(function)) * 16
    entry = ContextEntry(table, _word(read, at), _word(read, at + 8))
    return entry if entry.low & _PRESENT else None


def domain_ids(read: Read, root: int) -> dict[str, int]:
    """BDF -> domain ID of every device that the IOMMU knows. Raises ValueError for a context
    table that is no RAM.
    """
    found: dict[str, int] = {}
    for bus, (pointer, _) in enumerate(_PAIR.iter_unpack(read(root, _PAGE))):
        if not pointer & _PRESENT:
            continue
        table = pointer & _ADDRESS
        for devfn, (low, high) in enumerate(_PAIR.iter_unpack(read(table, _PAGE))):
            if low & _PRESENT:
                bdf = f"{bus:02x}:{devfn >> 3:02x}.{devfn & 7}"
                found[bdf] = ContextEntry(table, low, high).domain
    return found


def _word(read: Read, address: int) -> int:
    return int.from_bytes(read(address, 8), "little")


def translate(read: Read, entry: ContextEntry, iova: int) -> int:
    """The physical address of `iova`. Raises ValueError when it is not mapped for writing."""
    table = entry.top
    for level in range(entry.levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        pte = _word(read, table + (iova >> shift & 511) * 8)
        if pte & _READ_WRITE != _READ_WRITE:
            break
        if level == 1 or pte & _LARGE:
            inside = (1 << shift) - 1
            return pte & _ADDRESS & ~inside | iova & inside
        table = pte & _ADDRESS
    raise ValueError(f"{iova:#x} is not mapped for the device")


def page_table(read: Read, entry: ContextEntry) -> PageTable:
    """The page table of a device. Raises ValueError when it is none, or when one of its pages
    is no RAM.
    """
    digest = hashlib.sha256()
    pages: list[int] = []
    leaves = tuple(_leaves(read, entry.top, entry.levels, 0, pages, digest.update))
    return PageTable(tuple(pages), leaves, digest.hexdigest())


def _leaves(
    read: Read, table: int, level: int, iova: int, pages: list[int], note: Callable[[bytes], None]
) -> Iterator[Leaf]:
    content = read(table, _PAGE)
    pages.append(table)
    if len(pages) > _MOST_PAGES:
        raise ValueError("what should be a page table has no end")
    note(struct.pack("<Q", table) + content)
    shift = 12 + 9 * (level - 1)
    for index, (pte,) in enumerate(struct.iter_unpack("<Q", content)):
        if not pte & _READ_WRITE:
            continue
        at = iova | index << shift
        if level == 1 or pte & _LARGE:
            physical = pte & _ADDRESS & ~((1 << shift) - 1)
            yield Leaf(at, physical, 1 << shift, writable=bool(pte & _WRITE))
        else:
            yield from _leaves(read, pte & _ADDRESS, level - 1, at, pages, note)
