# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's witness on the host: the guest's pages, read in the machine's RAM from outside.

Before the kexec the workload says in which page frames the guest's RAM lies. At the point
`captured` (all vCPUs paused, nothing writes) and again at `retrieved` (in the incoming
kernel, before anything is resumed) the host hashes those very frames in QEMU's memory. It
does so in parallel with the workload's own digests; the rendezvous after it (`reboot`,
`resume`) waits for it. What the kernel under test believes does not enter.

Equal bytes in the old frames do not show that the guest still lives there: it could run on a
copy. So the host looks into the frames once more at `watched`, when the guest is paused for
good, for what only this guest can have written into them since.
"""

from __future__ import annotations

import operator
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from common.arch.known import DEFAULT
from common.guest.evidence import Point, RamSeen, VcpuLook
from common.guest.memory import (
    MOST_PAGES,
    SAMPLES,
    GuestTables,
    count_written,
    guest_tables,
    vcpu_blocks,
)
from common.machine.helper import HostHelper, MachineView
from common.machine.ram import PAGE, MachineRam
from common.record.raw import RawTrial
from common.record.setting import LONGEST
from common.record.stored_file import read_json

FILE = "ram-witness.json"
_EXTENT = "# pfn.extent."


class RamSeenInTurn(RamSeen):
    """FILE: the first update of a chain, and those after it."""

    later: Annotated[tuple[RamSeen, ...], Field(max_length=LONGEST)] = ()


_SEEN = TypeAdapter(RamSeenInTurn)


class _OneUpdate:
    """Collects the frames and has them hashed when the workload says that they are still."""

    def __init__(self, ram: MachineRam, pool: ThreadPoolExecutor, arch: str) -> None:
        self._ram, self._pool, self._arch = ram, pool, arch
        self._extents: list[tuple[int, int]] = []
        self._first_pages: list[int] = []
        self._running: dict[Point, Future[str]] = {}
        self._looks: dict[Literal["captured", "watched"], tuple[VcpuLook, ...]] = {}
        self._tables: GuestTables | None = None

    def on_line(self, text: str) -> None:
        """Start a digest at `# at NAME`; at the rendezvous after it, wait for it to end."""
        if text.startswith(_EXTENT) and "captured" not in self._running:
            first, pfn, count = text.partition("=")[2].split(":")
            self._first_pages.append(int(first))
            self._extents.append((int(pfn), int(count)))
        elif text in ("# at captured", "# at retrieved"):
            name: Point = "captured" if text.endswith("captured") else "retrieved"
            if name == "captured":
                self._look(name, SAMPLES)  # the guest waits for it
                self._tables = guest_tables(self._ram, self._page, self._arch)
            self._running[name] = self._pool.submit(self._ram.sha256, tuple(self._extents))
        elif text.startswith("# await "):
            for digest in self._running.values():
                digest.result()
            if text == "# await watched":
                self._look("watched", MOST_PAGES)

    def changed(self, seconds: float) -> int:
        """How many of the guest's pages are other ones after `seconds`, in the same frames."""
        before = self._checksums()
        time.sleep(seconds)
        return sum(map(operator.ne, before, self._checksums()))

    def _checksums(self) -> list[int]:
        pages = ((pfn + n) * PAGE for pfn, count in self._extents for n in range(count))
        return [zlib.crc32(self._ram.read(address, PAGE)) for address in pages]

    @property
    def begun(self) -> bool:
        """True once the guest was seen."""
        return bool(self._running)

    def _look(self, name: Literal["captured", "watched"], most: int) -> None:
        """Note how far each vCPU is, and how many of `most` of its pages hold what it says."""
        looks = []
        for block in vcpu_blocks(self._page):
            pages, as_written = count_written(block, self._page, most)
            looks.append(
                VcpuLook(
                    pages=pages,
                    as_written=as_written,
                    nonce=block.nonce,
                    counter=block.counter,
                    nr_pages=block.nr_pages,
                )
            )
        self._looks[name] = tuple(looks)

    def _page(self, page: int) -> bytes:
        """The guest's page, in the frame in which it was in the outgoing kernel; b"" if unknown."""
        at = bisect_right(self._first_pages, page) - 1
        pfn, count = self._extents[at] if at >= 0 else (0, 0)
        offset = page - self._first_pages[at] if at >= 0 else 0
        return self._ram.read((pfn + offset) * PAGE, PAGE) if offset < count else b""

    def result(self) -> RamSeen:
        """What was seen at each point that was reached."""
        return RamSeen(
            pages=sum(count for _, count in self._extents),
            page_size=4096,
            sha256={name: digest.result() for name, digest in self._running.items()},
            guest=self._looks,
            guest_tables=self._tables,
        )


class RamWitness:
    """The witness of one update after the other; there are more than one in a chain only."""

    def __init__(self, ram: MachineRam, pool: ThreadPoolExecutor, arch: str = DEFAULT.name) -> None:
        self._ram, self._pool, self._arch = ram, pool, arch
        self._updates = [_OneUpdate(ram, pool, arch)]

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue; an outgoing side that follows another begins an update."""
        if text == "# side=outgoing" and self._updates[-1].begun:
            self._updates.append(_OneUpdate(self._ram, self._pool, self._arch))
        self._updates[-1].on_line(text)

    def changed(self, seconds: float = 1.0) -> int:
        """How many of the guest's pages change in `seconds`, in their frames before the kexec."""
        return self._updates[0].changed(seconds)

    def store(self, folder: Path) -> None:
        """Write FILE of the trial: what was seen of the first update, and of those after it."""
        first, *later = (update.result() for update in self._updates)
        seen = RamSeenInTurn(**dict(first), later=tuple(later))
        (folder / FILE).write_text(seen.model_dump_json() + "\n")


@contextmanager
def ram_witness(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of stage 1; leaves FILE in the trial's folder."""
    arch = machine.spec.arch
    with MachineRam(machine.process.pid, arch.ram) as ram, ThreadPoolExecutor(1) as pool:
        witness = RamWitness(ram, pool, arch.name)
        yield witness
        witness.store(machine.folder)


def read_witness(raw: RawTrial) -> tuple[RamSeen, ...]:
    """What the witness of a stored trial saw, by update. Raises OSError or ValueError when it is
    damaged."""
    seen = read_json(raw.folder / FILE, _SEEN)
    return RamSeen(**{name: getattr(seen, name) for name in RamSeen.model_fields}), *seen.later
