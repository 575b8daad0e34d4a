# SPDX-License-Identifier: GPL-2.0-only
"""Finds the records of a handover in the machine's RAM: from KHO's device tree to each folio. Pure.

The machine stands still where one kernel has left and the next has not begun. Of each kind of
record one is taken, and its neighbour where there is one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from common.machine import kho_tree
from common.machine.kho_tree import Read
from common.machine.ram import PAGE
from common.suites.damage import layouts
from common.suites.damage.layouts import Field, Record

_MAGIC = b"\xd0\x0d\xfe\xed"
_BEGIN, _END, _PROP, _NOP = 1, 2, 3, 4
_LISTED = PAGE // 16
"""Folios in a page of a memfd's list."""
_UNITS, _MOST_DEVICES = 8, 64
_MOST = 100_000
_PFN = (1 << 52) - 1


@dataclass(frozen=True)
class Memfd:
    """A file's pages: `frames` are page frame numbers, one for each page, in the file's order."""

    session: str
    token: int
    frames: tuple[int, ...]
    properties: str
    """Position, size, seals, as the workload says them."""


@dataclass(frozen=True)
class Handover:
    """All that was found."""

    records: tuple[Record, ...]
    memfds: tuple[Memfd, ...]
    devices: tuple[str, ...]
    """Addresses (BB:SS.F) of the PCI devices, and of the bridges above them."""
    formats: tuple[str, ...]
    """Names of the formats that stand beside what is handed over, each once, KHO's first."""


def find_root(ram: bytes, read: Read) -> int:
    """Address of KHO's device tree: the one page of `ram` that is one, and that is preserved.

    `ram` is low memory from address 0. Raises ValueError where there is none, or another.
    """
    found = [at for at in _places(ram) if _is_root(read, at)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} pages look like KHO's device tree, where one is due")
    return found[0]


def _places(ram: bytes) -> Iterator[int]:
    at = ram.find(_MAGIC)
    while at >= 0:
        if at % PAGE == 0:
            yield at
        at = ram.find(_MAGIC, at + 1)


def _is_root(read: Read, at: int) -> bool:
    try:
        root = kho_tree.tree_root(read(at, PAGE))
        return kho_tree.place(read, root, at // PAGE, 0) is not None
    except ValueError:
        return False


def walk(read: Read, root: int) -> Handover:
    """Everything that KHO's device tree at `root` leads to. Raises ValueError where it does not."""
    return _Walk(read).all(root)


class _Walk:
    def __init__(self, read: Read) -> None:
        self._read = read
        self._records: list[Record] = []
        self._memfds: list[Memfd] = []
        self._largest: tuple[int, int] = (0, 0)
        self._devices: list[str] = []
        self._preserved: dict[str, int] = {}
        self._sealed = False
        self._form = layouts.MEMFD
        self._formats: dict[str, None] = {}

    def all(self, root: int) -> Handover:
        tree, blobs = self._device_tree(root)
        if "kexec-metadata" in blobs:
            self._add("metadata", blobs["kexec-metadata"], layouts.METADATA)
        if "LUO" not in blobs:
            raise ValueError("nothing of LUO's is handed over")
        self._luo(blobs["LUO"])
        if self._largest[1]:
            self._memfd(self._largest[1])
        self._tree(tree, {"luo": blobs["LUO"]})
        return Handover(
            tuple(self._records),
            tuple(self._memfds),
            tuple(self._devices),
            tuple(self._formats),
        )

    def _numbers(self, address: int, layout: tuple[Field, ...]) -> dict[str, int]:
        data = self._read(address, layouts.size_of(layout))
        return {
            f.name: int.from_bytes(data[f.offset : f.offset + f.size], "little") for f in layout
        }

    def _text(self, address: int, size: int) -> str:
        return self._read(address, size).split(b"\0")[0].decode("ascii", "replace")

    def _format(self, address: int, size: int) -> str:
        """The name of a format that stands there; it is noted."""
        name = self._text(address, size)
        self._formats[name] = None
        return name

    def _add(
        self, name: str, address: int, layout: tuple[Field, ...], neighbour: int | None = None
    ) -> dict[str, int]:
        if all(one.name != name for one in self._records):
            size = layouts.size_of(layout)
            self._records.append(Record(name, address, size, layout, neighbour))
        return self._numbers(address, layout)

    def _device_tree(self, at: int) -> tuple[int, dict[str, int]]:
        """The root of KHO's radix tree, and each blob's address by its name."""
        head = struct.unpack(">10I", self._read(at, 40))
        names = ("magic", "size", "structure", "strings", "reserve", "version", "compatible-with")
        found = [Field(name, 4 * n, 4, "number") for n, name in enumerate(names)]
        data = self._read(at, head[1])
        offset, depth, node = head[2], 0, ""
        blobs: dict[str, int] = {}
        tree = 0
        while offset < head[2] + head[9]:
            (token,) = struct.unpack_from(">I", data, offset)
            offset += 4
            if token == _BEGIN:
                end = data.index(b"\0", offset)
                node = data[offset:end].decode("ascii", "replace")
                if node:
                    found.append(Field(f"{node}-name", offset, end - offset, "text"))
                offset, depth = offset + (end - offset + 4) // 4 * 4, depth + 1
            elif token == _END:
                depth, node = depth - 1, ""
            elif token == _PROP:
                length, string = struct.unpack_from(">2I", data, offset)
                name = data[head[3] + string :].split(b"\0")[0].decode("ascii", "replace")
                if not node and name == "compatible":
                    self._format(at + offset + 8, length)
                value = int.from_bytes(data[offset + 8 : offset + 8 + length], "little")
                found.append(_property(node, name, offset + 8, length))
                if name == "preserved-memory-map":
                    tree = value
                elif name == "preserved-data":
                    blobs[node] = value
                offset += 8 + (length + 3) // 4 * 4
            elif token != _NOP:
                break
        self._records.append(Record("fdt", at, head[1], tuple(found)))
        return tree, blobs

    def _luo(self, at: int) -> None:
        self._sealed = _known(self._format(at, 8), "luo-v5", "luo-v6")
        luo = self._add("luo", at, layouts.LUO_SEALED if self._sealed else layouts.LUO)
        if luo["sessions"]:
            size = layouts.size_of(layouts.SESSION)
            for address, other in self._block("sessions", luo["sessions"], size):
                session = self._add("session", address, layouts.SESSION, other)
                if session["files"]:
                    self._files(self._text(address, 64), session["files"])
        if luo["flbs"]:
            self._flbs(luo["flbs"])

    def _block(self, name: str, at: int, size: int) -> list[tuple[int, int | None]]:
        """Each entry of a block with another beside it; the blocks after it are as it is."""
        entries: list[int] = []
        while at and len(entries) < _MOST:
            layout = layouts.BLOCK_SEALED if self._sealed else layouts.BLOCK
            block = self._add(name, at, layout)
            entries += [at + 16 + n * size for n in range(min(block["count"], PAGE // size))]
            at = block["next"]
        return _with_others(entries)

    def _files(self, session: str, at: int) -> None:
        for address, other in self._block("files", at, layouts.size_of(layouts.FILE)):
            file = self._add("file", address, layouts.FILE, other)
            kind = self._format(address, 48)
            if kind.startswith("memfd-"):
                sealed = _known(kind, "memfd-v2", "memfd-v3")
                self._form = layouts.MEMFD_SEALED if sealed else layouts.MEMFD
                self._note_memfd(session, file["token"], file["data"])
            elif kind.startswith("vfio-pci-live-"):
                self._add("vfio", file["data"], layouts.VFIO)
            elif kind.startswith("iommufd-live-"):
                self._add("iommufd", file["data"], layouts.IOMMUFD)
                first = file["data"] + layouts.size_of(layouts.IOMMUFD)
                self._add("hwpt", first, layouts.HWPT)

    def _note_memfd(self, session: str, token: int, at: int) -> None:
        memfd = self._numbers(at, self._form)
        frames: dict[int, int] = {}
        for folio in self._folios(memfd["first"], memfd["folios"]):
            pfn, index = struct.unpack("<2Q", self._read(folio, 16))
            frames[index] = pfn & _PFN
        properties = ":".join(str(memfd[name]) for name in ("position", "size", "seals"))
        pages = _every_page(frames, memfd["size"])
        self._memfds.append(Memfd(session, token, pages, properties))
        self._largest = max(self._largest, (memfd["folios"], at))

    def _folios(self, chunk: int, count: int) -> Iterator[int]:
        """Where each folio of a list stands."""
        left = count
        while chunk and left:
            next_chunk, *pages = struct.unpack(f"<{PAGE // 8}Q", self._read(chunk, PAGE))
            for page in pages:
                for n in range(min(left, _LISTED)):
                    yield page + 16 * n
                left -= min(left, _LISTED)
            chunk = next_chunk

    def _memfd(self, at: int) -> None:
        memfd = self._add("memfd", at, self._form)
        chunk = self._add("chunk", memfd["first"], layouts.CHUNK)
        first, second, *_ = (*self._folios(memfd["first"], memfd["folios"]), 0, 0)
        self._add("folio", first, layouts.FOLIO, second or None)
        pfn = self._numbers(first, layouts.FOLIO)["pfn"]
        self._preserved = {"memfd": at, "chunk": memfd["first"], "list": chunk["page"]}
        self._preserved["folio"] = pfn * PAGE

    def _flbs(self, at: int) -> None:
        layout = layouts.FLBS_SEALED if self._sealed else layouts.FLBS
        head = self._add("flbs", at, layout)
        size = layouts.size_of(layouts.FLB)
        entries = [at + 16 + n * size for n in range(min(head["count"], PAGE // size))]
        for address, other in _with_others(entries):
            flb = self._add("flb", address, layouts.FLB, other)
            kind = self._format(address, 48)
            if kind.startswith("pci-live-"):
                self._pci(flb["data"])
            elif kind.startswith("iommu-live-"):
                self._iommu(flb["data"])

    def _pci(self, at: int) -> None:
        head = self._add("pci", at, layouts.PCI)
        first, size = at + layouts.size_of(layouts.PCI), layouts.size_of(layouts.PCI_DEVICE)
        entries = [first + n * size for n in range(min(head["count"], PAGE // size))]
        for address, other in _with_others(entries):
            bdf = self._add("pci-device", address, layouts.PCI_DEVICE, other)["bdf"]
            self._devices.append(f"{bdf >> 8:02x}:{bdf >> 3 & 31:02x}.{bdf & 7}")

    def _iommu(self, at: int) -> None:
        head = self._add("iommu", at, layouts.IOMMU)
        first = at + layouts.size_of(layouts.IOMMU)
        unit, device = layouts.size_of(layouts.IOMMU_UNIT), layouts.size_of(layouts.IOMMU_DEVICE)
        self._add("iommu-unit", first, layouts.IOMMU_UNIT)
        first += _UNITS * unit
        entries = [first + n * device for n in range(min(head["devices"], _MOST_DEVICES))]
        for address, other in _with_others(entries):
            self._add("iommu-device", address, layouts.IOMMU_DEVICE, other)

    def _tree(self, root: int, more: dict[str, int]) -> None:
        """The nodes on the way to a folio, and the bits of pages that matter."""
        pages = {**more, **self._preserved}
        for record in self._records:
            if record.name in ("sessions", "files", "flbs", "pci", "vfio", "iommu", "iommufd"):
                pages[record.name] = record.address
        way = kho_tree.place(self._read, root, pages.get("folio", more["luo"]) // PAGE, None)
        if way is None:
            raise ValueError("a page that is handed over is not registered with KHO")
        for level, entry in enumerate(reversed(way.entries), start=1):
            node = Field("entry", entry % PAGE, 8, "address")
            self._records.append(Record(f"node{level}", entry - entry % PAGE, PAGE, (node,)))
        for name, address in pages.items():
            here = kho_tree.place(self._read, root, address // PAGE, None)
            if here is None:
                raise ValueError(f"{name} at {address:#x} is not registered with KHO")
            bit = Field(name, here.bit // 8, 1, "bit", here.bit % 8)
            self._records.append(Record(f"page-{name}", here.leaf, PAGE, (bit,)))


def _known(name: str, plain: str, sealed: str) -> bool:
    """Whether it is the format with checksums, of our series. Raises ValueError where neither."""
    if name not in (plain, sealed):
        raise ValueError(f"the layout of {name!r} is not known, only of {plain} and {sealed}")
    return name == sealed


def _property(node: str, name: str, offset: int, length: int) -> Field:
    if name == "compatible":
        return Field("compatible", offset, length, "text")
    if name == "preserved-memory-map":
        return Field("map", offset, length, "address")
    if name == "preserved-data":
        return Field(f"{node}-data", offset, length, "address")
    if name == "blob-size":
        return Field(f"{node}-size", offset, length, "count")
    return Field(name, offset, length, "number")


def _with_others(entries: list[int]) -> list[tuple[int, int | None]]:
    """Each with the one after it, the last with the one before it."""
    if len(entries) < 2:
        return [(entry, None) for entry in entries]
    return list(zip(entries, [*entries[1:], entries[-2]], strict=True))


def _every_page(frames: dict[int, int], size: int) -> tuple[int, ...]:
    """The frame of each page of a file, where folios may have several pages."""
    found: list[int] = []
    for page in range((size + PAGE - 1) // PAGE):
        if page in frames:
            found.append(frames[page])
        elif found:
            found.append(found[-1] + 1)
        else:
            raise ValueError("a file's list of folios has no first page")
    return tuple(found)
