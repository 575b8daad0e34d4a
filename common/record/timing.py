# SPDX-License-Identifier: GPL-2.0-only
"""Times out of the facts and stamps of a record, in ms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.record.dialogue import Side
from common.record.evidence import Trial


def tsc_ms(side: Side | None, begin: str, end: str) -> float | None:
    """From fact t.BEGIN to fact t.END, in ms by the machine's TSC; None without both."""
    if side is None:
        return None
    first, last, khz = side.number(f"t.{begin}"), side.number(f"t.{end}"), side.number("tsc.khz")
    return (last - first) / khz if first is not None and last is not None and khz else None


def host_ms(begin: int | None, end: int | None) -> float | None:
    """From one of the host's stamps to another, in ms; None without both."""
    return None if begin is None or end is None else (end - begin) / 1e6


def stamp(trial: Trial, side: str, key: str) -> int | None:
    """The host's stamp of the side's line with that key; None without it."""
    spoken = trial.side(side)
    return spoken.stamps.get(key) if spoken else None


def us_fact_ms(side: Side | None, key: str) -> float | None:
    """A fact in microseconds, in ms; None without it."""
    number = side.number(key) if side else None
    return None if number is None else number / 1000


def one_after_another(found: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The phases of these names, in their order; empty when one is missing."""
    if any(name not in found for name in names):
        return {}
    return {name: found[name] for name in names}
