# SPDX-License-Identifier: GPL-2.0-only
"""Faults of QEMU itself that stop a machine, recognised by what the stopped machine left.

QEMU 10.0 under TCG looks up what another CPU writes to a register in a memory map that was
exchanged meanwhile (docs/oddities.md). Two things come of it: an interrupt whose end got
lost, so that its CPU waits for ever, or runs a guest that no interrupt ends any more; and an
assertion in iotlb_to_section().

Under TCG, now and then, a guest of a QEMU in the machine stands still before its first word.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.record.stored_file import read_text

_ASSERTION = re.compile(r"iotlb_to_section: Assertion .* failed")
_ANSWER = re.compile(r"^\(qemu\) (.*)$", re.M)
_CPU = re.compile(r"^CPU#(\d+)$(.*?)(?=^CPU#|\Z)", re.M | re.S)
_IN_SERVICE = re.compile(r"^ISR\s+(\d[\d ]*)", re.M)
_AT = re.compile(r"^RIP=([0-9a-f]{16}) .* CPL=([0-3]) ", re.M)
_KERNEL_HALF = 1 << 63


def read_qemu_fault(folder: Path) -> str | None:
    """What a trial's folder says of such a fault, in words; None when it says nothing."""
    log, state = folder / "qemu.log", folder / "qemu-state.txt"
    if said := _guest_never_spoke(folder):
        return said
    if log.exists() and (found := _ASSERTION.search(read_text(log, errors="replace"))):
        return f"QEMU ended by itself: {found[0]} (qemu.log)"
    return lost_end(read_text(state, errors="replace")) if state.exists() else None


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


def lost_end(text: str) -> str | None:
    """The CPU that has an interrupt in service and is not serving it, at each look; None for none.

    A CPU that serves an interrupt is awake, and in its kernel: one that is halted, in user mode or
    in a guest, with the same vector in service at both looks, was never told the end that its
    kernel wrote.
    """
    looks = [_elsewhere(look) for look in re.split(r"(?m)^(?=\(qemu\) info status$)", text)[1:]]
    if len(looks) < 2:
        return None
    for cpu, (where, vectors) in looks[0].items():
        if vectors and all(look.get(cpu) == (where, vectors) for look in looks[1:]):
            return (
                f"QEMU lost an EOI: CPU {cpu} {where} with vector {vectors} permanently in"
                " service (qemu-state.txt)"
            )
    return None


def _elsewhere(look: str) -> dict[int, tuple[str, str]]:
    """CPU number -> (what it does instead, its vectors in service), of CPUs outside the kernel.

    Vectors are as in `info lapic`, "" for none.
    """
    asked = _ANSWER.split(look)
    answers = dict(zip(asked[1::2], asked[2::2], strict=True))
    found = {}
    for number, text in _CPU.findall(answers.get("info registers -a", "")):
        if where := _outside_the_kernel(text):
            in_service = _IN_SERVICE.search(answers.get(f"info lapic {number}", ""))
            found[int(number)] = where, in_service[1].strip() if in_service else ""
    return found


def _outside_the_kernel(registers: str) -> str | None:
    if "HLT=1" in registers:
        return "is halted"
    at = _AT.search(registers)
    if at is None:
        return None
    if at[2] == "3":
        return "runs userspace"
    # Linux itself is in the upper half.
    return None if int(at[1], 16) & _KERNEL_HALF else "runs a guest"
