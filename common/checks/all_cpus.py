# SPDX-License-Identifier: GPL-2.0-only
"""Does each kernel run on all CPUs of the machine, and their timers? Pure functions of a Trial."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from common.checks.kernel_seen import cpus_seen
from common.checks.model import Check, Outcome
from common.checks.outcomes import no_data, outcome
from common.record.evidence import Trial

_FEWER = re.compile(r"(?:(?:nr|max|possible_)cpus=|nosmp)")
_SIDES = ("outgoing", "incoming")
_CPUS_MAX = 64  # common/workload/core/time.c
_LATE = 1.6
"""A timer at half its rate takes twice as long."""


def _all_cpus(trial: Trial) -> Outcome:
    """As each kernel says, and as the host saw them in it: at one point or another all of them."""
    told = [(side.number("cpus") if side else None) for side in map(trial.side, _SIDES)]
    machine = _of_machine(trial.setting.argv)
    if any(_FEWER.match(word) for word in trial.setting.append):
        machine = told[0]
    expected = f"{machine} CPUs on both sides, booted on the same one"
    if machine is None or None in told:
        return no_data("facts cpus on both sides, -smp in trial.json", expected=expected)
    first = [side.facts.get("boot_cpu") if side else None for side in map(trial.side, _SIDES)]
    seen = [cpus_seen(trial, name) for name in _SIDES]
    # Of a kernel that somebody else built the host does not know where to look.
    agreed = all(count in (None, machine) for count in seen)
    counts = ", then ".join(
        f"{said}, {'not looked for' if count is None else count} seen by the host"
        for said, count in zip(told, seen, strict=True)
    )
    return outcome(
        told == [machine, machine] and agreed and first[0] == first[1],
        expected=expected,
        seen=counts + (f"; on CPU {first[0]}, then {first[1]}" if first[0] != first[1] else ""),
        evidence="facts cpus, boot_cpu; cpu-samples.jsonl",
    )


def _of_machine(argv: Sequence[str]) -> int | None:
    """QEMU's -smp N,…"""
    words = (value for option, value in pairwise(argv) if option == "-smp")
    match = re.match(r"[0-9]{1,4}", next(words, ""))
    return int(match[0]) if match else None


def _cpu_timers(trial: Trial) -> Outcome:
    """On both sides the median of the best batch of sleeps on each CPU; the longest is told."""
    expected, found = f"each CPU sleeps at most {_LATE} times as long as asked", []
    for name in _SIDES:
        side = trial.side(name)
        cpus, asked = (side.number(key) if side else None for key in ("cpus", "cpu.timer_asked_us"))
        for cpu in range(min(cpus or 0, _CPUS_MAX)):
            slept = side.number(f"cpu.{cpu}.timer_us") if side else None
            if slept is None or not asked:
                return no_data(f"{name} fact cpu.{cpu}.timer_us", expected=expected)
            found.append((slept / asked, f"CPU {cpu}, {name}"))
        if not cpus:
            return no_data(f"{name} fact cpus", expected=expected)
    ratio, where = max(found)
    return outcome(
        min(found)[0] >= 1 and ratio <= _LATE,
        expected=expected,
        seen=f"{ratio:.2f} times ({where})",
        evidence="facts cpu.N.timer_us, cpu.timer_asked_us",
    )


CPU_TIMERS = Check(
    "cpu_timers", "Does each CPU have a timer that keeps time?", _cpu_timers, timed=True
)
ALL_CPUS = Check("all_cpus", "Does each kernel run all CPUs of the machine?", _all_cpus)
