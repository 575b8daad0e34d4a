# SPDX-License-Identifier: GPL-2.0-only
"""Figures of repeated trials: n, min, median, p90, max per phase. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tabulate import tabulate


def p90(values: Sequence[float]) -> float:
    """The smallest value that at least nine tenths of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[-(-9 * len(ordered) // 10) - 1]


HEADERS = ("phase (ms)", "n", "min", "median", "p90", "max")


def phase_rows(trials: Sequence[dict[str, float]]) -> list[tuple[str, ...]]:
    """Rows under HEADERS; phases in the order of the first trial that has them."""
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    rows = []
    for name in names:
        values = [trial[name] for trial in trials if name in trial]
        figures = (min(values), statistics.median(values), p90(values), max(values))
        rows.append((name, str(len(values)), *(f"{figure:.1f}" for figure in figures)))
    return rows


def phase_table(trials: Sequence[dict[str, float]]) -> str:
    """The rows as a table in plain text."""
    align = ("left", *["right"] * 5)
    return tabulate(phase_rows(trials), headers=HEADERS, disable_numparse=True, colalign=align)
