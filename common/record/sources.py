# SPDX-License-Identifier: GPL-2.0-only
"""The code that made a run: a digest of each group of this checkout's sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.paths import CHECKOUT

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "harness": ("common/**/*.py", "kernel/**/*.py", "kexec-stages"),
    "workload": (
        "common/workload/*/**/*",
        "stages/*/workload/*",
        "stages/*/qemu_workload/*",
    ),
    "stage": ("stages/*/*/*.py", "stages/*/*.config", "stages/*/faults/*"),
    "series": ("kernel/series/*/*", "kernel/configs/*"),
}


def digests(checkout: Path = CHECKOUT) -> dict[str, str]:
    """Group (a key of `_GROUPS`) -> SHA-256, in hex, of its files' names, sizes and contents."""
    return {group: _digest(checkout, patterns) for group, patterns in _GROUPS.items()}


def other_code(sources: Mapping[str, str]) -> tuple[str, ...]:
    """The groups that are not this checkout's own: what was made by other code, or is unknown."""
    own = digests()
    return tuple(group for group in own if sources.get(group) != own[group])


def _digest(checkout: Path, patterns: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(_files(checkout, patterns))):
        digest.update(f"{path.relative_to(checkout)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(checkout: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        for path in checkout.glob(pattern):
            if path.is_file() and path.suffix != ".md" and path.name[:5] != "test_":
                yield path
