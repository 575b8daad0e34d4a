# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common.frame_picture OUT.svg TRIAL...`: frames against time, a panel per trial.

Each panel shows how many frames were sent (line) and how many were seen in the machine's RAM
(bars) in each slice of time; the gap, from "Starting new kernel" to the first line of the
incoming kernel's userspace, is shaded. Drawn from the raw logs in the trials' folders.
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

from common import console, dialogue
from common.errors import UsageError
from common.frames import read_landed, read_sent
from common.stored_file import read_stamped

_SVG = "http://www.w3.org/2000/svg"
_SLICE_NS = 50_000_000
_MARGIN_NS = 2_500_000_000
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _SPACE = 460, 170, 46, 44, 40, 30


@dataclass(frozen=True)
class Panel:
    """Frames in slices of time, from `_MARGIN_NS` before the gap to as long after it."""

    title: str
    gap_ms: float
    sent: tuple[int, ...]
    landed: tuple[int, ...]


def panel(folder: Path) -> Panel:
    """The panel of a stored trial. Raises UsageError when it has no gap or no frames."""
    setting = json.loads((folder / "trial.json").read_text())
    jumps = console.parse(read_stamped(folder / "console.jsonl")).jumps
    sides = dialogue.parse(read_stamped(folder / "dialogue.jsonl"))
    after = next((side for side in sides if side.name == "incoming"), None)
    if not jumps or after is None or not (folder / "device-landed.bin").exists():
        raise UsageError(f"{folder}: this trial has no gap, or no frames")
    begin, end = jumps[0] - _MARGIN_NS, after.started + _MARGIN_NS
    landed = sorted(landing.seen for landing in read_landed(folder / "device-landed.bin"))
    return Panel(
        title=f"control {setting['control']}" if setting["control"] else setting["name"],
        gap_ms=(after.started - jumps[0]) / 1e6,
        sent=_slices(read_sent(folder / "device-sent.bin"), begin, end),
        landed=_slices(landed, begin, end),
    )


def _slices(times: Sequence[int], begin: int, end: int) -> tuple[int, ...]:
    edges = [bisect_left(times, t) for t in range(begin, end, _SLICE_NS)]
    return tuple(b - a for a, b in pairwise(edges))


def draw(panels: Sequence[Panel]) -> str:
    """The picture as SVG text."""
    ET.register_namespace("", _SVG)
    width = _LEFT + len(panels) * (_WIDTH + _SPACE)
    height = _TOP + _HEIGHT + _BOTTOM
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
