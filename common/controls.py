# SPDX-License-Identifier: GPL-2.0-only
"""Reasons for which a run must fail, for every stage."""

from __future__ import annotations

from collections.abc import Callable

from common.checks import outcome
from common.record import Trial
from common.stage import Check, Outcome


def reason(
    ask: Callable[[Trial], Outcome], *, of_chain: bool = False, timed: bool = False
) -> Check:
    """The check that a control asks for its reason; `of_chain`: of all its updates at once."""
    question = "Did it fail for its own reason?"
    return Check("reason", question, ask, of_chain=of_chain, timed=timed)


def was_reset(trial: Trial) -> Outcome:
    """The machine went through its firmware, and the outgoing kernel booted again."""
    resets, boots = trial.resets(), [boot.release for boot in trial.console.boots]
    release = trial.setting.outgoing.release
    return outcome(
        bool(resets) and boots == [release, release],
        expected="a platform reset and the outgoing kernel once more",
        seen=f"{len(resets)} reset, booted: {', '.join(boots)}",
        evidence="qmp.jsonl, console.log",
    )
