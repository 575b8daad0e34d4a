# SPDX-License-Identifier: GPL-2.0-only
"""How a check answers."""

from __future__ import annotations

from common.checks.model import Outcome, Status


def outcome(ok: bool, *, expected: object, seen: object, evidence: str) -> Outcome:
    """PASS or FAIL, with what was expected and seen in words."""
    status: Status = "PASS" if ok else "FAIL"
    return Outcome(status=status, expected=str(expected), seen=str(seen), evidence=evidence)


def no_data(what: str, *, expected: object = "a value") -> Outcome:
    """The record does not say: as bad as a failure, but another sentence."""
    return Outcome(status="NO DATA", expected=str(expected), seen="no data", evidence=what)


def disturbed(failed: Outcome, why: str) -> Outcome:
    """An outcome that did not hold, and cannot be held against the kernel: the host is why."""
    return failed.model_copy(update={"status": "DISTURBED", "seen": f"{failed.seen}; {why}"})
