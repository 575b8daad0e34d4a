# SPDX-License-Identifier: GPL-2.0-only
"""The wall clock of one kernel against the other's."""

from __future__ import annotations

from common.record.clocks import wall_clock_lag_ns
from common.record.dialogue import HEADER, Line, Side, parse

SECOND = 1_000_000_000


def side(*readings: tuple[str, int, int]) -> Side:
    """A side that told its CLOCK_REALTIME: (fact, its time in s, the host's stamp in s)."""
    lines = [Line(t * SECOND, f"# {key}={clock * SECOND}") for key, clock, t in readings]
    return parse([Line(0, HEADER), *lines])[0]


def test_of_two_stamps_the_one_that_is_less_late_counts() -> None:
    told = side(("realtime.ns", 100, 9), ("realtime.ns_at_end", 103, 10))
    assert wall_clock_lag_ns(told) == (10 - 103) * SECOND


def test_a_side_that_does_not_tell_has_none() -> None:
    assert wall_clock_lag_ns(side(("t.paused", 1, 2))) is None
