# SPDX-License-Identifier: GPL-2.0-only
"""A run folder sealed: a digest of each of its files, and one of those."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.errors import UsageError
from common.record.stored_file import read_text
from common.record.trial_files import SUMS


def seal(folder: Path) -> None:
    """Write SHA256SUMS over every file below `folder` (sha256sum -c reads it)."""
    (folder / SUMS).write_text(_sums(folder))


def _sums(folder: Path) -> str:
    names = sorted(str(path.relative_to(folder)) for path in _files(folder))
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in names)


def seal_entries(folder: Path) -> dict[str, str]:
    """What SHA256SUMS says: file name -> SHA-256, 64 hex digits.

    Raises UsageError when it is missing or damaged.
    """
    try:
        lines = read_text(folder / SUMS).splitlines()
        return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        raise UsageError(f"{folder}: {SUMS} is missing or damaged") from None


def seal_breaches(folder: Path) -> list[str]:
    """What no longer agrees with SHA256SUMS, a sentence each; empty when all is as sealed."""
    try:
        sealed = seal_entries(folder)
    except UsageError:
        return [f"{SUMS} is missing or damaged"]
    present = {str(path.relative_to(folder)) for path in _files(folder)}
    breaches = [f"{name} is missing" for name in sorted(sealed.keys() - present)]
    breaches += [f"{name} was added" for name in sorted(present - sealed.keys())]
    breaches += [
        f"{name} was edited"
        for name in sorted(sealed.keys() & present)
        if sha256(folder / name) != sealed[name]
    ]
    if not breaches and (folder / SUMS).read_bytes() != _sums(folder).encode():
        breaches = [f"{SUMS} was edited"]
    return breaches


def sha256(path: Path) -> str:
    """The file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
