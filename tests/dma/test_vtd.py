# SPDX-License-Identifier: GPL-2.0-only
"""VT-d's tables as the host reads them, on a machine's RAM made for the purpose."""

from __future__ import annotations

import struct

import pytest

from common.dma.vtd import Leaf, context_entry, domain_ids, page_table, translate

ROOT, CONTEXT, TOP, MIDDLE, LOW, LAST = (n << 12 for n in range(1, 7))
IOVA = 1 << 40
READ, WRITE, LARGE = 1, 2, 0x80


class Ram:
    """Pages that tables are written to; whatever else is read is no RAM."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def put(self, table: int, index: int, *words: int) -> None:
        page = self.pages.setdefault(table, bytearray(4096))
        struct.pack_into(f"<{len(words)}Q", page, index * 8 * len(words), *words)

    def read(self, address: int, length: int) -> bytes:
        page = self.pages.get(address & ~4095)
        if page is None:
            raise ValueError(f"{address:#x} is no RAM")
        return bytes(page[address & 4095 : (address & 4095) + length])


@pytest.fixture
def ram() -> Ram:
    """Device 01:00.0 in domain 6 with a page at IOVA 1 TiB, another 4 KiB on, and 2 MiB."""
    ram = Ram()
    ram.put(ROOT, 1, CONTEXT | 1, 0)
    ram.put(CONTEXT, 0, TOP | 1, 6 << 8 | 2)
    ram.put(TOP, IOVA >> 39, MIDDLE | READ | WRITE)
    ram.put(MIDDLE, 0, LOW | READ | WRITE)
    ram.put(LOW, 0, LAST | READ | WRITE)
    ram.put(LOW, 3, 0x4000_0000 | READ | WRITE | LARGE)
    ram.put(LAST, 0, 0x7000 | READ | WRITE)
    ram.put(LAST, 1, 0x9000 | READ | WRITE)
    ram.put(LAST, 2, 0xB000 | READ)
    return ram


def test_the_context_entry_says_table_width_and_domain(ram: Ram) -> None:
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    assert (entry.table, entry.top, entry.levels, entry.domain) == (CONTEXT, TOP, 4, 6)
    assert entry.translates


def test_every_context_entry_has_a_domain_id(ram: Ram) -> None:
    ram.put(CONTEXT, 0x1F << 3 | 2, TOP | 1, 9 << 8 | 2)
    assert domain_ids(ram.read, ROOT) == {"01:00.0": 6, "01:1f.2": 9}


@pytest.mark.parametrize("bdf", ["02:00.0", "01:00.1", "01:1f.7"])
def test_a_device_without_entry_is_blocked(ram: Ram, bdf: str) -> None:
    assert context_entry(ram.read, ROOT, bdf) is None


def test_pass_through_is_no_translation(ram: Ram) -> None:
    ram.put(CONTEXT, 0, TOP | 1 | 2 << 2, 6 << 8 | 2)
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    assert not entry.translates


@pytest.mark.parametrize(
    ("iova", "physical"),
    [
        (IOVA, 0x7000),
        (IOVA + 0x1010, 0x9010),
        (IOVA + (3 << 21) + 0x1234, 0x4000_1234),
    ],
)
def test_translates_as_the_hardware(ram: Ram, iova: int, physical: int) -> None:
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    assert translate(ram.read, entry, iova) == physical


@pytest.mark.parametrize("iova", [0x7000, IOVA + 0x2000, IOVA + 0x3000, IOVA + (4 << 21)])
def test_what_is_not_mapped_for_writing_leads_nowhere(ram: Ram, iova: int) -> None:
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    with pytest.raises(ValueError, match=f"{iova:#x} is not mapped"):
        translate(ram.read, entry, iova)


def test_a_page_table_is_its_pages_and_what_they_map(ram: Ram) -> None:
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    table = page_table(ram.read, entry)
    assert table.pages == (TOP, MIDDLE, LOW, LAST)
    assert table.leaves == (
        Leaf(IOVA, 0x7000, 4096),
        Leaf(IOVA + 0x1000, 0x9000, 4096),
        Leaf(IOVA + 0x2000, 0xB000, 4096, writable=False),
        Leaf(IOVA + (3 << 21), 0x4000_0000, 2 << 20),
    )


def test_one_other_entry_is_another_table(ram: Ram) -> None:
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    before = page_table(ram.read, entry).sha256
    ram.put(LAST, 1, 0xA000 | READ | WRITE)
    assert page_table(ram.read, entry).sha256 != before


def test_a_copy_elsewhere_is_another_table(ram: Ram) -> None:
    """The same content in other pages is not what was handed over."""
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    before = page_table(ram.read, entry).sha256
    ram.pages[0x20000] = ram.pages[LAST]
    ram.put(LOW, 0, 0x20000 | READ | WRITE)
    after = page_table(ram.read, entry)
    assert after.sha256 != before
    assert after.pages == (TOP, MIDDLE, LOW, 0x20000)


def test_an_entry_that_leads_out_of_ram_is_said(ram: Ram) -> None:
    ram.put(LOW, 7, 0xDEAD_0000 | READ | WRITE)
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    with pytest.raises(ValueError, match="no RAM"):
        page_table(ram.read, entry)


def test_tables_that_lead_into_themselves_end(ram: Ram) -> None:
    for index in range(512):
        ram.put(TOP, index, TOP | READ | WRITE)
    entry = context_entry(ram.read, ROOT, "01:00.0")
    assert entry
    with pytest.raises(ValueError, match="no end"):
        page_table(ram.read, entry)
