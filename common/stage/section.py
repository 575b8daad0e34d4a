# SPDX-License-Identifier: GPL-2.0-only
"""What a stage reports in addition to the common parts: rows of the mail, a line, a chart.

So mail and page know no device. Pure but for `Section.panel`, which reads a trial's raw files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.record.evidence import Trial

SLICE_NS = 50_000_000
"""How long a slice of a panel's time is."""
MARGIN_NS = 2_500_000_000
"""A panel begins so long before the gap."""


@dataclass(frozen=True)
class Row:
    """Something else in the same slices of time, below."""

    title: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """Two counts in slices of time, from `MARGIN_NS` before the gap on; of one trial."""

    title: str
    legend: str
    gap_ms: float
    line: tuple[int, ...]
    bars: tuple[int, ...]
    rows: tuple[Row, ...] = ()
    still_ms: tuple[float, float] = (0.0, 0.0)
    """From when to when the guest stood still, from "Starting new kernel"."""
    silent: bool = False
    """Nothing new is in the gap's bars: what the main run's picture is to be held against."""


def _no_line(_trials: Sequence[Trial], _passed: Collection[str]) -> str:
    return ""


def _no_panel(_folder: Path) -> Panel | None:
    return None


@dataclass(frozen=True)
class Section:
    """A part of the reports of such stages."""

    title: str
    rows: Callable[[Trial, Sequence[str]], Sequence[tuple[str, str]]]
    """Name and words of each row, from a trial and its console's messages. A row without a name is
    a line that was quoted; without rows there was nothing."""
    line: Callable[[Sequence[Trial], Collection[str]], str] = _no_line
    """All main runs in one line of the mail, from them and the checks that passed in each; "" for
    nothing."""
    panel: Callable[[Path], Panel | None] = _no_panel
    """The picture of a stored trial; None where it has none. Raises OSError, ValueError."""
