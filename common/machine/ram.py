# SPDX-License-Identifier: GPL-2.0-only
"""The machine's RAM as the host sees it: a witness that the kernel under test cannot fake.

The machine's RAM is a shared memfd of QEMU's, which the host maps through /proc/PID/fd. On
q35 the first part of it is low memory and the rest continues at 4 GiB (QEMU,
hw/i386/pc_q35.c:pc_q35_init).
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from common.errors import HarnessError

PAGE = 4096
_HIGH = 4 << 30
_LOW_SMALL, _LOW_LARGE = 0xB000_0000, 0x8000_0000


class NotRam(HarnessError, ValueError):
    """An address at which the machine has no RAM."""


class MachineRam:
    """Context manager: QEMU's RAM mapped read-only. Raises HarnessError when it cannot be found."""

    def __init__(self, qemu_pid: int) -> None:
        self._path = _ram_file(qemu_pid)

    def __enter__(self) -> MachineRam:
        with self._path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise HarnessError(f"QEMU's RAM ({self._path}) has no size yet")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = len(self._map)
        self._low = size if size < _LOW_SMALL else _LOW_LARGE
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._map.close()

    def offset(self, address: int) -> int:
        """Where guest-physical `address` (bytes) stands in the RAM file; NotRam outside RAM."""
        offset = address if address < self._low else address - _HIGH + self._low
        if not 0 <= offset < len(self._map) or (self._low <= address < _HIGH):
            raise NotRam(f"{address:#x} is no RAM of this machine")
        return offset

    @property
    def end(self) -> int:
        """The first guest-physical address above all RAM."""
        size = len(self._map)
        return size if size == self._low else _HIGH + size - self._low

    @property
    def view(self) -> mmap.mmap:
        """The RAM file itself, for those who look often; indexed by `offset`."""
        return self._map

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at guest-physical `address`."""
        start = self.offset(address)
        return self._map[start : start + length]

    def write(self, address: int, data: bytes) -> None:
        """Change the machine's RAM at guest-physical `address`. Nobody may be using it meanwhile.

        Raises NotRam where it is none.
        """
        start = self.offset(address)
        self.offset(address + len(data) - 1)
        with self._path.open("r+b") as file:
            os.pwrite(file.fileno(), data, start)

    def sha256(self, extents: Iterable[tuple[int, int]]) -> str:
        """Digest of the pages of `extents` (page frame number, count), in their order."""
        digest = hashlib.sha256()
        with memoryview(self._map) as view:
            for pfn, count in extents:
                start = self.offset(pfn * PAGE)
                self.offset((pfn + count) * PAGE - 1)
                with view[start : start + count * PAGE] as pages:
                    digest.update(pages)
        return digest.hexdigest()


def _ram_file(pid: int) -> Path:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(link.readlink()).startswith("/memfd:memory-backend-memfd"):
                return link
        except OSError:
            continue  # closed while we looked
    raise HarnessError(f"QEMU (pid {pid}) has no shared RAM that the host could watch")
