# SPDX-License-Identifier: GPL-2.0-only
"""Reading the GNU build id out of a vmlinux."""

from __future__ import annotations

import struct
from pathlib import Path

SHT_NOTE = 7
NT_GNU_BUILD_ID = 3


def notes(data: bytes, align: int) -> list[tuple[bytes, int, bytes]]:
    """Name, type and descriptor of each note in an ELF note section."""
    found: list[tuple[bytes, int, bytes]] = []
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        at += 12
        name = data[at : at + name_size].rstrip(b"\0")
        at += -(-name_size // align) * align
        found.append((name, kind, data[at : at + size]))
        at += -(-size // align) * align
    return found


def build_id(path: Path) -> str | None:
    """The GNU build id in hex, as the running kernel has it in /sys/kernel/notes; None if none."""
    with path.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return None
        (offset,) = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        file.seek(offset)
        table = file.read(size * count)
        for index in range(count):
            _, kind, _, _, start, length, _, _, align, _ = struct.unpack_from(
                "<IIQQQQIIQQ", table, index * size
            )
            if kind != SHT_NOTE:
                continue
            file.seek(start)
            # notes are aligned to 4 but for some sections of 8 (.note.gnu.property)
            for name, note, value in notes(file.read(length), 8 if align == 8 else 4):
                if name == b"GNU" and note == NT_GNU_BUILD_ID:
                    return value.hex()
    return None
