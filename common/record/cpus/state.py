# SPDX-License-Identifier: GPL-2.0-only
"""The machine's CPUs as QEMU's monitor tells of them (``info registers -a``), parsed.

Of a CPU that is inside a guest of KVM's, QEMU tells the guest's registers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from common.record.cpus.kernel_layout import KernelLayout
from common.record.cpus.page_tables import START_MAP, Ram, Walk, image_start, read_virtual, walk
from common.record.stored_file import U64, Strict

_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_WORD = re.compile(
    r"\b(RIP|EIP|RSP|ESP|RFL|EFL|CPL|HLT|CR0|CR2|CR3|CR4|EFER|R12|R13|R14|R15) ?=([0-9a-fA-F]+)"
)
_IDT = re.compile(r"^IDT= +([0-9a-f]+)", re.MULTILINE)
_GS = re.compile(r"^GS =[0-9a-f]+ ([0-9a-f]+)", re.MULTILINE)
_INTERRUPTS, _PAGING, _LONG_MODE, _LA57 = 1 << 9, 1 << 31, 1 << 10, 1 << 12
KERNEL_HALF = 1 << 63
_STACK_BYTES = 2048
_KERNEL_CS = 0x10
# PTI: the tables for user mode stand in the page after those of the kernel (PTI_USER_PGTABLE_BIT).
_PTI_USER = 1 << 12


class Cpu(Strict):
    """Some registers of one CPU at one moment; `halted` is QEMU's HLT, `idt` the IDT's base."""

    number: Annotated[int, Field(ge=0, lt=1024)]
    rip: U64
    rsp: U64
    rflags: U64
    cpl: Annotated[int, Field(ge=0, le=3)]
    halted: bool
    cr0: U64
    cr2: U64
    cr3: U64
    cr4: U64
    efer: U64
    idt: U64
    saved: tuple[U64, ...] = ()
    """R12 to R15, which a guest of ours has for its own."""
    gs: int = 0
    """Base of GS; in kernel mode that of the CPU's own data."""

    @property
    def stopped(self) -> bool:
        """Halted with interrupts off: it goes on by an NMI or INIT only."""
        return self.halted and not self.rflags & _INTERRUPTS

    @property
    def interrupts(self) -> bool:
        """Whether interrupts are on."""
        return bool(self.rflags & _INTERRUPTS)

    @property
    def paging(self) -> bool:
        """Whether it is in long mode, with page tables of that."""
        return bool(self.cr0 & _PAGING and self.efer & _LONG_MODE)

    @property
    def levels(self) -> int:
        """Of its page tables."""
        return 5 if self.cr4 & _LA57 else 4

    @property
    def pc(self) -> int:
        """The address of the instruction that it is at."""
        return self.rip

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self.rsp

    @property
    def fault_address(self) -> int:
        """What the last page fault was about."""
        return self.cr2

    @property
    def per_cpu(self) -> int | None:
        """Where its own data lie; 0 where it has none yet."""
        return self.gs

    @property
    def in_kernel_half(self) -> bool:
        """Whether it runs, privileged, where only a kernel's own text is."""
        return self.cpl == 0 and bool(self.rip & KERNEL_HALF)

    @property
    def may_be_guest(self) -> bool:
        """Whether it is where a guest of KVM's runs, if no kernel is in its tables."""
        return self.paging and self.cpl == 0 and not self.in_kernel_half

    def by_guest_tables(self, root: int, _frame: int | None) -> bool:
        """Whether it runs by the guest's tables, whose root is at guest-physical `root`."""
        return self.cr3 == root

    def images(self, ram: Ram, _layouts: Sequence[KernelLayout]) -> Iterator[tuple[int, int]]:
        """(root table, start of the image) of each kernel that it may run.

        The root table's address is guest-physical, the image's virtual.
        """
        if not self.paging:
            return
        for root in self._roots:
            image = image_start(ram, root, levels=self.levels)
            if image is not None:
                yield root, image

    def of_layout(self, _layout: KernelLayout) -> Cpu:
        """The same: its registers tell of its tables all that there is to know."""
        return self

    def walk(self, ram: Ram, root: int, virtual: int) -> Walk:
        """Follow the tables from `root` for `virtual`."""
        return walk(ram, root, virtual, levels=self.levels)

    def runs_by(self, root: int, _note: Walk, _pc: Walk | None, _layout: KernelLayout) -> bool:
        """Whether `root` is its own."""
        return self.paging and root in self._roots

    def trapped(self, ram: Ram, root: int) -> tuple[int, ...]:
        """Instructions to which an exception will return, by its stack."""
        if self.cpl:
            return ()
        stack = b""
        while len(stack) < _STACK_BYTES:
            lead = partial(_lead, self, ram, root)
            part = read_virtual(ram, lead, self.rsp + len(stack), 256)
            if part is None:
                break
            stack += part
        words = struct.unpack(f"<{len(stack) // 8}Q", stack)
        found = (ip for ip, cs in pairwise(words) if cs == _KERNEL_CS and ip >= START_MAP)
        return tuple(dict.fromkeys(found))

    @property
    def _roots(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys((self.cr3, self.cr3 & ~_PTI_USER)))


def _lead(cpu: Cpu, ram: Ram, root: int, virtual: int) -> int | None:
    return cpu.walk(ram, root, virtual).physical


def parse_registers(text: str) -> tuple[Cpu, ...]:
    """The CPUs of an answer; those of which it does not tell all that is asked are left out."""
    parts = _CPU.split(text)
    found = (_cpu(int(n), said) for n, said in zip(parts[1::2], parts[2::2], strict=True))
    return tuple(cpu for cpu in found if cpu)


def _cpu(number: int, text: str) -> Cpu | None:
    words = {name: int(value, 16) for name, value in _WORD.findall(text)}
    idt, gs = _IDT.search(text), _GS.search(text)
    try:
        return Cpu(
            number=number,
            rip=words["RIP"] if "RIP" in words else words["EIP"],
            rsp=words["RSP"] if "RSP" in words else words["ESP"],
            rflags=words["RFL"] if "RFL" in words else words["EFL"],
            cpl=words["CPL"],
            halted=bool(words["HLT"]),
            cr0=words["CR0"],
            cr2=words["CR2"],
            cr3=words["CR3"],
            cr4=words["CR4"],
            efer=words["EFER"],
            idt=int(idt[1], 16) if idt else 0,
            # There are none outside long mode, in which a CPU is told of all the same.
            saved=tuple(words.get(f"R{n}", 0) for n in range(12, 16)),
            gs=int(gs[1], 16) if gs else 0,
        )
    except KeyError:
        return None
