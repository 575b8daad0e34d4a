# SPDX-License-Identifier: GPL-2.0-only
"""Did the host, from outside, see the right kernel run on each side of the kexec?

A pure function of the samples of common/record/cpus/samples.py. Each walk is followed once more,
from the root to the note, so that what it led to does not rest on a conclusion that was stored.
"""

from __future__ import annotations

from common.arch.known import ARCHITECTURES
from common.checks.model import Check, Outcome
from common.checks.outcomes import no_data, outcome
from common.record.cpus.samples import CpuSample, Look, Sample
from common.record.evidence import Trial
from common.record.setting import KernelFacts

_EVIDENCE = "cpu-samples.jsonl: registers, page tables and notes in the machine's RAM"
_LEAST = 2
"""Points on each side at which the kernel was seen."""


def _saw_kernels(trial: Trial) -> Outcome:
    setting = trial.setting
    arch = ARCHITECTURES[setting.architecture]
    kernels = {"outgoing": setting.outgoing, "incoming": setting.incoming}
    ids = f"{setting.outgoing.build_id[:12]}, then {setting.incoming.build_id[:12]}"
    expected = f"build ids {ids}, where {arch.leads_by} of the CPUs lead"
    if stayed := _stayed(trial):
        return outcome(False, expected=expected, seen=stayed, evidence=_EVIDENCE)
    seen = []
    for name, kernel in kernels.items():
        samples = _of_side(trial, name)
        if kernel.layout is None:
            return no_data(f"the {name} kernel's ELF file, for its layout", expected=expected)
        if not samples:
            return no_data(f"no sample on the {name} side", expected=expected)
        if wrong := _another(samples, kernel):
            return outcome(
                False, expected=expected, seen=f"{name} side: {wrong}", evidence=_EVIDENCE
            )
        points = _points(samples, kernel)
        if len(points) < _LEAST or samples[-1].point not in points:
            seen_at = f"{len(points)} of {len({s.point for s in samples})} points"
            return no_data(
                f"the {name} kernel was seen at {seen_at}, not at {samples[-1].point!r}",
                expected=expected,
            )
        if not any(_in_text(cpu, kernel) for sample in samples for cpu in sample.cpus):
            return no_data(
                f"no {arch.pointer} in the {name} kernel's text",
                expected=expected,
            )
        seen.append(f"{kernel.build_id[:12]} at {len(points)} points")
    differ = setting.one_kernel or setting.outgoing.build_id != setting.incoming.build_id
    return outcome(
        differ,
        expected=expected if differ else "two kernels",
        seen=", then ".join(seen),
        evidence=_EVIDENCE,
    )


def _stayed(trial: Trial) -> str | None:
    """That it is one and the same start of a kernel on both sides, whatever its note says.

    Where KASLR is on, image and per-CPU data lie elsewhere after each start, both virtually and
    physically: that all four agree for a CPU takes a chance of one in a thousand million or less.
    Without KASLR per-CPU data tell it all the same, of the first update: they lie in KHO's scratch
    memory then (mm/memblock.c: memblock_set_kho_scratch_only), where a cold boot puts none.
    """
    places = []
    for name, kernel in (
        ("outgoing", trial.setting.outgoing),
        ("incoming", trial.setting.incoming),
    ):
        cpus = [cpu for sample in _of_side(trial, name) for cpu in sample.cpus]
        found = (_place(cpu, kernel, fixed=trial.update == 1) for cpu in cpus)
        places.append({place for place in found if place})
    common = places[0] & places[1]
    left = {number for number, *_ in common}
    # A CPU that the new kernel does not start stays where it was: all_cpus asks for that.
    if not common or {number for number, *_ in places[1]} - left:
        return None
    number, image, physical, own = sorted(common)[0]
    data = f" and its per-CPU data at {own:#x}" if own else ""
    return (
        f"CPU {number} has its kernel at {image:#x} (physical {physical:#x}){data} on both sides:"
        " no kernel was started between them"
    )


def _place(cpu: CpuSample, kernel: KernelFacts, *, fixed: bool) -> tuple[int, int, int, int] | None:
    """CPU, where its image is mapped and its note lies, and where its per-CPU data, 0 where that is
    not known; without KASLR only if `fixed`."""
    layout = kernel.layout
    if layout is None or cpu.image is None or not cpu.cpu.in_kernel_half:
        return None
    if cpu.image == layout.text and not fixed:
        return None
    for look in cpu.looks:
        physical = look.note.walk.physical
        if look.build_id and physical is not None and cpu.cpu.per_cpu != 0:
            return cpu.cpu.number, cpu.image or 0, physical, cpu.cpu.per_cpu or 0
    return None


def _of_side(trial: Trial, name: str) -> tuple[Sample, ...]:
    """The samples from the side's first word to the next side's."""
    number = next((n for n, side in enumerate(trial.sides) if side.name == name), None)
    if number is None:
        return ()
    begin = trial.sides[number].started
    later = [side.started for side in trial.sides[number + 1 :]]
    return tuple(s for s in trial.samples if begin <= s.t and (not later or s.t < later[0]))


def _another(samples: tuple[Sample, ...], kernel: KernelFacts) -> str | None:
    """What runs in kernel mode and is not this kernel, in words."""
    for sample in samples:
        for cpu in sample.cpus:
            for look in cpu.looks:
                if cpu.cpu.in_kernel_half and look.build_id not in (None, kernel.build_id):
                    return f"{(look.build_id or '')[:12]} at {sample.point!r}, {look.says[:60]!r}"
    return None


def _points(samples: tuple[Sample, ...], kernel: KernelFacts) -> set[str]:
    return {s.point for s in samples if any(_shows(cpu, kernel) for cpu in s.cpus)}


def _shows(cpu: CpuSample, kernel: KernelFacts) -> bool:
    """The CPU's own tables lead to this kernel's note and banner."""
    return any(_is_of(look, cpu, kernel) for look in cpu.looks)


def _is_of(look: Look, cpu: CpuSample, kernel: KernelFacts) -> bool:
    layout, registers = kernel.layout, cpu.cpu
    if layout is None or cpu.image is None or cpu.root is None:
        return False
    places = ((look.note, layout.note), (look.banner, layout.banner))
    return (
        registers.runs_by(cpu.root, look.note.walk, cpu.pc, layout)
        and look.build_id == kernel.build_id
        and look.says.startswith(f"Linux version {kernel.release} ")
        and all(
            read.walk.virtual == cpu.image + link - layout.text
            and read.walk.physical is not None
            and registers.walk(read.walk, cpu.root, read.walk.virtual) == read.walk
            for read, link in places
        )
    )


def cpus_seen(trial: Trial, side: str) -> int | None:
    """How many CPUs the host saw in the side's kernel, at one point or another; None where it does
    not know where to look."""
    kernel = trial.setting.outgoing if side == "outgoing" else trial.setting.incoming
    if kernel.layout is None:
        return None
    cpus = [cpu for sample in _of_side(trial, side) for cpu in sample.cpus]
    return len({cpu.cpu.number for cpu in cpus if _shows(cpu, kernel)})


def _in_text(cpu: CpuSample, kernel: KernelFacts) -> bool:
    layout = kernel.layout
    if layout is None or cpu.image is None or not _shows(cpu, kernel):
        return False
    return cpu.cpu.in_kernel_half and layout.in_text(cpu.cpu.pc - cpu.image + layout.text)


HOST_SAW_KERNELS = Check(
    "host_saw_kernels",
    "Did the host see, from outside, first one kernel run, then the other?",
    _saw_kernels,
)
