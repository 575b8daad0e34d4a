# SPDX-License-Identifier: GPL-2.0-only
"""Where text, build-id note and banner are in a kernel's image."""

from __future__ import annotations

import struct
from typing import Annotated

from pydantic import Field

from common.record.stored_file import U64, Strict

NT_GNU_BUILD_ID = 3
_NOTE_HEAD = struct.Struct("<III4s")
BANNER_BYTES = 256
NOTE_BYTES = 36


class KernelLayout(Strict):
    """Link addresses in an image; at run time all are offset by the same distance."""

    text: U64
    """_text, with which the image begins."""
    text_ranges: tuple[tuple[U64, U64], ...]
    """Begin and end of each section with code."""
    note: U64
    """The GNU build-id note: its header of 16 bytes, then the id."""
    banner: U64
    """linux_banner, "Linux version …"."""
    root: U64 | None = None
    """swapper_pg_dir, the root page table; None where the CPU's register tells it (x86)."""
    page_bits: Annotated[int, Field(ge=12, le=16)] | None = None
    """Of its pages, where these may have several sizes."""

    def in_text(self, link: int) -> bool:
        """Whether this link address is code."""
        return any(begin <= link < end for begin, end in self.text_ranges)


def build_id_of_note(note: bytes) -> str | None:
    """The build id, in hex, of a whole note; None where it is none."""
    if len(note) < _NOTE_HEAD.size:
        return None
    name_size, size, kind, name = _NOTE_HEAD.unpack_from(note)
    if (name_size, kind, name) != (4, NT_GNU_BUILD_ID, b"GNU\0") or not 8 <= size <= 64:
        return None
    value = note[_NOTE_HEAD.size : _NOTE_HEAD.size + size]
    return value.hex() if len(value) == size else None
