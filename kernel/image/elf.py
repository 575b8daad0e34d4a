# SPDX-License-Identifier: GPL-2.0-only
"""A vmlinux as an ELF file: its sections, and the GNU build id."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SHT_SYMTAB, SHT_NOTE, SHT_NOBITS = 2, 7, 8
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
SHF_ALLOC, SHF_EXECINSTR = 2, 4
NT_GNU_BUILD_ID = 3


@dataclass(frozen=True)
class Section:
    """A section of an ELF file: its name, where it is linked to, and where it lies in the file."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int

    @property
    def allocated(self) -> bool:
        """Whether it is part of the running image."""
        return bool(self.flags & SHF_ALLOC)

    @property
    def code(self) -> bool:
        """Whether it holds a kernel's instructions: its .data is marked as executable, too."""
        return bool(self.flags & SHF_EXECINSTR) and "text" in self.name

    @property
    def note(self) -> bool:
        """Whether it is one of notes."""
        return self.kind == SHT_NOTE

    @property
    def has_bytes(self) -> bool:
        """Whether the file has its content."""
        return self.kind != SHT_NOBITS


def sections(data: bytes) -> list[Section]:
    """The sections of a 64-bit little-endian ELF file; empty for anything else."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    heads = [struct.unpack_from("<IIQQQQIIQQ", data, table + n * size) for n in range(count)]
    strings = heads[names][4] if names < len(heads) else 0
    return [
        Section(
            name=data[strings + head[0] : data.index(b"\0", strings + head[0])].decode(
                "ascii", "replace"
            ),
            kind=head[1],
            flags=head[2],
            address=head[3],
            offset=head[4],
            size=head[5],
        )
        for head in heads
    ]


def notes(data: bytes, align: int) -> list[tuple[bytes, int, bytes]]:
    """(name, type, descriptor) of each note in an ELF note section.

    The name is without its terminating NUL.
    """
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


@dataclass(frozen=True)
class Symbol:
    """A symbol of an ELF file; `size` in bytes, 0 where the assembler gave none."""

    name: str
    address: int
    size: int
    code: bool


def symbols(data: bytes) -> list[Symbol]:
    """All symbols with an address; empty for a stripped file."""
    found: list[Symbol] = []
    all_ = sections(data)
    table = next((s for s in all_ if s.kind == SHT_SYMTAB), None)
    names = next((s for s in all_ if s.name == ".strtab"), None)
    if table is None or names is None:
        return []
    strings = data[names.offset : names.offset + names.size]
    code = {number for number, section in enumerate(all_) if section.code}
    entries = struct.iter_unpack("<IBBHQQ", data[table.offset : table.offset + table.size])
    for name, info, _, index, value, size in entries:
        kind = info & 0xF
        if value and kind in (STT_NOTYPE, STT_OBJECT, STT_FUNC) and name < len(strings):
            text = strings[name : strings.index(b"\0", name)].decode("ascii", "replace")
            is_code = index in code and kind != STT_OBJECT
            found.append(Symbol(name=text, address=value, size=size, code=is_code))
    return found
