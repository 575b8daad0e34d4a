# SPDX-License-Identifier: GPL-2.0-only
"""A handover in memory that was made up: KHO's device tree and map, LUO's records, a memfd."""

from __future__ import annotations

import struct

import pytest

from common.machine import kho_tree
from common.machine.ram import PAGE
from common.suites.damage.points import points
from common.suites.damage.walk import find_root, walk

FDT, LUO, SESSIONS, FILES, RECORD, CHUNK, LIST = (n * PAGE for n in range(100, 107))
FRAMES = (300, 307)
_NODES = 200


class Memory:
    """2 MiB, with what two kernels agree on in it."""

    def __init__(self, *, sealed: bool = False) -> None:
        self.ram = bytearray(2 << 20)
        self._last = _NODES * PAGE
        self.root = self._last
        for page in (FDT, LUO, SESSIONS, FILES, RECORD, CHUNK, LIST, *(f * PAGE for f in FRAMES)):
            self._register(page // PAGE)
        self._put(FDT, self._device_tree())
        self._put(LUO, struct.pack("<8sQQQ", b"luo-v6" if sealed else b"luo-v5", 1, SESSIONS, 0))
        self._put(SESSIONS, self._block(1, sealed=sealed))
        self._put(SESSIONS + 16, struct.pack("<64sQQ", b"vm", FILES, 1))
        self._put(FILES, self._block(1, sealed=sealed))
        kind = b"memfd-v3" if sealed else b"memfd-v2"
        self._put(FILES + 16, struct.pack("<48sQQ", kind, RECORD, 5))
        header = struct.pack("<4I", 1, 72, 0, 0) if sealed else b""
        memfd = struct.pack("<QQIIQQIHH", 77, 2 * PAGE, 4, 0, 2, CHUNK, 1, 0, 0)
        self._put(RECORD, header + memfd)
        self._put(CHUNK, struct.pack("<QQ", 0, LIST))
        for index, frame in enumerate(FRAMES):
            self._put(LIST + 16 * index, struct.pack("<QQ", 3 << 52 | frame, index))

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.ram):
            raise ValueError(f"{address:#x} is no RAM")
        return bytes(self.ram[address : address + length])

    def _put(self, address: int, data: bytes) -> None:
        self.ram[address : address + len(data)] = data

    @staticmethod
    def _block(count: int, *, sealed: bool) -> bytes:
        return struct.pack("<QII", 0, count, 0xABCD if sealed else 0)

    def _register(self, pfn: int) -> None:
        key, node = 1 << 52 | pfn, self.root
        for level in range(5, 0, -1):
            at = node + 8 * (key >> ((level - 1) * 9 + 15) & 511)
            (child,) = struct.unpack_from("<Q", self.ram, at)
            if not child:
                self._last += PAGE
                child = self._last
                self._put(at, struct.pack("<Q", child))
            node = child
        bit = key % (8 * PAGE)
        self.ram[node + bit // 8] |= 1 << bit % 8

    def _device_tree(self) -> bytes:
        strings = b"compatible\0preserved-memory-map\0preserved-data\0blob-size\0"

        def prop(name: bytes, value: bytes) -> bytes:
            padded = value + bytes(-len(value) % 4)
            return struct.pack(">3I", 3, len(value), strings.index(name)) + padded

        body = struct.pack(">2I", 1, 0)
        body += prop(b"compatible", b"kho-v4\0")
        body += prop(b"preserved-memory-map", struct.pack("<Q", self.root))
        body += struct.pack(">I4s", 1, b"LUO\0")
        body += prop(b"preserved-data", struct.pack("<Q", LUO))
        body += prop(b"blob-size", struct.pack("<Q", 32))
        body += struct.pack(">3I", 2, 2, 9)
        whole = 40 + 16 + len(body) + len(strings)
        head = struct.pack(
            ">10I", 0xD00DFEED, whole, 56, 56 + len(body), 40, 17, 16, 0, len(strings), len(body)
        )
        return head + bytes(16) + body + strings


def test_the_device_tree_is_the_one_that_is_preserved() -> None:
    memory = Memory()
    memory.ram[50 * PAGE : 50 * PAGE + 300] = memory.read(FDT, 300)  # a copy, which nobody kept
    assert find_root(bytes(memory.ram), memory.read) == FDT


def test_where_there_is_none_it_is_told() -> None:
    with pytest.raises(ValueError, match="0 pages look like"):
        find_root(bytes(1 << 20), Memory().read)


@pytest.mark.parametrize("sealed", [False, True])
def test_all_records_are_found(sealed: bool) -> None:
    memory = Memory(sealed=sealed)
    found = walk(memory.read, FDT)
    places = {record.name: record.address for record in found.records}
    assert places["fdt"] == FDT
    assert (places["luo"], places["sessions"], places["session"]) == (LUO, SESSIONS, SESSIONS + 16)
    assert (places["files"], places["file"]) == (FILES, FILES + 16)
    assert (places["memfd"], places["chunk"], places["folio"]) == (RECORD, CHUNK, LIST)
    (memfd,) = found.memfds
    assert (memfd.session, memfd.token, memfd.frames) == ("vm", 5, FRAMES)
    assert memfd.properties == f"77:{2 * PAGE}:4"
    assert found.devices == ()
    assert found.formats == (
        ("kho-v4", "luo-v6", "memfd-v3") if sealed else ("kho-v4", "luo-v5", "memfd-v2")
    )


@pytest.mark.parametrize("sealed", [False, True])
def test_each_field_has_a_point(sealed: bool) -> None:
    memory = Memory(sealed=sealed)
    found = walk(memory.read, FDT)
    names = {point.name.rpartition(".")[0] for point in points(found.records, memory.read, 1)}
    fields = {f"{record.name}.{field.name}" for record in found.records for field in record.fields}
    # Of one session, file, and folio there is no other; the one chunk is the last.
    assert fields - names == set()
    assert ("luo.crc" in names) == sealed


def test_the_page_of_a_folio_is_a_bit_in_the_map() -> None:
    memory = Memory()
    found = walk(memory.read, FDT)
    page = next(record for record in found.records if record.name == "page-folio")
    (field,) = page.fields
    place = kho_tree.place(memory.read, memory.root, FRAMES[0], None)
    assert place
    assert (page.address, field.offset * 8 + field.bit) == (place.leaf, place.bit)
    nodes = [record.name for record in found.records if record.name.startswith("node")]
    assert nodes == ["node1", "node2", "node3", "node4", "node5"]


def test_what_is_not_registered_is_told() -> None:
    memory = Memory()
    struct.pack_into("<Q", memory.ram, LIST, 400)
    with pytest.raises(ValueError, match="not registered"):
        walk(memory.read, FDT)


def test_what_leads_to_no_ram_is_told() -> None:
    memory = Memory()
    struct.pack_into("<Q", memory.ram, LUO + 16, 1 << 40)
    with pytest.raises(ValueError, match="no RAM"):
        walk(memory.read, FDT)
