# SPDX-License-Identifier: GPL-2.0-only
"""The mailbox of a series, as made by b4: whether it is complete, and its base. Pure.

What a series stands on `git format-patch --base` writes below the cover letter, or below the first
patch: base-commit, and a prerequisite-patch-id for each patch that has to come before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UsageError
from common.stage.series_folder import MAILBOXES, Mail, mails

_BASE = re.compile(r"^base-commit: ([0-9a-f]{12,64})$", re.M)
_PREREQUISITE = re.compile(r"^prerequisite-patch-id: ([0-9a-f]{40,64})$", re.M)


@dataclass(frozen=True)
class Series:
    """What the mailbox says."""

    title: str
    """The cover letter's subject, or the only patch's, without its tag."""
    version: int
    subjects: tuple[str, ...]
    """Of the patches, in their order."""
    answered: bytes
    """The mail that an answer goes to: the cover letter, else the first patch."""
    base: str | None
    prerequisites: tuple[str, ...]


def read_series(path: Path) -> Series:
    """The series in a mailbox.

    Raises UsageError for what is no mailbox, and for a series of which something lacks, or which is
    there in two versions.
    """
    if not path.is_file() or path.suffix not in MAILBOXES:
        raise UsageError(f"{path} is not a mailbox: a file *.mbx or *.mbox, as made by b4")
    found = mails(path)
    patches = sorted((m for m in found if m.has_diff), key=lambda mail: mail.number)
    if not patches:
        raise UsageError(f"{path}: no mail of it holds a patch")
    versions = sorted({mail.version for mail in patches})
    if len(versions) > 1:
        told = ", ".join(f"v{version}" for version in versions)
        raise UsageError(f"{path} holds more than one version of a series ({told}): give one")
    _check_whole(path, patches)
    covers = [
        m
        for m in found
        if not m.has_diff and m.number == 0 and m.count and m.version == versions[0]
    ]
    first = covers[0] if covers else patches[0]
    texts = [mail.text for mail in (*covers[:1], *patches)]
    return Series(
        title=first.title,
        version=versions[0],
        subjects=tuple(mail.title for mail in patches),
        answered=first.content,
        base=next(_all(_BASE, texts), None),
        prerequisites=tuple(dict.fromkeys(_all(_PREREQUISITE, texts))),
    )


def _all(pattern: re.Pattern[str], texts: Iterable[str]) -> Iterator[str]:
    return (match[1] for text in texts for match in pattern.finditer(text))


def _check_whole(path: Path, patches: Sequence[Mail]) -> None:
    count = patches[0].count or 1
    numbers = [mail.number or 1 for mail in patches]
    if any((mail.count or 1) != count for mail in patches):
        raise UsageError(f"{path}: its patches are of series of different lengths")
    if lacking := sorted(set(range(1, count + 1)) - set(numbers)):
        told = ", ".join(map(str, lacking[:10]))
        raise UsageError(f"{path}: of {count} patches there is no {told}")
    if len(numbers) != count:
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise UsageError(f"{path}: patch {twice}/{count} is in there more than once")
