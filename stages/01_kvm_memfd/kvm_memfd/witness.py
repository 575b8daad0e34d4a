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

import json
import operator
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from common.arch.known import DEFAULT
from common.guest.memory import (
    MAX_VCPUS,
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
from common.record.stored_file import Count, Strict, read_json

FILE = "ram-witness.json"
_EXTENT = "# pfn.extent."


_U64 = Annotated[int, Field(ge=0, lt=1 << 64)]


class VcpuLook(Strict):
    """What stood in the frames of one vCPU's share of the guest's pages."""

    pages: Count
    as_written: Count
    nonce: _U64
    counter: _U64
    nr_pages: Count


class Seen(Strict):
    """What the host saw of one update: FILE."""

    pages: Count
    page_size: Literal[4096]
    sha256: dict[Literal["captured", "retrieved"], Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    guest: dict[
        Literal["captured", "watched"],
        Annotated[tuple[VcpuLook, ...], Field(max_length=MAX_VCPUS)],
    ] = Field(default_factory=dict)
    guest_tables: GuestTables | None = None


class SeenInTurn(Seen):
    """Of a chain: the first update, and those after it."""

    later: Annotated[tuple[Seen, ...], Field(max_length=LONGEST)] = ()


_SEEN = TypeAdapter(SeenInTurn)


class _OneUpdate:
    """Collects the frames and has them hashed when the workload says that they are still."""

    def __init__(self, ram: MachineRam, pool: ThreadPoolExecutor, arch: str) -> None:
        self._ram, self._pool, self._arch = ram, pool, arch
        self._extents: list[tuple[int, int]] = []
        self._first_pages: list[int] = []
        self._running: dict[str, Future[str]] = {}
        self._looks: dict[str, list[dict[str, int]]] = {}
        self._tables: GuestTables | None = None

    def on_line(self, text: str) -> None:
        """Start a digest at `# at NAME`; at the rendezvous after it, wait for it to end."""
        if text.startswith(_EXTENT) and "captured" not in self._running:
            first, pfn, count = text.partition("=")[2].split(":")
            self._first_pages.append(int(first))
            self._extents.append((int(pfn), int(count)))
        elif text in ("# at captured", "# at retrieved"):
            name = text.removeprefix("# at ")
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

    def _look(self, name: str, most: int) -> None:
        """Note how far each vCPU is, and how many of `most` of its pages hold what it says."""
        self._looks[name] = [
            dict(zip(("pages", "as_written"), count_written(block, self._page, most), strict=True))
            | {"nonce": block.nonce, "counter": block.counter, "nr_pages": block.nr_pages}
            for block in vcpu_blocks(self._page)
        ]

    def _page(self, page: int) -> bytes:
        """The guest's page, in the frame in which it was in the outgoing kernel; b"" if unknown."""
        at = bisect_right(self._first_pages, page) - 1
        pfn, count = self._extents[at] if at >= 0 else (0, 0)
        offset = page - self._first_pages[at] if at >= 0 else 0
        return self._ram.read((pfn + offset) * PAGE, PAGE) if offset < count else b""

    def result(self) -> dict[str, Any]:
        """Number of pages hashed, the digest at each point that was reached, and both looks."""
        return {
            "pages": sum(count for _, count in self._extents),
            "page_size": PAGE,
            "sha256": {name: digest.result() for name, digest in self._running.items()},
            "guest": self._looks,
            "guest_tables": self._tables and self._tables.model_dump(),
        }


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

    def result(self) -> dict[str, Any]:
        """What was seen of the first update; of those after it in a list, "later"."""
        first, *later = (update.result() for update in self._updates)
        return first | ({"later": later} if later else {})


@contextmanager
def ram_witness(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of stage 1; leaves FILE in the trial's folder."""
    arch = machine.spec.arch
    with MachineRam(machine.process.pid, arch.ram) as ram, ThreadPoolExecutor(1) as pool:
        witness = RamWitness(ram, pool, arch.name)
        yield witness
        (machine.folder / FILE).write_text(json.dumps(witness.result()) + "\n")


def read_witness(raw: RawTrial) -> dict[str, Any]:
    """What the witness of a stored trial saw. Raises OSError or ValueError when it is damaged."""
    return read_json(raw.folder / FILE, _SEEN).model_dump(exclude_unset=True)
