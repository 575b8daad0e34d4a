# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.report.charts.slices OUT.svg TRIAL...`: counts in time, a panel per trial.

Of a device, each panel shows how many frames were sent (line) and how many were seen in the
machine's RAM (bars) in each slice of time; the gap, from "Starting new kernel" to the first line
of the incoming kernel's userspace, is shaded. Where a guest drives the device, two rows below show
the interrupts that the device raised, and the descriptors that the guest's driver gave back; the
time in which the guest stood still is shaded there. What is drawn is for the trial's stage to say,
from the raw logs in its folder (Section.panel).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from common.errors import UsageError
from common.record.raw import read_setting
from common.stage.declaration import Stage
from common.stage.loading import load_stage
from common.stage.section import MARGIN_NS, SLICE_NS, Panel, Row

_SVG = "http://www.w3.org/2000/svg"
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _SPACE = 460, 170, 46, 44, 40, 30
_ROW_HEIGHT, _ROW_SPACE = 50, 34


def panel(stage: Stage, folder: Path) -> Panel | None:
    """The first picture that the stage has of a stored trial; None where it has none."""
    found = (section.panel(folder) for section in stage.sections)
    return next((one for one in found if one), None)


def _panel_of(folder: Path) -> Panel:
    setting = read_setting(folder)
    found = panel(load_stage(setting.stage, setting.workload), folder)
    if found is None:
        raise UsageError(f"{folder}: this trial has no gap, or no frames")
    return found


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
    top = max((n for p in panels for n in (*p.line, *p.bars)), default=1) or 1
    for number, one in enumerate(panels):
        _draw_panel(root, one, x=_LEFT + number * (_WIDTH + _SPACE), top=top)
    ET.indent(root)
    return "<!-- SPDX-License-Identifier: GPL-2.0-only -->\n" + ET.tostring(
        root, encoding="unicode"
    )


def _draw_panel(root: ET.Element, one: Panel, *, x: float, top: int) -> None:
    """Time runs from left to right, 0 at "Starting new kernel"; up are counts in a slice."""
    scale = _WIDTH / max(1, len(one.line)) / (SLICE_NS / 1e6)
    zero = x + MARGIN_NS / 1e6 * scale
    base, step = _TOP + _HEIGHT, _WIDTH / max(1, len(one.line))
    gap = {"x": zero, "y": _TOP, "width": one.gap_ms * scale, "height": _HEIGHT}
    _add(root, "rect", **gap, fill="#f3e3c3")
    for place, count in enumerate(one.bars):
        size = _HEIGHT * count / top
        box = {"x": x + place * step, "y": base - size, "width": step * 0.9, "height": size}
        _add(root, "rect", **box, fill="#2b6cb0")
    points = " ".join(
        f"{x + (place + 0.5) * step:.1f},{base - _HEIGHT * count / top:.1f}"
        for place, count in enumerate(one.line)
    )
    _add(root, "polyline", points=points, fill="none", stroke="#c05621", stroke_width=1)
    _add(root, "line", x1=x, y1=base, x2=x + _WIDTH, y2=base, stroke="#333333")
    _text(root, one.title, x=x, y=18, size=14)
    legend = f"{one.legend}; per {SLICE_NS // 1_000_000} ms"
    _text(root, legend, x=x, y=34, size=10)
    _text(root, f"gap {one.gap_ms:.0f} ms", x=zero + 4, y=_TOP + 12, size=10)
    seconds = -int(MARGIN_NS / 1e9)
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
            _text(root, "guest paused", x=still["x"] + 4, y=below - _ROW_HEIGHT - 3, size=10)


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
    arguments.target.write_text(draw([_panel_of(folder) for folder in arguments.trials]) + "\n")


if __name__ == "__main__":
    main()
