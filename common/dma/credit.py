# SPDX-License-Identifier: GPL-2.0-only
"""How many more frames a ring can take: the watcher tells the sender, in a page that they share."""

from __future__ import annotations

import mmap
from pathlib import Path

_LIMIT, _COUNT = 0, 1


class Credit:
    """`limit`: so many frames may have been sent in all; `count`: descriptors of the ring, 0 where
    there is no limit."""

    def __init__(self, page: memoryview) -> None:
        self._page = page.cast("Q")

    @classmethod
    def of(cls, path: Path, *, new: bool = False) -> Credit:
        """The page in that file; a `new` one has no credit yet."""
        if new:
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            return cls(memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)))

    @classmethod
    def fixed(cls, room: int) -> Credit:
        """That of a ring which nobody refills."""
        credit = cls.unlimited()
        credit.grant(room, room)
        return credit

    @classmethod
    def unlimited(cls) -> Credit:
        """That of a ring which nobody watches."""
        return cls(memoryview(bytearray(16)))

    def grant(self, limit: int, count: int) -> None:
        """Say what the ring takes now. Each number is one store of the CPU."""
        self._page[_LIMIT] = limit
        self._page[_COUNT] = count

    @property
    def limit(self) -> int:
        return self._page[_LIMIT]

    @property
    def count(self) -> int:
        return self._page[_COUNT]
