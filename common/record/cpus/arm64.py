# SPDX-License-Identifier: GPL-2.0-only
"""An arm64 CPU as the host sees it: QEMU's registers, its MMU's answer, page tables in RAM.

QEMU's monitor tells neither TTBR0 nor TTBR1. But it tells by which physical address a CPU's MMU
reaches a virtual one (gva2gpa), through stage 2 as well where the CPU is inside a guest. So of a
CPU that runs in the kernel's half of the addresses the physical place of its instruction is known;
the image around it is found in RAM by its note; and in the image stands the root page table,
swapper_pg_dir, from which the tables are walked. That the CPU runs by these tables is shown by its
own instruction, to which they and its MMU have to lead alike.

Formats are those of the Arm ARM, D8.3, for 48 bits of virtual address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from common.record.cpus.kernel_layout import NOTE_BYTES, KernelLayout, build_id_of_note
from common.record.cpus.page_tables import Ram, Walk
from common.record.stored_file import U64, Strict

Translate = Callable[[int, int], int | None]
"""CPU and virtual address -> physical address by the CPU's MMU; None where nothing is mapped."""

_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_WORD = re.compile(r"\b(PC|SP|X19|X20|X21|X22|PSTATE)=([0-9a-f]+)")
_MASKED, _EL = 1 << 7, 0b1100
_KERNEL_HALF = 1 << 63
_VALID, _TABLE = 1, 2
_BITS = 48
_ADDRESS = (1 << _BITS) - 1
_IMAGE_ALIGN = 2 << 20
"""MIN_KIMG_ALIGN of arch/arm64/include/asm/boot.h."""


class Arm64Cpu(Strict):
    """Some registers of one CPU at one moment."""

    number: Annotated[int, Field(ge=0, lt=1024)]
    pc: U64
    sp: U64
    pstate: U64
    saved: tuple[U64, ...]
    """x19 to x22, which a guest of ours has for its own."""
    physical: U64 | None = None
    """Of `pc`, by the CPU's MMU; None where nothing is mapped any more."""
    page_bits: Annotated[int, Field(ge=12, le=16)] = 12
    """Of the pages of the tables that were walked."""

    @property
    def level(self) -> int:
        """The exception level."""
        return (self.pstate & _EL) >> 2

    @property
    def privileged(self) -> bool:
        """Whether it runs a kernel, or a guest's: EL1 and EL2."""
        return self.level > 0

    @property
    def interrupts(self) -> bool:
        """Whether interrupts are on."""
        return not self.pstate & _MASKED

    @property
    def halted(self) -> bool:
        """Never known: QEMU does not tell that a CPU waits for an interrupt."""
        return False

    @property
    def stopped(self) -> bool:
        """Never known."""
        return False

    @property
    def paging(self) -> bool:
        """Whether its MMU leads anywhere for the instruction it is at."""
        return self.physical is not None

    @property
    def fault_address(self) -> int:
        """Not told by QEMU."""
        return 0

    @property
    def per_cpu(self) -> None:
        """Where its own data lie; not told by QEMU."""

    @property
    def in_kernel_half(self) -> bool:
        """Whether it runs, privileged, where only a kernel's own text is."""
        return self.privileged and bool(self.pc & _KERNEL_HALF)

    @property
    def may_be_guest(self) -> bool:
        """Whether it is where a guest of KVM's runs: a hypervisor's own code is at EL2."""
        return self.level == 1 and self.paging and not self.pc & _KERNEL_HALF

    def by_guest_tables(self, _root: int, frame: int | None) -> bool:
        """Whether its MMU leads to the guest's code in `frame`, the address of a page."""
        return frame is not None and self.physical == frame + self.pc % 4096

    def images(self, ram: Ram, layouts: Sequence[KernelLayout]) -> Iterator[tuple[int, int]]:
        """(root table, start of the image) of each kernel that it may run.

        The root table's address is guest-physical, the image's virtual.
        """
        if not self.in_kernel_half or self.physical is None:
            return
        for layout in layouts:
            if layout.root is None:
                continue
            for image in _images_around(ram, self.physical, layout):
                yield image + layout.root - layout.text, self.pc - (self.physical - image)

    def of_layout(self, layout: KernelLayout) -> Arm64Cpu:
        """The same, with the page size of that kernel."""
        return self.model_copy(update={"page_bits": layout.page_bits or 12})

    def walk(self, ram: Ram, root: int, virtual: int) -> Walk:
        """Follow the tables from `root` for `virtual`."""
        return walk(ram, root, virtual, page_bits=self.page_bits)

    def runs_by(self, root: int, note: Walk, pc: Walk | None, layout: KernelLayout) -> bool:
        """Whether `root` is that image's own, and leads the CPU to where its MMU does."""
        if layout.root is None or note.physical is None or pc is None or pc.virtual != self.pc:
            return False
        image = note.physical - (layout.note - layout.text)
        follows = _follows(pc, root, self.page_bits)
        return (
            root == image + layout.root - layout.text and follows and pc.physical == self.physical
        )

    def trapped(self, _ram: Ram, _root: int) -> tuple[int, ...]:
        """An exception's address is in a register that QEMU does not tell."""
        return ()


def parse_registers(text: str, translate: Translate) -> tuple[Arm64Cpu, ...]:
    """The CPUs of an answer; those of which it does not tell all that is asked are left out."""
    parts = _CPU.split(text)
    found = (_cpu(int(n), said) for n, said in zip(parts[1::2], parts[2::2], strict=True))
    return tuple(
        cpu.model_copy(update={"physical": translate(cpu.number, cpu.pc)}) for cpu in found if cpu
    )


def _cpu(number: int, text: str) -> Arm64Cpu | None:
    words = {name: int(value, 16) for name, value in _WORD.findall(text)}
    try:
        return Arm64Cpu(
            number=number,
            pc=words["PC"],
            sp=words["SP"],
            pstate=words["PSTATE"],
            saved=tuple(words[f"X{n}"] for n in range(19, 23)),
        )
    except KeyError:
        return None


def _images_around(ram: Ram, physical: int, layout: KernelLayout) -> Iterator[int]:
    """Where in RAM an image of that layout begins which has that address in its code."""
    last = max(end for _, end in layout.text_ranges) - layout.text
    begin = physical & -_IMAGE_ALIGN
    for image in range(begin, max(begin - last - _IMAGE_ALIGN, 0), -_IMAGE_ALIGN):
        try:
            note = ram.read(image + layout.note - layout.text, NOTE_BYTES)
        except ValueError:
            return
        if build_id_of_note(note):
            yield image


def walk(ram: Ram, root: int, virtual: int, *, page_bits: int = 12, bits: int = _BITS) -> Walk:
    """Follow the tables from `root` for `virtual`, of whose bits `bits` are translated.

    Never raises: what it leads to may be anything.
    """
    entries: list[tuple[int, int]] = []
    step = page_bits - 3
    table = root & _ADDRESS & -(1 << page_bits)
    levels = -(-(bits - page_bits) // step)
    for level in range(levels, 0, -1):
        shift = page_bits + step * (level - 1)
        index = virtual >> shift & (1 << min(step, bits - shift)) - 1
        at = table + 8 * index
        try:
            value = int.from_bytes(ram.read(at, 8), "little")
        except ValueError:
            break
        entries.append((at, value))
        if not value & _VALID:
            break
        leaf = not value & _TABLE
        if level == 1 or leaf:
            if level == 1 and leaf:
                break  # reserved
            inside = (1 << shift) - 1
            physical = (value & _ADDRESS & ~inside) | (virtual & inside)
            return Walk(virtual=virtual, entries=tuple(entries), physical=physical)
        table = value & _ADDRESS & -(1 << page_bits)
    return Walk(virtual=virtual, entries=tuple(entries), physical=None)


def _follows(path: Walk, root: int, page_bits: int) -> bool:
    """Whether the stored entries are a walk from `root`, and lead to what it says."""
    return path.physical is not None and walk(path, root, path.virtual, page_bits=page_bits) == path
