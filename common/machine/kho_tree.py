# SPDX-License-Identifier: GPL-2.0-only
"""What is registered with KHO, as the host finds it in the machine's RAM.

KHO keeps what is to be handed over in a radix tree of pages (Linux 7.3,
include/linux/kho/abi/kexec_handover.h, "kho-v4"): six levels, the lowest a bitmap. A key is a
page frame number shifted right by an order, with one bit above it that encodes the order
(kernel/liveupdate/kexec_handover.c: kho_encode_radix_key). The tree's root is in KHO's flattened
device tree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from common.machine.ram import PAGE

_LEVELS = 6
_BITMAP_BITS = 15
_TABLE_BITS = 9
_KEY_BITS = 52
_MOST_ORDER = 10
_MAGIC = 0xD00DFEED
_BEGIN_NODE, _PROP, _NOP = 1, 3, 4

Read = Callable[[int, int], bytes]
"""Bytes of RAM: (physical address, length)."""


def tree_root(fdt: bytes) -> int:
    """Physical address of the tree's root: the root node's one property of 8 bytes.

    The strings that name properties may be cut off: debugfs shows as many bytes as there were
    when the file was made. Raises ValueError when this is no such device tree.
    """
    if len(fdt) < 40 or struct.unpack_from(">I", fdt)[0] != _MAGIC:
        raise ValueError("no flattened device tree")
    at = struct.unpack_from(">I", fdt, 8)[0]
    depth = 0
    while at + 12 <= len(fdt):
        token = struct.unpack_from(">I", fdt, at)[0]
        at += 4
        if token == _BEGIN_NODE and depth == 0:
            depth, at = 1, at + 4  # the root's name is empty
        elif token == _PROP and depth == 1:
            length = struct.unpack_from(">I", fdt, at)[0]
            value = fdt[at + 8 : at + 8 + length]
            if length == 8 and len(value) == 8:
                return int(struct.unpack("<Q", value)[0])
            at += 8 + (length + 3) // 4 * 4
        elif token != _NOP:
            break
    raise ValueError("the device tree has no property of 8 bytes in its root")


def preserved(read: Read, root: int) -> dict[int, int]:
    """Order -> how many pieces of 2^order pages are registered.

    Raises ValueError where an entry is not a page of RAM.
    """
    found: dict[int, int] = {}
    for key, bits in _leaves(read, root, _LEVELS - 1, 0):
        # The bit of the order lies above the bitmap's, for all orders that there are.
        order = _KEY_BITS - (key.bit_length() - 1)
        found[order] = found.get(order, 0) + bits.bit_count()
    return found


@dataclass(frozen=True)
class Place:
    """Where a piece of memory is registered."""

    entries: tuple[int, ...]
    """Physical addresses of the entries on the way to its bitmap, the root's first."""
    leaf: int
    """Physical address of the bitmap."""
    bit: int
    """Number of its bit in there."""
    order: int


def place(read: Read, root: int, pfn: int, order: int | None) -> Place | None:
    """Where the piece of that order that begins at `pfn` is registered; None where it is not.

    Without an order, of any. Raises ValueError where an entry is no page of RAM.
    """
    if order is None:
        found = (place(read, root, pfn, one) for one in range(_MOST_ORDER + 1))
        return next((one for one in found if one), None)
    if pfn % (1 << order):
        return None
    key, node = 1 << (_KEY_BITS - order) | pfn >> order, root
    entries: list[int] = []
    for level in range(_LEVELS - 1, 0, -1):
        index = key >> ((level - 1) * _TABLE_BITS + _BITMAP_BITS) & ((1 << _TABLE_BITS) - 1)
        if node % PAGE:
            raise ValueError(f"{node:#x} is not a page")
        entries.append(node + 8 * index)
        (node,) = struct.unpack("<Q", read(entries[-1], 8))
        if not node:
            return None
    bit = key & ((1 << _BITMAP_BITS) - 1)
    if not read(node + bit // 8, 1)[0] >> bit % 8 & 1:
        return None
    return Place(tuple(entries), node, bit, order)


def pages(counts: dict[int, int]) -> int:
    """The pages of 4 KiB that they are in all."""
    return sum(count << order for order, count in counts.items())


def stored_pages(counts: Mapping[str, int]) -> int:
    """The same of counts as a trial's files have them, whose orders are text."""
    return pages({int(order): count for order, count in counts.items()})


def _leaves(read: Read, node: int, level: int, key: int) -> Iterator[tuple[int, int]]:
    """(upper part of its keys, its bitmap as a number) of each leaf that is not empty."""
    if node % PAGE:
        raise ValueError(f"{node:#x} is not a page")
    data = read(node, PAGE)
    if level == 0:
        if any(data):
            yield key, int.from_bytes(data, "little")
        return
    for index, child in enumerate(struct.unpack(f"<{PAGE // 8}Q", data)):
        if child:
            shift = (level - 1) * _TABLE_BITS + _BITMAP_BITS
            yield from _leaves(read, child, level - 1, key | index << shift)
