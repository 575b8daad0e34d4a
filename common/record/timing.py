# SPDX-License-Identifier: GPL-2.0-only
"""Times from the facts and stamps of a record, in ms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

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


ACROSS = ("shutdown (host)", "kexec (host)", "early boot (host)")
"""The phases that every stage has: from the last word of one side to the first of the other."""


def across(trial: Trial) -> dict[str, float | None]:
    """Phase (of `ACROSS`) -> its length in ms by the host's stamps; None without both stamps."""
    before, after = trial.side("outgoing"), trial.side("incoming")
    left = trial.console.kexecs[0] if trial.console.kexecs else None
    first = trial.console.boots[1].t if len(trial.console.boots) > 1 else None
    ends = (before.ended if before else None, left, first, after.started if after else None)
    return {name: host_ms(*pair) for name, pair in zip(ACROSS, pairwise(ends), strict=True)}


def tsc_across_ms(trial: Trial, begin: str, end: str) -> float | None:
    """From fact t.BEGIN of the outgoing side to t.END of the incoming one, in ms by the TSC."""
    before, after = trial.side("outgoing"), trial.side("incoming")
    if before is None or after is None or not (khz := after.number("tsc.khz")):
        return None
    first, last = before.number(f"t.{begin}"), after.number(f"t.{end}")
    return (last - first) / khz if first is not None and last is not None else None


def guest_gap_ms(trial: Trial) -> float | None:
    """For how long the KVM guest's first vCPU did not run, in ms by the TSC that it reads."""
    after = trial.side("incoming")
    gap, khz = (
        after.number(key) if after else None for key in ("guest.0.resume.gap_tsc", "tsc.khz")
    )
    return gap / khz if gap and khz else None


def known(found: Mapping[str, float | None]) -> dict[str, float]:
    """The phases that have a length: name -> ms."""
    return {name: ms for name, ms in found.items() if ms is not None}


def one_after_another(found: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The phases of these names, in that order: name -> ms; empty when one is missing."""
    if any(name not in found for name in names):
        return {}
    return {name: found[name] for name in names}
