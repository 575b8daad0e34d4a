# SPDX-License-Identifier: GPL-2.0-only
"""Reasons for which a run must fail, for every stage."""

from __future__ import annotations

from collections.abc import Callable

from common.checks.live_update import outcome
from common.checks.model import Check, Outcome
from common.record.evidence import Trial


def reason(
    ask: Callable[[Trial], Outcome], *, of_chain: bool = False, timed: bool = False
) -> Check:
    """The check that a control asks for its reason; `of_chain`: of all its updates at once."""
    question = "Did it fail for the intended reason?"
    return Check("reason", question, ask, of_chain=of_chain, timed=timed)


def panicked(*words: str) -> Callable[[Trial], Outcome]:
    """The incoming kernel stopped by itself, and said each of these words of why."""

    def ask(trial: Trial) -> Outcome:
        fatal = [splat.text for splat in trial.console.splats if splat.fatal]
        return outcome(
            bool(fatal)
            and all(word in fatal[0] for word in words)
            and len(trial.console.boots) == 2,
            expected=f"a panic of the incoming kernel: {', '.join(words)}",
            seen=fatal[0] if fatal else "no panic",
            evidence="console.log",
        )

    return ask


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
