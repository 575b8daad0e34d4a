# SPDX-License-Identifier: GPL-2.0-only
"""Faults of QEMU itself that stop a machine, recognised by what the stopped machine left.

QEMU 10.0 under TCG looks up what another CPU writes to a register in a memory map that was
exchanged meanwhile (docs/oddities.md). Two things come of it: an interrupt whose end got
lost, so that its CPU waits for ever, or runs a guest that no interrupt ends any more; and an
assertion in iotlb_to_section(). And a CPU can be left halted, or run on, though interrupts wait in
its local APIC that it would take (docs/findings/tcg-hflags2-race.md); or its thread sleeps though
it is not halted.

Under TCG, now and then, a guest of a QEMU in the machine stands still before its first word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.record.stored_file import read_text

_ENDED, _HUNG = "QEMU ended by itself", "QEMU hung"
OWN = (_ENDED, _HUNG)
"""How words of a fault begin that is QEMU's, whatever the machine did."""
HUNG_LINE = "kexec-stages: its monitor gave no answer"
"""How the line begins that is put into its log where it was killed for that."""
_ASSERTION = re.compile(r"iotlb_to_section: Assertion .* failed")
_ANSWER = re.compile(r"^\(qemu\) (.*)$", re.M)
_CPU = re.compile(r"^CPU#(\d+)$(.*?)(?=^CPU#|\Z)", re.M | re.S)
_APIC = re.compile(r"^(ISR|IRR)\s+(\d[\d ]*)", re.M)
_TIMER = re.compile(r"\binitial_count = (\d+) current_count = (\d+)")
# Its entry of the local vector table: in one-shot mode, and not masked.
_ONE_SHOT = re.compile(r"^LVTT\s(?!.*masked).*\bone-shot\b", re.M)
_PRIORITY = re.compile(r"\bPPR 0x([0-9a-f]{2})\b")
_AT = re.compile(r"^RIP=([0-9a-f]{16}) RFL=([0-9a-f]{8}) .*CPL=([0-3]) ", re.M)
# Of a thread of QEMU's: its CPU, its state, its time in ticks; common/machine/machine.py writes it.
_THREAD = re.compile(r"^CPU (\d+)/\S+ (\S) (\d+) (\S*)$", re.M)
_KERNEL_HALF = 1 << 63
_INTERRUPTS_ON = 0x200
_HIGHEST = 0xF  # class of priority
_DISABLED = "APIC disabled"  # by its kernel: it delivers nothing


@dataclass(frozen=True)
class Seen:
    """What a CPU does at one look, and the vectors of its local APIC."""

    where: str
    in_service: str
    """As in `info lapic`, "" for none, or in the kernel, which may well be about to end them."""
    due: frozenset[int]
    """Those that wait, and would be taken."""
    timer: str | None
    """What its timer was set to last: another value at each tick."""
    unset: bool
    """It sleeps, no interrupt waits, and its timer has run out without having been set anew."""


def read_qemu_fault(folder: Path) -> str | None:
    """What a trial's folder says of a fault that ends a machine, in words; None for nothing."""
    if said := _guest_never_spoke(folder):
        return said
    log = folder / "qemu.log"
    said = read_text(log, errors="replace") if log.exists() else ""
    if found := _ASSERTION.search(said):
        return f"{_ENDED}: {found[0]} (qemu.log)"
    if found := re.search(rf"(?m)^{HUNG_LINE}.*", said):
        return f"{_HUNG}: {found[0].removeprefix('kexec-stages: ')} (qemu.log)"
    return None


def read_lost_interrupt(folder: Path) -> str | None:
    """What the looks at CPUs show of an interrupt that QEMU lost; a machine may outlive that."""
    path = folder / "qemu-state.txt"
    return lost_interrupt(read_text(path, errors="replace")) if path.exists() else None


def _guest_never_spoke(folder: Path) -> str | None:
    """A guest of a QEMU in the machine that was started and waited for, and said not one word."""
    lines, transcript = folder / "guest.jsonl", folder / "guest-qmp.jsonl"
    if not lines.exists() or lines.stat().st_size or not transcript.exists():
        return None
    said = read_text(transcript)
    waited = re.search(r'"failed": "guest", "why": "([^"]*)"', said)
    if waited is None or '"greeting"' not in said:
        return None
    return f"the guest did not start: {waited[1]}, and said nothing (guest.jsonl)"


def lost_interrupt(text: str) -> str | None:
    """The CPU that an interrupt does not get out of where it is, at each look; None for none, and
    where it has had a tick meanwhile.

    A CPU that serves an interrupt is awake, and in its kernel: one that is halted, in user mode or
    in a guest, with the same vector in service at both looks, was never told the end that its
    kernel wrote. One for which a vector waits that it would take has been forgotten: no kernel can
    have a CPU sleep on, or run on anywhere, with interrupts enabled. One that sleeps with a timer
    that has run out and is not masked has set it, and that got lost: Linux masks the timer of a CPU
    that is to have none (arch/x86/kernel/apic/apic.c: lapic_timer_shutdown()).
    """
    said = [_answers(look) for look in re.split(r"(?m)^(?=\(qemu\) info status$)", text)[1:]]
    if len(said) < 2:
        return None
    if asleep := set.intersection(*map(_asleep, said)):
        cpu, _, _, place = min(asleep)
        return f"QEMU's CPU {cpu} sleeps in {place}, and is not halted (qemu-state.txt)"
    looks = [_seen(look) for look in said]
    for cpu, first in looks[0].items():
        later = [look[cpu] for look in looks[1:] if cpu in look]
        # Its registers and its APIC are not read at once; what has had a tick goes on.
        if len(later) < len(looks) - 1 or any(other.timer != first.timer for other in later):
            continue
        same = all(
            (other.where, other.in_service) == (first.where, first.in_service) for other in later
        )
        if first.in_service and same:
            return (
                f"QEMU lost an EOI: CPU {cpu} {first.where} with vector {first.in_service}"
                " permanently in service (qemu-state.txt)"
            )
        if first.unset and all(other.unset for other in later):
            return f"QEMU lost a setting of CPU {cpu}'s timer: it {first.where} (qemu-state.txt)"
        if due := first.due.intersection(*(other.due for other in later)):
            return (
                f"QEMU lost an interrupt: CPU {cpu} {first.where} while vector {max(due)} waits"
                " (qemu-state.txt)"
            )
    return None


def _answers(look: str) -> dict[str, str]:
    """Question -> answer. What the host adds itself stands behind QEMU's last one."""
    asked = _ANSWER.split(look)
    return dict(zip(asked[1::2], asked[2::2], strict=True))


def _asleep(answers: Mapping[str, str]) -> set[tuple[int, str, str, str]]:
    """(CPU, where it is, its thread's time, where that sleeps) of each CPU that should run."""
    if "VM status: running" not in answers["info status"]:
        return set()
    at = {
        int(number): found[1]
        for number, text in _CPU.findall(answers.get("info registers -a", ""))
        if "HLT=0" in text and (found := _AT.search(text))
    }
    return {
        (int(cpu), at[int(cpu)], ticks, place)
        for cpu, state, ticks, place in _THREAD.findall("".join(answers.values()))
        if state in "SD" and int(cpu) in at
    }


def _seen(answers: Mapping[str, str]) -> dict[int, Seen]:
    """CPU number -> what it does, of those whose registers say it."""
    found = {}
    for number, text in _CPU.findall(answers.get("info registers -a", "")):
        if (at := _AT.search(text)) is None:
            continue
        halted = "HLT=1" in text
        where, enabled, kernel = _place(at, halted=halted)
        apic = answers.get(f"info lapic {number}", "")
        vectors = {register: value.strip() for register, value in _APIC.findall(apic)}
        priority, timer = _PRIORITY.search(apic), _TIMER.search(apic)
        delivers = enabled and _DISABLED not in apic
        taken_above = int(priority[1], 16) >> 4 if priority and delivers else _HIGHEST
        waiting = map(int, vectors.get("IRR", "").split())
        due = frozenset(vector for vector in waiting if vector >> 4 > taken_above)
        idle = halted and not any(vectors.values())
        found[int(number)] = Seen(
            where,
            in_service="" if kernel else vectors.get("ISR", ""),
            due=due,
            timer=timer and timer[1],
            unset=bool(idle and enabled and timer and timer[2] == "0" and _ONE_SHOT.search(apic)),
        )
    return found


def _place(at: re.Match[str], *, halted: bool) -> tuple[str, bool, bool]:
    """(where it is, whether an interrupt would be taken there, whether a kernel's code runs)."""
    enabled = bool(int(at[2], 16) & _INTERRUPTS_ON)
    if halted:
        return "is halted", enabled, False
    if at[3] == "3":
        return "runs userspace", enabled, False
    # Linux is in the upper half, which may be a guest's. KVM has each interrupt of the machine end
    # its guest.
    if int(at[1], 16) & _KERNEL_HALF:
        return "runs a kernel", enabled, True
    return "runs a guest", True, False
