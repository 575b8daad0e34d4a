# SPDX-License-Identifier: GPL-2.0-only
"""A mail that is to be answered: its headers, and its prose with the lines it stands on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default

from common.errors import UsageError

MOST_BYTES = 1 << 20
_LONGEST = 8 << 10
"""Characters of a paragraph; what is longer is no prose."""
_MESSAGE_ID = re.compile(r"<[^<>\s]+@[^<>\s]+>")
_MOST_REFERENCES = 20
_RULE = re.compile(r"^\s*([=~^-])\1{2,}\s*$")
# Where the words of a patch mail end: a diff, a diffstat, the signature.
_END = re.compile(r"^(?:diff --git |--- (?:a/|/dev/null)|---$|-- $| \S.* \| +\d+ [+-]*$)")
# What a mail says below such a heading is not what it says of itself.
_OTHERS = re.compile(
    r"\bnot\b|limit|to.?do|future|open|differ|upstream|today|problem|change(?:s|log)\b", re.I
)
_BULLET = re.compile(r"^ {0,3}(?:[-*•]|\d+[.)]) ")


@dataclass(frozen=True)
class Paragraph:
    """Prose of a mail. `first` counts its lines from 0 in the mail's text."""

    first: int
    lines: tuple[str, ...]
    own: bool
    """The mail says it of itself: it stands below no heading that takes it back."""

    @property
    def text(self) -> str:
        """The lines as one, each blank and line end a single blank."""
        return " ".join(" ".join(self.lines).split())

    def lines_of(self, start: int, end: int) -> range:
        """The lines of the mail's text that `text[start:end]` stands on."""
        at, found = 0, []
        for number, line in enumerate(self.lines):
            length = len(" ".join(line.split()))
            if at < end and start < at + length:
                found.append(self.first + number)
            at += length + 1
        return range(found[0], found[-1] + 1)


@dataclass(frozen=True)
class QuotedMail:
    """What an answer needs of the mail; its headers as they came, from a stranger."""

    subject: str
    sender: str
    date: str
    message_id: str | None
    references: tuple[str, ...]
    to: tuple[str, ...]
    cc: tuple[str, ...]
    lines: tuple[str, ...]

    def paragraphs(self) -> Iterator[Paragraph]:
        """The prose: no heading, table, list of patches or quotation; nothing from the diff on."""
        own, part, first = True, list[str](), 0
        end = next((n for n, line in enumerate(self.lines) if _END.match(line)), len(self.lines))
        lines = [*self.lines[:end], ""]
        for number, line in enumerate(lines):
            if number + 1 < len(lines) and _RULE.match(lines[number + 1]) and line.strip():
                own = not _OTHERS.search(line)
                continue
            begins = bool(_BULLET.match(line))
            if part and (begins or not line.strip() or _RULE.match(line)):
                if _is_prose(part):
                    yield Paragraph(first, tuple(part), own)
                part = []
            if line.strip() and not _RULE.match(line):
                first = number if not part else first
                part.append(line)


def _is_prose(lines: list[str]) -> bool:
    indented = lines[0].startswith("  ") and not _BULLET.match(lines[0])
    columns = any(re.search(r"\S {3,}\S", line.strip()) for line in lines)
    if sum(map(len, lines)) > _LONGEST:
        return False
    title = len(lines) == 1 and lines[0].endswith(":")
    return not (indented or columns or title or lines[0].startswith((">", "[")))


def read_mail(data: bytes) -> QuotedMail:
    """The mail in `data`, as a mailer or `git format-patch` writes it.

    Raises UsageError for more than MOST_BYTES and for what has no text.
    """
    if len(data) > MOST_BYTES:
        raise UsageError(f"the mail to answer is larger than {MOST_BYTES >> 20} MiB")
    message = message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage)
    try:
        part = message.get_body(preferencelist=("plain",))
        text = str(part.get_content()) if part else ""
    except (LookupError, ValueError, AttributeError):
        text = ""
    if not text.strip():
        raise UsageError("the mail to answer has no plain text")
    own_id = _MESSAGE_ID.search(_header(message, "Message-ID"))
    references = _MESSAGE_ID.findall(_header(message, "References"))
    references = references or _MESSAGE_ID.findall(_header(message, "In-Reply-To"))[:1]
    if own_id:
        references.append(own_id[0])
    return QuotedMail(
        subject=_header(message, "Subject"),
        sender=_header(message, "Reply-To") or _header(message, "From"),
        date=_header(message, "Date"),
        message_id=own_id[0] if own_id else None,
        references=(*references[:1], *references[1:][-_MOST_REFERENCES:]),
        to=_addresses(message, "To"),
        cc=_addresses(message, "Cc"),
        lines=tuple(line.rstrip("\r\n").expandtabs() for line in text.splitlines()),
    )


def _header(message: EmailMessage, name: str) -> str:
    """The header on one line; nothing where there is none, or one that cannot be read."""
    try:
        return " ".join(str(message[name] or "").split())
    except (ValueError, IndexError, AttributeError):
        return ""


def _addresses(message: EmailMessage, name: str) -> tuple[str, ...]:
    try:
        found = [str(one) for one in getattr(message[name], "addresses", ())]
    except (ValueError, IndexError, AttributeError):
        return ()
    return tuple(text for text in found if re.search(r"[^\s@<]@[^\s@>]", text))
