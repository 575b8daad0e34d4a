# SPDX-License-Identifier: GPL-2.0-only
"""The records of a handover: their fields, in the order in which they lie in memory. Pure.

Linux 7.3: include/linux/kho/abi/*.h; of LUO's and memfd's own records also the form that they have
in the series of stages 2 and 3, with checksums. PCI's, vfio's and iommu's are of that series alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sort = Literal["address", "frame", "count", "number", "flags", "text", "unused", "bit"]
"""What is in a field. A frame is a page frame number; a "bit" is one of a bitmap, and is set."""

HEADER = "version:4:number size:4:count crc:4:number reserved:4:unused "


@dataclass(frozen=True)
class Field:
    """Bytes of a record. `bit` is the one of them, for sort "bit"."""

    name: str
    offset: int
    size: int
    sort: Sort
    bit: int = 0


@dataclass(frozen=True)
class Record:
    """Something that is handed over: bytes of the machine's RAM, with names."""

    name: str
    address: int
    size: int
    fields: tuple[Field, ...]
    neighbour: int | None = None
    """Address of another one of the same kind and size."""

    def field_at(self, offset: int) -> str:
        """The name of the field that a byte belongs to; "rest" where it is none."""
        return next((f.name for f in self.fields if f.offset <= offset < f.offset + f.size), "rest")


def fields(text: str) -> tuple[Field, ...]:
    """NAME:BYTES:SORT of fields that follow each other, separated by blanks."""
    found: list[Field] = []
    offset = 0
    for word in text.split():
        name, size, sort = word.split(":")
        found.append(Field(name, offset, int(size), sort))  # type: ignore[arg-type]
        offset += int(size)
    return tuple(found)


def size_of(layout: tuple[Field, ...]) -> int:
    """Bytes of a record with these fields."""
    return layout[-1].offset + layout[-1].size


METADATA = fields("version:4:number release:65:text count:4:count")
LUO = fields("compatible:8:text number:8:number sessions:8:address flbs:8:address")
LUO_SEALED = fields(
    "compatible:8:text number:8:number sessions:8:address flbs:8:address"
    " reserved:4:unused crc:4:number"
)
BLOCK = fields("next:8:address count:8:count")
"""struct kho_block_header_ser; sessions, or files, follow it in the page."""
BLOCK_SEALED = fields("next:8:address count:4:count crc:4:number")
SESSION = fields("name:64:text files:8:address count:8:count")
FILE = fields("compatible:48:text data:8:address token:8:number")
FLBS = fields("pages:8:count count:8:count")
FLBS_SEALED = fields("pages:4:count crc:4:number count:8:count")
FLB = fields("name:48:text data:8:address count:8:count")
_MEMFD = (
    "position:8:number size:8:count seals:4:flags flags:4:flags folios:8:count"
    " first:8:address pages:4:count area:2:flags order:2:number"
)
MEMFD = fields(_MEMFD)
MEMFD_SEALED = fields(f"{HEADER.replace('size', 'bytes')}{_MEMFD} list-crc:4:number rest:4:unused")
CHUNK = fields("next:8:address page:8:address")
FOLIO = fields("pfn:6:frame flags:2:flags index:8:number")
"""52 bits are the page frame number, the 12 above them flags."""

PCI = fields(HEADER + "count:8:count")
PCI_DEVICE = fields(
    "domain:4:number bdf:2:number flags:2:flags refs:2:count vendor:2:number device:2:number"
    " type:2:number class:4:number secondary:1:number subordinate:1:number reserved:2:unused"
)
VFIO = fields(
    HEADER + "domain:4:number bdf:2:number vendor:2:number device:2:number subvendor:2:number"
    " subdevice:2:number command:2:flags class:4:number revision:1:number reserved2:3:unused"
    " flags:4:flags bar0:4:address bars:20:number areas:4:count saved:4:count"
    " iova:8:address length:8:count offset:8:number token:8:number"
)
"""With the first of its areas; what is in a file's saved state follows after 64 of them."""
IOMMU = fields(HEADER + "devices:4:count reserved2:4:unused")
IOMMU_UNIT = fields(
    "registers:8:address root:8:address cap:8:flags ecap:8:flags type:4:number devices:4:count"
)
IOMMU_DEVICE = fields(
    "top:8:address token:8:number unit:4:number domain:4:number bdf:2:number did:2:number"
    " width:4:number"
)
IOMMUFD = fields(HEADER + "hwpts:4:count reserved2:4:unused")
HWPT = fields(
    "token:8:number top:8:address sizes:8:flags tables:8:count mapped:8:count features:4:flags"
    " level:1:number iova:1:number physical:1:number reserved:1:unused"
)
