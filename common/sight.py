# SPDX-License-Identifier: GPL-2.0-only
"""The host's witnesses are tried, when a machine's first program speaks: do they see at all?

By then firmware and kernel have written to configuration space, the firmware's tables lie in
RAM, and QEMU has told that the machine runs. What a stored trial's witnesses left is looked at
by common/blindness.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from common import qemu_trace
from common.blindness import TRACE, told_of_start, unread
from common.domain import MachineSpec
from common.errors import HarnessError
from common.machine_identity import QemuProcess
from common.machine_ram import MachineRam
from common.qemu_binary import qemu_version

_RSDP_BEGIN, _RSDP_END, _RSDP_STEP = 0xE0000, 0x100000, 16
# How often to look whether a machine that does not answer is ending.
_GOING = 20


class Seen(Protocol):
    """What has to be known of a running machine."""

    folder: Path
    spec: MachineSpec
    process: QemuProcess
    clock_offset_ns: int
    started_ns: int

    def process_now(self) -> QemuProcess | None:
        """Its QEMU, None when that has ended."""

    def traced(self, event: str) -> bool:
        """Whether QEMU says that it traces this event."""


def prove(machine: Seen, *, now: int) -> None:
    """Try every witness of a machine whose first program speaks at `now` (CLOCK_MONOTONIC, ns).

    Raises HarnessError with what a witness should have seen, unless the machine has ended
    meanwhile: that is told by whoever listens to it.
    """
    try:
        _prove(machine, now)
    except (HarnessError, OSError):
        for _ in range(_GOING):
            if machine.process_now() is None:
                return
            time.sleep(0.05)
        raise


def _prove(machine: Seen, now: int) -> None:
    asked, qemu = frozenset(machine.spec.traces), qemu_version(machine.spec.emulator)
    if needed := sorted(asked.difference(qemu_trace.ALWAYS)):
        for event in needed:
            if not machine.traced(event):
                raise HarnessError(f"QEMU {qemu} has no trace event {event}, which is needed here")
        text = (machine.folder / TRACE).read_text(errors="replace")
        # A last line that is not whole is just being written.
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        log = qemu_trace.read(lines, asked=asked, clock_offset_ns=machine.clock_offset_ns)
        if said := unread(log, asked, qemu, (machine.started_ns, now)):
            raise HarnessError(said)
    if not told_of_start(machine.folder):
        raise HarnessError(
            f"no event of QEMU {qemu}'s monitor came through libvirt (qmp.jsonl): not even that"
            " the machine was started"
        )
    prove_ram(machine.process.pid)


def prove_ram(pid: int) -> None:
    """See the firmware's ACPI tables where they belong in the RAM of the machine of QEMU `pid`.

    The pointer stands below 1 MiB, on a boundary of 16 bytes, and leads to a table near the end
    of low memory; both have a checksum (ACPI 6.5, 5.2.5 and 5.2.6). Raises HarnessError.
    """
    with MachineRam(pid) as ram:
        for address in range(_RSDP_BEGIN, _RSDP_END, _RSDP_STEP):
            pointer = ram.read(address, 20)
            if not pointer.startswith(b"RSD PTR ") or sum(pointer) & 0xFF:
                continue
            table = int.from_bytes(pointer[16:], "little")
            try:
                length = int.from_bytes(ram.read(table + 4, 4), "little")
                content = ram.read(table, min(length, 1 << 16))
            except ValueError:
                continue
            if content.startswith(b"RSDT") and not sum(content) & 0xFF:
                return
    raise HarnessError(
        "what the host takes for the machine's RAM is not: the firmware's ACPI tables"
        f" (RSDP between {_RSDP_BEGIN:#x} and {_RSDP_END - 1:#x}) are not in it"
    )
