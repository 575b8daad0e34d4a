# SPDX-License-Identifier: GPL-2.0-only
"""The machine's RAM as the host sees it: a witness that the kernel under test cannot fake.

The machine's RAM is a shared memfd of QEMU's, which the host maps through /proc/PID/fd. Where its
parts stand in guest-physical memory is the architecture's (RamLayout).
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from common.arch.architecture import RamLayout
from common.arch.known import DEFAULT
from common.errors import HarnessError

PAGE = 4096


class NotRam(HarnessError, ValueError):
    """An address at which the machine has no RAM."""


class MachineRam:
    """Context manager: QEMU's RAM mapped read-only. Raises HarnessError when it cannot be found."""

    def __init__(self, qemu_pid: int, layout: RamLayout = DEFAULT.ram) -> None:
        self._path, self._layout = _ram_file(qemu_pid), layout

    def __enter__(self) -> MachineRam:
        with self._path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise HarnessError(f"QEMU's RAM ({self._path}) has no size yet")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._low = self._layout.low_size(len(self._map))
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
        offset = address - self._layout.base
        if 0 <= offset < self._low:
            return offset
        offset = address - self._layout.high + self._low
        if not self._low <= offset < len(self._map):
            raise NotRam(f"{address:#x} is not RAM of this machine")
        return offset

    @property
    def begin(self) -> int:
        """The first guest-physical address of RAM."""
        return self._layout.base

    @property
    def end(self) -> int:
        """The first guest-physical address above all RAM."""
        size, layout = len(self._map), self._layout
        return layout.base + size if size == self._low else layout.high + size - self._low

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

        Raises NotRam where it is none, HarnessError where it did not become so.
        """
        start = self.offset(address)
        self.offset(address + len(data) - 1)
        with self._path.open("r+b") as file:
            os.pwrite(file.fileno(), data, start)
        if self.read(address, len(data)) != data:
            raise HarnessError(f"QEMU's RAM ({self._path}) did not change at {address:#x}")

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
