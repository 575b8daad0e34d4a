# SPDX-License-Identifier: GPL-2.0-only
"""What the guest has written to its memory, read from outside.

The layout is that of common/workload/vm/guest.h.

Each vCPU writes its share of the pages anew, again and again: what stands in a page follows from
the run's nonce, the page's number and the version (guest_sweep.c). So whoever sees the pages
can tell whether this guest is still at work in them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from pydantic import Field

from common.arch.known import ARCHITECTURES, DEFAULT
from common.record.cpus import arm64
from common.record.cpus.page_tables import Ram, Walk, read_virtual, walk
from common.record.stored_file import Strict

PAGE = 4096
SAMPLES = 256
"""Pages of each vCPU's share of which every word is looked at; of the others the first and last."""
MOST_GUEST_PAGES = 1 << 32
MOST_PAGES = 1 << 16
"""Pages of a vCPU's share that are looked at, at most; all of them up to 256 MiB."""

PAGE_TABLES, CODE, CODE_END = 0x2000, 0x40000, 0x42000
_ARM64_BITS = 39
VCPUS, VCPU_SIZE, MAX_VCPUS = 0x80000, 0x8000, 8
_CODE_BYTES = 64
# self, id, nonce, first_page, nr_pages; then version, cursor and counter at their offsets
_HEAD = struct.Struct("<5Q")
_VERSION, _CURSOR, _COUNTER = 80, 144, 152
_WORDS, _WORD_STEP = PAGE // 8, 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class VcpuBlock:
    """What a vCPU says of itself in guest memory; it writes pages first_page to + nr_pages."""

    nonce: int
    first_page: int
    nr_pages: int
    version: int
    cursor: int
    counter: int

    def written(self, page: int) -> int | None:
        """The version that stands in the page; None while it is being written."""
        at = page - self.first_page
        return None if at == self.cursor else self.version + (at < self.cursor)


def pattern(nonce: int, page: int, version: int) -> int:
    """The first word of a page (guest.h:guest_pattern)."""
    return _mix(nonce ^ _mix((page << 32 ^ version) & _MASK))


def _mix(x: int) -> int:
    for _ in range(2):
        x ^= x >> 32
        x = x * 0xD6E8FEB86659FD93 & _MASK
    return x ^ x >> 32


def page_content(nonce: int, page: int, version: int) -> bytes:
    """All 4 KiB of a page as the guest writes it."""
    first = pattern(nonce, page, version)
    return struct.pack(f"<{_WORDS}Q", *((first + w * _WORD_STEP) & _MASK for w in range(_WORDS)))


def vcpu_blocks(read: Callable[[int], bytes]) -> list[VcpuBlock]:
    """The vCPUs' blocks, as far as there are any; `read` gives a page, b"" for an unknown one."""
    found: list[VcpuBlock] = []
    for vcpu in range(MAX_VCPUS):
        page = read((VCPUS + vcpu * VCPU_SIZE) // PAGE)
        if len(page) < PAGE:
            break
        _self, _id, nonce, first_page, nr_pages = _HEAD.unpack_from(page)
        version, cursor, counter = (
            struct.unpack_from("<Q", page, at)[0] for at in (_VERSION, _CURSOR, _COUNTER)
        )
        # What is no guest's any more may say anything.
        if not 0 < nr_pages < MOST_GUEST_PAGES or (found and nonce != found[0].nonce):
            break
        found.append(VcpuBlock(nonce, first_page, nr_pages, version, cursor, counter))
    return found


class _GuestPhysical:
    """The guest's memory by its own physical addresses; `page` gives a page, b"" if unknown."""

    def __init__(self, page: Callable[[int], bytes], base: int) -> None:
        self._page, self._base = page, base

    def read(self, address: int, length: int) -> bytes:
        number = (address - self._base) // PAGE
        found = self._page(number)[address % PAGE :][:length] if number >= 0 else b""
        if len(found) < length:
            raise ValueError(f"{address:#x} is not known")
        return found


class GuestTables(Strict):
    """What the guest's root table leads to, for the address of its code."""

    nested: Annotated[str, Field(pattern="^0x[0-9a-f]+$", max_length=20)] | None
    """By the guest's memory: its guest-physical address; None where it leads nowhere."""
    flat: bool
    """The machine's own memory has the same code behind the same root: then no nested page tables
    are needed to run it."""


def guest_tables(ram: Ram, page: Callable[[int], bytes], arch: str = DEFAULT.name) -> GuestTables:
    """Look at them now."""
    base = ARCHITECTURES[arch].guest_ram
    guest = _GuestPhysical(page, base)

    def lead(memory: Ram, virtual: int) -> int | None:
        return _WALKS[arch](memory, base + PAGE_TABLES, virtual).physical

    nested = lead(guest, CODE)
    code = read_virtual(guest, partial(lead, guest), CODE, _CODE_BYTES)
    flat = code is not None and read_virtual(ram, partial(lead, ram), CODE, _CODE_BYTES) == code
    return GuestTables(nested=None if nested is None else hex(nested), flat=flat)


_WALKS: Mapping[str, Callable[[Ram, int, int], Walk]] = {
    "x86_64": walk,
    "arm64": partial(arm64.walk, bits=_ARM64_BITS),
}
"""Architecture -> walk by the guest's own tables (workload/arch/MACHINE/vm/vm.c)."""


def count_written(
    block: VcpuBlock, read: Callable[[int], bytes], most: int = MOST_PAGES
) -> tuple[int, int]:
    """(pages looked at, pages that are as the vCPU has written them), of `most` pages of its share.

    A page that the guest does not write to any more keeps its version, so that it is found out.
    """
    step = -(-block.nr_pages // most)
    pages = range(block.first_page, block.first_page + block.nr_pages, step)
    every = max(1, len(pages) // SAMPLES)
    seen = good = 0
    for number, page in enumerate(pages):
        version = block.written(page)
        if version is None:
            continue
        seen += 1
        content = read(page)
        if number % every:
            good += content[:8] + content[-8:] == _ends(block.nonce, page, version)
        else:
            good += content == page_content(block.nonce, page, version)
    return seen, good


def _ends(nonce: int, page: int, version: int) -> bytes:
    first = pattern(nonce, page, version)
    return struct.pack("<2Q", first, (first + (_WORDS - 1) * _WORD_STEP) & _MASK)
