# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel runs, seen from outside: the CPUs' registers, and what their page tables lead to.

The host asks QEMU for the registers of each CPU, follows CR3 through the page tables in the
machine's RAM to where the running kernel's image begins, and reads there, in physical memory, the
build-id note and the banner. Nothing in this asks the kernel. The samples are kept raw in
FILE: registers, each page-table entry walked, the bytes found.

With KVM as the accelerator it is the same; QEMU stops each CPU for some microseconds then.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from common.record.cpus.kernel_layout import BANNER_BYTES, KernelLayout, build_id_of_note
from common.record.cpus.page_tables import START_MAP, Ram, Walk, image_start, read_virtual, walk
from common.record.cpus.state import Cpu, parse_registers
from common.record.stored_file import U64, Hex, Stamp, Strict, Text, read_rows

FILE = "cpu-samples.jsonl"
NOTE_BYTES = 36
TRIES, TRIES_FOR_GUEST = 12, 60
"""Looks at one point: a CPU that is inside a guest of KVM's shows the guest's registers, and one
that is on its way there or back the kernel's."""
_BETWEEN_SECONDS = 0.004
_STACK_BYTES = 2048
_KERNEL_CS = 0x10
# PTI: the tables for user mode stand in the page after those of the kernel (PTI_USER_PGTABLE_BIT).
_PTI_USER = 1 << 12


class Read(Strict):
    """Bytes of the image, by the CPU's page tables."""

    walk: Walk
    data: Hex
    """Hex; empty where nothing is mapped, or where there is no RAM."""

    @property
    def content(self) -> bytes:
        """The bytes. Raises ValueError for what is no hex."""
        return bytes.fromhex(self.data)


class Look(Strict):
    """What is at the places where one kernel's layout has its note and its banner."""

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
    """One CPU: registers, and the images that its tables map; `image` is where that begins."""

    cpu: Cpu
    root: U64 | None = None
    """The table that was walked: CR3, or with PTI the kernel's beside the user's."""
    image: U64 | None = None
    looks: tuple[Look, ...] = ()
    """One for each layout; kernels with the same layout share one."""
    trapped: tuple[U64, ...] = ()
    """In a look at a silent machine: instructions to which an exception will return, by the
    CPU's stack: what stands there before the kernel's code segment."""

    @property
    def in_guest(self) -> bool:
        """Whether it runs, privileged, by tables that map no kernel: inside a guest of KVM's.

        On the way there and back QEMU may show the registers of both.
        """
        cpu = self.cpu
        return cpu.paging and cpu.cpl == 0 and self.root is None and not cpu.in_kernel_half


class Sample(Strict):
    """All CPUs within some ms, at `t` (host's CLOCK_MONOTONIC in ns); `point` says where."""

    t: Stamp
    point: Text
    cpus: tuple[CpuSample, ...]

    def shows(self, build_id: str) -> tuple[CpuSample, ...]:
        """The CPUs whose tables map the kernel of that build id."""
        return tuple(c for c in self.cpus if any(look.build_id == build_id for look in c.looks))


def take(ask: Callable[[], str], ram: Ram, layouts: Sequence[KernelLayout], point: str) -> Sample:
    """A sample now; `ask` gives QEMU's ``info registers -a``."""
    now = time.monotonic_ns()
    cpus = tuple(_look(cpu, ram, layouts) for cpu in parse_registers(ask()))
    return Sample(t=now, point=point, cpus=cpus)


def _look(cpu: Cpu, ram: Ram, layouts: Sequence[KernelLayout]) -> CpuSample:
    if not cpu.paging:
        return CpuSample(cpu=cpu)
    for root in dict.fromkeys((cpu.cr3, cpu.cr3 & ~_PTI_USER)):
        image = image_start(ram, root, levels=cpu.levels)
        if image is None:
            continue
        looks = tuple(
            Look(
                note=_read(ram, root, cpu.levels, image + layout.note - layout.text, NOTE_BYTES),
                banner=_read(
                    ram, root, cpu.levels, image + layout.banner - layout.text, BANNER_BYTES
                ),
            )
            for layout in layouts
        )
        if any(look.build_id for look in looks):
            return CpuSample(cpu=cpu, root=root, image=image, looks=looks)
    return CpuSample(cpu=cpu)


def with_trapped(sample: Sample, ram: Ram) -> Sample:
    """The sample with what its CPUs' stacks say of exceptions."""
    cpus = (cpu.model_copy(update={"trapped": _trapped(cpu, ram)}) for cpu in sample.cpus)
    return sample.model_copy(update={"cpus": tuple(cpus)})


def _trapped(cpu: CpuSample, ram: Ram) -> tuple[int, ...]:
    if cpu.root is None or cpu.cpu.cpl:
        return ()
    stack = b""
    while len(stack) < _STACK_BYTES:
        part = read_virtual(ram, cpu.root, cpu.cpu.rsp + len(stack), 256, levels=cpu.cpu.levels)
        if part is None:
            break
        stack += part
    words = struct.unpack(f"<{len(stack) // 8}Q", stack)
    found = (ip for ip, cs in itertools.pairwise(words) if cs == _KERNEL_CS and ip >= START_MAP)
    return tuple(dict.fromkeys(found))


def _read(ram: Ram, root: int, levels: int, virtual: int, length: int) -> Read:
    path = walk(ram, root, virtual, levels=levels)
    data = b""
    if path.physical is not None:
        try:
            # An image is mapped in one piece; what crosses into another page is beside it.
            data = ram.read(path.physical, length)
        except ValueError:
            data = b""
    return Read(walk=path, data=data.hex())


_SAMPLES = TypeAdapter(list[Sample])


class CpuWitness:
    """Takes samples of a machine at points of a trial, into FILE of the trial's folder."""

    def __init__(
        self,
        ask: Callable[[], str],
        ram: Ram,
        layouts: Sequence[KernelLayout],
        folder: Path,
    ) -> None:
        self._ask, self._ram, self._path = ask, ram, folder / FILE
        self._layouts = tuple(dict.fromkeys(layouts))
        self._path.touch()

    def look(self, point: str) -> Sample:
        """A sample that is not kept."""
        return take(self._ask, self._ram, self._layouts, point)

    def read(self, registers: str, point: str) -> Sample:
        """A sample, not kept, of CPUs whose registers were told otherwise."""
        return take(lambda: registers, self._ram, self._layouts, point)

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
