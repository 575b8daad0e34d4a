# SPDX-License-Identifier: GPL-2.0-only
"""Tries the host's witnesses when a machine starts: can they see at all?

The trace as soon as the firmware runs, and all when the first program speaks: by then firmware
and kernel have written to configuration space, the firmware's tables lie in RAM, and QEMU has
told that the machine runs. What a stored trial's witnesses left is looked at by
common/record/witnesses.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.errors import HarnessError
from common.host.qemu_binary import qemu_version
from common.machine.domain import MachineSpec
from common.machine.ram import PAGE, MachineRam
from common.record.qemu import trace as qemu_trace
from common.record.qemu.process import QemuProcess
from common.record.qemu.trace import TraceLog, config_write
from common.record.raw import TRACE
from common.record.witnesses import told_of_start, unread

_FDT_MAGIC, _MOST_FDT, _VIRT = b"\xd0\x0d\xfe\xed", 2 << 20, b"linux,dummy-virt"
_RSDP_BEGIN, _RSDP_END, _RSDP_STEP = 0xE0000, 0x100000, 16
# How often to look whether a machine that does not answer is ending.
_GOING = 20
# Firmware writes to configuration space within milliseconds; a busy host may take a while.
_FIRMWARE_SECONDS = 30


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


def prove_start(machine: Seen) -> None:
    """Try what can be tried before there is a kernel: QEMU's trace, in the first second.

    Raises HarnessError where QEMU does not know an event, or where its trace cannot be read.
    """
    with _unless_ended(machine):
        asked, qemu = frozenset(machine.spec.traces), qemu_version(machine.spec.emulator)
        needed = sorted(asked.difference(qemu_trace.ALWAYS))
        for event in needed:
            if not machine.traced(event):
                raise HarnessError(f"QEMU {qemu} has no trace event {event}, which is needed here")
        deadline = time.monotonic() + _FIRMWARE_SECONDS
        while "pci_cfg_write" in needed:
            log = _trace_so_far(machine)
            late = time.monotonic() > deadline
            # Whatever the firmware does: that the machine runs is in it, before anything else.
            said = unread(log, asked, qemu, None)
            if said and (log.strange or late):
                raise HarnessError(said)
            if late or any(config_write(event) for event in log.events):
                return
            time.sleep(0.02)


def prove(machine: Seen, *, now: int) -> None:
    """Try every witness of a machine whose first program speaks at `now` (CLOCK_MONOTONIC, ns).

    Raises HarnessError with what a witness should have seen.
    """
    with _unless_ended(machine):
        asked, qemu = frozenset(machine.spec.traces), qemu_version(machine.spec.emulator)
        if asked.difference(qemu_trace.ALWAYS) and (
            said := unread(_trace_so_far(machine), asked, qemu, (machine.started_ns, now))
        ):
            raise HarnessError(said)
        if not told_of_start(machine.folder):
            raise HarnessError(
                f"no event of QEMU {qemu}'s monitor came through libvirt (qmp.jsonl): not even that"
                " the machine was started"
            )
        prove_ram(machine.process.pid, machine.spec.arch)


@contextmanager
def _unless_ended(machine: Seen) -> Iterator[None]:
    """Of a machine that has ended meanwhile nothing is said here, but by who listens to it."""
    try:
        yield
    except (HarnessError, OSError):
        for _ in range(_GOING):
            if machine.process_now() is None:
                return
            time.sleep(0.05)
        raise


def _trace_so_far(machine: Seen) -> TraceLog:
    path = machine.folder / TRACE
    text = path.read_text(errors="replace") if path.exists() else ""
    # A last line that is not whole is just being written.
    lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    return qemu_trace.read(
        lines, asked=machine.spec.traces, clock_offset_ns=machine.clock_offset_ns
    )


def prove_ram(pid: int, arch: Architecture = DEFAULT) -> None:
    """See what QEMU or its firmware put into the RAM of the machine of QEMU `pid`.

    Raises HarnessError.
    """
    with MachineRam(pid, arch.ram) as ram:
        if arch.firmware:
            _prove_tables(ram)
        else:
            _prove_device_tree(ram)


def _prove_device_tree(ram: MachineRam) -> None:
    """Without firmware QEMU leaves a device tree in RAM, which the kernel keeps.

    A page begins with its magic and size (Devicetree Specification 0.4, 5.2), both big-endian.
    """
    for address in range(ram.begin, ram.end, PAGE):
        if ram.read(address, 4) != _FDT_MAGIC:
            continue
        size = int.from_bytes(ram.read(address + 4, 4), "big")
        if size <= _MOST_FDT and address + size <= ram.end and _VIRT in ram.read(address, size):
            return
    raise HarnessError(
        "what the host takes for the machine's RAM is not: QEMU's device tree is not in it"
    )


def _prove_tables(ram: MachineRam) -> None:
    """See the firmware's ACPI tables where they belong.

    The pointer stands below 1 MiB, on a boundary of 16 bytes, and leads to a table near the end
    of low memory; both have a checksum (ACPI 6.5, 5.2.5 and 5.2.6).
    """
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
