# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's log buffer, read in the machine's RAM: for a kernel that died before its console.

The buffer is that of kernel/printk/printk_ringbuffer.c (Linux 5.10 and later): a ring of
descriptors, one of printk_info for each of them, and a ring of text. Where the fields stand is
taken from the sizes that the kernel's own symbols have; where these do not fit, the bytes of
__log_buf are all that there is. VMCOREINFO would say it, too, but a kernel writes that long after
its console is up (kernel/vmcore_info.c, a subsys_initcall).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from common.record.stored_file import U64, Strict

if TYPE_CHECKING:  # who only judges has no kernels
    from common.record.cpus.kernel_symbols import KernelSymbols

Reader = Callable[[int, int], bytes | None]
"""Bytes at a link address of the image, moved to where it runs; None where there are none."""

_RING_BYTES = {80: 40, 88: 48}
"""sizeof(struct printk_ringbuffer) -> offset of text_data_ring; 88 with last_finalized_seq."""
_DESC_BYTES = 24
_MOST_BITS, _MOST_TEXT_BITS = 18, 25
_ID_MASK, _WORD_MASK = (1 << 62) - 1, (1 << 64) - 1
_COMMITTED, _FINALIZED = 1, 2
_PRINTABLE = re.compile(rb"[\t\x20-\x7e]{4,}")
_INFO = struct.Struct("<QQH")


class LogLine(Strict):
    """A record of the kernel's log; `ns` since its clock started, None if only text was found."""

    ns: U64 | None
    text: str

    def __str__(self) -> str:
        if self.ns is None:
            return self.text
        return f"[{self.ns // 10**9:5}.{self.ns % 10**9 // 1000:06}] {self.text}"


class RamLog(Strict):
    """A kernel's log as found in RAM; `source`: from the ring buffer, or only its text."""

    source: Literal["prb", "__log_buf", "none"]
    lines: tuple[LogLine, ...] = ()


def read_log(read: Reader, symbols: KernelSymbols, moved: int) -> RamLog:
    """The log of the image that `read` reads; `moved` is how far from its link addresses it runs.

    Never raises: what cannot be read gives less.
    """
    ring = _ring(read, symbols, moved)
    if ring is not None:
        return RamLog(source="prb", lines=tuple(ring))
    buffer = symbols.named("__log_buf")
    raw = read(buffer.address, buffer.size) if buffer else None
    if not raw:
        return RamLog(source="none")
    lines = (found[0].decode("ascii") for found in _PRINTABLE.finditer(raw))
    return RamLog(source="__log_buf", lines=tuple(LogLine(ns=None, text=text) for text in lines))


def _ring(read: Reader, symbols: KernelSymbols, moved: int) -> list[LogLine] | None:
    names = ("prb", "printk_rb_static", "_printk_rb_static_infos", "_printk_rb_static_descs")
    prb, static, infos, descs = (symbols.named(name) for name in names)
    if not (prb and static and infos and descs) or static.size not in _RING_BYTES:
        return None

    def at(address: int, length: int) -> bytes:
        found = read(address - moved, length)
        if found is None or len(found) != length:
            raise ValueError(f"{address:#x} cannot be read")
        return found

    try:
        where = _number(at(prb.address + moved, 8))
        head = at(where, static.size)
        bits = _number(head[:4])
        count = descs.size // _DESC_BYTES
        data_bits = _number(head[_RING_BYTES[static.size] :][:4])
        if bits > _MOST_BITS or data_bits > _MOST_TEXT_BITS or not count or infos.size % count:
            return None
        info_bytes = infos.size // count
        desc_at, info_at, newest, oldest = struct.unpack_from("<QQQQ", head, 8)
        text_at = _number(head[_RING_BYTES[static.size] + 8 :][:8])
        return _records(
            (oldest, newest),
            at(desc_at, _DESC_BYTES << bits),
            at(info_at, info_bytes << bits),
            at(text_at, 1 << data_bits),
            bits,
            data_bits,
        )
    except (ValueError, struct.error):
        return None


def _records(
    ids: tuple[int, int], descs: bytes, infos: bytes, text: bytes, bits: int, data_bits: int
) -> list[LogLine]:
    count, info_bytes = 1 << bits, len(infos) >> bits
    found: list[LogLine] = []
    for step in range(min(count, ((ids[1] - ids[0]) & _ID_MASK) + 1)):
        ident = (ids[0] + step) & _ID_MASK
        slot = ident & (count - 1)
        state, begin, end = struct.unpack_from("<QQQ", descs, slot * _DESC_BYTES)
        if state & _ID_MASK != ident or state >> 62 not in (_COMMITTED, _FINALIZED) or begin & 1:
            continue
        _seq, ns, length = _INFO.unpack_from(infos, slot * info_bytes)
        if begin >> data_bits != ((end - 1) & _WORD_MASK) >> data_bits:
            begin = 0  # a block that would cross the end stands at the beginning, whole
        start = (begin & ((1 << data_bits) - 1)) + 8
        said = text[start : start + length].decode("utf-8", "backslashreplace")
        found += [LogLine(ns=ns, text=part) for part in said.split("\n")]
    return found


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
