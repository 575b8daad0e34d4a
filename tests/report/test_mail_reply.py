# SPDX-License-Identifier: GPL-2.0-only
"""Answers to patch mails: what is answered, with what, and what is said not to be."""

from __future__ import annotations

import io
import re
import time
from email import message_from_bytes, policy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.cli.parser import main
from common.errors import UsageError
from common.paths import CHECKOUT
from common.report.mail.quoted import MOST_BYTES, read_mail
from common.stage.chain import CLAIM as CHAIN
from common.stage.lane import CLAIM as DEBUG
from common.stage.loading import all_stages
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import store_run, write_record

LETTERS = {
    n: CHECKOUT / "kernel/series" / name / "0000-cover-letter.patch"
    for n, name in ((2, "02_vfio_noiommu"), (3, "03_iommufd"))
}
MAIL = b"""\
From: Jane Doe <jane@example.org>
To: linux-pci@example.org, Joe <joe@example.org>
Cc: kvm@example.org
Subject: Re: [PATCH v2 0/3] vfio: keep
 going
Date: Mon, 2 Nov 2026 10:00:00 +0000
Message-ID: <20261102.1@example.org>
References: <first@example.org>
\t<second@example.org>

The device is not
reset. No frame is lost, unless the host is busy.
It stays where it was.

> The device is never reset.

What is not claimed
===================

Bus mastering is never turned off.

Limits of this
--------------

 - It does not leave D0.

 drivers/vfio/x.c | 3 +-
 1 file changed

DMA goes on.
"""


class Replied:
    """`report --format reply` of what is given on stdin."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, run: Path, mail: bytes, *words: str) -> Any:
        self.patch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(mail)))
        command = ["report", run.name, "--format", "reply", "--from", "T <t@example.org>", *words]
        assert main(command) == 0, self.capture.readouterr().err
        return message_from_bytes(self.capture.readouterr().out, policy=policy.default)


@pytest.fixture
def replied(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Replied:
    return Replied(monkeypatch, capsysbinary)


def test_a_reply_is_in_the_thread_and_goes_to_all(run_2_folder: Path, replied: Replied) -> None:
    message = replied(run_2_folder, MAIL)
    assert not message.defects
    assert message["Subject"] == "Re: [PATCH v2 0/3] vfio: keep going"
    assert message["In-Reply-To"] == "<20261102.1@example.org>"
    thread = ["<first@example.org>", "<second@example.org>", "<20261102.1@example.org>"]
    assert message["References"].split() == thread
    assert message["To"].addresses[0].addr_spec == "jane@example.org"
    found = [address.addr_spec for address in message["Cc"].addresses]
    assert found == ["linux-pci@example.org", "joe@example.org", "kvm@example.org"]
    other = replied(run_2_folder, MAIL, "--to", "a@b.org", "--in-reply-to", "x@y.org")
    assert other["To"].addresses[0].addr_spec == "a@b.org"
    assert other["Cc"] is None
    assert other["References"] == other["In-Reply-To"] == "<x@y.org>"


def test_only_what_the_mail_says_of_itself_is_answered(
    run_2_folder: Path, replied: Replied
) -> None:
    body = replied(run_2_folder, MAIL).get_content()
    quotes = re.findall(r"(?m)^> .*$", body.partition("Not answered")[0])
    assert quotes == ["> The device is not", "> reset. No frame is lost, unless the host is busy."]
    assert body.count("PASS: ") == 1
    assert "PASS: stage 2, no reset, no loss of mastering, no D3, 1/1 checks" in body
    assert "no_device_reset: no reset while traffic runs: none" in body
    assert body.count("stage 2: no control was run: that its checks can fail is not shown.") == 1
    rest = body.partition("Not answered by these runs")[2]
    for line in ("> Bus mastering is never turned off.", "> - It does not leave D0."):
        assert line in rest
    assert "DMA goes on.\n" not in body
    assert "no frame lost, repeated or damaged" in rest.partition("not mentioned in the mail")[2]


@pytest.mark.parametrize(
    "text",
    [
        "Is it so that the device is never reset?",
        "That the device is not reset is future work.",
        "This does not guarantee that the device is never reset.",
        "The device is not reset if nobody asks.",
        "The device is never reset, which is not tested.",
    ],
)
def test_what_is_asked_or_hedged_is_not_answered(
    text: str, run_2_folder: Path, replied: Replied
) -> None:
    body = replied(run_2_folder, f"Subject: x\n\n{text}\n".encode()).get_content()
    assert "PASS: " not in body
    assert f"> {text}" in body.partition("Not answered")[2]
    other = f"Subject: x\n\n{text} The device is never reset.\n".encode()
    assert "PASS: " in replied(run_2_folder, other).get_content()


def test_a_failure_is_answered_as_one(runs: Path, replied: Replied) -> None:
    folder = store_run(runs / "failed", (KVM_MEMFD / "main", "main"))
    for suffix in ("jsonl", "log"):
        path = folder / "main" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"# finish=0", b"# finish=-16"))
    write_record(folder)
    body = replied(folder, MAIL, "--answer", "stays where it was=session_finished").get_content()
    assert "FAIL: stage 1, LUO's errno for each misuse, 0/1 checks" in body
    assert "session_finished FAIL: expected finish=0; seen finish=-16 (EBUSY)" in body


def test_controls_that_broke_it_are_named(run_with_controls: Path, replied: Replied) -> None:
    mail = b"Subject: x\n\nEvery byte of the memfd is the same.\n"
    body = replied(run_with_controls, mail).get_content()
    assert "PASS: stage 1, memory preserved while the guest runs, 1/1 checks" in body
    assert re.search(r"broken by .*byte-flipped", body)
    assert "no control was run" not in body
    words = ("--answer", "memfd is the same=state_taken")
    body = replied(run_with_controls, mail, *words).get_content()
    assert "no control that breaks it was run: that it can fail is not shown" in body


def test_a_run_without_a_main_trial_answers_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panic = KVM_MEMFD / "control-panic"
    store_run(runs / "bare", (panic, "control-panic"))
    letter = str(LETTERS[2])
    command = ["report", "bare", "--format", "reply", "--from", "t@example.org"]
    assert main([*command, "--reply-to-file", letter]) == 2
    assert "bare has no main run: it can answer nothing" in sentence(capsys)


def test_the_user_says_what_answers(run_2_folder: Path, replied: Replied) -> None:
    body = replied(
        run_2_folder, MAIL, "--answer", "It STAYS where it was=same_config"
    ).get_content()
    assert "> It stays where it was." in body
    assert "PASS: stage 2, same place, registers and ring, 1/1 checks" in body


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--answer", "it flies=same_config"], "--answer: the mail does not say 'it flies'"),
        (["--answer", "it stays=x"], "--answer: no run that was given has a check 'x'"),
        (["--answer", "it stays"], "--answer: 'it stays' is not WORDS=CHECK"),
        (["--answer", "=x"], "--answer: '=x' is not WORDS=CHECK"),
        (["--reply-to-file", "/nonexistent"], "No such file"),
    ],
)
def test_what_cannot_be_answered(
    words: list[str],
    says: str,
    run_2_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(MAIL)))
    command = ["report", run_2_folder.name, "--format", "reply", "--from", "t@example.org"]
    assert main([*command, *words]) in (2, 3)
    assert says in sentence(capsys)


@pytest.mark.parametrize("number", LETTERS)
def test_our_own_cover_letters_are_answered(
    number: int, run_2_folder: Path, run_3_folder: Path, replied: Replied
) -> None:
    run = {2: run_2_folder, 3: run_3_folder}[number]
    body = replied(run, b"", "--reply-to-file", str(LETTERS[number])).get_content()
    assert body.count("PASS: ") >= 6
    assert number == 3 or "no reset, no loss of mastering, no D3, 3/3 checks" in body
    assert "FAIL" not in body
    ours = [line for line in body.splitlines() if not line.startswith(">")]
    assert max(map(len, ours)) <= 72


def test_a_stranger_s_mail_is_data() -> None:
    hostile = (
        b'From: a\x00b\nTo: "x <nobody\nSubject: =?utf-8?q?a=0AB?= c\n'
        b"Message-ID: none\nReferences: <a b@c> <ok@x>\n\nThe device is not reset.\n"
    )
    mail = read_mail(hostile)
    assert "\n" not in mail.subject
    assert mail.message_id is None
    assert mail.references == ("<ok@x>",)
    assert mail.to == ()
    for data, says in (
        (b"x" * (MOST_BYTES + 1), "larger than 1 MiB"),
        (b"", "has no plain text"),
        (b"Content-Type: text/html\n\n<p>x</p>", "has no plain text"),
        (b"Content-Type: text/plain; charset=none\n\nx", "has no plain text"),
    ):
        with pytest.raises(UsageError, match=says):
            read_mail(data)


def test_a_stranger_s_mail_takes_no_long_time(run_2_folder: Path, replied: Replied) -> None:
    for text in (
        b"if DMA goes on " * 69_000,
        b"if DMA goes on\n" * 69_000,
        b"if DMA goes on\n\n" * 60_000,
    ):
        began = time.process_time()
        replied(run_2_folder, b"Subject: x\n\n" + text)
        assert time.process_time() - began < 20


def test_declared_words_name_checks_of_their_claim() -> None:
    for claim in {c for stage in all_stages() for c in stage.claims} | {CHAIN, DEBUG}:
        names = {check.name for check in claim.checks}
        for said in claim.said:
            re.compile(said.words)
            assert set(said.checks) <= names, (claim.brief, said)
