# SPDX-License-Identifier: GPL-2.0-only
"""Each patch of a series is in its README's table of what shows it, by checks and controls."""

from __future__ import annotations

import re

import pytest

from common.paths import CHECKOUT
from common.stage.loading import load_stage
from common.stage.series_folder import series_patches

SERIES = {2: "02_vfio_noiommu", 3: "03_iommufd"}


@pytest.mark.parametrize("number", SERIES)
def test_every_patch_is_in_the_table(number: int) -> None:
    folder = CHECKOUT / "kernel" / "series" / SERIES[number]
    text = (folder / "README.md").read_text()
    table = text.partition("## Evidence that each patch is needed")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if re.match(r"\| \d{4}", line)]
    named = [name for row in rows for name in re.findall(r"\d{4}", row.split("|")[1])]
    assert named == [patch.name[:4] for patch in series_patches(folder)]
    controls = {control.name for control in load_stage(number).controls}
    for row in rows:
        cell = row.split("|")[2].partition(" (")[0].partition("; mutants")[0].partition(", by ")[0]
        for name in (one.strip() for one in cell.split(",")):
            assert name in controls or name == "-", row
