# SPDX-License-Identifier: GPL-2.0-only
"""What bench --ways makes of its measurements."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from bench.ways_table import Crossing, read_crossings, slopes, table, ways_svg
from common.errors import UsageError

SETUP = "7.3.4-luo-out to 7.3.4-luo-in, QEMU 10.0.2, tcg"


def crossing(way: str, size: int, number: int, ms: float) -> Crossing:
    name = {"a": "live update", "b": "disk"}[way]
    return Crossing(
        setup=SETUP,
        way=way,
        name=name,
        size_mib=size,
        number=number,
        blackout_ms=ms,
        bytes_moved=52_000 if way == "a" else size << 20,
        extra_kb=2048 * (number + 1),
    )


FOUND = [
    crossing(way, size, number, base + size / 1024 * per_gib + number)
    for size in (1024, 4096)
    for number in range(3)
    for way, base, per_gib in (("a", 2000, 100), ("b", 3000, 6000))
]


def test_a_row_has_the_median_its_ratio_and_the_most_memory() -> None:
    rows = [" ".join(line.split()) for line in table(FOUND).splitlines()]
    assert "1024 MiB a live update 3 2100 2101 2102 1.00 52000 6.0" in rows
    assert "1024 MiB b disk 3 9000 9001 9002 4.28 1073741824 6.0" in rows
    assert "4096 MiB b disk 3 27000 27001 27002 11.25 4294967296 6.0" in rows


def test_the_slope_is_what_a_gib_more_costs() -> None:
    rows = [" ".join(line.split()) for line in slopes(FOUND).splitlines()]
    assert rows[0] == "way ms per GiB, 1024 to 4096 MiB"
    assert rows[2:] == ["a live update 100", "b disk 6000"]
    assert slopes(FOUND[:6]) == "one size: no slope"


def test_the_picture_has_a_bar_for_each_way_and_size() -> None:
    svg = ET.fromstring(ways_svg(FOUND, title="<title>"))
    bars = [e for e in svg if e.tag.endswith("rect") and e.get("height") == "14"]
    widths = [float(bar.get("width", "")) for bar in bars]
    assert len(bars) == 4
    assert widths[1] / widths[0] == pytest.approx(9001 / 2101, rel=1e-2)


def test_results_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "ways.jsonl"
    assert read_crossings(path, SETUP) == []
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in FOUND))
    assert read_crossings(path, SETUP) == FOUND


def test_results_of_other_kernels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ways.jsonl"
    path.write_text(FOUND[0].model_dump_json() + "\n")
    with pytest.raises(UsageError, match=r"is of 7\.3\.4.*, not of another: name another file"):
        read_crossings(path, "another")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ways.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UsageError, match="holds something else"):
        read_crossings(path, SETUP)
