# SPDX-License-Identifier: GPL-2.0-only
"""Where a triple fault left the CPUs, by QEMU's log.

Recorded of 10.0 and 11.1: a boot sector that empties the IDT and traps (cli; lidt; int3).
"""

from __future__ import annotations

import pytest

from common.record.cpus.state import parse_registers
from common.record.qemu import trace
from common.record.qemu.reset import registers_at_triple_fault
from tests.recorded_trial import RECORDED

FOLDER = RECORDED / "triple_fault"
QEMUS = ("qemu-10", "qemu-11")


def lines(name: str) -> list[str]:
    return (FOLDER / f"{name}.log").read_text().splitlines(keepends=True)


def test_the_cpu_stands_at_what_trapped() -> None:
    first, other = parse_registers(registers_at_triple_fault(lines("qemu-10")) or "")
    assert (first.number, first.rip, first.halted) == (0, 0x7C06, False)
    assert (other.number, other.halted) == (1, True)


def test_qemu_11_logs_the_registers_when_they_are_lost() -> None:
    assert registers_at_triple_fault(lines("qemu-11")) == ""


def test_a_cpu_that_has_just_left_a_guest() -> None:
    """As a trial had it before its kexec: CPU 0 at __svm_vcpu_run()'s instruction after VMRUN."""
    first, other = parse_registers(registers_at_triple_fault(lines("vmexit")) or "")
    assert first.rip == 0xFFFFFFFFACB83A0C
    assert first.cr3 == other.cr3, "the other CPU ran by the same tables, and well"


@pytest.mark.parametrize("name", QEMUS)
def test_a_reset_by_itself_is_none(name: str) -> None:
    """As of every machine's start, and of a reboot."""
    text = lines(name)
    fault = next(n for n, line in enumerate(text) if "Triple fault" in line)
    assert registers_at_triple_fault(text[:fault]) is None
    assert registers_at_triple_fault(text[:fault] + text[fault + 1 :]) is None


@pytest.mark.parametrize("name", QEMUS)
def test_nothing_of_it_is_strange_to_the_trace(name: str) -> None:
    found = trace.read(lines(name), asked=trace.ALWAYS, clock_offset_ns=0)
    assert found.strange == 0
    assert [event.name for event in found.events if event.name in trace.ALWAYS] == ["runstate_set"]
