# SPDX-License-Identifier: GPL-2.0-only
"""The machine's clocks compared with the host's. Pure functions.

A *reading* is a line with a clock's time in it, and the host's stamp of that line. The stamp may
be late, never early: the harness reads what QEMU has written when the host lets it. So of many
readings the one with the least difference is the best, and a clock's pace is what lies between
the best of its first half and the best of its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from common.record.dialogue import Side, Stored


class Reading(NamedTuple):
    """A clock's time and the host's (CLOCK_MONOTONIC), both in ns."""

    clock: int
    host: int


class Drift(Stored):
    """How far a clock went from the host's, over a span of its own time; both in ms.

    More than 0: it ran slow, or stood still, or was set back.
    """

    span_ms: float
    ms: float


def host_times(sides: Sequence[Side], key: str) -> list[int]:
    """When the machine took each side's TSC of this fact, by the host's clock, or a little later.

    From the line that was stamped soonest, however late this one came: of all sides, since the TSC
    runs through the kexec, as far as they take it to be as fast.
    """
    found = []
    for side in sides:
        tsc, khz = side.number(key), side.number("tsc.khz")
        alike = [other for other in sides if other.number("tsc.khz") == khz]
        readings = [reading for other in alike for reading in tsc_readings(other)]
        if tsc is not None and khz and readings:
            soonest = min(reading.host - reading.clock for reading in readings)
            found.append(tsc * 1_000_000 // khz + soonest)
    return found


def drift(readings: Sequence[Reading]) -> Drift | None:
    """None where there is no reading in either half of the clock's time."""
    if not readings:
        return None
    first, last = min(readings).clock, max(readings).clock
    early = [r.host - r.clock for r in readings if r.clock - first < (last - first) / 2]
    late = [r.host - r.clock for r in readings if r.clock - first >= (last - first) / 2]
    if not early or not late or first == last:
        return None
    return Drift(span_ms=(last - first) / 1e6, ms=(min(late) - min(early)) / 1e6)


def tsc_readings(side: Side) -> list[Reading]:
    """The TSC, by the frequency that the kernel takes it to have, as the workload read it."""
    khz = side.number("tsc.khz")
    if not khz or khz < 0:
        return []
    found = [(side.number(key), stamp) for key, stamp in side.stamps.items() if key[:2] == "t."]
    return [Reading(tsc * 1_000_000 // khz, stamp) for tsc, stamp in found if tsc is not None]


def wall_clock_lag_ns(side: Side) -> int | None:
    """By how much the side's CLOCK_REALTIME is behind the host's CLOCK_MONOTONIC: of use only as a
    difference between two sides. None where the side does not tell the time."""
    keys = [key for key in side.stamps if key.startswith("realtime.ns")]
    found = [(side.number(key), side.stamps[key]) for key in keys]
    # The stamp that is least late
    return min((stamp - time for time, stamp in found if time is not None), default=None)
