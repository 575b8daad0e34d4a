# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.report.charts.dma OUT.svg TRIAL...`: frames against time, a panel per trial.

Each panel shows how many frames were sent (line) and how many were seen in the machine's RAM
(bars) in each slice of time; the gap, from "Starting new kernel" to the first line of the
incoming kernel's userspace, is shaded. Where a guest drives the device, two rows below show the
interrupts that the device raised, and the descriptors that the guest's driver gave back; the time
in which the guest stood still is shaded there. Drawn from the raw logs in the trials' folders.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

from common.dma.frames import read_landed, read_returned, read_sent
from common.errors import UsageError
from common.guest.lines import read_stood_still
from common.record import console, dialogue
from common.record.qemu.trace import INTERRUPTS, parse
from common.record.stored_file import read_stamped

_SVG = "http://www.w3.org/2000/svg"
_SLICE_NS = 50_000_000
_MARGIN_NS = 2_500_000_000
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _SPACE = 460, 170, 46, 44, 40, 30
_ROW_HEIGHT, _ROW_SPACE = 50, 34


@dataclass(frozen=True)
class Row:
    """Something else in the same slices of time, below."""

    title: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """Frames in slices of time, from `_MARGIN_NS` before the gap to as long after it."""

    title: str
    gap_ms: float
    sent: tuple[int, ...]
    landed: tuple[int, ...]
    rows: tuple[Row, ...] = ()
    still_ms: tuple[float, float] = (0.0, 0.0)
    """From when to when the guest stood still, from "Starting new kernel"."""


def panel(folder: Path) -> Panel:
    """The panel of a stored trial. Raises UsageError when it has no gap or no frames."""
    setting = json.loads((folder / "trial.json").read_text())
    kexecs = console.parse(read_stamped(folder / "console.jsonl")).kexecs
    sides = dialogue.parse(read_stamped(folder / "dialogue.jsonl"))
    after = next((side for side in sides if side.name == "incoming"), None)
    if not kexecs or after is None or not (folder / "device-landed.bin").exists():
        raise UsageError(f"{folder}: this trial has no gap, or no frames")
    _, resumed = read_stood_still(folder)
    begin, end = kexecs[0] - _MARGIN_NS, max(after.started, resumed or 0) + _MARGIN_NS
    landed = sorted(landing.seen for landing in read_landed(folder / "device-landed.bin"))
    return Panel(
        title=f"control {setting['control']}" if setting["control"] else setting["name"],
        gap_ms=(after.started - kexecs[0]) / 1e6,
        sent=_slices(read_sent(folder / "device-sent.bin"), begin, end),
        landed=_slices(landed, begin, end),
        rows=_rows(folder, setting["clock_offset_ns"], begin, end),
        still_ms=_still(folder, kexecs[0]),
    )


def _rows(folder: Path, clock_offset_ns: int, begin: int, end: int) -> tuple[Row, ...]:
    """What device and guest did, where a guest drives the device."""
    path = folder / "device-returned.bin"
    if not path.exists():
        return ()
    with (folder / "qemu-trace.log").open(errors="replace") as lines:
        events = parse(lines, clock_offset_ns=clock_offset_ns)
        raised = sorted(event.t for event in events if event.name in INTERRUPTS)
    had, returned = 0, []
    for t, count in read_returned(path):
        returned += [t] * (count - had)
        had = count
    return (
        Row("interrupts that the NIC raised", _slices(raised, begin, end)),
        Row("descriptors given back by the guest's driver", _slices(returned, begin, end)),
    )


def _still(folder: Path, zero: int) -> tuple[float, float]:
    stopped, resumed = read_stood_still(folder)
    if stopped is None or resumed is None:
        return 0.0, 0.0
    return (stopped - zero) / 1e6, (resumed - zero) / 1e6


def _slices(times: Sequence[int], begin: int, end: int) -> tuple[int, ...]:
    edges = [bisect_left(times, t) for t in range(begin, end, _SLICE_NS)]
    return tuple(b - a for a, b in pairwise(edges))


def draw(panels: Sequence[Panel]) -> str:
    """The picture as SVG text."""
    ET.register_namespace("", _SVG)
    width = _LEFT + len(panels) * (_WIDTH + _SPACE)
    rows = max((len(one.rows) for one in panels), default=0)
    height = _TOP + _HEIGHT + _BOTTOM + rows * (_ROW_HEIGHT + _ROW_SPACE)
    root = ET.Element(
        f"{{{_SVG}}}svg",
        {"viewBox": f"0 0 {width} {height}", "width": str(width), "height": str(height)},
    )
    _add(root, "rect", width=width, height=height, fill="#ffffff")
    top = max((n for p in panels for n in (*p.sent, *p.landed)), default=1) or 1
    for number, one in enumerate(panels):
        _draw_panel(root, one, x=_LEFT + number * (_WIDTH + _SPACE), top=top)
    ET.indent(root)
    return "<!-- SPDX-License-Identifier: GPL-2.0-only -->\n" + ET.tostring(
        root, encoding="unicode"
    )


def _draw_panel(root: ET.Element, one: Panel, *, x: float, top: int) -> None:
    """Time runs from left to right, 0 at "Starting new kernel"; up are frames in a slice."""
    scale = _WIDTH / max(1, len(one.sent)) / (_SLICE_NS / 1e6)
    zero = x + _MARGIN_NS / 1e6 * scale
    base, step = _TOP + _HEIGHT, _WIDTH / max(1, len(one.sent))
    gap = {"x": zero, "y": _TOP, "width": one.gap_ms * scale, "height": _HEIGHT}
    _add(root, "rect", **gap, fill="#f3e3c3")
    for place, count in enumerate(one.landed):
        size = _HEIGHT * count / top
        box = {"x": x + place * step, "y": base - size, "width": step * 0.9, "height": size}
        _add(root, "rect", **box, fill="#2b6cb0")
    points = " ".join(
        f"{x + (place + 0.5) * step:.1f},{base - _HEIGHT * count / top:.1f}"
        for place, count in enumerate(one.sent)
    )
    _add(root, "polyline", points=points, fill="none", stroke="#c05621", stroke_width=1)
    _add(root, "line", x1=x, y1=base, x2=x + _WIDTH, y2=base, stroke="#333333")
    _text(root, one.title, x=x, y=18, size=14)
    legend = f"bars: seen in RAM, line: sent; per {_SLICE_NS // 1_000_000} ms"
    _text(root, legend, x=x, y=34, size=10)
    _text(root, f"gap {one.gap_ms:.0f} ms", x=zero + 4, y=_TOP + 12, size=10)
    seconds = -int(_MARGIN_NS / 1e9)
    while (at := zero + seconds * 1000 * scale) <= x + _WIDTH:
        _text(root, f"{seconds} s", x=at, y=base + 14, size=10)
        seconds += 1
    _text(root, "from “Starting new kernel”", x=x, y=base + 30, size=10)
    for number, row in enumerate(one.rows, start=1):
        below = base + _BOTTOM + number * (_ROW_HEIGHT + _ROW_SPACE) - _ROW_SPACE
        begin, end = one.still_ms
        still = {"x": zero + begin * scale, "y": below - _ROW_HEIGHT, "height": _ROW_HEIGHT}
        _add(root, "rect", **still, width=(end - begin) * scale, fill="#e2e8f0")
        _draw_row(root, row, x=x, step=step, base=below)
        if number == 1 and end > begin:
            _text(root, "guest stands still", x=still["x"] + 4, y=below - _ROW_HEIGHT - 3, size=10)


def _draw_row(root: ET.Element, row: Row, *, x: float, step: float, base: float) -> None:
    """Its own scale: the highest bar is as high as the row."""
    top = max(row.counts, default=0) or 1
    for place, count in enumerate(row.counts):
        size = _ROW_HEIGHT * count / top
        box = {"x": x + place * step, "y": base - size, "width": step * 0.9, "height": size}
        _add(root, "rect", **box, fill="#2f855a")
    _add(root, "line", x1=x, y1=base, x2=x + _WIDTH, y2=base, stroke="#333333")
    _text(root, f"{row.title}; highest bar: {top}", x=x, y=base + 13, size=10)


def _add(root: ET.Element, tag: str, **attributes: object) -> ET.Element:
    texts = {
        name.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    return ET.SubElement(root, f"{{{_SVG}}}{tag}", texts)


def _text(root: ET.Element, words: str, *, x: float, y: float, size: int) -> None:
    _add(root, "text", x=x, y=y, font_size=size, font_family="sans-serif").text = words


def main() -> None:
    """Draw the trials given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("trials", type=Path, nargs="+", help="folders of trials")
    arguments = parser.parse_args()
    arguments.target.write_text(draw([panel(folder) for folder in arguments.trials]) + "\n")


if __name__ == "__main__":
    main()
