# SPDX-License-Identifier: GPL-2.0-only
"""Looks at a machine that has fallen silent, and decodes what is seen with the kernels' symbols."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.machine.ram import MachineRam
from common.record.cpus.kernel_layout import NOTE_BYTES, KernelLayout, build_id_of_note
from common.record.cpus.kernel_symbols import KernelSymbols, symbols_of
from common.record.cpus.last_look import FAULT_SAMPLES, FILE, LOG, LastLook, death
from common.record.cpus.page_tables import START_MAP, read_virtual
from common.record.cpus.ram_log import RamLog, Reader, read_log
from common.record.cpus.samples import CpuSample, CpuWitness, Monitor, Sample, with_trapped
from common.record.qemu.reset import registers_at_triple_fault
from common.record.raw import TRACE
from common.run.post_mortem.source_lines import lines_of
from kernel.image.layout import layout_of
from kernel.image.prebuilt import Bootable, Prebuilt

_ALIGN = 2 << 20
"""CONFIG_PHYSICAL_ALIGN is no less on x86-64, nor MIN_KIMG_ALIGN on arm64."""
_STACK_BYTES = 16 << 10
"""THREAD_SIZE on x86-64 and arm64; with KASAN it is more."""
_PIECE = 512
_MOST_FRAMES = 24
_BURST, _IN_BURST_SECONDS, _BETWEEN_SECONDS = 6, 0.003, 1.0
_KEPT = FAULT_SAMPLES


class DeathWatch:
    """Looks at a machine at its workload's rendezvous, in its silence, and after a reset.

    `kernels` are the outgoing and the incoming one; `monitor` is QEMU's;
    at the rendezvous of `guest_runs_at` a CPU has to be seen inside the guest, too.
    """

    def __init__(
        self,
        monitor: Monitor,
        ram: MachineRam,
        kernels: Sequence[Bootable],
        folder: Path,
        guest_runs_at: frozenset[str] = frozenset(),
        arch: Architecture = DEFAULT,
    ) -> None:
        self._guest_runs_at = guest_runs_at
        self._ram, self._folder = ram, folder
        self._kernels = [(k, layout) for k in kernels if (layout := layout_of_kernel(k))]
        layouts = [layout for _, layout in self._kernels]
        self._witness = CpuWitness(monitor, ram, layouts, folder, arch.name)
        self._samples: list[Sample] = []
        self._leaving, self._was_reset = False, False
        self._one_at_a_time = threading.Lock()  # a reset is looked at beside all else

    def on_line(self, text: str) -> None:
        """Take a line of the dialogue; at a rendezvous, see which kernel it is that runs."""
        with self._one_at_a_time:
            self._on_line(text)

    def _on_line(self, text: str) -> None:
        self._samples = []
        if text == "# kexec":
            self._leaving = True
        elif text.startswith(("# await ", "# side=")):
            self._leaving = False
            self._witness.note(
                text.removeprefix("# "),
                guest=text.removeprefix("# await ") in self._guest_runs_at,
            )

    def silent(self) -> str | None:
        """What the kernel of a machine that says nothing died of; two looks are needed for it."""
        with self._one_at_a_time:
            return self._silent()

    def _silent(self) -> str | None:
        first = not self._samples
        self._samples = [*self._samples, *self._burst("silent")][-_KEPT:]
        if first:
            return None
        look = self._see("silent")
        found = death(look)
        if found is None:
            return None
        self._keep(look)
        return found.what

    def timeout(self) -> None:
        """Keep where the CPUs stand of a machine that nobody waits for any more."""
        with self._one_at_a_time:
            self._samples = self._burst("timeout")
            time.sleep(_BETWEEN_SECONDS)
            self._samples += self._burst("timeout")
            self._keep(self._see("timeout"))

    def reset(self) -> str | None:
        """Keep where a triple fault left the CPUs; or what the incoming kernel left in RAM, where
        the reset came on the way to it. What the machine boots then is listened to: None.

        The first counts: SeaBIOS resets the machine once more some 50 ms later.
        """
        with self._one_at_a_time:
            self._was_reset = self._was_reset or self._reset()
        return None

    def _reset(self) -> bool:
        with (self._folder / TRACE).open(errors="replace") as lines:
            registers = registers_at_triple_fault(lines)
        if registers is None and not self._leaving:
            return False
        look: LastLook | None = None
        if registers:
            self._samples = [self._witness.read(registers, "reset")]
            look = self._see("reset")
        if look is None or not look.build_id:
            look = self._see_incoming(self._samples if registers else ())
        self._keep(look.model_copy(update={"triple_fault": registers is not None}))
        return True

    def _see_incoming(self, samples: Sequence[Sample]) -> LastLook:
        """The incoming kernel's image in RAM, which no CPU's tables lead to."""
        for kernel, layout in self._kernels[-1:]:
            for physical, found in self._images(layout):
                if found == kernel.build_id:
                    return self._see_image(kernel, layout, physical, samples)
        return _look("reset", samples, _of_interest(samples[-1]) if samples else None, None)

    def _burst(self, point: str) -> list[Sample]:
        """A few samples, some ms apart."""
        found = []
        for _ in range(_BURST):
            found.append(with_trapped(self._witness.look(point), self._ram))
            time.sleep(_IN_BURST_SECONDS)
        return found

    def _see(self, why: str) -> LastLook:
        last = self._samples[-1]
        cpu = _of_interest(last)
        kernel, layout = self._kernel_of(cpu)
        if cpu is None or kernel is None or layout is None or isinstance(kernel, Prebuilt):
            return _look(why, self._samples, cpu, kernel)
        moved, root = (cpu.image or 0) - layout.text, cpu.root or 0
        symbols = symbols_of(kernel.vmlinux)

        def lead(virtual: int) -> int | None:
            return cpu.cpu.walk(self._ram, root, virtual).physical

        def read(link: int, length: int) -> bytes | None:
            return read_virtual(self._ram, lead, link + moved, length)

        names = {
            f"{c.cpu.pc:#x}": name
            for sample in self._samples
            for c in sample.cpus
            if c.image == cpu.image and (name := symbols.function_at(c.cpu.pc - moved))
        }
        stack = stack_from(cpu.cpu.sp, lambda at, length: read(at - moved, length))
        return _look(
            why,
            self._samples,
            cpu,
            kernel,
            log=read_log(read, symbols, moved),
            names=names,
            stack=frames(stack, symbols, moved),
        )

    def _see_image(
        self, kernel: Bootable, layout: KernelLayout, physical: int, samples: Sequence[Sample]
    ) -> LastLook:
        """The log of an image that no CPU maps any more, by its own phys_base; where a CPU is in
        it that runs at physical addresses, as a kernel does at first."""
        cpu = _of_interest(samples[-1]) if samples else None
        if isinstance(kernel, Prebuilt):
            return _look("reset", samples, cpu, kernel)
        symbols = symbols_of(kernel.vmlinux)
        read = _from_image(self._ram, layout, physical)
        base = symbols.named("phys_base")
        value = int.from_bytes((read(base.address, 8) if base else None) or b"", "little")
        image = (physical - value + START_MAP) % (1 << 64)
        moved = image - layout.text
        names = {
            f"{c.cpu.pc:#x}": name
            for sample in samples
            for c in sample.cpus
            if (name := symbols.function_at(c.cpu.pc - physical + layout.text))
        }
        log = read_log(read, symbols, moved)
        return _look("reset", samples, cpu, kernel, log=log, names=names)

    def _images(self, layout: KernelLayout) -> list[tuple[int, str]]:
        """(guest-physical start, build id) of each image of that layout, at multiples of 2 MiB."""
        found = []
        for physical in range(self._ram.begin, self._ram.end, _ALIGN):
            try:
                note = self._ram.read(physical + layout.note - layout.text, NOTE_BYTES)
            except ValueError:
                continue
            if build_id := build_id_of_note(note):
                found.append((physical, build_id))
        return found

    def _kernel_of(self, cpu: CpuSample | None) -> tuple[Bootable | None, KernelLayout | None]:
        """The kernel that was seen on that CPU, and its layout; (None, None) for none of ours."""
        seen = {look.build_id for look in cpu.looks} if cpu else set()
        return next(((k, at) for k, at in self._kernels if k.build_id in seen), (None, None))

    def _keep(self, look: LastLook) -> LastLook:
        found = death(look)
        kernel = next((k for k, _ in self._kernels if k.build_id == look.build_id), None)
        # Seconds each, so no more than what will be told.
        wanted = [found.place] if found and found.place else [*look.names.values()]
        if kernel and not isinstance(kernel, Prebuilt):
            look = look.model_copy(update={"lines": lines_of(kernel, wanted)})
        (self._folder / FILE).write_text(look.model_dump_json(indent=1) + "\n")
        if look.log.lines:
            (self._folder / LOG).write_text(look.log_text())
        return look


def _look(
    why: str,
    samples: Sequence[Sample],
    cpu: CpuSample | None,
    kernel: Bootable | None,
    *,
    log: RamLog | None = None,
    names: dict[str, str] | None = None,
    stack: tuple[str, ...] = (),
) -> LastLook:
    return LastLook(
        t=time.monotonic_ns(),
        why=why,  # type: ignore[arg-type]
        samples=tuple(samples),
        cpu=cpu.cpu.number if cpu else None,
        build_id=kernel.build_id if kernel else None,
        log=log or RamLog(source="none"),
        names=names or {},
        stack=stack,
        lines={},
    )


def _of_interest(sample: Sample) -> CpuSample | None:
    """A CPU that runs, else the first: a kexec is left, and a kernel begins, on CPU 0."""
    running = [c for c in sample.cpus if not c.cpu.stopped]
    return next(iter([*running, *sample.cpus]), None)


def _from_image(ram: MachineRam, layout: KernelLayout, physical: int) -> Reader:
    def read(link: int, length: int) -> bytes | None:
        try:
            return ram.read(physical + link - layout.text, length)
        except ValueError:
            return None

    return read


def stack_from(pointer: int, read: Reader) -> bytes:
    """From the stack pointer to the stack's end, or to where nothing is mapped any more."""
    found, end = b"", pointer - pointer % _STACK_BYTES + _STACK_BYTES
    while piece := read(pointer + len(found), min(_PIECE, end - pointer - len(found))):
        found += piece
    return found


def frames(stack: bytes, symbols: KernelSymbols, moved: int) -> tuple[str, ...]:
    """The innermost functions, and the outermost where there are too many for all."""
    words = (int.from_bytes(stack[n : n + 8], "little") for n in range(0, len(stack) - 7, 8))
    names = (symbols.function_at(word - moved) for word in words)
    found = tuple(name for name in names if name and "+0x0/" not in name)
    if len(found) <= _MOST_FRAMES:
        return found
    half = _MOST_FRAMES // 2
    return (*found[:half], f"... {len(found) - 2 * half} more ...", *found[-half:])


def layout_of_kernel(kernel: Bootable) -> KernelLayout | None:
    """The layout of a kernel of ours, or of an image of the user's, by what is packed in it."""
    return kernel.layout if isinstance(kernel, Prebuilt) else _layout(kernel.vmlinux)


@lru_cache(maxsize=8)
def _layout(vmlinux: Path) -> KernelLayout | None:
    return layout_of(vmlinux)
