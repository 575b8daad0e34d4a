# SPDX-License-Identifier: GPL-2.0-only
"""What the guest has written into its memory, read from outside: the layout of common/vm/guest.h.

Each vCPU writes its share of the pages anew, again and again: what stands in a page follows from
the run's nonce, the page's number and the version (guest_sweep.c). So whoever sees the pages
can tell whether this guest is still at work in them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

PAGE = 4096
SAMPLES = 256
"""Pages of each vCPU's share that are looked at."""

_VCPUS, _VCPU_SIZE = 0x80000, 0x8000
MAX_VCPUS = 8
# self, id, nonce, first_page, nr_pages; then version, cursor and counter at their offsets
_HEAD = struct.Struct("<5Q")
_VERSION, _CURSOR, _COUNTER = 72, 136, 144
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
        page = read((_VCPUS + vcpu * _VCPU_SIZE) // PAGE)
        if len(page) < PAGE:
            break
        _self, _id, nonce, first_page, nr_pages = _HEAD.unpack_from(page)
        version, cursor, counter = (
            struct.unpack_from("<Q", page, at)[0] for at in (_VERSION, _CURSOR, _COUNTER)
        )
        if not nr_pages or (found and nonce != found[0].nonce):
            break
        found.append(VcpuBlock(nonce, first_page, nr_pages, version, cursor, counter))
    return found


def count_written(block: VcpuBlock, read: Callable[[int], bytes]) -> tuple[int, int]:
    """(pages looked at, pages that are as the vCPU has written them), spread over its share."""
    step = max(1, block.nr_pages // SAMPLES)
    pages = range(block.first_page, block.first_page + block.nr_pages, step)
    versions = [(page, block.written(page)) for page in pages]
    settled = [(page, version) for page, version in versions if version is not None]
    good = sum(read(page) == page_content(block.nonce, page, version) for page, version in settled)
    return len(settled), good
