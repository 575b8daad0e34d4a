# SPDX-License-Identifier: GPL-2.0-only
"""A series of patches in its usual forms: git format-patch, quilt, or a mailbox made by b4."""

from __future__ import annotations

import email.policy
import hashlib
import mailbox
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path
from typing import Literal

from common.errors import UsageError
from common.paths import cache_root

Series = Literal["ours", "none"] | Path
"""What is applied to a kernel's source: our patches, nothing, or the patches of a folder."""

MAILBOXES = (".mbx", ".mbox")
_NUMBERED = re.compile(r"(?:v([0-9]+)-)?([0-9]{4})-")
_DIFF = re.compile(r"^(?:diff --git |--- (?:a/|/dev/null))", re.M)
_TAG = re.compile(r"\[([^\]]*)\]")
_PLACE = re.compile(r"\b([0-9]{1,4})/([0-9]{1,4})$")
_VERSION = re.compile(r"\bv([0-9]{1,3})\b", re.I)
_MOST_BYTES = 64 << 20


def series_patches(folder: Path) -> tuple[Path, ...]:
    """The patches of a folder in their order: as its quilt `series` says, else by their names.

    Without a cover letter. Raises UsageError where the folder holds two versions of a series, or
    where `series` names what is not there.
    """
    if (folder / "series").is_file():
        return tuple(_quilt(folder))
    found = sorted(folder.glob("*.patch"))
    numbers = {path: _NUMBERED.match(path.name) for path in found}
    versions = sorted({int(match[1] or 1) for match in numbers.values() if match})
    if len(versions) > 1:
        told = ", ".join(f"v{version}" for version in versions)
        raise UsageError(f"{folder} holds more than one version of a series ({told}): give one")
    return tuple(p for p in found if not ((match := numbers[p]) and match[2] == "0000"))


def _quilt(folder: Path) -> Iterator[Path]:
    for line in (folder / "series").read_text(errors="replace").splitlines():
        name, *options = line.partition("#")[0].split() or [""]
        if not name:
            continue
        patch = folder / name
        if options and options != ["-p1"]:
            raise UsageError(f"{folder}/series: {name} is to be applied with {options[0]}, not -p1")
        if not patch.is_file() or not patch.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{folder}/series names {name}, which is not a file in that folder")
        yield patch


def given_series(text: str) -> Path:
    """The folder of the series that the user named, looked through; a mailbox is taken apart.

    Raises UsageError for what holds no patches, or some that cannot be applied.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        boxes = [box for suffix in MAILBOXES for box in sorted(path.glob(f"*{suffix}"))]
        if boxes and not (path / "series").is_file() and not any(path.glob("*.patch")):
            if len(boxes) > 1:
                raise UsageError(f"--series {text}: {len(boxes)} mailboxes are there: name one")
            path = _taken_apart(boxes[0])
    elif path.is_file() and path.suffix in MAILBOXES:
        path = _taken_apart(path)
    else:
        raise UsageError(
            f"--series {text}: neither none nor ours nor a folder of patches, nor a mailbox"
        )
    patches = series_patches(path)
    if not patches:
        raise UsageError(
            f"--series {text}: the folder holds no *.patch, no quilt `series` and no mailbox"
        )
    for patch in patches:
        _check(text, patch)
    return path.resolve()


def _check(text: str, patch: Path) -> None:
    content = patch.read_bytes() if patch.stat().st_size <= _MOST_BYTES else b""
    if b"\nGIT binary patch\n" in content or re.search(rb"^Binary files .* differ$", content, re.M):
        raise UsageError(
            f"--series {text}: {patch.name} changes a binary file, which patch(1) cannot: commit"
            " the series to a tree and give that with --tree and --series none"
        )


@dataclass(frozen=True)
class Mail:
    """A mail of a series: its cover letter, or a patch."""

    subject: str
    title: str
    """The subject without its tag, [PATCH v2 3/5]."""
    version: int
    number: int
    """0: of the cover letter, or where the tag has none."""
    count: int
    """Of the series; 0 where the tag has none."""
    has_diff: bool
    text: str
    content: bytes


def mails(box: Path) -> list[Mail]:
    """What a mailbox holds of a series, without the answers, in the order in which they stand.

    With the cover letter that `b4 am` lays beside it, as *.cover. Raises UsageError for one that is
    too large to be a series.
    """
    if box.stat().st_size > _MOST_BYTES:
        raise UsageError(f"{box}: {box.stat().st_size >> 20} MiB cannot be a series of patches")
    contents = [mail.as_bytes() for mail in mailbox.mbox(box, create=False)]
    cover = box.with_suffix(".cover")
    if cover.is_file() and cover.stat().st_size <= _MOST_BYTES:
        contents.insert(0, cover.read_bytes())
    return [mail for content in contents if (mail := _mail(content))]


def _mail(content: bytes) -> Mail | None:
    message = message_from_bytes(content, policy=email.policy.default)
    subject = " ".join(str(message["Subject"] or "").split())
    if re.match("re:", subject, re.I):
        return None
    try:
        part = message.get_body(preferencelist=("plain",))
        text = str(part.get_content()).replace("\r\n", "\n") if part else ""
    except (LookupError, ValueError):
        return None  # of a character set or an encoding that there is not
    tag = match[1] if (match := _TAG.match(subject)) else ""
    place, version = _PLACE.search(tag), _VERSION.search(tag)
    return Mail(
        subject=subject,
        title=re.sub(r"^(?:\[[^\]]*\]\s*)+", "", subject),
        version=int(version[1]) if version else 1,
        number=int(place[1]) if place else 0,
        count=int(place[2]) if place else 0,
        has_diff=bool(_DIFF.search(text)),
        text=text,
        content=content,
    )


def _taken_apart(box: Path) -> Path:
    """A folder in the cache with a file for each patch of the mailbox, in their order."""
    found = [mail for mail in mails(box) if mail.has_diff]
    folder = cache_root() / "series" / hashlib.sha256(box.read_bytes()).hexdigest()[:24]
    if not found:
        raise UsageError(f"--series {box}: no mail of it holds a patch")
    numbers = [mail.number for mail in found]
    if 0 in numbers or len(set(numbers)) != len(found):  # not numbered: in their order
        numbers = list(range(1, len(found) + 1))
    folder.mkdir(parents=True, exist_ok=True)
    for number, mail in zip(numbers, found, strict=True):
        name = re.sub(r"[^A-Za-z0-9]+", "-", mail.title).strip("-")[:52] or "patch"
        content = f"Subject: {mail.subject}\n\n{mail.text}"
        (folder / f"{number:04}-{name}.patch").write_text(content, encoding="utf-8")
    return folder
