# SPDX-License-Identifier: GPL-2.0-only
"""What the pictures made of bars share: the sheet, words on it, its text. Pure."""

from __future__ import annotations

from xml.etree import ElementTree as ET


def sheet(width: int, height: int) -> ET.Element:
    """An empty white picture; sizes are in its own units."""
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    ET.SubElement(svg, "rect", width="100%", height="100%", fill="white")
    return svg


def write(
    parent: ET.Element, x: float, y: float, text: str, *, anchor: str = "start", size: str = "12"
) -> None:
    """Words with their base line at y; `anchor` (start, end) is what of them stands at x."""
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": size}
    ET.SubElement(parent, "text", attributes, fill="#222").text = text


def text_of(svg: ET.Element) -> str:
    """The picture as a file's content."""
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"
