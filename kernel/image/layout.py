# SPDX-License-Identifier: GPL-2.0-only
"""The layout of a kernel's image, from its ELF file.

Section headers are enough, so the vmlinux that is packed in a bzImage, which has no symbols,
will do as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from common.record.cpus.kernel_layout import KernelLayout
from kernel.image.elf import NT_GNU_BUILD_ID, Section, sections, symbols

_EM_AARCH64 = 183
_BANNER = re.compile(rb"Linux version \d[^\n\0]*\n\0")


def layout_of(vmlinux: Path) -> KernelLayout | None:
    """The layout of a kernel's ELF file, None where a part of it is not to be found."""
    data = vmlinux.read_bytes()
    loaded = [s for s in sections(data) if s.allocated and s.address]
    code = [s for s in loaded if s.code]
    notes = (found for s in loaded if s.note and (found := _note(data, s)))
    note = next(notes, None)
    # In the first section, .rodata, which may be large: no copy of it is made.
    banner = next((found for s in loaded if s.has_bytes and (found := _banner(data, s))), None)
    if not code or note is None or banner is None:
        return None
    return KernelLayout(
        text=min(s.address for s in code),
        text_ranges=tuple((s.address, s.address + s.size) for s in code),
        note=note,
        banner=banner,
        root=_root(data),
        page_bits=_page_bits(data, loaded),
    )


def _root(data: bytes) -> int | None:
    """Of an arm64 kernel: see KernelLayout.root."""
    if not _is_arm64(data):
        return None
    return next((s.address for s in symbols(data) if s.name == "swapper_pg_dir"), None)


def _page_bits(data: bytes, loaded: Sequence[Section]) -> int | None:
    """Of an arm64 kernel, by its image's header (Documentation/arch/arm64/booting.rst)."""
    head = next((s for s in loaded if s.name == ".head.text"), None)
    if not _is_arm64(data) or head is None:
        return None
    flags = int.from_bytes(data[head.offset + 24 :][:8], "little")
    return {1: 12, 2: 14, 3: 16}.get(flags >> 1 & 3)


def _is_arm64(data: bytes) -> bool:
    return int.from_bytes(data[18:20], "little") == _EM_AARCH64


def _note(data: bytes, section: Section) -> int | None:
    head = struct.pack("<II4s", 20, NT_GNU_BUILD_ID, b"GNU\0")
    at = data.find(head, section.offset, section.offset + section.size)
    return section.address + at - section.offset - 4 if at >= 4 else None


def _banner(data: bytes, section: Section) -> int | None:
    found = _BANNER.search(data, section.offset, section.offset + section.size)
    return section.address + found.start() - section.offset if found else None
