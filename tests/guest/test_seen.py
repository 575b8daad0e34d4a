# SPDX-License-Identifier: GPL-2.0-only
"""Whether a CPU was seen inside the guest, on a recorded trial and on edited copies of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from common.guest.evidence import RamEvidence
from common.guest.seen import HOST_SAW_GUEST_RUN, seen_in_guest
from common.record.cpus.samples import CpuSample
from common.record.evidence import Trial
from tests.recorded_trial import with_ram

Recorded = Callable[..., Trial]


def answer(trial: Trial) -> tuple[str, str]:
    found = HOST_SAW_GUEST_RUN.ask(trial)
    return found.status, found.seen


def edited(trial: Trial, change: Callable[[int, CpuSample], CpuSample]) -> Trial:
    """The trial with each CPU of each sample changed; given are the sample's time and the CPU."""
    samples = tuple(
        s.model_copy(update={"cpus": tuple(change(s.t, cpu) for cpu in s.cpus)})
        for s in trial.samples
    )
    return trial.model_copy(update={"samples": samples})


def with_registers(cpu: CpuSample, **changes: Any) -> CpuSample:
    return cpu.model_copy(update={"cpu": cpu.cpu.model_copy(update=changes)})


def with_tables(trial: Trial, **changes: Any) -> Trial:
    tables = trial.seen(RamEvidence).ram.guest_tables
    assert tables
    return with_ram(trial, guest_tables=tables.model_copy(update=changes))


def test_the_recording_was_seen_on_both_sides(recorded: Recorded) -> None:
    trial = recorded("main")
    assert answer(trial)[0] == "PASS"
    assert len(seen_in_guest(trial)) >= 2


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_side_on_which_nobody_was_inside_falls(recorded: Recorded, side: str) -> None:
    """A program that does what the guest would runs with another CPL, by other tables."""
    trial = recorded("main")
    paused = trial.sides[0].ended

    def outside(t: int, cpu: CpuSample) -> CpuSample:
        if cpu.in_guest and (t < paused) is (side == "before"):
            return with_registers(cpu, cpl=3)
        return cpu

    status, seen = answer(edited(trial, outside))
    assert status == "FAIL"
    assert "0 looks into it before" in seen or "0 after" in seen


def test_a_counter_that_starts_anew_falls(recorded: Recorded) -> None:
    trial = recorded("main")
    counters = [one.counter for one in seen_in_guest(trial)]

    def anew(_t: int, cpu: CpuSample) -> CpuSample:
        saved = list(cpu.cpu.saved)
        if saved and saved[2] == counters[-1]:
            saved[2] = 5
        return with_registers(cpu, saved=tuple(saved))

    assert answer(edited(trial, anew))[0] == "FAIL"


def test_without_nested_page_tables_it_falls(recorded: Recorded) -> None:
    trial = recorded("main")
    assert answer(with_tables(trial, flat=True))[0] == "FAIL"
    assert answer(with_tables(trial, nested=None))[0] == "FAIL"


def test_what_nobody_looked_at_is_no_data(recorded: Recorded) -> None:
    trial = recorded("main")
    assert answer(with_ram(trial, guest_tables=None))[0] == "NO DATA"
    unseen = edited(trial, lambda _t, cpu: with_registers(cpu, saved=()))
    assert answer(unseen)[0] == "FAIL"
