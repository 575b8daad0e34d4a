# SPDX-License-Identifier: GPL-2.0-only
"""A picture of the blackout: its phases, one after the other, to scale. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree as ET

from common.report.charts.svg import sheet, text_of, write

_WIDTH, _LEFT, _ROW, _TOP = 760, 150, 24, 46
_WORK, _PROOF = "#3b6ea5", "#b9c7d6"


def timeline_svg(phases: Mapping[str, float], *, title: str) -> str:
    """An SVG with one bar for each phase (name -> ms, in their order in time).

    Phases whose name contains "(proof)" exist only for the demonstration and are pale.
    """
    total = sum(phases.values()) or 1.0
    scale = (_WIDTH - _LEFT - 90) / total
    height = _TOP + _ROW * len(phases) + 34
    svg = sheet(_WIDTH, height)
    write(svg, 10, 22, title, size="14")
    at = 0.0
    for row, (name, ms) in enumerate(phases.items()):
        y = _TOP + row * _ROW
        x, width = _LEFT + at * scale, max(1.0, ms * scale)
        colour = _PROOF if "(proof)" in name else _WORK
        bar = {"x": f"{x:.1f}", "y": str(y), "width": f"{width:.1f}", "height": "16"}
        ET.SubElement(svg, "rect", bar, fill=colour)
        write(svg, _LEFT - 8, y + 12, name, anchor="end")
        write(svg, x + width + 5, y + 12, f"{ms:.0f} ms")
        at += ms
    write(svg, _LEFT, height - 12, f"in all {total:.0f} ms; pale: only for the proof")
    return text_of(svg)
