# SPDX-License-Identifier: GPL-2.0-only
"""KHO's tree, counted in memory that was made up."""

from __future__ import annotations

import struct
from collections import defaultdict

import pytest

from common.machine import kho_tree
from common.machine.ram import PAGE

_TABLE, _BITS = PAGE // 8, PAGE * 8
# The device tree that a kernel of 7.3 showed in debugfs, to where its strings are cut off.
FDT = bytes.fromhex(
    "d00dfeed0000011d00000038000000e4000000280000001100000010000000000000003900"
    "0000ac0000000000000000000000000000000000000001000000000000000300000007000000156b686f2d"
    "763400000000000300000008000000000080500000000000"
)


class Tree:
    """Pages of memory with a tree in them, as kho_radix_add_key() makes it."""

    def __init__(self) -> None:
        self.memory: dict[int, bytearray] = defaultdict(lambda: bytearray(PAGE))
        self.last = self.root = PAGE
        self.memory[self.root] = bytearray(PAGE)

    def add(self, pfn: int, order: int) -> None:
        key, node = 1 << (52 - order) | pfn >> order, self.root
        for level in range(5, 0, -1):
            at = 8 * (key >> ((level - 1) * 9 + 15) & (_TABLE - 1))
            (child,) = struct.unpack_from("<Q", self.memory[node], at)
            if not child:
                self.last += PAGE
                child = self.last
                struct.pack_into("<Q", self.memory[node], at, child)
            node = child
        bit = key % _BITS
        self.memory[node][bit // 8] |= 1 << bit % 8

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.memory[address][:length])


def test_pieces_are_counted_by_their_order() -> None:
    tree = Tree()
    for pfn in (0, 1, 32767, 32768, 1 << 28):
        tree.add(pfn, 0)
    for pfn in (512, 1024, 1 << 20):
        tree.add(pfn, 9)
    tree.add(1 << 18, 18)
    tree.add(1 << 18, 0)
    counts = kho_tree.preserved(tree.read, tree.root)
    assert counts == {0: 6, 9: 3, 18: 1}
    assert kho_tree.pages(counts) == 6 + 3 * 512 + (1 << 18)


def test_nothing_is_registered() -> None:
    tree = Tree()
    assert kho_tree.preserved(tree.read, tree.root) == {}


def test_a_damaged_tree_is_told() -> None:
    tree = Tree()
    tree.add(5, 0)
    struct.pack_into("<Q", tree.memory[tree.root], 0, 123)
    with pytest.raises(ValueError, match="0x7b is not a page"):
        kho_tree.preserved(tree.read, tree.root)


def test_the_root_is_found_in_the_device_tree() -> None:
    assert kho_tree.tree_root(FDT) == 0x508000


@pytest.mark.parametrize("fdt", [b"", b"\0" * 64, FDT[:64], FDT[:100]])
def test_what_is_no_device_tree_is_told(fdt: bytes) -> None:
    with pytest.raises(ValueError, match="device tree"):
        kho_tree.tree_root(fdt)
