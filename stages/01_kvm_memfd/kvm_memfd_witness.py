# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's witness on the host: the guest's pages, read in the machine's RAM from outside.

Before the kexec the workload says in which page frames the guest's RAM lies. At the point
`captured` (all vCPUs paused, nothing writes) and again at `retrieved` (in the incoming
kernel, before anything is resumed) the host hashes those very frames in QEMU's memory. It
does so in parallel with the workload's own digests; the rendezvous after it (`reboot`,
`resume`) waits for it. What the kernel under test believes does not enter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.machine_ram import PAGE, MachineRam
from common.stage import Companion, Surroundings

FILE = "ram-witness.json"
_EXTENT = "# pfn.extent."


class RamWitness:
    """Collects the frames and has them hashed when the workload says that they are still."""

    def __init__(self, ram: MachineRam, pool: ThreadPoolExecutor) -> None:
        self._ram, self._pool = ram, pool
        self._extents: list[tuple[int, int]] = []
        self._running: dict[str, Future[str]] = {}

    def heard(self, text: str) -> None:
        """Start a digest at `# at NAME`; at the rendezvous after it, wait for it to end."""
        if text.startswith(_EXTENT) and "captured" not in self._running:
            _, pfn, count = text.partition("=")[2].split(":")
            self._extents.append((int(pfn), int(count)))
        elif text in ("# at captured", "# at retrieved"):
            name = text.removeprefix("# at ")
            self._running[name] = self._pool.submit(self._ram.sha256, tuple(self._extents))
        elif text.startswith("# await "):
            for digest in self._running.values():
                digest.result()

    def result(self) -> dict[str, Any]:
        """Number of pages hashed, and the digest at each point that was reached."""
        return {
            "pages": sum(count for _, count in self._extents),
            "page_size": PAGE,
            "sha256": {name: digest.result() for name, digest in self._running.items()},
        }


@contextmanager
def ram_witness(machine: Surroundings) -> Iterator[Companion]:
    """The companion of stage 1; leaves FILE in the trial's folder."""
    with MachineRam(machine.process.pid) as ram, ThreadPoolExecutor(1) as pool:
        witness = RamWitness(ram, pool)
        yield witness
        (machine.folder / FILE).write_text(json.dumps(witness.result()) + "\n")


def read_witness(folder: Path) -> dict[str, Any]:
    """What the witness of a stored trial saw. Raises OSError or ValueError when it is damaged."""
    found: dict[str, Any] = json.loads((folder / FILE).read_text())
    return found
