# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel runs, seen from outside: the CPUs' registers, and what their page tables lead to.

The host asks QEMU for the registers of each CPU, follows the page tables in the machine's RAM to
where the running kernel's image begins, and reads there, in physical memory, the build-id note and
the banner. The CPU's class says how (state.py for x86, arm64.py). Nothing in this asks the kernel.
The samples are kept raw in FILE: registers, each page-table entry walked, the bytes found.

With KVM as the accelerator it is the same; QEMU stops each CPU for some microseconds then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter

from common.arch.known import DEFAULT
from common.record.cpus import arm64
from common.record.cpus.arm64 import Arm64Cpu
from common.record.cpus.kernel_layout import (
    BANNER_BYTES,
    NOTE_BYTES,
    KernelLayout,
    build_id_of_note,
)
from common.record.cpus.page_tables import Ram, Walk
from common.record.cpus.state import Cpu, parse_registers
from common.record.stored_file import U64, Hex, Stamp, Strict, Text, read_rows

FILE = "cpu-samples.jsonl"
TRIES, TRIES_FOR_GUEST = 12, 60
"""Looks at one point: a CPU that is inside a guest of KVM's shows the guest's registers, and one
that is on its way there or back the kernel's."""
_BETWEEN_SECONDS = 0.004
AnyCpu = Cpu | Arm64Cpu


class Read(Strict):
    """Bytes of a kernel image, read through the CPU's page tables."""

    walk: Walk
    data: Hex
    """Hex; empty where nothing is mapped, or where there is no RAM."""

    @property
    def content(self) -> bytes:
        """The bytes. Raises ValueError for what is no hex."""
        return bytes.fromhex(self.data)


class Look(Strict):
    """What was read where one kernel's layout has its build-id note and its banner."""

    note: Read
    banner: Read

    @property
    def build_id(self) -> str | None:
        """The build id in the note that is there, None where there is none."""
        return build_id_of_note(self.note.content)

    @property
    def says(self) -> str:
        """The first line of what stands where the banner is."""
        return self.banner.content.split(b"\n", 1)[0].decode("ascii", "replace")


class CpuSample(Strict):
    """One CPU: registers, and the kernel images that its page tables map; `image`: the start."""

    cpu: AnyCpu
    root: U64 | None = None
    """The table that was walked. On x86 CR3, or with PTI the kernel's beside the user's; on arm64
    the one in the image."""
    image: U64 | None = None
    looks: tuple[Look, ...] = ()
    """One for each layout; kernels with the same layout share one."""
    pc: Walk | None = None
    """The way by the table to the instruction, where the table is not in a register."""
    trapped: tuple[U64, ...] = ()
    """In a look at a silent machine: instructions to which an exception will return, by the
    CPU's stack: what stands there before the kernel's code segment."""

    @property
    def in_guest(self) -> bool:
        """Whether it runs, privileged, by tables that map no kernel: inside a guest of KVM's.

        On the way there and back QEMU may show the registers of both.
        """
        return self.root is None and self.cpu.may_be_guest


class Sample(Strict):
    """All CPUs within some ms, at `t` (host's CLOCK_MONOTONIC in ns); `point` says where."""

    t: Stamp
    point: Text
    cpus: tuple[CpuSample, ...]

    def shows(self, build_id: str) -> tuple[CpuSample, ...]:
        """The CPUs whose tables map the kernel of that build id."""
        return tuple(c for c in self.cpus if any(look.build_id == build_id for look in c.looks))


class Monitor(Protocol):
    """What QEMU's monitor tells of a machine that runs on meanwhile."""

    def registers(self) -> str:
        """``info registers -a``."""

    def physical(self, cpu: int, virtual: int) -> int | None:
        """Where that CPU's MMU leads to from a virtual address; None where nowhere."""


def take(
    monitor: Monitor, ram: Ram, layouts: Sequence[KernelLayout], point: str, arch: str
) -> Sample:
    """A sample now, of a machine of that architecture."""
    now = time.monotonic_ns()
    cpus = tuple(_look(cpu, ram, layouts) for cpu in _CPUS[arch](monitor))
    return Sample(t=now, point=point, cpus=cpus)


def _x86(monitor: Monitor) -> tuple[AnyCpu, ...]:
    return parse_registers(monitor.registers())


def _arm64(monitor: Monitor) -> tuple[AnyCpu, ...]:
    return arm64.parse_registers(monitor.registers(), monitor.physical)


_CPUS = {"x86_64": _x86, "arm64": _arm64}
"""Architecture -> how its CPUs are asked for."""


def _look(cpu: AnyCpu, ram: Ram, layouts: Sequence[KernelLayout]) -> CpuSample:
    for known in dict.fromkeys(cpu.of_layout(layout) for layout in layouts):
        for root, image in known.images(ram, layouts):
            looks = tuple(_look_at(known, ram, root, image, layout) for layout in layouts)
            if any(look.build_id for look in looks):
                pc = known.walk(ram, root, known.pc) if isinstance(known, Arm64Cpu) else None
                return CpuSample(cpu=known, root=root, image=image, looks=looks, pc=pc)
    return CpuSample(cpu=cpu)


def _look_at(cpu: AnyCpu, ram: Ram, root: int, image: int, layout: KernelLayout) -> Look:
    note = _read(ram, cpu.walk(ram, root, image + layout.note - layout.text), NOTE_BYTES)
    banner = _read(ram, cpu.walk(ram, root, image + layout.banner - layout.text), BANNER_BYTES)
    return Look(note=note, banner=banner)


def with_trapped(sample: Sample, ram: Ram) -> Sample:
    """The sample with what its CPUs' stacks say of exceptions."""
    return sample.model_copy(
        update={
            "cpus": tuple(
                cpu
                if cpu.root is None
                else cpu.model_copy(update={"trapped": cpu.cpu.trapped(ram, cpu.root)})
                for cpu in sample.cpus
            )
        }
    )


def _read(ram: Ram, path: Walk, length: int) -> Read:
    data = b""
    if path.physical is not None:
        try:
            # An image is mapped in one piece; what crosses into another page is beside it.
            data = ram.read(path.physical, length)
        except ValueError:
            data = b""
    return Read(walk=path, data=data.hex())


_SAMPLES = TypeAdapter(list[Sample])


class _Told:
    """In place of a monitor: registers as they were."""

    def __init__(self, registers: str) -> None:
        self._registers = registers

    def registers(self) -> str:
        return self._registers

    def physical(self, _cpu: int, _virtual: int) -> int | None:
        return None


class CpuWitness:
    """Takes samples of a machine at points of a trial, into FILE of the trial's folder."""

    def __init__(
        self,
        monitor: Monitor,
        ram: Ram,
        layouts: Sequence[KernelLayout],
        folder: Path,
        arch: str = DEFAULT.name,
    ) -> None:
        self._monitor, self._ram, self._path, self._arch = monitor, ram, folder / FILE, arch
        self._layouts = tuple(dict.fromkeys(layouts))
        self._path.touch()

    def look(self, point: str) -> Sample:
        """A sample that is not kept."""
        return take(self._monitor, self._ram, self._layouts, point, self._arch)

    def read(self, registers: str, point: str) -> Sample:
        """A sample, not kept, of CPUs whose registers were told otherwise."""
        return take(_Told(registers), self._ram, self._layouts, point, self._arch)

    def note(self, point: str, *, guest: bool = False) -> None:
        """Samples at this point, until a CPU shows a kernel or `TRIES` are used up; all kept.

        With `guest` also until a CPU was seen inside a guest.
        """
        kernel_seen, guest_seen = False, not guest
        with self._path.open("a") as file:
            for _ in range(TRIES_FOR_GUEST if guest else TRIES):
                sample = self.look(point)
                file.write(sample.model_dump_json() + "\n")
                kernel_seen |= any(c.looks and c.cpu.in_kernel_half for c in sample.cpus)
                guest_seen |= any(c.in_guest for c in sample.cpus)
                if kernel_seen and guest_seen:
                    return
                time.sleep(_BETWEEN_SECONDS)


def read_samples(folder: Path) -> tuple[Sample, ...]:
    """The samples of a stored trial, in their order; none where there is no file of them.

    Raises OSError or ValueError when it is damaged.
    """
    path = folder / FILE
    return tuple(read_rows(path, _SAMPLES)) if path.exists() else ()
