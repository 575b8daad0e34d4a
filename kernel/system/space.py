# SPDX-License-Identifier: GPL-2.0-only
"""Checks for disk space before it runs out."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.paths import cache_root
from kernel.errors import CacheError, DiskFull

FULL = "No space left on device"

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


@contextlib.contextmanager
def disk_errors_told() -> Iterator[None]:
    """The system's refusal to write to the cache becomes DiskFull or CacheError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the disk of {cache_root()} is full") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise CacheError(
                f"cannot write to the cache {cache_root()} ({error.filename}: {error.strerror}); "
                "set KEXEC_STAGES_CACHE to another folder"
            ) from error
        raise
