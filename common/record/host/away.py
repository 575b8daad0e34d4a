# SPDX-License-Identifier: GPL-2.0-only
"""When the host did not run us: stretches of time in which one of our processes did not run.

Each of them notes its own, so that what was seen late can be told from what happened late:

    away-WHO.jsonl    [begin, end] for each stretch, both in ns of the host's CLOCK_MONOTONIC

WHO is "host" (the sampler's own tick), "qemu" (its main loop served nothing), "sender",
"watcher" or "harness". A stretch shorter than `LATE_NS` is none.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from pydantic import TypeAdapter

from common.record.stored_file import Stamp, read_rows

LATE_NS = 5_000_000
GRAIN_NS = 10_000_000
"""An echo through QEMU is sent every 5 ms, and may take as long before it counts as late."""
Stretch = tuple[int, int]
"""Begin and end, in ns."""
_STRETCHES = TypeAdapter(list[tuple[Stamp, Stamp]])


class AwayLog:
    """Writes one process's stretches; `tick` is to be called at least every millisecond or two."""

    def __init__(self, folder: Path, who: str, *, late_ns: int = LATE_NS) -> None:
        self._file = (folder / f"away-{who}.jsonl").open("w", buffering=1)
        self._late, self._last = late_ns, time.monotonic_ns()

    def tick(self) -> int:
        """Note that this process runs; the time, in ns."""
        now = time.monotonic_ns()
        self.note(self._last, now)
        self._last = now
        return now

    def note(self, begin: int, end: int) -> None:
        """A stretch, where it is long enough to be one."""
        if end - begin > self._late:
            self._file.write(f"[{begin}, {end}]\n")

    def close(self) -> None:
        """What was noted is on disk afterwards."""
        self._file.close()


def read_away(folder: Path) -> dict[str, tuple[Stretch, ...]]:
    """Process ("qemu", "sender" and so on) -> its stretches (begin, end) in ns of CLOCK_MONOTONIC.

    In the order of time, none overlaps another. Raises ValueError on damaged lines.
    """
    found = {}
    for path in sorted(folder.glob("away-*.jsonl")):
        rows = read_rows(path, _STRETCHES)
        if any(begin >= end for begin, end in rows):
            raise ValueError(f"{path.name} has a stretch that is none")
        found[path.stem.removeprefix("away-")] = tuple(_joined(sorted(rows)))
    return found


def _joined(rows: Iterable[Sequence[int]]) -> Iterator[Stretch]:
    """Stretches that overlap are one: each echo that was under way says the same."""
    begin = end = 0
    for a, b in rows:
        if a <= end:
            end = max(end, b)
            continue
        if end:
            yield begin, end
        begin, end = a, b
    if end:
        yield begin, end


def unproved(away: Mapping[str, Sequence[Stretch]]) -> dict[str, tuple[Stretch, ...]]:
    """The same, where nobody shows that QEMU ran while the sampler, which would see it, did not."""
    both = sorted([*away.get("qemu", ()), *away.get("host", ())])
    return {who: tuple(found) for who, found in away.items()} | {"qemu": tuple(_joined(both))}


def settled(t: int, away: Mapping[str, Sequence[Stretch]], path: Iterable[str]) -> int:
    """When what began at `t` (ns) was through all of `path`.

    Each of them is passed when the stretch ends in which it was away, one at most; it may begin
    `GRAIN_NS` later, for so long nobody knows that it had its turn.
    """
    for who in path:
        stretches = away.get(who, ())
        # They follow each other: the first that ends later is the only one.
        at = bisect_right(stretches, t, key=itemgetter(1))
        if at < len(stretches) and stretches[at][0] - GRAIN_NS <= t:
            t = stretches[at][1]
    return t


def any_of(away: Mapping[str, Sequence[Stretch]], who: Iterable[str]) -> list[Stretch]:
    """The stretches in which at least one of `who` was away."""
    return list(_joined(sorted(stretch for name in who for stretch in away.get(name, ()))))


def time_of(stretches: Sequence[Stretch], begin: int, end: int) -> int:
    """How much of the time between two times (ns) lies in `stretches`, which do not overlap."""
    at, total = bisect_right(stretches, begin, key=itemgetter(1)), 0
    while at < len(stretches) and stretches[at][0] < end:
        total += min(stretches[at][1], end) - max(stretches[at][0], begin)
        at += 1
    return total


def longest(
    away: Mapping[str, Sequence[Stretch]], begin: int, end: int, who: Iterable[str] | None = None
) -> tuple[str, int, int] | None:
    """The longest stretch between two times: (process, begin, end), times in ns; None for none."""
    inside = [
        (name, max(a, begin), min(b, end))
        for name, stretches in away.items()
        if who is None or name in who
        for a, b in stretches
        if a < end and b > begin
    ]
    return max(inside, key=lambda found: found[2] - found[1], default=None)
