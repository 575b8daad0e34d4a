# SPDX-License-Identifier: GPL-2.0-only
"""What the READMEs say of the length of a series is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.paths import CHECKOUT

SERIES = CHECKOUT / "kernel" / "series"
LENGTHS = {
    folder.name: len([*folder.glob("[0-9]*.patch")]) - 1  # the cover letter
    for folder in SERIES.iterdir()
    if folder.is_dir()
}
# Where it stands, the words around the number, and of which series they are.
SAID = [
    ("README.md", r"\[series of (\d+) patches\]", ("02_vfio_noiommu",)),
    ("README.md", r"\[(\d+)\s+fixes\]", ("01_liveupdate_fixes",)),
    ("README.md", r"Needs \[(\d+) more\s+patches\]", ("03_iommufd",)),
    ("stages/02_vfio_noiommu/README.md", r": (\d+) patches for Linux", ("02_vfio_noiommu",)),
    ("stages/02_vfio_noiommu/README.md", r"on top of the (\d+)", ("01_liveupdate_fixes",)),
    ("stages/03_iommufd/README.md", r"\b(\d+) patches\b", tuple(LENGTHS)),
    (
        "kernel/series/01_liveupdate_fixes/README.md",
        r"(?m)^(\d+) patches",
        ("01_liveupdate_fixes",),
    ),
    ("kernel/series/02_vfio_noiommu/README.md", r"on top of the (\d+)", ("01_liveupdate_fixes",)),
    ("kernel/series/03_iommufd/README.md", r"on top of the (\d+)", ("02_vfio_noiommu",)),
    ("kernel/series/02_vfio_noiommu/README.md", r"(?m)^(\d+) patches for", ("02_vfio_noiommu",)),
    ("kernel/series/03_iommufd/README.md", r"(?m)^(\d+) patches", ("03_iommufd",)),
]


@pytest.mark.parametrize(("page", "words", "series"), SAID)
def test_a_page_counts_the_patches(page: str, words: str, series: tuple[str, ...]) -> None:
    found = re.findall(words, Path(CHECKOUT / page).read_text())
    assert found == [str(sum(LENGTHS[name] for name in series))]


@pytest.mark.parametrize("name", LENGTHS)
def test_a_readme_applies_all_of_them(name: str) -> None:
    pages = (SERIES / other / "README.md" for other in LENGTHS)
    last = {n for page in pages for n in re.findall(rf"{name}/00{{01\.\.(\d+)}}", page.read_text())}
    assert last == {str(LENGTHS[name])}
