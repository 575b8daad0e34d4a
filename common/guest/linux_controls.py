# SPDX-License-Identifier: GPL-2.0-only
"""Reasons for which a run with QEMU and its Linux guest must fail, wherever there is one."""

from __future__ import annotations

from collections.abc import Callable

from common.checks.live_update import OUTGOING, no_data, outcome
from common.checks.model import Outcome
from common.guest.evidence import guest_of, qemu_of
from common.guest.linux_checks import NOT_BOOTED_AGAIN, WORK_GOES_ON
from common.record.evidence import Trial

GUEST = frozenset(
    check.name for claim in (NOT_BOOTED_AGAIN, WORK_GOES_ON) for check in claim.checks
)
"""The checks that our own guest's processes answer."""


def said(text: str, heard: str, evidence: str) -> Outcome:
    """What was heard has the text in it."""
    return outcome(text in heard, expected=f"“{text}”", seen=heard or "nothing", evidence=evidence)


def failed(side: str, what: str, text: str) -> Callable[[Trial], Outcome]:
    """What was asked of that side's QEMU failed with its own words."""

    def ask(trial: Trial) -> Outcome:
        wrong = qemu_of(trial, side).failed
        return said(text, wrong.get(what, ""), f"guest-qmp.jsonl, {what}")

    return ask


def stopped_before(stamp: str) -> Callable[[Trial], Outcome]:
    """The host had the outgoing QEMU stop the guest before the workload came to `stamp`."""

    def ask(trial: Trial) -> Outcome:
        side = trial.side(OUTGOING)
        until = side.stamps.get(stamp) if side else None
        stop = qemu_of(trial, OUTGOING).commands.get("stop")
        if until is None:
            return no_data(f"stamp {stamp}", expected="a guest that was stopped")
        return outcome(
            stop is not None and stop < until,
            expected=f"the command stop, before {stamp}",
            seen=f"{(until - stop) / 1e6:.0f} ms before it" if stop else "no such command",
            evidence="guest-qmp.jsonl; outgoing stamps",
        )

    return ask


def fault(process: str, text: str) -> Callable[[Trial], Outcome]:
    """The guest's own process found a fault, and says which."""

    def ask(trial: Trial) -> Outcome:
        found = [one for one in guest_of(trial).faults if f" {process}:" in one]
        return said(text, found[0] if found else "", "guest.jsonl, fault")

    return ask


def corrupted(what: str) -> Callable[[Trial], Outcome]:
    """The guest says that it has corrupted that of its own."""

    def ask(trial: Trial) -> Outcome:
        heard = guest_of(trial).corrupted
        return said(f"corrupted {what}", "; ".join(heard), "guest.jsonl, corrupted")

    return ask
