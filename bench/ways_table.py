# SPDX-License-Identifier: GPL-2.0-only
"""The measurements of each way across as table, slopes and chart. Pure, except for the file."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree as ET

from pydantic import ValidationError
from tabulate import tabulate

from common.errors import UsageError
from common.record.dialogue import Stored
from common.report.charts.svg import sheet, text_of, write

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 760, 160, 150, 22, 44
_BAR, _SPREAD = "#3b6ea5", "#1d3753"


class Crossing(Stored):
    """One guest that crossed; `setup` says with which kernels, QEMU and accelerator."""

    setup: str
    way: str
    name: str
    size_mib: int
    number: int
    blackout_ms: float
    bytes_moved: int
    extra_kb: int

    def is_(self, size_mib: int, way: str, number: int) -> bool:
        """True when it is that measurement."""
        return (self.size_mib, self.way, self.number) == (size_mib, way, number)

    def __str__(self) -> str:
        return (
            f"{self.size_mib} MiB, {self.number}, {self.way} {self.name}:"
            f" {self.blackout_ms:.0f} ms, {self.bytes_moved} bytes, {self.extra_kb >> 10} MiB more"
        )


def read_crossings(path: Path, setup: str) -> list[Crossing]:
    """What an earlier call has measured; none where there is no file yet. Raises UsageError."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    try:
        found = [Crossing.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise UsageError(f"{path} holds something else than results of bench --ways") from error
    for one in found:
        if one.setup != setup:
            raise UsageError(f"{path} is of {one.setup}, not of {setup}: name another file")
    return found


def _groups(found: Sequence[Crossing]) -> Iterator[tuple[int, str, list[Crossing]]]:
    """Size, way and name, and what was measured of it; sizes in order, ways as measured."""
    ways = list(dict.fromkeys(one.way for one in found))
    ordered = sorted(found, key=lambda one: (one.size_mib, ways.index(one.way)))
    for (size, way), ones in groupby(ordered, key=lambda one: (one.size_mib, one.way)):
        crossings = list(ones)
        yield size, f"{way:2} {crossings[0].name}", crossings


def _median(crossings: Sequence[Crossing]) -> float:
    return statistics.median(one.blackout_ms for one in crossings)


def table(found: Sequence[Crossing]) -> str:
    """A row for each size and way: blackout in ms, its ratio to the first way's, bytes, memory."""
    rows, first = [], 1.0
    size_before = None
    for size, name, crossings in _groups(found):
        times = [one.blackout_ms for one in crossings]
        if size != size_before:
            first, size_before = _median(crossings), size
        rows.append(
            [
                f"{size} MiB",
                name,
                len(times),
                *(f"{ms:.0f}" for ms in (min(times), statistics.median(times), max(times))),
                f"{statistics.median(times) / first:.2f}",
                statistics.median_high(one.bytes_moved for one in crossings),
                f"{max(one.extra_kb for one in crossings) / 1024:.1f}",
            ]
        )
    headers = ["guest", "way", "n", "min", "median", "max ms", "to a", "bytes moved", "more MiB"]
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=_ALIGN)


_ALIGN = ("right", "left", *["right"] * 7)


def slopes(found: Sequence[Crossing]) -> str:
    """What a GiB more costs, from the medians at the smallest and at the largest guest."""
    medians: dict[str, dict[int, float]] = {}
    for size, name, crossings in _groups(found):
        medians.setdefault(name, {})[size] = _median(crossings)
    rows = [
        [name, f"{(by[max(by)] - by[min(by)]) / ((max(by) - min(by)) / 1024):.0f}"]
        for name, by in medians.items()
        if len(by) > 1
    ]
    sizes = [one.size_mib for one in found]
    if not rows:
        return "one size: no slope"
    return tabulate(rows, headers=["way", f"ms per GiB, {min(sizes)} to {max(sizes)} MiB"])


def ways_svg(found: Sequence[Crossing], *, title: str) -> str:
    """A bar for each size and way, as long as its median blackout; the line is minimum to maximum.

    Each size has a scale of its own: what is compared is the ways.
    """
    groups = list(_groups(found))
    sizes = list(dict.fromkeys(size for size, _, _ in groups))
    height = _TOP + _ROW * (len(groups) + 2 * len(sizes))
    svg = sheet(_WIDTH, height)
    write(svg, 10, 22, title)
    y = _TOP
    for size in sizes:
        of_size = [group for group in groups if group[0] == size]
        longest = max(one.blackout_ms for *_, ones in of_size for one in ones)
        scale = (_WIDTH - _LEFT - _RIGHT) / longest
        write(svg, 10, y + 14, f"guest of {size} MiB")
        y += _ROW
        for _, name, ones in of_size:
            _bar(svg, y, name, [one.blackout_ms for one in ones], scale)
            y += _ROW
        y += _ROW
    return text_of(svg)


def _bar(svg: ET.Element, y: int, name: str, times: Sequence[float], scale: float) -> None:
    median = statistics.median(times)
    bar = {"x": str(_LEFT), "y": str(y), "width": f"{median * scale:.1f}", "height": "14"}
    ET.SubElement(svg, "rect", bar, fill=_BAR)
    ends = {"x1": f"{_LEFT + min(times) * scale:.1f}", "x2": f"{_LEFT + max(times) * scale:.1f}"}
    ET.SubElement(svg, "line", {**ends, "y1": str(y + 7), "y2": str(y + 7)}, stroke=_SPREAD)
    write(svg, 20, y + 11, name)
    write(svg, _LEFT + max(times) * scale + 6, y + 11, f"{median:.0f} ms (n = {len(times)})")
