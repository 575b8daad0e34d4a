# SPDX-License-Identifier: GPL-2.0-only
"""A sweep in words: a row for each call, a line for each violation. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate

from common.checks.swept import KINDS
from common.suites.sweep.points import Sweep, Swept

_HEADERS = ("call", *KINDS, "went through", "errors", "for good", "violations")


def table(sweep: Sweep) -> str:
    """A row for each call: how often it was cut, what it gave, what was wrong after it."""
    for_good = sweep.failed_for_good
    rows = [_row(swept, for_good[swept.call.name]) for swept in sweep.calls]
    return tabulate(rows, headers=_HEADERS)


def _row(swept: Swept, for_good: int) -> list[object]:
    errors = ", ".join(f"{count} {name}" for name, count in sorted(swept.errors.items()))
    return [
        swept.call.name,
        *(sum(point.kind == kind for point in swept.points) for kind in KINDS),
        swept.tolerated,
        errors or "-",
        for_good or "-",
        len(swept.violations) or "-",
    ]


def violations(sweep: Sweep, stage: int) -> Iterator[str]:
    """One line for each, with what failed and the command that shows it again."""
    for one in sweep.violations:
        where = f" [{one.where}]" if one.where else ""
        again = f"  ({_again(one.point, stage)})" if one.point.count(":") == 2 else ""
        yield f"{one.point}{where}: {one.words}{again}"


def _again(point: str, stage: int) -> str:
    return f"./kexec-stages sweep {stage} --point {point}"


def uncut(sweep: Sweep, point: str | None = None) -> Iterator[str]:
    """The calls of which not every point was tried, or that have none, and why; then how many.

    Of one point, whether it is there.
    """
    if point:
        if not sweep.whole(point):
            yield f"{point}: nothing of its kind failed there"
        return
    found = {swept.call.name: swept for swept in sweep.calls}
    whole = 0
    for call in sweep.due.names:
        swept = found.get(call)
        if swept is None:
            yield f"{call}: the kernels did not come to it"
        elif swept.unexhausted:
            kinds = ", ".join(swept.unexhausted)
            yield f"{call}: not every point was tried ({kinds}), after {len(swept.points)} in all"
        elif not swept.points and swept.beyond:
            yield f"{call}: the first that fails [{swept.beyond}] lies where nothing can come back"
        elif not swept.points:
            yield f"{call}: nothing in it allocates, or copies from or to userspace"
        else:
            whole += 1
    yield f"{whole} of {len(sweep.due.names)} calls were cut at every point that they have"
