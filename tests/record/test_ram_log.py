# SPDX-License-Identifier: GPL-2.0-only
"""A log buffer in RAM, built as printk_ringbuffer.c builds it, and read from outside."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from common.record.cpus.ram_log import LogLine, read_log

BASE, MOVED = 0xFFFFFFFF81000000, 0x22200000
BITS, DATA_BITS, INFO = 2, 7, 88
ADDRESSES = {
    "prb": (BASE, 8),
    "printk_rb_static": (BASE + 0x100, 88),
    "_printk_rb_static_infos": (BASE + 0x1000, INFO << BITS),
    "_printk_rb_static_descs": (BASE + 0x2000, 24 << BITS),
    "__log_buf": (BASE + 0x3000, 1 << DATA_BITS),
}
MASK = (1 << 62) - 1


class Symbols:
    def named(self, name: str) -> SimpleNamespace | None:
        address, size = ADDRESSES[name]
        return SimpleNamespace(address=address, size=size)


class Image:
    """A kernel whose ring has these records: state, ns, text; ids go up to the largest one."""

    def __init__(self, records: list[tuple[int, int, str]], *, first: int = MASK - 1) -> None:
        self.bytes = bytearray(0x4000)
        position = -(1 << DATA_BITS)
        for number, (state, ns, text) in enumerate(records):
            ident = (first + number) & MASK
            slot, data = ident & ((1 << BITS) - 1), text.encode()
            size = 8 + -(-len(data) // 8) * 8
            begin = position
            position += size
            if begin >> DATA_BITS != (position - 1) >> DATA_BITS:
                start = 0  # it would cross the end
                position = (position >> DATA_BITS << DATA_BITS) + size
            else:
                start = begin & ((1 << DATA_BITS) - 1)
            desc = (state << 62 | ident, begin & (1 << 64) - 1, position & (1 << 64) - 1)
            self.put("_printk_rb_static_descs", slot * 24, struct.pack("<QQQ", *desc))
            self.put("_printk_rb_static_infos", slot * INFO, struct.pack("<QQH", 0, ns, len(data)))
            self.put("__log_buf", start + 8, data)
        place = {name: address + MOVED for name, (address, _) in ADDRESSES.items()}
        infos, descs = place["_printk_rb_static_infos"], place["_printk_rb_static_descs"]
        last = (first + len(records) - 1) & MASK
        ring = struct.pack("<I4xQQQQQ", BITS, descs, infos, last, first, 0)
        ring += struct.pack("<I4xQQQQ", DATA_BITS, place["__log_buf"], 0, 0, 0)
        self.put("printk_rb_static", 0, ring)
        self.put("prb", 0, place["printk_rb_static"].to_bytes(8, "little"))

    def put(self, name: str, at: int, data: bytes) -> None:
        start = ADDRESSES[name][0] - BASE + at
        self.bytes[start : start + len(data)] = data

    def read(self, link: int, length: int) -> bytes | None:
        at = link - BASE
        return bytes(self.bytes[at : at + length]) if 0 <= at < len(self.bytes) else None


def lines(image: Image) -> list[str]:
    found = read_log(image.read, Symbols(), MOVED)  # type: ignore[arg-type]
    assert found.source == "prb"
    return [str(line) for line in found.lines]


def test_records_in_their_order_and_over_the_ends_of_ids_and_text() -> None:
    """The first id is near the end of all ids, and the last text ends where the ring does."""
    records = [(2, 0, "Linux version"), (2, 1_500_000, "x" * 70), (1, 2_000_000_000, "RIP: 0010:f")]
    assert lines(Image(records)) == [
        "[    0.000000] Linux version",
        f"[    0.001500] {'x' * 70}",
        "[    2.000000] RIP: 0010:f",
    ]


def test_a_text_that_does_not_fit_before_the_end_stands_at_the_beginning() -> None:
    records = [(2, 0, "Linux version"), (2, 1, "x" * 70), (2, 2, "y" * 20)]
    assert [text[15:] for text in lines(Image(records))][1:] == ["x" * 70, "y" * 20]


def test_what_is_not_committed_is_left_out() -> None:
    records = [(2, 0, "first"), (0, 0, "being written"), (3, 0, "gone"), (2, 0, "two\nlines")]
    assert [text[15:] for text in lines(Image(records))] == ["first", "two", "lines"]


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda image: image.put("prb", 0, bytes(8)),
        lambda image: image.put("printk_rb_static", 0, b"\xff\xff\xff\xff"),
        lambda image: image.put("printk_rb_static", 8, b"\xff" * 8),
        lambda image: image.put("printk_rb_static", 48, b"\xff"),
    ],
)
def test_without_a_ring_the_text_of_the_buffer_is_what_there_is(corrupt) -> None:  # type: ignore[no-untyped-def]
    image = Image([(2, 0, "Linux version"), (2, 0, "Oops: 0002")])
    corrupt(image)
    found = read_log(image.read, Symbols(), MOVED)  # type: ignore[arg-type]
    assert found.source == "__log_buf"
    assert found.lines == (
        LogLine(ns=None, text="Linux version"),
        LogLine(ns=None, text="Oops: 0002"),
    )


def test_nothing_at_all() -> None:
    found = read_log(lambda _link, _length: None, Symbols(), MOVED)  # type: ignore[arg-type]
    assert (found.source, found.lines) == ("none", ())
