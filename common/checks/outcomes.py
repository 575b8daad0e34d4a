# SPDX-License-Identifier: GPL-2.0-only
"""The outcomes of a check."""

from __future__ import annotations

from common.checks.model import Outcome, Status


def outcome(ok: bool, *, expected: object, seen: object, evidence: str) -> Outcome:
    """PASS or FAIL, with what was expected and seen in words."""
    status: Status = "PASS" if ok else "FAIL"
    return Outcome(status=status, expected=str(expected), seen=str(seen), evidence=evidence)


def no_data(what: str, *, expected: object = "a value") -> Outcome:
    """The record does not contain `what`: as bad as a failure, but said differently."""
    return Outcome(status="NO DATA", expected=str(expected), seen="no data", evidence=what)


def disturbed(failed: Outcome, why: str) -> Outcome:
    """A failed outcome for which the kernel is not to blame, because of the host: `why`."""
    return failed.model_copy(update={"status": "DISTURBED", "seen": f"{failed.seen}; {why}"})
