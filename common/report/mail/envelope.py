# SPDX-License-Identifier: GPL-2.0-only
"""The report as a mail for the lists, or as an answer to one: a body of this room in an envelope.

Pure: the same runs and the same envelope give the same bytes, Date and Message-ID included.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime

from common import __version__
from common.errors import UsageError
from common.judge.stored_run import StoredRun
from common.report.mail.brief import brief_body
from common.report.mail.full import full_body
from common.report.mail.quoted import QuotedMail
from common.report.mail.reply import reply_body
from common.report.mail.words import stage_name
from common.text import printable

_MESSAGE_ID = re.compile(r"<?([A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9._:\[\]-]+)>?")


@dataclass(frozen=True)
class Envelope:
    """Whom the mail is from and to, and what it answers."""

    sender: str
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    in_reply_to: str | None = None


def report_mail(runs: Sequence[StoredRun], envelope: Envelope, *, full: bool = False) -> bytes:
    """The whole message, lines ending in \\n, as git send-email and b4 take it.

    `full`: with all fifteen fields, instead of what people read.

    Raises UsageError on addresses and a Message-ID that are none.
    """
    text = full_body(runs) if full else brief_body(runs)
    parent = f"<{_message_id(envelope.in_reply_to)}>" if envelope.in_reply_to is not None else None
    thread = (parent,) if parent else ()
    return _message(runs, envelope, _subject(runs), thread, text)


def reply_mail(
    runs: Sequence[StoredRun],
    envelope: Envelope,
    mail: QuotedMail,
    given: Sequence[tuple[str, str]] = (),
) -> bytes:
    """The answer to `mail`: to who wrote it and whom it went to, unless the envelope says whom.

    `given` as in reply_body. Raises UsageError as that does, and on addresses that are none.
    """
    if not envelope.to:
        cc = tuple(dict.fromkeys((*envelope.cc, *mail.to, *mail.cc)))
        envelope = replace(envelope, to=(mail.sender,) if mail.sender else (), cc=cc)
    thread = mail.references if mail.message_id else ()
    if envelope.in_reply_to is not None:
        thread = (f"<{_message_id(envelope.in_reply_to)}>",)
    subject = re.sub(r"^(?:re:\s*)+", "", mail.subject, flags=re.I) or "(no subject)"
    return _message(runs, envelope, f"Re: {subject}", thread, reply_body(runs, mail, given))


def _message(
    runs: Sequence[StoredRun], envelope: Envelope, subject: str, thread: tuple[str, ...], text: str
) -> bytes:
    """`thread`: the mails before this one, the last is answered."""
    message = EmailMessage(policy=default.clone(max_line_length=78))
    message["From"] = sender = _address("--from", envelope.sender)
    for option, header, texts in (("--to", "To", envelope.to), ("--cc", "Cc", envelope.cc)):
        if texts:
            message[header] = [_address(option, one) for one in texts]
    message["Subject"] = printable(subject)
    # When the evidence was made. git send-email puts the time of sending in its place.
    message["Date"] = format_datetime(max(stored.run.began() for stored in runs))
    digest = hashlib.sha256("\n".join([repr(envelope), text]).encode()).hexdigest()
    message["Message-ID"] = f"<kexec-stages-{digest[:24]}@{sender.domain}>"
    if thread:
        message["In-Reply-To"] = thread[-1]
        message["References"] = " ".join(thread)
    message["User-Agent"] = f"kexec-stages/{__version__}"
    message.set_content(text, charset="utf-8", cte="7bit" if text.isascii() else "8bit")
    # email begins a new line where a value does not fit behind its name; readers find that odd.
    headers, blank, content = message.as_bytes().partition(b"\n\n")
    return re.sub(rb"(?m)^([A-Za-z-]+:)\n ", rb"\1 ", headers) + blank + content


def _address(option: str, text: str) -> Address:
    """The one address in `text`."""
    message = EmailMessage(policy=default)
    try:
        message["To"] = text
        (address,) = message["To"].addresses
        if message["To"].defects or not address.username or not address.domain:
            raise ValueError
    except (ValueError, IndexError):
        raise UsageError(f"{option}: {text!r} is not a mail address (NAME <USER@HOST>)") from None
    return Address(address.display_name, address.username, address.domain)


def _message_id(text: str) -> str:
    if match := _MESSAGE_ID.fullmatch(text):
        return match[1]
    raise UsageError(f"--in-reply-to: {text!r} is not a Message-ID (ID@HOST, with or without <>)")


def _subject(runs: Sequence[StoredRun]) -> str:
    results = ", ".join(f"{stage_name(one)} {one.verdict.status}" for one in runs)
    kernels = dict.fromkeys(
        f"{trial.setting.outgoing.release} to {trial.setting.incoming.release}"
        for one in runs
        for trial in one.run.trials[:1]
    )
    return f"[REPORT] kexec-stages: {results}: {'; '.join(kernels) or 'nothing was run'}"
