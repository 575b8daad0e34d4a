# SPDX-License-Identifier: GPL-2.0-only
"""arm64's page tables and registers, and a kernel found by them."""

from __future__ import annotations

import struct

import pytest

from common.record.cpus import arm64
from common.record.cpus.kernel_layout import KernelLayout
from common.record.cpus.samples import CpuSample, take

ID = bytes(range(20))
NOTE = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + ID
TEXT = 0xFFFF_8000_8000_0000
LAYOUT = KernelLayout(
    text=TEXT,
    text_ranges=((TEXT, TEXT + 0x500000),),
    note=TEXT + 0x600000,
    banner=TEXT + 0x601000,
    root=TEXT + 0x700000,
    page_bits=12,
)
IMAGE, PHYSICAL = TEXT + 0x1_2340_0000, 0x4120_0000
GUEST = 0x4500_0000
REGISTERS = """
CPU#0
 PC={pc:016x} X00=0000000000000000 X01=0000000000000001
X18=0000000000000012 X19=0000000000080000 X20=0000000000000007 X21=0000000000000063
X22=00000000000000ff X23=0000000000000000 X30=0000000000000000 SP=ffff800080003c90
PSTATE={pstate:08x} -ZC- EL{el}h  BTYPE=0
"""


class Ram:
    """96 MiB from 1 GiB on, all of it zeros but for what is put there."""

    base = 1 << 30

    def __init__(self) -> None:
        self.bytes = bytearray(96 << 20)

    def put(self, address: int, data: bytes) -> None:
        at = address - self.base
        self.bytes[at : at + len(data)] = data

    def entry(self, table: int, index: int, value: int) -> None:
        self.put(table + 8 * index, value.to_bytes(8, "little"))

    def read(self, address: int, length: int) -> bytes:
        at = address - self.base
        if at < 0 or at + length > len(self.bytes):
            raise ValueError("no RAM")
        return bytes(self.bytes[at : at + length])


def kernel() -> Ram:
    """An image of 8 MiB, mapped by blocks of 2 MiB below its own root table."""
    ram = Ram()
    ram.put(PHYSICAL + LAYOUT.note - TEXT, NOTE)
    ram.put(PHYSICAL + LAYOUT.banner - TEXT, b"Linux version 7.3.4-luo-out (x) #1\n\0")
    root = PHYSICAL + 0x700000
    tables = [root, root + 0x1000, root + 0x2000]
    for number, table in enumerate(tables[:-1]):
        shift = 12 + 9 * (3 - number)
        ram.entry(table, IMAGE >> shift & 0x1FF, tables[number + 1] | 3)
    for block in range(4):
        virtual = IMAGE + (block << 21)
        ram.entry(tables[-1], virtual >> 21 & 0x1FF, PHYSICAL + (block << 21) | 0x401)
    return ram


class Monitor:
    """Says what it is made with."""

    def __init__(self, pc: int, el: int, physical: int | None) -> None:
        self._said = REGISTERS.format(pc=pc, pstate=0x600000C5 & ~0xC | el << 2, el=el)
        self._pc, self._physical = pc, physical

    def registers(self) -> str:
        return self._said

    def physical(self, cpu: int, virtual: int) -> int | None:
        assert (cpu, virtual) == (0, self._pc)
        return self._physical


def sample(ram: Ram, pc: int, el: int, physical: int | None) -> CpuSample:
    (found,) = take(Monitor(pc, el, physical), ram, [LAYOUT], "here", "arm64").cpus
    return found


@pytest.mark.parametrize("el", [1, 2])
def test_a_kernel_is_found_around_where_its_cpu_is(el: int) -> None:
    found = sample(kernel(), IMAGE + 0x123456, el, PHYSICAL + 0x123456)
    assert (found.image, found.root) == (IMAGE, PHYSICAL + 0x700000)
    assert found.looks[0].build_id == ID.hex()
    assert found.looks[0].says.startswith("Linux version 7.3.4-luo-out ")
    assert found.cpu.in_kernel_half and not found.in_guest
    assert found.root is not None
    assert found.cpu.runs_by(found.root, found.looks[0].note.walk, found.pc, LAYOUT)


def test_a_cpu_that_runs_by_other_tables_does_not_run_by_these() -> None:
    found = sample(kernel(), IMAGE + 0x1000, 1, PHYSICAL + 0x1000)
    note, root = found.looks[0].note.walk, found.root or 0
    assert found.cpu.runs_by(root, note, found.pc, LAYOUT)
    moved = found.cpu.model_copy(update={"physical": PHYSICAL + 0x3000})
    assert not moved.runs_by(root, note, found.pc, LAYOUT)
    assert not found.cpu.runs_by(root + 4096, note, found.pc, LAYOUT)
    assert not found.cpu.runs_by(root, note, None, LAYOUT)


def test_without_an_image_there_is_no_kernel() -> None:
    assert sample(Ram(), IMAGE, 1, PHYSICAL).root is None
    assert sample(kernel(), IMAGE, 1, None).root is None


def test_a_guest_is_at_el1_below_the_kernels_half() -> None:
    found = sample(kernel(), 0x40123, 1, GUEST + 0x123)
    assert found.in_guest and found.cpu.saved == (0x80000, 7, 0x63, 0xFF)
    assert found.cpu.by_guest_tables(0x2000, GUEST)
    assert not found.cpu.by_guest_tables(0x2000, GUEST + 4096)
    assert not found.cpu.by_guest_tables(0x2000, None)
    assert not sample(kernel(), 0x40123, 2, GUEST).in_guest  # a hypervisor's own code
    assert not sample(kernel(), 0x40123, 0, GUEST).in_guest
    assert not sample(kernel(), 0x40123, 1, None).in_guest


def test_tables_of_large_pages_and_of_fewer_bits() -> None:
    ram, root = Ram(), 1 << 30
    virtual = 0xFFFF_8000_8000_0000 + 0x12_3456
    ram.entry(root, virtual >> 42 & 0x3F, root + 0x10000 | 3)
    ram.entry(root + 0x10000, virtual >> 29 & 0x1FFF, root + 0x20000 | 3)
    ram.entry(root + 0x20000, virtual >> 16 & 0x1FFF, root + 0x500000 | 0x403)
    path = arm64.walk(ram, root, virtual, page_bits=16)
    assert (len(path.entries), path.physical) == (3, root + 0x500000 + (virtual & 0xFFFF))
    ram.entry(root + 0x30000, 0, root + 0x31000 | 3)
    ram.entry(root + 0x31000, 0, root + 0x600000 | 0x401)
    assert arm64.walk(ram, root + 0x30000, 0x40000, bits=39).physical == root + 0x640000
    ram.entry(root + 0x20000, virtual >> 16 & 0x1FFF, root + 0x500000 | 0x401)  # reserved
    assert arm64.walk(ram, root, virtual, page_bits=16).physical is None
    assert arm64.walk(ram, 1 << 20, virtual).physical is None


def test_what_is_no_answer_tells_of_no_cpu() -> None:
    assert arm64.parse_registers("no answer: gone", lambda _cpu, _virtual: None) == ()
    assert arm64.parse_registers("CPU#0\n PC=12 ", lambda _cpu, _virtual: None) == ()
