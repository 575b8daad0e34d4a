# SPDX-License-Identifier: GPL-2.0-only
"""A sweep of damaged records in words: what the next kernel did at each point. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from common.suites.damage.verdict import Status, Verdict

STATUSES: tuple[Status, ...] = ("REFUSED", "TAKEN OVER", "VIOLATION")
_LONGEST = 110


def summary(verdicts: Sequence[Verdict]) -> str:
    """A row for each record: its points, and what became of them."""
    records = dict.fromkeys(_record(verdict) for verdict in verdicts)
    rows = [_row(name, [v for v in verdicts if _record(v) == name]) for name in records]
    return tabulate(
        [*rows, _row("all", verdicts)],
        headers=("record", "points", "refused", "taken over", "violations", "with a warning"),
    )


def lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """A line for each point."""
    for verdict in verdicts:
        yield line(verdict)


def line(verdict: Verdict) -> str:
    """Point, verdict, and why."""
    warned = f" [warned: {verdict.warned}]" if verdict.warned else ""
    why = verdict.why if len(verdict.why) <= _LONGEST else verdict.why[: _LONGEST - 1] + "…"
    return f"{verdict.status:10}  {verdict.point:34}  {why}{warned}"


def _record(verdict: Verdict) -> str:
    name = verdict.point.partition(".")[0]
    return "tree" if name.startswith(("node", "page-")) else name


def _row(name: str, verdicts: Sequence[Verdict]) -> list[object]:
    counts = [sum(v.status == status for v in verdicts) or "-" for status in STATUSES]
    warned = sum(v.warned is not None for v in verdicts) or "-"
    return [name, len(verdicts), *counts, warned]
