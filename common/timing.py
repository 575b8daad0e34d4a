# SPDX-License-Identifier: GPL-2.0-only
"""Times between two facts of a record."""

from __future__ import annotations

from common.dialogue import Side


def tsc_ms(side: Side | None, begin: str, end: str) -> float | None:
    """From fact t.BEGIN to fact t.END, in ms by the machine's TSC; None without both."""
    if side is None:
        return None
    first, last, khz = side.number(f"t.{begin}"), side.number(f"t.{end}"), side.number("tsc.khz")
    return (last - first) / khz if first is not None and last is not None and khz else None


def host_ms(begin: int | None, end: int | None) -> float | None:
    """From one of the host's stamps to another, in ms; None without both."""
    return None if begin is None or end is None else (end - begin) / 1e6
