# SPDX-License-Identifier: GPL-2.0-only
"""Asking for disk space before it is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

from kernel.errors import DiskFull

# Measured on 7.3.4 with room to spare: the package is 166 MB twice (.deb and .tar.xz) beside
# 1.8 GB of source; a build folder has 110 to 210 MB, an entry 30 MB; ccache gets about 50 MB.
FETCH_BYTES = 2_400_000_000
LINKED_TREE_BYTES = 100_000_000
BUILD_BYTES = 600_000_000


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Nothing when `needed` bytes are free where `folder` is (or will be); else DiskFull."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFull(
            f"{purpose} needs about {needed / 1e9:.1f} GB below {folder}, which has "
            f"{free / 1e9:.1f} GB free; `kernel prune` or KEXEC_STAGES_CACHE=DIR makes room"
        )
