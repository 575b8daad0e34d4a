# SPDX-License-Identifier: GPL-2.0-only
"""What the harness needs to know of an architecture: one value, made in one file of this folder.

What is no datum stands in a file of its name elsewhere: its Kconfig fragment in kernel/configs/,
the reader of its registers and page tables in common/record/cpus/, and its C in
common/workload/arch/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CpuModel:
    """A CPU that QEMU emulates; it can run a KVM guest."""

    name: str
    """QEMU's and libvirt's name of it."""
    features: tuple[str, ...] = ()
    """Features that it has to have beside those of the model."""
    what: str = ""
    """What is special about it, for people; empty for the only one."""


@dataclass(frozen=True)
class RamLayout:
    """Where a machine's RAM is in guest-physical memory; addresses and sizes in bytes.

    RAM of less than `split_over` is in one piece. Of more the first `low` bytes stand at `base`,
    and the rest begins at `high`.
    """

    base: int
    split_over: int | None = None
    low: int = 0
    high: int = 0

    def low_size(self, size: int) -> int:
        """How many of `size` bytes of RAM stand at `base`."""
        return size if self.split_over is None or size < self.split_over else self.low


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture; see the modules beside this one for those there are."""

    name: str
    """What --arch, records and reports call it, and the names of its files elsewhere."""
    title: str
    """For people."""
    host: str
    """platform.machine() of a host of this architecture."""

    # the kernel's build
    make_variables: tuple[str, ...]
    """For make's command line. None for the host's own, whose kernels' keys would change."""
    cross_prefix: str
    """Of compiler and binutils; empty for the host's own."""
    makefile: str
    """The architecture's own, on whose content a .config can depend."""
    image_goal: str
    """make's goal for the image that is booted, and the file's name in the cache."""
    image_path: str
    """Where make leaves it."""
    image_magic: tuple[int, bytes]
    """Offset and bytes by which such an image is known."""

    # the machine
    qemu: str
    """QEMU's program."""
    libvirt_arch: str
    machine: str
    """QEMU's machine type."""
    cpus: tuple[CpuModel, ...]
    """The CPUs there are with TCG; the first is the default."""
    features: Mapping[str, Mapping[str, str]]
    """libvirt's features: element and its attributes."""
    qemu_args: tuple[str, ...] = ()
    """What libvirt has no word for."""
    ram: RamLayout
    serial: Mapping[str, str]
    """Attributes of the target element of a serial line in libvirt's XML."""
    console: str
    """The console's device in Linux, on the machine's first serial line; the workload's dialogue is
    on the second."""
    cmdline: tuple[str, ...] = ()
    """Words that every kernel is given."""
    memmap: bool
    """Whether memmap= keeps memory from a kernel; see workload/core/stale_text.c."""
    no_guest_on_cpu: int | None = None
    """A CPU that TCG emulates badly with a guest on it; see docs/findings/tcg-hflags2-race.md."""
    firmware: bool
    """Whether firmware runs before the first kernel."""

    # what the host sees of a CPU
    leads_by: str
    """By what of a CPU the host finds the kernel that it runs, in words."""
    pointer: str
    """What its instruction pointer is called."""
    guest_ram: int
    """Where RAM begins in the physical memory of a guest of ours (workload/arch/MACHINE/vm/)."""

    cpu_questions: tuple[str, ...] = ()
    """What QEMU's monitor is asked of each CPU of a silent machine beside its registers."""

    # its ABI
    o_largefile: int
    """O_LARGEFILE (asm/fcntl.h): a flag of each file that a 64-bit kernel opens."""

    memory_map: bool
    """Whether a kernel prints the memory map that it was given."""

    # time
    counter: str
    """What the counter that userspace and guest read is called."""
    counter_parameter: str | None
    """The kernel's parameter for the counter's rate, in kHz; None where the CPU tells it."""

    def cpu(self, name: str | None) -> CpuModel:
        """The CPU of that name, the default one for None. Raises KeyError."""
        return self.cpus[0] if name is None else {cpu.name: cpu for cpu in self.cpus}[name]
