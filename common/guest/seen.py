# SPDX-License-Identifier: GPL-2.0-only
"""Did the host, from outside, see a CPU of the machine run the guest, on both sides?

A pure function of the samples of common/record/cpus/samples.py and of what the host read in the
guest's memory. Inside the guest of common/workload/vm a CPU is privileged, its CR3 is the guest's
own, which means guest-physical addresses, and r12 to r15 are the guest's for its whole life
(guest_sweep.c): a pointer to the vCPU's block, the cursor, the counter, the checksum. The counter
only goes up, over the kexec as well, and is in the guest's memory too. Whoever computes what a
guest would, in a program or in the kernel, has other page tables and another CPL.

On arm64 the registers are x19 to x22, and in the place of CR3 QEMU's MMU tells where the
instruction is in the machine's memory: in the frame of the guest's code, at EL1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from common.arch.known import ARCHITECTURES
from common.checks.live_update import OUTGOING
from common.checks.model import Check, Outcome
from common.checks.outcomes import no_data, outcome
from common.guest.checks import extents
from common.guest.evidence import RamEvidence
from common.guest.memory import CODE, CODE_END, PAGE, PAGE_TABLES, VCPU_SIZE, VCPUS, GuestTables
from common.record.cpus.samples import CpuSample
from common.record.evidence import Trial

_EVIDENCE = "cpu-samples.jsonl; ram-witness.json"


@dataclass(frozen=True)
class Seen:
    """A CPU inside the guest: when, by which vCPU's block, how far."""

    t: int
    vcpu: int
    counter: int


def _seen(t: int, cpu: CpuSample, frames: Mapping[int, int]) -> Seen | None:
    registers = cpu.cpu
    frame = frames.get(registers.pc // PAGE)
    if not cpu.in_guest or not registers.by_guest_tables(PAGE_TABLES, frame):
        return None
    if len(registers.saved) != 4 or not CODE <= registers.pc < CODE_END:
        return None
    vcpu, offset = divmod(registers.saved[0] - VCPUS, VCPU_SIZE)
    if offset or vcpu < 0:
        return None
    return Seen(t, vcpu, registers.saved[2])


def seen_in_guest(trial: Trial) -> list[Seen]:
    """Each look at a CPU inside the guest, in their order."""
    frames = _code_frames(trial)
    found = (_seen(sample.t, cpu, frames) for sample in trial.samples for cpu in sample.cpus)
    return [one for one in found if one]


def _code_frames(trial: Trial) -> dict[int, int]:
    """Page of the guest's code -> where it is in the machine's memory, by the outgoing side."""
    side = trial.side(OUTGOING)
    found: dict[int, int] = {}
    for first, pfn, count in (extents(side) if side else None) or ():
        for page in range(CODE // PAGE, CODE_END // PAGE):
            if first <= page < first + count:
                found[page] = (pfn + page - first) * PAGE
    return found


def _ran(trial: Trial) -> Outcome:
    expected = "CPUs inside the guest on both sides, its counter going up, by nested page tables"
    ram = trial.seen(RamEvidence).ram
    before, after, tables = ram.guest.get("captured"), ram.guest.get("watched"), ram.guest_tables
    if not before or not after or not tables:
        return no_data("ram-witness.json has not both looks, and the tables", expected=expected)
    seen = seen_in_guest(trial)
    if any(one.vcpu >= len(before) for one in seen):
        return outcome(False, expected=expected, seen="a vCPU too many", evidence=_EVIDENCE)
    sides = [
        sum((one.counter > before[one.vcpu].counter) is later for one in seen)
        for later in (False, True)
    ]
    backwards = [n for n, vcpu in enumerate(after) if not _upwards(seen, n, vcpu.counter)]
    return outcome(
        min(sides) > 0 and not backwards and tables == GuestTables(nested=_own(trial), flat=False),
        expected=expected,
        seen=f"{sides[0]} looks into it before the kexec, {sides[1]} after"
        + "".join(f"; vCPU {n} does not count upwards" for n in backwards)
        + _tables_in_words(tables, _own(trial)),
        evidence=_EVIDENCE,
    )


def _upwards(seen: list[Seen], vcpu: int, last: int) -> bool:
    counters = [one.counter for one in seen if one.vcpu == vcpu]
    return all(a <= b for a, b in pairwise([*counters, last]))


def _own(trial: Trial) -> str:
    """Where the guest's code is in its physical memory."""
    return hex(ARCHITECTURES[trial.setting.architecture].guest_ram + CODE)


def _tables_in_words(tables: GuestTables, own: str) -> str:
    if tables.flat:
        return f"; {PAGE_TABLES:#x} has the same tables in the machine's own memory"
    return "" if tables.nested == own else f"; its tables lead to {tables.nested}"


HOST_SAW_GUEST_RUN = Check(
    "host_saw_guest_run",
    "Did the host see, from outside, CPUs inside the guest on both sides?",
    _ran,
)
