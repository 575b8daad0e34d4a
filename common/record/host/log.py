# SPDX-License-Identifier: GPL-2.0-only
"""What the host did during a trial: when it did not run us, and how long our threads waited.

Read from what common/host/sampling/sampler.py and our other processes left in the trial's folder; a
pure function of these files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from common.record.dialogue import Stored
from common.record.host.away import Stretch, longest
from common.record.stored_file import Count, Stamp, Strict, Text, in_order, read_rows

SHORTEST_NS = 20_000_000
"""Shorter stretches are left out of the record; the raw files have them."""
LONG_NS = 500_000_000
"""Half of what the workloads wait for a frame."""
_JUMP_NS = 100_000_000


class HostLog(Stored):
    """The host during one trial. Times are in ns of its CLOCK_MONOTONIC."""

    begin: int
    end: int
    away: dict[str, tuple[Stretch, ...]]
    """Who -> stretches of `SHORTEST_NS` at least; see common/record/host/away.py. "suspended": the
    host slept between these two samples; CLOCK_MONOTONIC stood still meanwhile."""
    samples: tuple[tuple[int, dict[str, float]], ...]
    """Time, and thread -> ms for which it could have run and did not since the one before; only
    samples with somebody who waited."""
    pressure_ms: float | None
    """For so long some task of the host waited for a CPU (PSI)."""
    steal_ms: float
    suspended_ms: float
    echoes: int
    """Datagrams that went through QEMU and came back."""

    def longest(
        self, begin: int, end: int, who: Iterable[str] | None = None
    ) -> tuple[str, int, int] | None:
        """The longest stretch between two times: (process, begin, end) in ns; None for none."""
        return longest(self.away, begin, end, who)

    def waited_ms(self, begin: int, end: int, thread: str) -> float:
        """How long threads whose names begin so waited for a CPU between two times, in ms."""
        return round(sum(self._waits(begin, end, thread)), 1)

    def longest_wait_ms(self, begin: int, end: int, thread: str) -> float:
        """The most that one such thread waited from one sample to the next, between two times."""
        return max(self._waits(begin, end, thread), default=0.0)

    def _waits(self, begin: int, end: int, thread: str) -> Iterator[float]:
        for t, waits in self.samples:
            if begin < t <= end:
                yield from (ms for name, ms in waits.items() if name.startswith(thread))

    def machine_kept_ms(self) -> float:
        """For how long at most the machine was not run, or one of its CPUs waited for one.

        Who speaks with the machine does not run it: that the harness was away says nothing.
        """
        found = self.longest(self.begin, self.end, ("qemu", "host", "suspended"))
        kept = (found[2] - found[1]) / 1e6 if found else 0.0
        return max(kept, self.longest_wait_ms(self.begin, self.end, "CPU "))

    def stood_still(self) -> str | None:
        """The longest time for which the machine, or who speaks with it, did not run, in words.

        None where none was as long as a bound in time inside the machine allows for.
        """
        if self.suspended_ms * 1e6 >= LONG_NS:
            return f"host suspended for {self.suspended_ms:.0f} ms"
        found = self.longest(self.begin, self.end)
        if found and found[2] - found[1] >= LONG_NS:
            return self.said(found)
        waits = ((ms, t, name) for t, each in self.samples for name, ms in each.items())
        ms, t, name = max((w for w in waits if w[2].startswith("CPU ")), default=(0.0, 0, ""))
        if ms * 1e6 < LONG_NS:
            return None
        return self.said((f"thread {name} of QEMU", t - int(ms * 1e6), t))

    def said(self, found: tuple[str, int, int]) -> str:
        """A stretch in words, with its time from the trial's start."""
        who, begin, end = found
        when = f"at +{(begin - self.begin) / 1e9:.1f} s"
        if who == "suspended":
            return f"host suspended {when}"
        return f"{who} not run for {(end - begin) / 1e6:.0f} ms {when}"


class Sample(Strict):
    """A line of host.jsonl, as common/host/sampling/sampler.py writes it."""

    t: Stamp
    waits: dict[Text, Annotated[float, Field(ge=0)]]
    pressure_us: Count | None
    steal_ms: float
    suspended_ns: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)]
    echoes: Count


_SAMPLES = TypeAdapter(list[Sample])


def read_host(folder: Path, seen: Mapping[str, tuple[Stretch, ...]]) -> HostLog | None:
    """What a trial's folder has; None where nothing was measured. Raises ValueError, OSError.

    `seen` is what common/record/host/away.py reads there.
    """
    path = folder / "host.jsonl"
    rows = read_rows(path, _SAMPLES) if path.exists() else []
    if not rows:
        return None
    in_order(path.name, [row.t for row in rows])
    in_order(path.name, [row.echoes for row in rows])
    first, last = rows[0], rows[-1]
    away = {
        who: tuple((a, b) for a, b in stretches if b - a >= SHORTEST_NS)
        for who, stretches in seen.items()
    }
    away["suspended"] = tuple(
        (a.t, b.t) for a, b in pairwise(rows) if b.suspended_ns - a.suspended_ns > _JUMP_NS
    )
    before, after = first.pressure_us, last.pressure_us
    return HostLog(
        begin=first.t,
        end=last.t,
        away={who: stretches for who, stretches in away.items() if stretches},
        samples=tuple((row.t, row.waits) for row in rows if row.waits),
        pressure_ms=None if before is None or after is None else round((after - before) / 1000, 1),
        steal_ms=round(last.steal_ms - first.steal_ms, 1),
        suspended_ms=round((last.suspended_ns - first.suspended_ns) / 1e6, 1),
        echoes=last.echoes,
    )
